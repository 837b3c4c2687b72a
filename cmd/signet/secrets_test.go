package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func secretFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestASecretIsReadWithoutItsLineEnd(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{"1234": "1234", "1234\n": "1234", "1234\r\n": "1234", " 12 34 \n": " 12 34 "} {
		got, err := readSecret(quiet, "pkcs11-pin-file", secretFile(t, content, 0o600))
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", content, got, err, want)
		}
	}
	for _, content := range []string{"", "\n"} {
		if _, err := readSecret(quiet, "pkcs11-pin-file", secretFile(t, content, 0o600)); err == nil {
			t.Errorf("%q was accepted", content)
		}
	}
}

func TestASecretThatOthersCanReadIsReportedWithoutShowingIt(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true} {
		out.Reset()
		path := secretFile(t, "the-pin-itself", mode)
		if err := os.Chmod(path, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		if _, err := readSecret(log, "pkcs11-pin-file", path); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "WARN") != warned || strings.Contains(out.String(), "the-pin-itself") {
			t.Errorf("mode %o: log is %q", mode, out.String())
		}
	}
}

func TestTheSecretKeyIsMadeOnceAndKept(t *testing.T) {
	t.Parallel()
	c := Config{DataDir: t.TempDir()}
	first, err := c.secretKey(quiet)
	if err != nil || len(first) < minSecretKey {
		t.Fatalf("got %d octets, %v", len(first), err)
	}
	path := filepath.Join(c.DataDir, "secret.key")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v, want 0600", info.Mode(), err)
	}
	if second, err := c.secretKey(quiet); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the second start has another secret, %v", err)
	}
	if err := os.WriteFile(path, first[:minSecretKey-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.secretKey(quiet); err == nil {
		t.Error("a damaged secret was used")
	}
}

func TestTheOperatorsSecretKeyNeedsThirtyTwoCharacters(t *testing.T) {
	t.Parallel()
	for length, ok := range map[int]bool{1: false, 31: false, 32: true, 64: true} {
		c := Config{DataDir: t.TempDir(), SecretKeyFile: secretFile(t, strings.Repeat("x", length)+"\n", 0o600)}
		secret, err := c.secretKey(quiet)
		if (err == nil) != ok || ok && len(secret) != length {
			t.Errorf("%d characters: got %d, %v", length, len(secret), err)
		}
	}
}

func TestTheDatabasePasswordComesFromItsFile(t *testing.T) {
	t.Parallel()
	password := secretFile(t, "p@ss/word?#\n", 0o600)
	for _, test := range []struct{ url, file, want string }{
		{url: "", want: "sqlite:data/signet.db"},
		{url: "sqlite:elsewhere.db", want: "sqlite:elsewhere.db"},
		{url: "postgres://signet@db/signet", want: "postgres://signet@db/signet"},
		{url: "postgres://signet@db/signet?sslmode=disable", file: password, want: "postgres://signet:p%40ss%2Fword%3F%23@db/signet?sslmode=disable"},
		{url: "postgresql://signet:old@db/signet", file: password, want: "postgresql://signet:p%40ss%2Fword%3F%23@db/signet"},
		{url: "", file: password},
		{url: "sqlite:x.db", file: password},
		{url: "mysql://db/signet"},
		{url: "postgres://db/signet", file: "/nonexistent/password"},
	} {
		c := Config{DataDir: "data", DatabaseURL: test.url, DatabasePasswordFile: test.file}
		got, err := c.databaseURL(quiet)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q with %q: got %q, %v, want %q", test.url, test.file, got, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "p@ss") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

func TestOneServerAtATimeHasTheDataFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := Config{DataDir: dir + "/data"}
	release, err := first.lockData(quiet)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(first.DataDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data folder: mode %v, %v, want 0700", info.Mode(), err)
	}
	if _, err := first.lockData(quiet); err == nil || !strings.Contains(err.Error(), "another server is using it") {
		t.Errorf("the same folder again: got %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if release, err = first.lockData(quiet); err != nil {
		t.Fatalf("after release: %v", err)
	}
	t.Run("links", aDatabaseIsLockedUnderItsOwnPath)
	shared := "sqlite:" + dir + "/shared.db"
	a, b := Config{DataDir: dir + "/a", DatabaseURL: shared}, Config{DataDir: dir + "/b", DatabaseURL: shared}
	releaseA, err := a.lockData(quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.lockData(quiet); err == nil {
		t.Error("two folders share one SQLite database")
	}
	if err := releaseA(); err != nil {
		t.Fatal(err)
	}
	releaseB, err := b.lockData(quiet)
	if err != nil {
		t.Fatalf("after the other is gone: %v", err)
	}
	if err := releaseB(); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

func aDatabaseIsLockedUnderItsOwnPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := Config{DataDir: dir + "/first"}
	release, err := first.lockData(quiet)
	if err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"folder": "first", "new.db": "first/signet.db", "chain.db": dir + "/new.db"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("self.db", filepath.Join(dir, "self.db")); err != nil {
		t.Fatal(err)
	}
	for _, made := range []bool{false, true} { // before and after the first server has made the file
		if made {
			if err := os.WriteFile(first.DataDir+"/signet.db", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{"first/signet.db", "first/../first/signet.db", "folder/signet.db", "new.db", "chain.db"} {
			second := Config{DataDir: dir + "/second", DatabaseURL: "sqlite:" + dir + "/" + path}
			if _, err := second.lockData(quiet); err == nil || !strings.Contains(err.Error(), "another server is using it") {
				t.Errorf("the default database of another server as %s (made: %t): got %v", path, made, err)
			}
		}
	}
	for _, path := range []string{"self.db", "nowhere/signet.db"} {
		second := Config{DataDir: dir + "/second", DatabaseURL: "sqlite:" + dir + "/" + path}
		if _, err := second.lockData(quiet); err == nil {
			t.Errorf("%s was locked", path)
		}
	}
	other := Config{DataDir: dir + "/second", DatabaseURL: "sqlite:" + dir + "/other.db"}
	releaseOther, err := other.lockData(quiet)
	if err != nil {
		t.Fatalf("a database of its own: %v", err)
	}
	if err := errors.Join(releaseOther(), release()); err != nil {
		t.Error(err)
	}
}
