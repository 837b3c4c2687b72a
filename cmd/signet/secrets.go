package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"signet/softhsm"
)

// minSecretKey is the shortest secret for HS256, in octets: as long as the hash (RFC 7518, section 3.2).
const minSecretKey = 32

// readSecret reads a secret from a file, without the line end that editors add. It warns when others can read the
// file too, and goes on: the operator may have reasons that a mode does not show.
func readSecret(log *slog.Logger, setting, path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", usagef("--%s: %w", setting, err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o044 != 0 {
		log.Warn("a secret can be read by others", "setting", setting, "file", path, "mode", info.Mode().Perm().String())
	}
	secret := strings.TrimRight(string(data), "\r\n")
	if secret == "" {
		return "", usagef("--%s: %s is empty", setting, path)
	}
	return secret, nil
}

// secretFrom reads a secret from the file of a setting, else from a variable; "" when neither is given.
func secretFrom(log *slog.Logger, setting, path, variable string) (string, error) {
	if path != "" {
		return readSecret(log, setting, path)
	}
	return os.Getenv(variable), nil
}

// secretKey returns the HS256 secret of access tokens: the operator's, else one made and kept in the data folder.
func (c *Config) secretKey(log *slog.Logger) ([]byte, error) {
	secret, err := secretFrom(log, "secret-key-file", c.SecretKeyFile, "SIGNET_SECRET_KEY")
	if err != nil {
		return nil, err
	}
	if secret == "" {
		return ownSecretKey(filepath.Join(c.DataDir, "secret.key"))
	}
	if len(secret) < minSecretKey {
		return nil, usagef("the secret key has %d characters and needs at least %d: 'openssl rand -hex 32' makes a good one", len(secret), minSecretKey)
	}
	return []byte(secret), nil
}

// ownSecretKey reads the secret in path, or makes one.
func ownSecretKey(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch {
	case err == nil && len(data) < minSecretKey:
		return nil, fmt.Errorf("the secret key in %s is damaged: remove the file for a new one, which ends every session", path)
	case err == nil:
		return data, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read secret key: %w", err)
	}
	secret := make([]byte, minSecretKey)
	rand.Read(secret)
	encoded := []byte(hex.EncodeToString(secret))
	if err := softhsm.WriteDurably(path, encoded); err != nil {
		return nil, fmt.Errorf("keep secret key: %w", err)
	}
	return encoded, nil
}

// databaseWithoutPassword is the configured database, or the default.
func (c *Config) databaseWithoutPassword() string {
	if c.DatabaseURL == "" {
		return "sqlite:" + filepath.Join(c.DataDir, "signet.db")
	}
	return c.DatabaseURL
}

// databaseURL is the database to open, with the password from its file.
func (c *Config) databaseURL(log *slog.Logger) (string, error) {
	raw := c.databaseWithoutPassword()
	if !strings.HasPrefix(raw, "sqlite:") && !isPostgres(raw) {
		return "", usagef("--database-url must start with postgres:// or sqlite:")
	}
	if c.DatabasePasswordFile == "" {
		return raw, nil
	}
	u, err := url.Parse(raw)
	if err != nil || !isPostgres(raw) {
		return "", usagef("--database-password-file needs a postgres:// URL in --database-url")
	}
	password, err := readSecret(log, "database-password-file", c.DatabasePasswordFile)
	if err != nil {
		return "", err
	}
	user := "postgres"
	if u.User != nil {
		user = u.User.Username()
	}
	u.User = url.UserPassword(user, password)
	return u.String(), nil
}

func isPostgres(databaseURL string) bool {
	return strings.HasPrefix(databaseURL, "postgres://") || strings.HasPrefix(databaseURL, "postgresql://")
}
