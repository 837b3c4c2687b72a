package softhsmtest

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

//go:embed shim/*.c shim/*.h
var shimSource embed.FS

// shim is the fault-injecting module, compiled.
type shim struct {
	path      string
	functions map[string]int // PKCS#11 function to its number in shim.h
}

// compiled compiles the module once in this process, and takes what an earlier process has compiled from the same
// source.
var compiled = sync.OnceValues(func() (shim, error) {
	s, err := compile()
	if err != nil {
		return shim{}, fmt.Errorf("compile the fault module: %w", err)
	}
	return s, nil
})

func compile() (shim, error) {
	// The header of PKCS#11 comes with the binding, so that nothing but a C compiler has to be installed.
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		return shim{}, fmt.Errorf("find the header of PKCS#11: %w", err)
	}
	headers := string(bytes.TrimSpace(out))
	list, err := os.ReadFile(filepath.Join(headers, "pkcs11f.h"))
	if err != nil {
		return shim{}, err
	}
	s := shim{functions: map[string]int{Every: 0}}
	for i, match := range regexp.MustCompile(`(?m)^CK_PKCS11_FUNCTION_INFO\((\w+)\)`).FindAllSubmatch(list, -1) {
		s.functions[string(match[1])] = i + 1
	}
	hash := sha256.New()
	hash.Write(list)
	sources, err := fs.Sub(shimSource, "shim")
	if err != nil {
		return shim{}, err
	}
	names, err := fs.Glob(sources, "*")
	if err != nil {
		return shim{}, err
	}
	for _, name := range names {
		text, err := fs.ReadFile(sources, name)
		if err != nil {
			return shim{}, err
		}
		fmt.Fprintf(hash, "%s %d\n%s", name, len(text), text)
	}
	s.path = filepath.Join(os.TempDir(), fmt.Sprintf("signet-shim-%d-%x.so", os.Getuid(), hash.Sum(nil)[:8]))
	if ours(s.path) {
		return s, nil
	}
	return s, build(s.path, headers, sources)
}

// ours reports whether path is a file that nobody else can have written.
func ours(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && info.Mode().Perm()&0o022 == 0 && int(stat.Uid) == os.Getuid()
}

// build makes the library appear whole: another process may be building it at the same time.
func build(path, headers string, sources fs.FS) error {
	dir, err := os.MkdirTemp("", "signet-shim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, sources); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.c"))
	if err != nil {
		return err
	}
	compiler := strings.Fields(os.Getenv("CC")) // may have options, as for cgo
	if len(compiler) == 0 {
		compiler = []string{"gcc"}
	}
	library := filepath.Join(dir, "shim.so")
	args := append(compiler[1:], "-shared", "-fPIC", "-pthread", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden",
		"-isystem", headers, "-o", library)
	args = append(append(args, files...), "-ldl")
	if out, err := exec.Command(compiler[0], args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", compiler[0], err, out)
	}
	if err := os.Chmod(library, 0o700); err != nil {
		return err
	}
	return os.Rename(library, path)
}
