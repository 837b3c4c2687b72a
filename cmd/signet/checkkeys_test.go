package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet/softhsm"
)

// dataDir is the data folder of a site.
func (s *site) dataDir() string { return s.args[slices.Index(s.args, "--data-dir")+1] }

// refuses starts a server that is expected to end by itself with exit code 1, and returns what it said.
func (s *site) refuses(env ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "signet", append([]string{"serve"}, s.args...)...)
	cmd.Env = append(os.Environ(), env...)
	said, _ := cmd.CombinedOutput() // its verdict is the exit code
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		s.t.Fatalf("exit code %d, want %d:\n%s", code, exitFailed, said)
	}
	return string(said)
}

func TestAServerRefusesTheTokenOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s, r := startServer(t, database)
			r.createCA("Authority")
			r.stop(syscall.SIGTERM)

			other := &site{t: t, url: s.url, args: slices.Clone(s.args)}
			other.args[slices.Index(other.args, "--data-dir")+1] = t.TempDir()
			if said := other.refuses(); !strings.Contains(said, `token "signet"`) || !strings.Contains(said, "not the token of this database") {
				t.Errorf("said:\n%s", said)
			}
			other.args = append(other.args, "--accept-missing-ca-keys")
			other.start("signet").stop(syscall.SIGTERM)
			r = s.start("signet") // and harmed nothing
			r.login(rootName, rootPassword)
			r.createCA("Second")
		})
	}
}

func TestAServerRefusesToMakeANewTokenForTheOneThatIsLost(t *testing.T) {
	t.Parallel()
	s, r := startServer(t, "sqlite")
	r.stop(syscall.SIGTERM)
	tokens := filepath.Join(s.dataDir(), "softhsm", "tokens")
	if err := os.Rename(tokens, tokens+".lost"); err != nil {
		t.Fatal(err)
	}
	if said := s.refuses(); !strings.Contains(said, "restore "+tokens) {
		t.Errorf("said:\n%s", said)
	}
	if err := os.RemoveAll(tokens); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tokens+".lost", tokens); err != nil {
		t.Fatal(err)
	}
	s.start("signet")
}

func TestAServerNamesTheCAWhoseKeyIsMissing(t *testing.T) {
	t.Parallel()
	s, r := startServer(t, "sqlite")
	lost, kept := r.createCA("Lost"), r.createCA("Kept")
	r.stop(syscall.SIGTERM)
	home := filepath.Join(s.dataDir(), "softhsm")
	pin, err := os.ReadFile(filepath.Join(home, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	module, err := softhsm.Find()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "pkcs11-tool", "--module", module, "--token-label", softhsm.Label, "--login", "--pin", "env:PIN",
		"--delete-object", "--type", "privkey", "--label", fmt.Sprintf("lost-%d", lost))
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(home, "softhsm2.conf"), "PIN="+strings.TrimSpace(string(pin)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r = s.start("signet")
	if said := r.stderr.String(); strings.Count(said, "a CA cannot sign") != 1 || !strings.Contains(said, fmt.Sprintf("ca_id=%d name=Lost", lost)) {
		t.Errorf("said:\n%s", said)
	}
	r.login(rootName, rootPassword)
	r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": kept, "certificate_type": "server", "csr": csr(t, "www.example.com")})
}

// The clock of a machine may be set back between two runs: what the first left is in the future of the second.
func TestReservationsOfTheFutureAreAbandonedToo(t *testing.T) {
	t.Parallel()
	s, r := startServer(t, "sqlite")
	authority := r.createCA("Authority")
	r.stop(syscall.SIGTERM)
	r = s.startAhead(1, filepath.Join(t.TempDir(), "step"))
	r.dieAt("after Reserve", func() {
		_, _, _ = r.do("POST", "/api/v1/certificates/sign-csr", object{
			"ca_id": authority, "certificate_type": "server", "csr": csr(t, "crash.example.com")})
	})
	r = s.start("signet")
	r.login(rootName, rootPassword)
	r.accountsForEverything(0)
	if log := r.auditTrail(); len(log.abandoned) != 1 {
		t.Errorf("abandoned %v, want one certificate", log.abandoned)
	}
}
