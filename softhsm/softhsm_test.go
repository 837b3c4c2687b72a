package softhsm_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"signet/keystore"
	"signet/softhsm"
)

// The tests run one after the other: SOFTHSM2_CONF is one for the process.

func TestEnsureMakesATokenOnceAndFindsItAgain(t *testing.T) {
	dir := t.TempDir()
	first, err := softhsm.Ensure(dir, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(first.PIN) < 16 || first.Token != softhsm.Label {
		t.Errorf("label %q, PIN of %d characters", first.Token, len(first.PIN))
	}
	id := []byte("key")
	token, err := keystore.Open(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.Generate(t.Context(), keystore.Spec{ID: id, Label: "ca", Type: keystore.EC, Size: 256})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := softhsm.Ensure(dir, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if again.Module != first.Module || again.Token != first.Token || again.PIN != first.PIN {
		t.Error("the second call names another token")
	}
	if token, err = keystore.Open(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	found, err := token.Inspect(t.Context(), id)
	if err != nil || found.Label != "ca" {
		t.Errorf("the key of before: %v, %v", found, err)
	}
	if key.Public() == nil {
		t.Error("no public key")
	}
}

func TestEnsureKeepsSecretsToItself(t *testing.T) {
	dir := t.TempDir()
	cfg, err := softhsm.Ensure(dir, "", "")
	if err != nil {
		t.Fatal(err)
	}
	soPIN, err := os.ReadFile(filepath.Join(dir, "softhsm", "so-pin"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(soPIN)) == cfg.PIN {
		t.Error("the security officer has the user's PIN")
	}
	err = filepath.WalkDir(filepath.Join(dir, "softhsm"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 && strings.Count(path, "tokens"+string(filepath.Separator)) == 0 {
			t.Errorf("%s has mode %o", path, mode)
		}
		if d.IsDir() || d.Name() == "pin" || d.Name() == "so-pin" {
			return nil
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(cfg.PIN)) {
			t.Errorf("%s holds the PIN", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	conf, err := os.ReadFile(filepath.Join(dir, "softhsm", "softhsm2.conf"))
	if err != nil || !strings.Contains(string(conf), "log.level = ERROR\n") || !strings.Contains(string(conf), "objectstore.backend = file\n") {
		t.Errorf("softhsm2.conf: %s, %v", conf, err)
	}
}

func TestEnsureAfterACrash(t *testing.T) {
	for _, c := range []struct {
		name    string
		damage  func(t *testing.T, dir string)
		refused bool
	}{
		{"before the PINs were written", func(t *testing.T, dir string) {
			unfinish(t, dir)
			remake(t, filepath.Join(dir, "tokens"))
			remove(t, filepath.Join(dir, "pin"))
			remove(t, filepath.Join(dir, "so-pin"))
		}, false},
		{"before the security officer's PIN was written", func(t *testing.T, dir string) {
			unfinish(t, dir)
			remake(t, filepath.Join(dir, "tokens"))
			remove(t, filepath.Join(dir, "so-pin"))
		}, false},
		{"after the PINs were written", func(t *testing.T, dir string) {
			unfinish(t, dir)
			remake(t, filepath.Join(dir, "tokens"))
		}, false},
		{"after the token was made", unfinish, false},
		{"after the token was made, and its PIN was lost", func(t *testing.T, dir string) {
			unfinish(t, dir)
			remove(t, filepath.Join(dir, "pin"))
		}, true},
		{"the token was lost", func(t *testing.T, dir string) { remake(t, filepath.Join(dir, "tokens")) }, true},
		{"the folder of the token was lost", func(t *testing.T, dir string) {
			remake(t, filepath.Join(dir, "tokens"))
			remove(t, filepath.Join(dir, "tokens"))
		}, true},
		{"the token and its PIN were lost", func(t *testing.T, dir string) {
			remake(t, filepath.Join(dir, "tokens"))
			remove(t, filepath.Join(dir, "pin"))
		}, true},
		{"the security officer's PIN was taken away for safe keeping", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "so-pin")) }, false},
		{"the configuration was lost", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "softhsm2.conf")) }, false},
		{"the PIN was lost and the keys were not", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "pin")) }, true},
		{"the PIN file is empty", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "pin"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		dir := t.TempDir()
		if _, err := softhsm.Ensure(dir, "", ""); err != nil {
			t.Fatal(err)
		}
		c.damage(t, filepath.Join(dir, "softhsm"))
		cfg, err := softhsm.Ensure(dir, "", "")
		if c.refused {
			if err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: got %v, want an error that names the folder", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		token, err := keystore.Open(t.Context(), cfg)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := token.Close(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "softhsm", "making")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the token is complete and still being made: %v", c.name, err)
		}
	}
}

