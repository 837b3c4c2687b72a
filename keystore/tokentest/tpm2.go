package tokentest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TPM2 makes a token of tpm2-pkcs11 on a TPM in software: swtpm, behind the resource manager tpm2-abrmd on a message
// bus of its own. Without resource manager, a TPM has no room for more than a few keys.
func TPM2(t testing.TB) *Token {
	t.Helper()
	token, dir := newToken(t, "/usr/lib/*/libtpm2_pkcs11.so.1", "/usr/lib64/libtpm2_pkcs11.so.1", "/usr/lib64/pkcs11/libtpm2_pkcs11.so")
	store := filepath.Join(dir, "store")
	mkdirs(t, store)
	port := startTPM(t, dir)
	address := "unix:path=" + filepath.Join(dir, "bus")
	bus := start(t, dir, exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--address="+address))
	if !bus.await(func() bool { return exists(filepath.Join(dir, "bus")) }) {
		t.Fatalf("dbus-daemon does not start: %s", bus.output())
	}
	broker := exec.Command("tpm2-abrmd", "--session", "--allow-root", "--max-transients=100", fmt.Sprintf("--tcti=swtpm:host=127.0.0.1,port=%d", port))
	broker.Env = append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS="+address)
	abrmd := start(t, dir, broker)
	token.Env = []string{"TPM2_PKCS11_TCTI=tabrmd:bus_type=session", "TPM2_PKCS11_STORE=" + store, "TPM2_PKCS11_LOG_LEVEL=0",
		"TSS2_LOG=all+NONE", "DBUS_SESSION_BUS_ADDRESS=" + address}
	if !abrmd.await(func() bool { return answers(token) }) {
		t.Fatalf("tpm2-abrmd does not answer: %s", abrmd.output())
	}
	token.tool(t, "--slot-index", "0", "--init-token", "--label", token.Label, "--so-pin", "env:SO_PIN")
	token.tool(t, "--token-label", token.Label, "--login", "--login-type", "so", "--so-pin", "env:SO_PIN", "--init-pin", "--pin", "env:PIN")
	return token
}

// answers reports whether the resource manager has taken its name on the bus and its TPM.
func answers(token *Token) bool {
	cmd := exec.Command("tpm2_getrandom", "--tcti=tabrmd:bus_type=session", "--hex", "4")
	cmd.Env = append(os.Environ(), token.Env...)
	return cmd.Run() == nil
}

// startTPM runs a TPM and returns its TCP port. Its control channel must be on the next one (tss2-tcti-swtpm(7)), so
// that the kernel cannot choose: a pair that somebody else takes meanwhile costs another try.
func startTPM(t testing.TB, dir string) int {
	t.Helper()
	state := filepath.Join(dir, "tpm")
	mkdirs(t, state)
	var tpm *daemon
	for range 20 {
		port, ok := freePair(t)
		if !ok {
			continue
		}
		tpm = start(t, dir, exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--flags", "not-need-init,startup-clear",
			"--server", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port),
			"--ctrl", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port+1)))
		if tpm.await(func() bool { return listens("tcp", local(port+1)) }) {
			return port
		}
		tpm.stop()
	}
	t.Fatalf("swtpm does not start: %s", tpm.output())
	return 0
}

// freePair returns a port that is free together with the next one.
func freePair(t testing.TB) (int, bool) {
	t.Helper()
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	port := first.Addr().(*net.TCPAddr).Port
	second, err := net.Listen("tcp", local(port+1))
	if err != nil {
		return 0, false
	}
	return port, second.Close() == nil
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
