package api

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"signet/audit"
)

// pattern is what the router asks of a variable beyond the contract.
var pattern = regexp.MustCompile(`:[^}]*}`)

// routes lists every route of the router as "METHOD path".
func routes(t *testing.T) []string {
	t.Helper()
	s := &server{}
	s.route(Config{Metrics: prometheus.NewRegistry()})
	var out []string
	err := s.router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, err := route.GetMethods()
		if err != nil {
			return err
		}
		if !strings.HasPrefix(path, "/docs/") {
			out = append(out, methods[0]+" "+pattern.ReplaceAllString(path, "}"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestTheContractDescribesEveryRouteAndNoOther(t *testing.T) {
	t.Parallel()
	doc, err := Specification()
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Errorf("openapi.yaml: %v", err)
	}
	var described []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	slices.Sort(described)
	if got := routes(t); !slices.Equal(got, described) {
		t.Errorf("routes\n%s\nopenapi.yaml\n%s", strings.Join(got, "\n"), strings.Join(described, "\n"))
	}
}

func TestTheContractKnowsEveryAuditAction(t *testing.T) {
	t.Parallel()
	doc, err := Specification()
	if err != nil {
		t.Fatal(err)
	}
	var known []any
	for _, action := range audit.Actions {
		known = append(known, string(action))
	}
	if got := doc.Components.Schemas["AuditAction"].Value.Enum; !slices.Equal(got, known) {
		t.Errorf("openapi.yaml has %v, package audit %v", got, known)
	}
}

func TestGeneratedCodeIsCurrent(t *testing.T) {
	t.Parallel()
	specification, err := filepath.Abs("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for dir, name := range map[string]string{"wire": "wire.gen.go", "../client": "client.gen.go"} {
		output := filepath.Join(t.TempDir(), name)
		command := exec.Command("go", "tool", "oapi-codegen", "-config", "oapi-codegen.yaml", "-o", output, specification)
		command.Dir = dir
		if message, err := command.CombinedOutput(); err != nil {
			t.Fatalf("oapi-codegen: %v\n%s", err, message)
		}
		want, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s/%s does not follow from openapi.yaml: run go generate ./...", dir, name)
		}
	}
}
