package softhsmtest_test

import (
	"bufio"
	"context"
	"crypto"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// TestMain makes the test binary serve as the other process, too.
func TestMain(m *testing.M) {
	if os.Getenv("SOFTHSMTEST_SIGN") == "" {
		os.Exit(m.Run())
	}
	if err := signForever(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// signForever opens the token that the environment names, as signet does, makes a key, and signs once for each line
// that it reads. It answers "signed", or the error.
func signForever(in io.Reader, out io.Writer) error {
	pin, err := os.ReadFile(os.Getenv("SIGNET_PKCS11_PIN_FILE"))
	if err != nil {
		return err
	}
	token, err := keystore.Open(context.Background(), keystore.Config{
		Module: os.Getenv("SIGNET_PKCS11_MODULE"), Token: os.Getenv("SIGNET_PKCS11_TOKEN"), PIN: strings.TrimSpace(string(pin)),
	})
	if err != nil {
		return err
	}
	key, err := token.Generate(context.Background(), keystore.Spec{ID: []byte("key"), Type: keystore.EC, Size: 256})
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer := "signed"
		if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
			answer = err.Error()
		}
		fmt.Fprintln(out, answer)
	}
	return token.Close()
}

// elsewhere starts the other process. sign makes it sign once.
func elsewhere(t *testing.T, env []string) (sign func() string, stop func() error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), "SOFTHSMTEST_SIGN=1"), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	sign = func() string {
		fmt.Fprintln(in)
		answer, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(answer)
	}
	return sign, func() error {
		in.Close()
		return cmd.Wait()
	}
}

func TestFaultsReachAnotherProcess(t *testing.T) {
	t.Parallel()
	_, faults := softhsmtest.Faulty(t)
	sign, stop := elsewhere(t, faults.Env())
	if answer := sign(); answer != "signed" {
		t.Error(answer)
	}
	logins := faults.Counts().Logins
	faults.DropSessions()
	if answer := sign(); answer != "signed" { // the keystore logs in again
		t.Errorf("after the sessions were dropped: %s", answer)
	}
	if c := faults.Counts(); c.Logins == logins || c.Open == 0 {
		t.Errorf("%d logins before and %d after the sessions were dropped, %d are open", logins, c.Logins, c.Open)
	}
	faults.Fail("C_SignInit", pkcs11.CKR_FUNCTION_FAILED, 1000)
	if answer := sign(); answer == "signed" || faults.Counts().Failed["C_SignInit"] == 0 {
		t.Errorf("C_SignInit fails: %s", answer)
	}
	faults.Clear()
	eventually(t, "the other process signs again", func() bool { return sign() == "signed" })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if c := faults.Counts(); c.Open != 0 || c.Running != 0 || c.Calls["C_Finalize"] == 0 {
		t.Errorf("the other process has ended, and left %+v", c)
	}
}

func TestAnotherProcessReachesTheServer(t *testing.T) {
	t.Parallel()
	_, server := softhsmtest.Remote(t)
	sign, stop := elsewhere(t, server.Env())
	if answer := sign(); answer != "signed" {
		t.Error(answer)
	}
	server.Kill()
	if answer := sign(); answer == "signed" {
		t.Error("signed without a server")
	}
	server.Restart()
	_ = stop() // whether it recovers is the keystore's business
}

// What a test measures must not be the module: a P-256 signature costs at most a fifth more, alone and with eight at once.
func TestTheFaultModuleIsFast(t *testing.T) {
	cfg, _ := softhsmtest.Faulty(t)
	with, without := newRacer(t, cfg), newRacer(t, softhsmtest.Token(t))
	for _, parallel := range []int{1, 8} {
		var shimmed, plain []time.Duration
		for range 15 { // by turns, so that both have the same share of a busy machine
			shimmed, plain = append(shimmed, with.race(parallel)), append(plain, without.race(parallel))
		}
		s, p := slices.Min(shimmed), slices.Min(plain)
		t.Logf("%d signatures, %d at once, take %v, without the fault module %v", signatures, parallel, s, p)
		if s > p*6/5 {
			t.Errorf("%d signatures, %d at once, take %v, without the fault module %v", signatures, parallel, s, p)
		}
	}
}

const signatures = 400

// racer signs with sessions of its own beside a keystore, which has initialized the module and logged in.
type racer struct {
	*raw
	sessions [8]pkcs11.SessionHandle
	key      pkcs11.ObjectHandle
}

func newRacer(t *testing.T, cfg keystore.Config) *racer {
	t.Helper()
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	if _, err := token.Generate(t.Context(), keystore.Spec{ID: []byte("key"), Type: keystore.EC, Size: 256}); err != nil {
		t.Fatal(err)
	}
	r := &racer{raw: &raw{t: t, p: pkcs11.New(cfg.Module), cfg: cfg}}
	r.findSlot()
	for i := range r.sessions {
		r.sessions[i] = r.session()
	}
	r.key = r.mustKey(r.sessions[0])
	return r
}

func (r *racer) race(parallel int) time.Duration {
	var wait sync.WaitGroup
	start := time.Now()
	for _, session := range r.sessions[:parallel] {
		wait.Go(func() {
			for range signatures / parallel {
				if _, err := r.sign(session, r.key); err != nil {
					r.t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	return time.Since(start)
}

func BenchmarkSign(b *testing.B) {
	for name, token := range map[string]func() keystore.Config{
		"plain":  func() keystore.Config { return softhsmtest.Token(b) },
		"faulty": func() keystore.Config { cfg, _ := softhsmtest.Faulty(b); return cfg },
		"remote": func() keystore.Config { cfg, _ := softhsmtest.Remote(b); return cfg },
	} {
		b.Run(name, func(b *testing.B) {
			token, err := keystore.Open(b.Context(), token())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { token.Close() })
			key, err := token.Generate(b.Context(), keystore.Spec{ID: []byte("key"), Type: keystore.EC, Size: 256})
			if err != nil {
				b.Fatal(err)
			}
			b.SetParallelism(4)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
