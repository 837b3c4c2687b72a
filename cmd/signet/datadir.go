package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockData makes the data folder and takes it, and the SQLite database wherever it is, for this process alone: two
// servers on one such database would close each other's reservations. The locks end with the process, whatever ends it;
// release ends them earlier.
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
	path, ok := strings.CutPrefix(c.databaseWithoutPassword(), "sqlite:")
	if !ok {
		return folder.Close, nil
	}
	resolved, err := resolve(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find database %s: %w", path, err), folder.Close())
	}
	database, err := lockFile(resolved + ".lock")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take database %s: %w", path, err), folder.Close())
	}
	return func() error { return errors.Join(database.Close(), folder.Close()) }, nil
}

// maxLinks is how many symbolic links in a row are followed, as in Linux.
const maxLinks = 40

// resolve returns the one path of a file, which need not exist, whatever symbolic links lead to it.
func resolve(path string) (string, error) {
	for range maxLinks {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Abs(real)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		folder, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		path = filepath.Join(folder, filepath.Base(path))
		target, err := os.Readlink(path)
		if err != nil { // no link to nothing: the file itself is not there yet
			return filepath.Abs(path)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(folder, target)
		}
		path = target
	}
	return "", syscall.ELOOP
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
