package softhsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"signet/keystore"
)

// Label is the label of the token that [Ensure] makes when it is told no other.
const Label = "signet"

// Ensure returns the configuration of the SoftHSM2 token in dir/softhsm. The first call makes the token; later calls,
// in later processes too, find it again. label "" is [Label]. pin is the user PIN, 4 to 255 bytes, and is kept
// nowhere; without one, a random PIN is kept in dir/softhsm/pin (0600). The security officer's PIN is always random
// and in so-pin, which may be taken away afterwards.
//
// Losing the PIN or the token is losing the keys: a folder in which a token was made and where either is missing is an
// error, never the beginning of a new token.
func Ensure(dir, label, pin string) (keystore.Config, error) {
	if label == "" {
		label = Label
	}
	cfg, err := ensure(filepath.Join(dir, "softhsm"), label, pin)
	if err != nil {
		return keystore.Config{}, fmt.Errorf("set up SoftHSM2 in %s: %w", dir, err)
	}
	return cfg, nil
}

// PINFile is where [Ensure] keeps the random PIN of the token in dir.
func PINFile(dir string) string { return filepath.Join(dir, "softhsm", "pin") }

func ensure(dir, label, pin string) (keystore.Config, error) {
	module, err := Use(dir)
	if err != nil {
		return keystore.Config{}, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return keystore.Config{}, err
	}
	defer unlock()
	f := folder{dir: dir, label: label}
	if err := f.look(); err != nil {
		return keystore.Config{}, err
	}
	if !f.made && !f.making && f.used {
		return keystore.Config{}, fmt.Errorf("%s is the folder of a token, but no token %q is in it: restore %s, which holds the keys (only if there never were any, remove %s)",
			dir, label, filepath.Join(dir, "tokens"), dir)
	}
	fresh := !f.made && !f.making
	if fresh {
		if err := WriteDurably(f.path(making), nil); err != nil {
			return keystore.Config{}, err
		}
	}
	if pin == "" {
		if pin, err = f.secret("pin", !f.made); err != nil {
			return keystore.Config{}, err
		}
	}
	cfg := keystore.Config{Module: module, Token: label, PIN: pin}
	if f.making || fresh {
		err = f.finish(cfg)
	}
	return cfg, err
}

// making is a file that is there from before the first secret is written until the token is complete and on disk. A
// crash in between leaves it, and the next call goes on; without it, a folder that was used must have its token.
const making = "making"

// folder is what is in the folder of a token.
type folder struct {
	dir, label string
	making     bool // the token is being made, or a crash interrupted that
	made       bool // there is a token with the label
	used       bool // there are tokens or PINs
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) look() error {
	tokens, err := os.ReadDir(f.path("tokens"))
	if err != nil {
		return err
	}
	for name, there := range map[string]*bool{making: &f.making, "pin": &f.used, "so-pin": &f.used} {
		switch _, err := os.Lstat(f.path(name)); {
		case err == nil:
			*there = true
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	// The label is CK_TOKEN_INFO.label: 32 octets, padded with blanks (PKCS#11 2.40, section 3.2).
	label := append([]byte(f.label), bytes.Repeat([]byte{' '}, max(0, 32-len(f.label)))...)
	for _, token := range tokens {
		object, err := os.ReadFile(filepath.Join(f.path("tokens"), token.Name(), "token.object"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		f.used = f.used || err == nil
		f.made = f.made || bytes.Contains(object, label)
	}
	return nil
}

// finish makes the token, or completes one that a crash left, and then says so.
func (f *folder) finish(cfg keystore.Config) error {
	soPIN, err := f.secret("so-pin", !f.made)
	if err != nil {
		return err
	}
	if err := keystore.InitToken(context.Background(), cfg, soPIN); err != nil && !errors.Is(err, keystore.ErrExists) {
		return err
	}
	if err := Sync(f.dir); err != nil {
		return err
	}
	if err := os.Remove(f.path(making)); err != nil {
		return err
	}
	return errors.Join(syncPath(f.dir), syncPath(filepath.Dir(f.dir)))
}

// secret reads a PIN file, or makes one of 32 random characters if it may.
func (f *folder) secret(name string, mayCreate bool) (string, error) {
	path := f.path(name)
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		if pin := strings.TrimSpace(string(text)); pin != "" {
			return pin, nil
		}
		return "", fmt.Errorf("%s is empty", path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	case !mayCreate:
		return "", fmt.Errorf("the PIN of token %q was not given and is not kept: %w", f.label, err)
	}
	pin := NewPIN()
	return pin, WriteDurably(path, []byte(pin+"\n"))
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
