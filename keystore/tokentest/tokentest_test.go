package tokentest_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"signet/keystore/tokentest"
)

// Programs that share no code with ours find each token as it is described, and log in.
func TestATokenIsReadyForOtherPrograms(t *testing.T) {
	t.Parallel()
	for name, start := range tokentest.Makes(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := start(t)
			out, err := other(token).CombinedOutput()
			if err != nil && !bytes.Contains(out, []byte("no keys found")) { // as certutil says after it has logged in
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// other lists the keys of the token.
func other(token *tokentest.Token) *exec.Cmd {
	if token.InitArgs != "" { // pkcs11-tool gives C_Initialize nothing
		return token.Command("certutil", "-K", "-d", "sql:"+filepath.Join(filepath.Dir(token.PINFile), "db"), "-f", token.PINFile)
	}
	cmd := token.Command("pkcs11-tool", "--module", token.Module, "--token-label", token.Label, "--login", "--pin", "env:PIN", "--list-objects")
	cmd.Env = append(cmd.Env, "PIN="+token.PIN)
	return cmd
}
