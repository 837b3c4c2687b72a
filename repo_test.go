// Package signet_test holds the repository to its own rules: who may import whom, where cgo may be, what a file may
// look like.
package signet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/format"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const module = "signet"

// mayImport is the table of docs/architecture.md: which packages of ours a package may import, tests aside. Anything not
// listed is forbidden; "*" is all.
var mayImport = map[string][]string{
	"fault":    nil,
	"fresh":    nil,
	"audit":    nil,
	"policy":   nil,
	"signer":   nil,
	"keystore": nil,
	"evidence": nil,
	"api/wire": nil,
	"notify":   nil,

	"idempotency": {"fault"},

	"client":   {"api/wire"},
	"identity": {"policy", "fault", "audit", "fresh"},
	"ca":       {"policy", "signer", "evidence", "fault", "audit", "fresh"},
	"store":    {"ca", "evidence", "idempotency", "identity", "notify", "policy", "fault", "audit"},
	"softhsm":  {"keystore"},

	"keystore/worker": {"keystore"},

	"api":        {"ca", "evidence", "idempotency", "identity", "policy", "fault", "audit", "api/wire", "api/ocsp"},
	"api/ocsp":   {"ca"},
	"cmd/signet": {"*"},

	// Support for the tests of several packages.
	"softhsm/softhsmtest":   {"softhsm", "keystore"},
	"keystore/tokentest":    nil,
	"store/pgtest":          nil,
	"ca/catest":             {"ca", "notify", "audit", "evidence", "fault", "policy"},
	"identity/identitytest": {"identity", "audit", "fault", "policy"},
	"api/contract":          {"api", "api/wire"},
}

// mayUseCgo are the packages that may reach a package with C in it: the token, and the driver of SQLite. The rest of
// the house sees crypto.Signer and small interfaces.
var mayUseCgo = []string{"keystore", "keystore/worker", "store", "softhsm", "softhsm/softhsmtest", "cmd/signet"}

// maxLines is the longest hand-written file; tests may be longer, their tables are data.
const (
	maxLines     = 400
	maxTestLines = 600
)

// longFiles are the exceptions to maxLines, each with its reason.
var longFiles = map[string]string{}

type goPackage struct {
	ImportPath, Dir, Doc                                           string
	GoFiles, CgoFiles, TestGoFiles, XTestGoFiles, Imports, ForTest []string
}

// name is the import path below the module.
func (p goPackage) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func (p goPackage) onlyTests() bool { return len(p.GoFiles)+len(p.CgoFiles) == 0 }

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, p)
	}
}

func TestAPackageImportsOnlyWhatTheTableAllows(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.onlyTests() {
			continue
		}
		allowed, known := mayImport[p.name()]
		if !known {
			t.Errorf("package %q is not in the import table", p.name())
			continue
		}
		for _, path := range p.Imports {
			imported, ours := strings.CutPrefix(path, module+"/")
			if ours && !slices.Contains(allowed, imported) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s, which the import table forbids", p.name(), imported)
			}
			if path == "C" && p.name() != "keystore" {
				t.Errorf("%s uses cgo itself", p.name())
			}
		}
	}
}

// The table is only as good as its hold on the transitive closure: policy must not reach the network by a detour.
func TestPureRulesReachNoDatabaseTokenOrNetwork(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "./policy").Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		switch dep {
		case "net/http", "database/sql", "os/exec", "gorm.io/gorm", "github.com/miekg/pkcs11":
			t.Errorf("policy reaches %s", dep)
		}
	}
}

func TestCgoStaysInKeystoreAndStore(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.onlyTests() || slices.Contains(mayUseCgo, p.name()) {
			continue
		}
		out, err := exec.Command("go", "list", "-deps", "-f", `{{if and .CgoFiles (not .Standard)}}{{.ImportPath}}{{end}}`, p.ImportPath).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", p.ImportPath, err)
		}
		if found := strings.Fields(string(out)); len(found) > 0 {
			t.Errorf("%s reaches cgo through %v", p.name(), found)
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if !p.onlyTests() && p.Doc == "" {
			t.Errorf("package %q has no comment", p.name())
		}
	}
}

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// goFiles calls check with every Go file of the repository that a person wrote.
func goFiles(t *testing.T, check func(path string, source []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "var") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !generated.Match(source) {
			check(filepath.ToSlash(path), source)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walk repository: %v", err)
	}
}

func TestFilesAreShortEnoughToRead(t *testing.T) {
	t.Parallel()
	goFiles(t, func(path string, source []byte) {
		limit := maxLines
		if strings.HasSuffix(path, "_test.go") {
			limit = maxTestLines
		}
		lines := bytes.Count(source, []byte("\n"))
		if reason := longFiles[path]; lines > limit && reason == "" {
			t.Errorf("%s has %d lines, more than %d: two rooms in one?", path, lines, limit)
		} else if lines <= limit && reason != "" {
			t.Errorf("%s is short enough by now: remove it from longFiles", path)
		}
	})
}

