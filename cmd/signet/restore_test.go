package main

import (
	"crypto/x509"
	"database/sql"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"signet/store/pgtest"
)

// backupDatabase copies the database of a running server as docs/operations.md says.
func (s *site) backupDatabase(folder string) {
	s.t.Helper()
	if path, ok := strings.CutPrefix(s.url, "sqlite:"); ok {
		db, err := sql.Open("sqlite3", path)
		if err != nil {
			s.t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(s.t.Context(), "VACUUM INTO ?", filepath.Join(folder, "signet.db")); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	s.command(postgresTool(s.t, "pg_dump"), "--format=custom", "--file="+filepath.Join(folder, "signet.dump"), "--dbname="+s.url)
}

// backupToken copies the data folder without the database, whose files change while they are copied.
func (s *site) backupToken(folder string) {
	s.t.Helper()
	if err := os.CopyFS(folder, os.DirFS(s.dataDir())); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{"signet.db", "signet.db-wal", "signet.db-shm"} {
		if err := os.RemoveAll(filepath.Join(folder, name)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// restore makes a site of a backup of both, in another folder and another database.
func (s *site) restore(database, token string) *site {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "restored")
	if err := os.CopyFS(dir, os.DirFS(token)); err != nil {
		s.t.Fatal(err)
	}
	other := &site{t: s.t, args: slices.Clone(s.args), url: "sqlite:" + dir + "/signet.db"}
	if strings.HasPrefix(s.url, "sqlite:") {
		data, err := os.ReadFile(filepath.Join(database, "signet.db"))
		if err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "signet.db"), data, 0o600); err != nil {
			s.t.Fatal(err)
		}
	} else {
		other.url = pgtest.Database(s.t)
		s.command(postgresTool(s.t, "pg_restore"), "--exit-on-error", "--no-owner", "--dbname="+other.url, filepath.Join(database, "signet.dump"))
	}
	other.args[slices.Index(other.args, "--data-dir")+1] = dir
	other.args[slices.Index(other.args, "--database-url")+1] = other.url
	return other
}

func (s *site) command(program string, args ...string) {
	s.t.Helper()
	if out, err := exec.CommandContext(s.t.Context(), program, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", filepath.Base(program), err, out)
	}
}

// postgresTool finds a program beside the server, whose version it must have.
func postgresTool(t testing.TB, name string) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err == nil && len(found) > 0 {
		return found[len(found)-1]
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// kept issues a certificate whose private key is kept, and returns both.
func (c *client) kept(authority int64) object {
	c.t.Helper()
	return c.must(http.StatusCreated, "POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority), object{
		"common_name": "www.example.com", "subject_dn": "CN=www.example.com", "certificate_type": "server"})
}

// signs issues a certificate to a new key and checks that the CA's certificate verifies it.
func (c *client) signs(authority int64) (serial *big.Int) {
	c.t.Helper()
	o := c.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": authority, "certificate_type": "server", "csr": csr(c.t, "api.example.com")})
	certificate := parseCertificate(c.t, o["certificate"])
	if err := certificate.CheckSignatureFrom(c.caCertificate(authority)); err != nil {
		c.t.Errorf("signed by another key: %v", err)
	}
	c.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(o)), object{"reason": "superseded"})
	return certificate.SerialNumber
}

func TestABackupRestoredElsewhereIsTheSameCA(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s, r := startServer(t, database)
			authority := r.createCA("Authority")
			root, leaf := r.caCertificate(authority), r.kept(authority)
			revoked := r.signs(authority)
			number := r.crl("authority", authority, root).Number

			// While the server runs: first the database, then the token, which so has every key that the database names.
			copied, token := t.TempDir(), t.TempDir()
			s.backupDatabase(copied)
			r.kept(authority) // after the one and before the other copy
			r.createCA("Later")
			s.backupToken(token)
			r.stop(syscall.SIGKILL)
			if err := os.Rename(s.dataDir(), s.dataDir()+".lost"); err != nil {
				t.Fatal(err)
			}

			restored := s.restore(copied, token)
			r = restored.start("signet")
			r.login(rootName, rootPassword)
			if all := r.list("/api/v1/cas/"); len(all) != 1 {
				t.Errorf("%d CAs, want one", len(all))
			}
			if !r.caCertificate(authority).Equal(root) {
				t.Error("another CA certificate")
			}
			if key := r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", id(leaf)), nil); key["private_key"] != leaf["private_key"] {
				t.Error("another leaf key")
			}
			second := r.signs(authority)
			// The server that is lost had the lease when the copy was made.
			eventually(t, 30*time.Second, "a new CRL has what was revoked before and after", func() bool {
				list := r.crl("authority", authority, root)
				lacks := func(serial *big.Int) bool {
					return !slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
				}
				return list.Number.Cmp(number) > 0 && !lacks(revoked) && !lacks(second)
			})
			if said := r.stderr.String(); strings.Contains(said, "level=ERROR") {
				t.Errorf("said:\n%s", said)
			}
			restored.runs("token", "rotate-kek")
			if key := r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", id(leaf)), nil); key["private_key"] != leaf["private_key"] {
				t.Error("another leaf key after the rotation")
			}
		})
	}
}

// The wrong order: what the database got after the token was copied is lost with the token, and only that.
func TestATokenOlderThanItsDatabaseLacksKeys(t *testing.T) {
	t.Parallel()
	s, r := startServer(t, "sqlite")
	authority := r.createCA("Authority")
	copied, token := t.TempDir(), t.TempDir()
	s.backupToken(token)
	lost, later := r.kept(authority), r.createCA("Later") // the first secret makes the key-encryption key
	s.backupDatabase(copied)
	r.stop(syscall.SIGTERM)

	r = s.restore(copied, token).start("signet")
	r.login(rootName, rootPassword)
	if said := r.stderr.String(); strings.Count(said, "a CA cannot sign") != 1 || !strings.Contains(said, fmt.Sprintf("ca_id=%d name=Later", later)) {
		t.Errorf("said:\n%s", said)
	}
	r.raw(http.StatusInternalServerError, "GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", id(lost)), nil)
	r.signs(authority)
	kept := r.kept(authority)
	if key := r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", id(kept)), nil); key["private_key"] != kept["private_key"] {
		t.Error("another leaf key")
	}
}
