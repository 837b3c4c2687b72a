// Package softhsm runs Signet on SoftHSM2: it finds the module on the machine and keeps a token in a folder, for
// the embedded default and for tests.
package softhsm

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"signet/keystore"
)

// Label is the label of the token that [Ensure] makes.
const Label = "signet"

// ErrNotInstalled means that no libsofthsm2 was found; its text says how to install one.
var ErrNotInstalled = errors.New("SoftHSM2 is not installed: apt-get install -y softhsm2 (or set SOFTHSM2_MODULE to libsofthsm2.so)")

// places is where distributions put the module.
var places = []string{
	"/usr/lib/softhsm/libsofthsm2.so",              // Debian, Ubuntu, Alpine
	"/usr/lib/*-linux-gnu*/softhsm/libsofthsm2.so", // Debian, by architecture
	"/usr/lib64/pkcs11/libsofthsm2.so",             // Fedora, RHEL
	"/usr/lib64/softhsm/libsofthsm2.so",            // openSUSE
	"/usr/lib/pkcs11/libsofthsm2.so",               // Arch
	"/usr/lib64/libsofthsm2.so",                    // older Fedora
	"/usr/local/lib/softhsm/libsofthsm2.so",        // built from source, Homebrew on Intel
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",     // Homebrew on Apple silicon
	"/opt/homebrew/opt/softhsm/lib/softhsm/libsofthsm2.so",
}

// Find returns the path of the SoftHSM2 module: SOFTHSM2_MODULE from the environment, else the first of the usual
// places that exists. Errors: [ErrNotInstalled].
func Find() (string, error) {
	if path := os.Getenv("SOFTHSM2_MODULE"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("SOFTHSM2_MODULE: %w", err)
		}
		return path, nil
	}
	for _, pattern := range places {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0], nil
		}
	}
	return "", ErrNotInstalled
}

// using serializes what changes SOFTHSM2_CONF, which is one for the process.
var using sync.Mutex

// Use makes this process's SoftHSM2 keep its tokens in dir/tokens, and returns the path of the module. It writes
// dir/softhsm2.conf and sets SOFTHSM2_CONF, which SoftHSM2 reads when it is initialized; it fails when the module is
// initialized already with another configuration.
func Use(dir string) (module string, err error) {
	using.Lock()
	defer using.Unlock()
	module, err = Find()
	if err != nil {
		return "", err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	conf, tokens := filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "tokens")
	if keystore.Initialized(module) && os.Getenv("SOFTHSM2_CONF") != conf {
		return "", fmt.Errorf("SoftHSM2 is in use in this process with %s", os.Getenv("SOFTHSM2_CONF"))
	}
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return "", err
	}
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	if old, err := os.ReadFile(conf); err != nil || string(old) != text {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return module, os.Setenv("SOFTHSM2_CONF", conf)
}

// Ensure returns the configuration of the SoftHSM2 token in dir/softhsm. The first call makes the token, with a
// random PIN kept in dir/softhsm/pin (0600) and a random security officer PIN in so-pin; later calls, in later
// processes too, find it again. Losing the PIN is losing the keys: a folder with tokens but without PIN is an error.
func Ensure(dir string) (keystore.Config, error) {
	cfg, err := ensure(filepath.Join(dir, "softhsm"))
	if err != nil {
		return keystore.Config{}, fmt.Errorf("set up SoftHSM2 in %s: %w", dir, err)
	}
	return cfg, nil
}

func ensure(dir string) (keystore.Config, error) {
	module, err := Use(dir)
	if err != nil {
		return keystore.Config{}, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return keystore.Config{}, err
	}
	defer unlock()
	made, err := os.ReadDir(filepath.Join(dir, "tokens"))
	if err != nil {
		return keystore.Config{}, err
	}
	// The PINs are on disk before the token is: a crash in between leaves PINs without a token, never the reverse.
	pin, err := secret(filepath.Join(dir, "pin"), len(made) == 0)
	if err != nil {
		return keystore.Config{}, err
	}
	soPIN, err := secret(filepath.Join(dir, "so-pin"), len(made) == 0)
	if err != nil && !(errors.Is(err, fs.ErrNotExist) && len(made) > 0) { // taken away for safe keeping
		return keystore.Config{}, err
	}
	cfg := keystore.Config{Module: module, Token: Label, PIN: pin}
	if soPIN == "" {
		return cfg, nil
	}
	if err := keystore.InitToken(context.Background(), cfg, soPIN); err != nil && !errors.Is(err, keystore.ErrExists) {
		return keystore.Config{}, err
	}
	return cfg, nil
}

// secret reads a PIN file, or makes one of 32 random characters if it may.
func secret(path string, mayCreate bool) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		if pin := strings.TrimSpace(string(text)); pin != "" {
			return pin, nil
		}
		return "", fmt.Errorf("%s is empty", path)
	}
	if !mayCreate || !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	pin := NewPIN()
	return pin, writeDurably(path, pin+"\n")
}

// NewPIN returns a random PIN of 32 characters with 160 bits of entropy.
func NewPIN() string {
	b := make([]byte, 20)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))
}

// writeDurably makes a 0600 file appear whole or not at all, and stay after a power failure.
func writeDurably(path, text string) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// lock keeps two processes from making the token twice.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}
