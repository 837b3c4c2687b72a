package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// later runs a command with the settings of the site, at a time to come.
func (s *site) later(t *testing.T, ahead time.Duration, words ...string) (stdout string, err error) {
	t.Helper()
	var cli commands
	parser, err := newParser(&cli, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	command, err := parser.Parse(append(words, s.args...))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = command.Run(&invocation{ctx: t.Context(), stdout: &out, stderr: io.Discard, now: func() time.Time { return time.Now().Add(ahead) }})
	return out.String(), err
}

func (s *site) plan(t *testing.T, ahead time.Duration, words ...string) (all []plannedRemoval) {
	t.Helper()
	out, err := s.later(t, ahead, append([]string{"retention", "plan", "--output", "json"}, words...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &all)
	}
	if err != nil {
		t.Fatalf("plan: %v\n%s", err, out)
	}
	return all
}

// unpack reads a file of an archive.
func unpack(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
	}
	r, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestWhatHasExpiredLeavesAsItWasPlanned(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s, r := startServer(t, database)
			authority := r.createCA("Brief")
			issuer := r.caCertificate(authority)
			var ids []int64
			var leaves []*x509.Certificate
			for _, name := range []string{"lost.example.com", "plain.example.com"} {
				o := r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
					"ca_id": authority, "certificate_type": "server", "csr": csr(t, name), "valid_days": 1})
				ids, leaves = append(ids, id(o)), append(leaves, parseCertificate(t, o["certificate"]))
			}
			o := r.must(http.StatusCreated, "POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority), object{
				"common_name": "kept.example.com", "subject_dn": "CN=kept.example.com", "certificate_type": "server", "valid_days": 1, "key_type": "ec", "key_size": 256})
			ids, leaves = append(ids, id(o)), append(leaves, parseCertificate(t, o["certificate"]))
			_, stays := r.sign(authority, "stays.example.com")
			r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", ids[0]), object{"reason": "keyCompromise"})
			if code := r.stop(syscall.SIGTERM); code != 0 {
				t.Fatalf("exit code %d:\n%s", code, r.stderr)
			}

			// Three days later a list shows the revoked one for the last time. Then all three may go.
			const ahead = 72 * time.Hour
			r = s.start("signet-crash", crashFile+"=", fmt.Sprintf("%s=%s", crashClock, ahead))
			r.login(rootName, rootPassword)
			status := func(leaf *x509.Certificate, want int) {
				t.Helper()
				eventually(t, 15*time.Second, fmt.Sprintf("OCSP answers %d", want), func() bool {
					got, err := r.ocspStatus(leaf, issuer)
					return err == nil && got == want
				})
			}
			status(stays, ocsp.Good)
			var plan []plannedRemoval
			eventually(t, 20*time.Second, "all three may go", func() bool {
				plan = s.plan(t, ahead, "--retain-expired", "24h")
				return len(plan) > 0 && plan[0].Count == 3
			})
			if p := plan[0]; *p.CA != authority || p.Keys != 1 || p.Waiting != 0 ||
				p.Notice != "OCSP says unknown, of 2 instead of good, of 1 instead of revoked; lists stay as they are" {
				t.Errorf("plan %+v", p)
			}
			r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%d", ids[0]), nil) // it is a plan

			archive := filepath.Join(t.TempDir(), "archive")
			out, err := s.later(t, ahead, "retention", "run", "--retain-expired", "24h", "--archive", archive)
			if err != nil || !strings.Contains(out, "certificates") || !strings.Contains(out, "Brief") {
				t.Fatalf("run: %v\n%s", err, out)
			}
			if left := s.plan(t, ahead, "--retain-expired", "24h"); len(left) != 0 {
				t.Errorf("left %+v", left)
			}
			for _, id := range ids {
				r.must(http.StatusNotFound, "GET", fmt.Sprintf("/api/v1/certificates/%d", id), nil)
			}
			if all := r.list(fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority)); len(all) != 1 {
				t.Errorf("listed %v", all)
			}
			for _, leaf := range leaves {
				status(leaf, ocsp.Unknown)
			}
			status(stays, ocsp.Good)
			r.sign(authority, "next.example.com")

			// The archive has the certificates and no key, and the trail has its hash.
			files, err := filepath.Glob(filepath.Join(archive, "certificates-*.jsonl.gz"))
			if err != nil || len(files) != 1 {
				t.Fatalf("files %v, %v", files, err)
			}
			lines := unpack(t, files[0])
			said := fmt.Sprintf("SHA-256 of the lines %x, archived in %s", sha256.Sum256(lines), filepath.Base(files[0]))
			if details := r.audited(t, "retention", 1); !strings.HasSuffix(details[0], said) {
				t.Errorf("the trail says %q, want %q", details[0], said)
			}
			archived := map[string]bool{}
			for line := range strings.Lines(string(lines)) {
				var record struct{ Certificate string }
				if err := json.Unmarshal([]byte(line), &record); err != nil {
					t.Fatal(err)
				}
				block, _ := pem.Decode([]byte(record.Certificate))
				archived[string(block.Bytes)] = true
			}
			for _, leaf := range leaves {
				if !archived[string(leaf.Raw)] {
					t.Errorf("%s is not archived", leaf.Subject.CommonName)
				}
			}
			if code := r.stop(syscall.SIGTERM); code != 0 {
				t.Fatalf("exit code %d:\n%s", code, r.stderr)
			}

			// The server removes old entries by itself, and keeps those that tell of it.
			const afterwards = ahead + 30*time.Hour
			s.args = append(s.args, "--retain-audit", "24h", "--retain-archive", archive)
			r = s.start("signet-crash", crashFile+"=", fmt.Sprintf("%s=%s", crashClock, afterwards))
			r.login(rootName, rootPassword)
			eventually(t, 20*time.Second, "old entries are gone", func() bool { return len(r.list("/api/v1/audit-logs/?action=ca_create")) == 0 })
			if kept := r.list("/api/v1/audit-logs/?action=retention"); len(kept) < 2 {
				t.Errorf("kept %v", kept)
			}
			files, err = filepath.Glob(filepath.Join(archive, "audit_log-*.jsonl.gz"))
			if err != nil || len(files) == 0 || !strings.Contains(string(unpack(t, files[0])), `"action":"ca_create"`) {
				t.Errorf("files %v, %v", files, err)
			}
			if metrics := string(r.raw(http.StatusOK, "GET", "/metrics", nil)); !strings.Contains(metrics, `signet_records_removed_total{kind="audit_log"} `) {
				t.Error("no metric of removed records")
			}
			// The CA is as it was.
			if now := r.caCertificate(authority); !now.Equal(issuer) {
				t.Error("the CA has another certificate")
			}
		})
	}
}

func TestRetentionNeedsAPolicyAndADatabase(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sqlite")
	s.ends(t, "retention", "plan").with(exitUsage, "give --retain-expired, --retain-audit or both")
	s.ends(t, "retention", "run", "--retain-audit", "1h").with(exitUsage, "must be 24h or longer")
	s.ends(t, "retention", "run", "--retain-audit=-24h").with(exitUsage, "must be 24h or longer")
	s.ends(t, "retention", "run", "--retain-audit", "24h").with(exitFailed, "there is no database")
	r := s.start("signet")
	r.firstUser()
	s.ends(t, "retention", "plan", "--retain-audit", "24h").with(0, "nothing to remove")
	s.ends(t, "retention", "run", "--retain-audit", "24h").with(0, "nothing was removed")
}
