package keystore_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"signet/keystore"
	"signet/softhsm"
)

// The environment of a process that plays a poorer token: SoftHSM2 reads which mechanisms it has only once.
const (
	poorerFolder = "KEYSTORE_TEST_FOLDER" // where what was sealed is passed on
	poorerWant   = "KEYSTORE_TEST_WANT"   // the version of the sealed form, 0 for a token that cannot seal
)

// Each row is one process after the other on the same token. SoftHSM2 asks its list when a key is used, not when one is
// made, so that AES without key generation cannot be played.
func TestSealingOnAPoorerToken(t *testing.T) {
	t.Parallel()
	if os.Getenv(poorerFolder) != "" {
		sealOnThisToken(t)
		return
	}
	type process struct {
		mechanisms string // of SoftHSM2; "-" begins a list of what it lacks, whose first item 2.6.1 does not find
		want       int
	}
	for name, processes := range map[string][]process{
		"without AES-GCM":             {{"-,CKM_AES_GCM", 2}, {"-,CKM_AES_GCM", 2}},
		"without any way":             {{"-,CKM_AES_GCM,CKM_RSA_PKCS_OAEP", 0}, {"ALL", 1}},
		"that loses AES-GCM later":    {{"ALL", 1}, {"-,CKM_AES_GCM", 2}, {"ALL", 2}},
		"that has what is asked for":  {{"ALL", 1}, {"ALL", 1}},
		"that gets AES-GCM afterward": {{"-,CKM_AES_GCM", 2}, {"ALL", 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			if err := os.Mkdir(filepath.Join(folder, "tokens"), 0o700); err != nil {
				t.Fatal(err)
			}
			for i, p := range processes {
				conf := fmt.Sprintf("directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\nslots.mechanisms = %s\n", folder, p.mechanisms)
				if err := os.WriteFile(filepath.Join(folder, "softhsm2.conf"), []byte(conf), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestSealingOnAPoorerToken$")
				cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+folder+"/softhsm2.conf", poorerFolder+"="+folder, fmt.Sprintf("%s=%d", poorerWant, p.want))
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("process %d, with %s: %v\n%s", i, p.mechanisms, err, out)
				}
			}
		})
	}
}

// sealOnThisToken is the other process.
func sealOnThisToken(t *testing.T) {
	module, err := softhsm.Find()
	if err != nil {
		t.Fatal(err)
	}
	cfg := keystore.Config{Module: module, Token: "poorer", PIN: "1234567", Timeout: time.Minute}
	if err := keystore.InitToken(t.Context(), cfg, "12345678"); err != nil && !errors.Is(err, keystore.ErrExists) {
		t.Fatal(err)
	}
	token := openAs(t, cfg)
	sealed, err := token.Seal(t.Context(), []byte("secret"), []byte("place"))
	want := os.Getenv(poorerWant)
	if want == "0" {
		if !errors.Is(err, keystore.ErrUnsupported) {
			t.Errorf("sealed %x, %v; want that the token cannot", sealed, err)
		}
		if ids, err := token.KEKs(t.Context()); err != nil || len(ids) > 0 {
			t.Errorf("it left %x behind, %v", ids, err)
		}
		return
	}
	if err != nil || fmt.Sprint(sealed[0]) != want {
		t.Fatalf("sealed %.3x, %v; want version %s", sealed, err, want)
	}
	unseals(t, token, sealed)
	unseals(t, openAs(t, cfg), sealed)
	before := filepath.Join(os.Getenv(poorerFolder), "sealed")
	if earlier, err := os.ReadFile(before); err == nil {
		plaintext, err := token.Unseal(t.Context(), earlier, []byte("place"))
		if err != nil && earlier[0] == sealed[0] || err == nil && !bytes.Equal(plaintext, []byte("secret")) {
			t.Errorf("what an earlier process sealed in version %d: %q, %v", earlier[0], plaintext, err)
		}
	}
	if err := os.WriteFile(before, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
}