func TestNothingIsLeftForLater(t *testing.T) {
	t.Parallel()
	// Written apart so that this file does not find itself.
	later := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b|\bt\.Ski` + `p|panic\("(stub|not implemented)`)
	goFiles(t, func(path string, source []byte) {
		for i, line := range bytes.Split(source, []byte("\n")) {
			if later.Match(line) {
				t.Errorf("%s:%d: %s", path, i+1, bytes.TrimSpace(line))
			}
		}
	})
}

func TestEveryFileIsFormatted(t *testing.T) {
	t.Parallel()
	goFiles(t, func(path string, source []byte) {
		formatted, err := format.Source(source)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if !bytes.Equal(source, formatted) {
			t.Errorf("%s: gofmt would change it", path)
		}
	})
}

// Packages below api and cmd return errors; only those two log.
func TestOnlyAPIAndCommandLog(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if slices.Contains(p.Imports, "log/slog") && p.name() != "api" && !strings.HasPrefix(p.name(), "cmd/") {
			t.Errorf("%s imports log/slog", p.name())
		}
		if slices.Contains(p.Imports, "log") && !p.onlyTests() {
			t.Errorf("%s imports log", p.name())
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCommandsOfREADMEMakefileAndCIAgree(t *testing.T) {
	t.Parallel()
	readme, makefile, ci := read(t, "README.md"), read(t, "Makefile"), read(t, ".ci/run")
	for _, target := range []string{"run", "test"} {
		if !strings.Contains(readme, "make "+target) {
			t.Errorf("README.md does not mention make %s", target)
		}
	}
	for _, match := range regexp.MustCompile("`make ([a-z]+)`").FindAllStringSubmatch(readme, -1) {
		if !strings.Contains(makefile, "\n"+match[1]+":") {
			t.Errorf("README.md mentions make %s, which the Makefile does not have", match[1])
		}
	}
	if !strings.Contains(ci, "\nmake test\n") {
		t.Error(".ci/run does not call make test")
	}
	for _, path := range []string{".ci/run", "scripts/setup"} {
		if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s is not an executable file (%v)", path, err)
		}
	}
}

// compose is what the tests below read of docker-compose.yml.
type compose struct {
	Services map[string]struct {
		Image       string
		Environment map[string]string
		Secrets     []string
		Ports       []string
		Volumes     []string
		ReadOnly    bool     `yaml:"read_only"`
		CapDrop     []string `yaml:"cap_drop"`
		SecurityOpt []string `yaml:"security_opt"`
		Healthcheck struct{ Test []string }
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	}
	Secrets map[string]struct{ File string }
	Volumes map[string]any
}

func TestComposeFileIsHardenedAndKeepsSecretsInFiles(t *testing.T) {
	t.Parallel()
	var file compose
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.yml")), &file); err != nil {
		t.Fatalf("read docker-compose.yml: %v", err)
	}
	signet, database := file.Services["signet"], file.Services["database"]
	if signet.Image == "" || database.Image == "" {
		t.Fatal("docker-compose.yml must have the services signet and database")
	}
	for name, s := range file.Services {
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || len(s.Healthcheck.Test) == 0 {
			t.Errorf("service %s lacks read_only, cap_drop ALL, no-new-privileges or a health check", name)
		}
		for variable, value := range s.Environment {
			secret := strings.HasSuffix(variable, "PASSWORD") || strings.HasSuffix(variable, "PIN") || strings.HasSuffix(variable, "SECRET_KEY")
			if secret || regexp.MustCompile(`://[^/@]*:[^/@]*@`).MatchString(value) {
				t.Errorf("service %s has a secret in %s: use a file", name, variable)
			}
		}
		for _, secret := range s.Secrets {
			if file.Secrets[secret].File == "" {
				t.Errorf("service %s uses secret %s, which is no file", name, secret)
			}
		}
		for _, volume := range s.Volumes {
			if source, _, _ := strings.Cut(volume, ":"); !strings.HasPrefix(source, ".") {
				if _, ok := file.Volumes[source]; !ok {
					t.Errorf("service %s uses volume %s, which is not declared", name, source)
				}
			}
		}
	}
	if signet.DependsOn["database"].Condition != "service_healthy" {
		t.Error("signet must wait for a healthy database")
	}
	for _, port := range append(signet.Ports, database.Ports...) {
		if !strings.HasPrefix(port, "127.0.0.1:") {
			t.Errorf("port %s is published beyond this machine: plain HTTP belongs behind a proxy", port)
		}
	}
}

func TestDockerfileBuildsInOneStageAndRunsUnprivilegedInAnother(t *testing.T) {
	t.Parallel()
	file := read(t, "Dockerfile")
	stages := regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(file, -1)
	if len(stages) != 2 || !strings.HasPrefix(stages[0][1], "golang:1.26") || strings.HasPrefix(stages[1][1], "golang") {
		t.Fatalf("stages are %v, want a golang:1.26 one and a runtime without compiler", stages)
	}
	runtime := file[strings.LastIndex(file, "\nFROM "):]
	for _, want := range []string{`(?m)^USER [1-9][0-9]*`, `(?m)^HEALTHCHECK .*"signet", "health"`, `(?m)^ENTRYPOINT \["signet"\]`, `softhsm2`, `(?m)^VOLUME `} {
		if !regexp.MustCompile(want).MatchString(runtime) {
			t.Errorf("the runtime stage lacks %s", want)
		}
	}
	if strings.Contains(read(t, ".dockerignore"), "!secrets") || !strings.HasPrefix(read(t, ".dockerignore"), "*\n") {
		t.Error(".dockerignore must start from nothing and never let secrets in")
	}
}

func TestSystemdUnitIsHardened(t *testing.T) {
	t.Parallel()
	unit := read(t, "deploy/signet.service")
	for _, line := range []string{
		"User=signet", "StateDirectory=signet", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "NoNewPrivileges=yes",
		"MemoryDenyWriteExecute=yes", "CapabilityBoundingSet=", "SystemCallFilter=@system-service", "UMask=0077", "LimitCORE=0",
	} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("deploy/signet.service lacks %s", line)
		}
	}
	if !strings.Contains(read(t, "deploy/signet.service.d/credentials.conf"), "LoadCredential=pin:") {
		t.Error("the drop-in must load the PIN as a credential")
	}
}
