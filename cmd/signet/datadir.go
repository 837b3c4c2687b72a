package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockData makes the data folder and takes it, and an SQLite database elsewhere, for this process alone: two servers on
// one such database would close each other's reservations. The locks end with the process, whatever ends it; release
// ends them earlier.
func (c *Config) lockData(log *slog.Logger) (release func() error, err error) {
	if err := makeDataDir(c.DataDir); err != nil {
		return nil, err
	}
	if info, err := os.Stat(c.DataDir); err == nil && info.Mode().Perm()&0o077 != 0 {
		log.Warn("the data folder is open to others", "dir", c.DataDir, "mode", info.Mode().Perm().String())
	}
	folder, err := lockFile(filepath.Join(c.DataDir, "signet.lock"))
	if err != nil {
		return nil, fmt.Errorf("take data folder %s: %w", c.DataDir, err)
	}
	path, ok := strings.CutPrefix(c.DatabaseURL, "sqlite:")
	if !ok {
		return folder.Close, nil
	}
	database, err := lockFile(path + ".lock")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take database %s: %w", path, err), folder.Close())
	}
	return func() error { return errors.Join(database.Close(), folder.Close()) }, nil
}

var errInUse = errors.New("another server is using it; stop that one, or give this one its own")

func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errInUse
		}
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func makeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	return nil
}