func TestEnsureTakesAnotherLabelAndPIN(t *testing.T) {
	dir := t.TempDir()
	cfg, err := softhsm.Ensure(dir, "lab", "12345678")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Token != "lab" || cfg.PIN != "12345678" {
		t.Errorf("got token %q", cfg.Token)
	}
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "softhsm", "pin")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the operator's PIN was written down: %v", err)
	}
	for label, pin := range map[string]string{"lab": "", "": "12345678", "la": "12345678"} {
		if _, err := softhsm.Ensure(dir, label, pin); err == nil {
			t.Errorf("label %q, PIN %q: accepted", label, pin)
		}
	}
}

func TestAFolderThatTheConfigurationCannotNameIsRefused(t *testing.T) {
	for _, name := range []string{"a#b", "a=b", "a\nb", "a\rb"} {
		dir := filepath.Join(t.TempDir(), name)
		if _, err := softhsm.Ensure(dir, "", ""); err == nil || !strings.Contains(err.Error(), "choose another folder") {
			t.Errorf("%q: got %v", name, err)
		}
	}
	for _, name := range []string{"a b", `a"b`, "a,b", "ä"} {
		if _, err := softhsm.Ensure(filepath.Join(t.TempDir(), name), "", ""); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestSyncReachesEveryObject(t *testing.T) {
	dir := t.TempDir()
	if err := softhsm.Sync(dir); err != nil {
		t.Errorf("no tokens yet: %v", err)
	}
	folder := filepath.Join(dir, "tokens", "one")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(folder, "key.object")
	if err := os.WriteFile(object, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := softhsm.Sync(dir); err != nil {
		t.Error(err)
	}
}

func TestWriteDurablyReplacesAFileWholly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for _, text := range []string{"the first, which is longer", "the second"} {
		if err := softhsm.WriteDurably(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if err := softhsm.WriteDurably(filepath.Join(path, "below"), nil); err == nil {
		t.Error("a file below a file was written")
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A crash between C_InitToken and C_InitPIN leaves a token that has a label and no user PIN.
func TestEnsureFinishesATokenWithoutPIN(t *testing.T) {
	dir := t.TempDir()
	if _, err := softhsm.Ensure(dir, "", ""); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "softhsm")
	unfinish(t, home)
	remake(t, filepath.Join(home, "tokens"))
	soPIN, err := os.ReadFile(filepath.Join(home, "so-pin"))
	if err != nil {
		t.Fatal(err)
	}
	module, err := softhsm.Find()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "pkcs11-tool", "--module", module, "--slot-index", "0", "--init-token", "--label", softhsm.Label, "--so-pin", "env:SO_PIN")
	cmd.Env = append(os.Environ(), "SO_PIN="+strings.TrimSpace(string(soPIN)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cfg, err := softhsm.Ensure(dir, "", "")
	if err != nil {
		t.Fatal(err)
	}
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestASecondFolderIsRefusedWhileTheFirstIsInUse(t *testing.T) {
	dir := t.TempDir()
	cfg, err := softhsm.Ensure(dir, "", "")
	if err != nil {
		t.Fatal(err)
	}
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if _, err := softhsm.Ensure(other, "", ""); err == nil {
		t.Error("a second folder is accepted while SoftHSM2 looks at the first")
	}
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := softhsm.Ensure(other, "", ""); err != nil {
		t.Errorf("after the first was closed: %v", err)
	}
}

func TestFind(t *testing.T) {
	found, err := softhsm.Find()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(found); err != nil {
		t.Error(err)
	}
	copied := filepath.Join(t.TempDir(), "mine.so")
	if err := os.Symlink(found, copied); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_MODULE", copied)
	if got, err := softhsm.Find(); err != nil || got != copied {
		t.Errorf("SOFTHSM2_MODULE is not honoured: %s, %v", got, err)
	}
	t.Setenv("SOFTHSM2_MODULE", "/nowhere/libsofthsm2.so")
	if got, err := softhsm.Find(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a SOFTHSM2_MODULE that does not exist: %s, %v", got, err)
	}
	if !strings.Contains(softhsm.ErrNotInstalled.Error(), "apt-get install -y softhsm2") {
		t.Errorf("%q does not say how to install it", softhsm.ErrNotInstalled)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func remake(t *testing.T, dir string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
}

// unfinish puts a token's folder back to before the token was complete.
func unfinish(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "making"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
