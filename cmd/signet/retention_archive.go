package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"signet/softhsm"
)

// archiveFolder keeps what retention removes in files of a folder, which only its owner may read. The folder is made, the one that
// it is in is not.
type archiveFolder string

// Keep implements [ca.Archive]. A file has its name once it is whole and on disk.
func (dir archiveFolder) Keep(name string, lines []byte) error {
	if err := dir.ensure(); err != nil {
		return fmt.Errorf("make archive: %w", err)
	}
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if _, err := w.Write(lines); err != nil {
		return fmt.Errorf("compress archive: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("compress archive: %w", err)
	}
	if err := softhsm.WriteDurably(filepath.Join(string(dir), name), compressed.Bytes()); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

// ensure makes the folder and its name durable.
func (dir archiveFolder) ensure() error {
	switch err := os.Mkdir(string(dir), 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(string(dir))))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// mustHaveDatabase keeps a command with the wrong settings from making a database of its own.
func (c *Config) mustHaveDatabase() error {
	path, ok := strings.CutPrefix(c.databaseWithoutPassword(), "sqlite:")
	if !ok {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no database %s: give the settings of the server: %w", path, err)
	}
	return nil
}
