package softhsm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Sync makes the tokens in dir/tokens survive a power failure as they are now. SoftHSM2 itself writes objects without
// fsync, so a new key may be gone after a power cut although C_GenerateKeyPair returned.
func Sync(dir string) error {
	return filepath.WalkDir(filepath.Join(dir, "tokens"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && (entry.IsDir() || entry.Type().IsRegular()) {
			err = syncPath(path)
		}
		if errors.Is(err, fs.ErrNotExist) { // an object that was destroyed meanwhile
			return nil
		}
		return err
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// WriteDurably makes a 0600 file appear whole or not at all, and stay after a power failure.
func WriteDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncPath(filepath.Dir(path))
}
