// Package tokentest starts tokens of several makes for tests: software that behaves as differently as HSMs do. Each
// lives in a folder of its own for as long as the test, next to any number of others, and leaves the machine as it was.
//
// The libraries read their environment once and keep state in the process, and one of them lives in namespaces of its
// own. So a test does not load them itself: it runs a program beside the token, with [Token.Command].
package tokentest

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Token is a token that is ready to be opened.
type Token struct {
	Module   string   // path of the PKCS#11 library
	Label    string   // of the token
	PIN      string   // of the user
	PINFile  string   // holds the PIN
	InitArgs string   // for C_Initialize
	Env      []string // what the library needs in its environment, "NAME=value"

	enter []string // the command before the program that enters the token's namespaces
}

// Command is [exec.Command] for a program that can open the token: with its environment and in its namespaces.
func (t *Token) Command(name string, args ...string) *exec.Cmd {
	line := append(append(append([]string(nil), t.enter...), name), args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), t.Env...)
	return cmd
}

// Makes are the tokens by name. Where this user may make no namespaces (see [Namespaces]), opencryptoki is not among them,
// unless SIGNET_INTEROP is set: then its test fails and says so.
func Makes(t testing.TB) map[string]func(testing.TB) *Token {
	t.Helper()
	makes := map[string]func(testing.TB) *Token{"SoftHSM2": SoftHSM2, "p11-kit": P11Kit, "NSS": NSS, "TPM2": TPM2, "OpenCryptoki": OpenCryptoki}
	if os.Getenv("SIGNET_INTEROP") == "" && !Namespaces() {
		t.Log("no mount namespaces for this user: opencryptoki is left out")
		delete(makes, "OpenCryptoki")
	}
	return makes
}

// SoftHSM2 makes a SoftHSM2 token.
func SoftHSM2(t testing.TB) *Token {
	t.Helper()
	token, dir := newToken(t, "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
	tokens := filepath.Join(dir, "tokens")
	mkdirs(t, tokens)
	conf := filepath.Join(dir, "softhsm2.conf")
	write(t, conf, "directories.tokendir = "+tokens+"\nlog.level = ERROR\n")
	token.Env = []string{"SOFTHSM2_CONF=" + conf}
	token.tool(t, "--init-token", "--label", token.Label, "--so-pin", "env:SO_PIN")
	token.tool(t, "--token-label", token.Label, "--login", "--login-type", "so", "--so-pin", "env:SO_PIN", "--init-pin", "--pin", "env:PIN")
	return token
}

// P11Kit makes a SoftHSM2 token in another process, which p11-kit's client library speaks to over a socket.
func P11Kit(t testing.TB) *Token {
	t.Helper()
	token := SoftHSM2(t)
	dir := filepath.Dir(token.PINFile)
	socket := filepath.Join(dir, "p11")
	server := token.Command("p11-kit", "server", "--foreground", "--provider", token.Module, "--name", socket, "pkcs11:token="+token.Label)
	if d := start(t, dir, server); !d.await(func() bool { return listens("unix", socket) }) {
		t.Fatalf("p11-kit server does not start: %s", d.output())
	}
	token.Module = find(t, "/usr/lib/*/pkcs11/p11-kit-client.so", "/usr/lib64/pkcs11/p11-kit-client.so")
	token.Env = []string{"P11_KIT_SERVER_ADDRESS=unix:path=" + socket}
	return token
}

// NSS makes a certificate database of NSS, whose key store is a PKCS#11 token in the process that opens it.
func NSS(t testing.TB) *Token {
	t.Helper()
	token, dir := newToken(t, "/usr/lib/*/libsoftokn3.so", "/usr/lib/*/nss/libsoftokn3.so", "/usr/lib64/libsoftokn3.so")
	db := filepath.Join(dir, "db")
	mkdirs(t, db)
	run(t, exec.Command("certutil", "-N", "-d", "sql:"+db, "-f", token.PINFile))
	token.InitArgs = fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' dbTokenDescription='%s' flags=", db, token.Label)
	return token
}

// soPIN of tokens that live for seconds; the digits are what every make takes.
const soPIN = "12345678"

// newToken looks for the module and makes the folder of the token with its PIN in it.
func newToken(t testing.TB, modules ...string) (*Token, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "signet-token-") // not t.TempDir: names of tests are too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	token := &Token{Module: find(t, modules...), Label: "test-" + random(8), PIN: random(8), PINFile: filepath.Join(dir, "pin")}
	write(t, token.PINFile, token.PIN+"\n")
	return token, dir
}

// find returns the first file that matches a pattern.
func find(t testing.TB, patterns ...string) string {
	t.Helper()
	for _, pattern := range patterns {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	t.Fatalf("none of %q is installed: scripts/setup interop", patterns)
	return ""
}

// tool runs pkcs11-tool on the token, with the PINs in its environment.
func (t *Token) tool(tb testing.TB, args ...string) {
	tb.Helper()
	cmd := t.Command("pkcs11-tool", append([]string{"--module", t.Module}, args...)...)
	cmd.Env = append(cmd.Env, "PIN="+t.PIN, "SO_PIN="+soPIN)
	run(tb, cmd)
}

func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(cmd.Path), err, bytes.TrimSpace(out))
	}
}

func mkdirs(t testing.TB, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// random returns n random letters and digits, which every make takes in a label and in a PIN.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))[:n]
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
