package tokentest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// factorySOPIN is the security officer's PIN of a token that opencryptoki has made, before it is changed.
const factorySOPIN = "87654321"

// layout shows opencryptoki its folders, whose paths are compiled in, and a group of its own, inside a mount namespace
// that only it and its clients see; then the process becomes the slot daemon. $1 is the folder of the token.
const layout = `set -e
mount --make-rprivate /
mount --bind "$1/group" /etc/group
mount --bind "$1/etc" /etc/opencryptoki
mount --bind "$1/lib" /var/lib/opencryptoki
mount --bind "$1/log" /var/log
mount --bind "$1/run" /run
mount --bind "$1/shm" /dev/shm
exec pkcsslotd -f`

// OpenCryptoki makes a software token of opencryptoki. Its slot daemon and whoever loads the library share private mount
// and IPC namespaces, which root may make, and others through a user namespace where the kernel lets them: see
// [Namespaces].
func OpenCryptoki(t testing.TB) *Token {
	t.Helper()
	token, dir := newToken(t, "/usr/lib/*/opencryptoki/libopencryptoki.so.0", "/usr/lib64/opencryptoki/libopencryptoki.so.0")
	mkdirs(t, filepath.Join(dir, "etc"), filepath.Join(dir, "log"), filepath.Join(dir, "shm"), filepath.Join(dir, "lib/swtok/TOK_OBJ"), filepath.Join(dir, "run/lock/opencryptoki/swtok"))
	write(t, filepath.Join(dir, "etc/opencryptoki.conf"), "version opencryptoki-3.1\nslot 0\n{\nstdll = libpkcs11_sw.so\n}\n")
	write(t, filepath.Join(dir, "group"), "root:x:0:\npkcs11:x:0:root\n")

	slotd := start(t, dir, exec.Command("unshare", append(unshare(), "sh", "-c", layout, "sh", dir)...))
	token.enter = []string{"nsenter", "--target", strconv.Itoa(slotd.process.Pid), "--mount", "--ipc"}
	if os.Geteuid() != 0 {
		token.enter = append(token.enter, "--user", "--preserve-credentials")
	}
	token.enter = append(token.enter, "--wd="+workingFolder(t), "--")
	ready := func() bool { // its socket is there before it listens
		return exists(filepath.Join(dir, "run/pkcsslotd.socket")) && token.Command("pkcs11-tool", "--module", token.Module, "--list-slots").Run() == nil
	}
	if !slotd.await(ready) {
		t.Fatalf("pkcsslotd does not start: %s", slotd.output())
	}

	token.tool(t, "--slot-index", "0", "--init-token", "--label", token.Label, "--so-pin", factorySOPIN)
	token.tool(t, "--token-label", token.Label, "--login", "--login-type", "so", "--so-pin", factorySOPIN, "--change-pin", "--pin", factorySOPIN, "--new-pin", soPIN)
	const first = "11223344" // InitPIN leaves a PIN that must be changed (CKF_USER_PIN_TO_BE_CHANGED)
	token.tool(t, "--token-label", token.Label, "--login", "--login-type", "so", "--so-pin", "env:SO_PIN", "--init-pin", "--pin", first)
	token.tool(t, "--token-label", token.Label, "--login", "--pin", first, "--change-pin", "--new-pin", "env:PIN")
	return token
}

// unshare returns the options of unshare(1) that give this user namespaces for mounts and System V memory.
func unshare() []string {
	if os.Geteuid() == 0 {
		return []string{"--mount", "--ipc"}
	}
	return []string{"--user", "--map-root-user", "--mount", "--ipc"}
}

// Namespaces reports whether this user may make the namespaces that [OpenCryptoki] needs. Containers without
// CAP_SYS_ADMIN mostly may not.
func Namespaces() bool {
	return exec.Command("unshare", append(unshare(), "mount", "--make-rprivate", "/")...).Run() == nil
}

func workingFolder(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
