// Package softhsm runs Signet on SoftHSM2: it finds the module on the machine and keeps a token in a folder, for
// the embedded default and for tests.
package softhsm

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"signet/keystore"
)

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
	if strings.ContainsAny(dir, "#=\r\n") {
		return "", fmt.Errorf("the folder %q cannot hold a SoftHSM2 token: softhsm2.conf has no way to write a path with '#', '=' or a line break; choose another folder", dir)
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

// NewPIN returns a random PIN of 32 characters with 160 bits of entropy.
func NewPIN() string {
	b := make([]byte, 20)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))
}
