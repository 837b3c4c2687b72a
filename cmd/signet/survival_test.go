package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/softhsm/softhsmtest"
)

// promptly is how soon signing goes on after a fault, on a machine that runs other tests meanwhile. BenchmarkRecovery in package
// keystore measures it.
const promptly = 4 * time.Second

// load is eight clients that have CSRs signed without pause, and everything they were answered.
type load struct {
	r        *running
	ca       int64
	stopping atomic.Bool
	group    sync.WaitGroup

	mu      sync.Mutex
	signed  []object
	last    time.Time
	refused int // 503 with Retry-After
	wrong   []string
	slowest time.Duration

	others int // certificates of the CA that were not issued here
}

func (r *running) startLoad(ca int64, request string) *load {
	l := &load{r: r, ca: ca}
	body, err := json.Marshal(object{"ca_id": ca, "certificate_type": "server", "csr": request})
	if err != nil {
		r.t.Fatal(err)
	}
	for range 8 {
		l.group.Go(func() {
			for !l.stopping.Load() {
				l.one(body)
			}
		})
	}
	r.t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.stopping.Store(true)
	l.group.Wait()
}

func (l *load) one(body []byte) {
	start := time.Now()
	request, err := http.NewRequest("POST", l.r.url+"/api/v1/certificates/sign-csr", bytes.NewReader(body))
	if err != nil {
		l.note(0, err.Error(), "", start)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+l.r.token)
	response, err := l.r.http.Do(request)
	if err != nil {
		l.note(0, err.Error(), "", start)
		return
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		l.note(0, err.Error(), "", start)
		return
	}
	l.note(response.StatusCode, string(answer), response.Header.Get("Retry-After"), start)
	if response.StatusCode != http.StatusCreated {
		time.Sleep(20 * time.Millisecond)
	}
}

func (l *load) note(status int, answer, retryAfter string, start time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, time.Since(start))
	switch {
	case status == http.StatusCreated:
		var certificate object
		if err := json.Unmarshal([]byte(answer), &certificate); err != nil {
			l.wrong = append(l.wrong, err.Error())
			return
		}
		l.signed, l.last = append(l.signed, certificate), time.Now()
	case status == http.StatusServiceUnavailable && retryAfter != "":
		l.refused++
	default:
		l.wrong = append(l.wrong, fmt.Sprintf("%d %s", status, answer))
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.signed)
}

// more waits for n more certificates and returns how long the first took.
func (l *load) more(n int, within time.Duration) (first time.Duration) {
	l.r.t.Helper()
	start, before := time.Now(), l.count()
	for {
		made := l.count() - before
		if made > 0 && first == 0 {
			first = time.Since(start)
		}
		if made >= n {
			return first
		}
		if time.Since(start) > within {
			l.r.t.Fatalf("%d certificates within %s, want %d; %d refused, wrong: %v", made, within, n, l.refused, l.wrong[:min(3, len(l.wrong))])
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// verify holds what was answered against the CA and the server's own records: no certificate under a wrong key, no serial
// lost or doubled.
func (l *load) verify(t *testing.T) {
	t.Helper()
	l.stop()
	for _, wrong := range l.wrong[:min(3, len(l.wrong))] {
		t.Errorf("answered %s", wrong)
	}
	issuer := l.r.caCertificate(l.ca)
	seen := map[string]bool{}
	for _, c := range l.signed {
		certificate := parseCertificate(t, c["certificate"])
		if err := certificate.CheckSignatureFrom(issuer); err != nil {
			t.Fatalf("certificate %v: %v", c["serial_number"], err)
		}
		serial := fmt.Sprint(c["serial_number"])
		if seen[serial] || serial != certificate.SerialNumber.Text(16) {
			t.Errorf("serial %s was answered twice, or is not that of the certificate", serial)
		}
		seen[serial] = true
	}
	recorded := 0
	for path := fmt.Sprintf("/api/v1/certificates/?ca_id=%d&limit=10000", l.ca); ; {
		page := l.r.list(path)
		recorded += len(page)
		for _, c := range page {
			delete(seen, fmt.Sprint(c["serial_number"]))
		}
		if len(page) < 10000 {
			break
		}
		path = fmt.Sprintf("/api/v1/certificates/?ca_id=%d&limit=10000&skip=%d", l.ca, recorded)
	}
	if len(seen) > 0 || recorded != len(l.signed)+l.others {
		t.Errorf("%d certificates answered, %d recorded, %d of the answered ones unknown", len(l.signed), recorded, len(seen))
	}
}

// inBoth runs a test with the module in the server's process and in a worker.
func inBoth(t *testing.T, test func(t *testing.T, flags ...string)) {
	for name, flags := range map[string][]string{"in the server": nil, "in a worker": {"--pkcs11-worker"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, flags...)
		})
	}
}

// faultyServer is a server on a token that breaks on command, with a CA and a load on it.
func faultyServer(t *testing.T, env []string, flags ...string) (*running, *load) {
	t.Helper()
	s := newSite(t, "sqlite", append([]string{"--pkcs11-timeout", "10s"}, flags...)...)
	r := s.start("signet", env...)
	r.firstUser()
	l := r.startLoad(r.createCA("Faulty"), csr(t, "www.example.com"))
	l.more(20, 20*time.Second)
	return r, l
}

func TestHiccupsOfTheTokenCostNoRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(*softhsmtest.Faults)
	}{
		{"sessions dropped twice", func(f *softhsmtest.Faults) {
			f.DropSessions()
			time.Sleep(200 * time.Millisecond)
			f.DropSessions()
		}},
		{"dying sessions, failing calls, a hidden limit", func(f *softhsmtest.Faults) {
			f.DieAtSign(50)
			f.Fail("C_Sign", pkcs11.CKR_DEVICE_ERROR, 20)
			f.LimitSessions(4)
			f.DropSessions()
		}},
		{"corrupted signatures", func(f *softhsmtest.Faults) { f.FlipBits(100) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBoth(t, func(t *testing.T, flags ...string) {
				_, faults := softhsmtest.Faulty(t)
				_, l := faultyServer(t, faults.Env(), flags...)
				c.damage(faults)
				l.more(300, time.Minute)
				faults.Clear()
				l.more(20, 10*time.Second)
				l.verify(t)
				if l.refused > 0 {
					t.Errorf("%d requests were refused", l.refused)
				}
			})
		})
	}
}

func TestAnOutageOfTheTokenIsSurvived(t *testing.T) {
	t.Parallel()
	_, removed := softhsmtest.Faulty(t)
	_, disconnected := softhsmtest.Faulty(t)
	_, remote := softhsmtest.Remote(t)
	_, far := softhsmtest.Faulty(t)
	for _, c := range []struct {
		name         string
		env          []string
		damage, mend func()
		flags        []string
	}{
		{"removed for two seconds", removed.Env(), removed.Remove, removed.Restore, nil},
		{"in need of C_Initialize", disconnected.Env(), disconnected.Disconnect, disconnected.Reconnect, nil},
		{"in need of C_Initialize, in a worker", far.Env(), far.Disconnect, far.Reconnect, []string{"--pkcs11-worker"}},
		{"killed, and started again", remote.Env(), remote.Kill, remote.Restart, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, l := faultyServer(t, c.env, append(c.flags, "--pkcs11-patience", "500ms")...)
			c.damage()
			time.Sleep(2 * time.Second)
			if l.mu.Lock(); time.Since(l.last) < time.Second {
				t.Error("certificates were signed by a token that is away")
			}
			l.mu.Unlock()
			reserved := len(r.list("/api/v1/audit-logs/?action=cert_reserve&limit=1000"))
			time.Sleep(200 * time.Millisecond)
			if more := len(r.list("/api/v1/audit-logs/?action=cert_reserve&limit=1000")) - reserved; more > 0 {
				t.Errorf("%d serials were reserved while the token was known to be away", more)
			}
			if answer := r.raw(http.StatusServiceUnavailable, "GET", "/readyz", nil); !strings.Contains(string(answer), "CKR_") {
				t.Errorf("/readyz does not name the cause: %s", answer)
			}
			c.mend() // returns when the token is there
			if first := l.more(50, 10*time.Second); first > promptly {
				t.Errorf("signing again %s after its return, want a moment", first)
			}
			l.verify(t)
			if l.refused == 0 {
				t.Error("nothing was refused during an outage longer than patience")
			}
			if n := strings.Count(r.stderr.String(), "the token is away"); n != 1 {
				t.Errorf("the outage is in the log %d times, want once", n)
			}
		})
	}
}

func TestAHangingTokenAnswers503AndReadsGoOn(t *testing.T) {
	t.Parallel()
	inBoth(t, testHang)
}

func testHang(t *testing.T, flags ...string) {
	_, faults := softhsmtest.Faulty(t)
	r, l := faultyServer(t, faults.Env(), append(flags, "--pkcs11-timeout", "4s")...)
	resume := faults.Hang("C_Sign")
	for start := time.Now(); time.Since(start) < 8*time.Second; time.Sleep(100 * time.Millisecond) {
		read := time.Now()
		r.list("/api/v1/cas/")
		if took := time.Since(read); took > promptly {
			t.Errorf("a read took %s while the token hangs", took)
		}
	}
	l.mu.Lock()
	if l.refused == 0 || l.slowest > 6*time.Second {
		t.Errorf("%d requests refused, the slowest after %s", l.refused, l.slowest)
	}
	l.mu.Unlock()
	if n := faults.Counts().Blocked; n > 70 {
		t.Errorf("%d calls pile up in the token", n)
	}
	resume()
	if first := l.more(20, 10*time.Second); first > promptly {
		t.Errorf("signing again %s after the hang, want a moment", first)
	}
	l.verify(t)
}

func TestAWrongPINIsTriedOnceAndEndsTheStart(t *testing.T) {
	t.Parallel()
	inBoth(t, testWrongPIN)
}

func testWrongPIN(t *testing.T, flags ...string) {
	_, faults := softhsmtest.Faulty(t)
	s := newSite(t, "sqlite", flags...)
	s.args = append(s.args, "--pkcs11-pin-file", secretFile(t, "not-the-pin", 0o600))
	before := faults.Counts().Logins
	stderr := s.refuses(faults.Env()...)
	if !strings.Contains(stderr, "PIN") || strings.Contains(stderr, "not-the-pin") {
		t.Errorf("the server says: %s", stderr)
	}
	if n := faults.Counts().Logins - before; n != 1 {
		t.Errorf("the PIN was tried %d times, want once", n)
	}
}

// Somebody puts another token with the same label and PIN in the place of the right one, and then the right one back.
func TestAnotherTokenOfTheSameLabelIsRefused(t *testing.T) {
	t.Parallel()
	pin := secretFile(t, "the same PIN", 0o600)
	stranger := newSite(t, "sqlite", "--pkcs11-pin-file", pin)
	r := stranger.start("signet")
	r.firstUser()
	r.createCA("Stranger")
	r.stop(syscall.SIGTERM)

	s := newSite(t, "sqlite", "--pkcs11-pin-file", pin, "--pkcs11-patience", "500ms")
	r = s.start("signet")
	r.firstUser()
	authority := r.createCA("Right")
	request := object{"ca_id": authority, "certificate_type": "server", "csr": csr(t, "www.example.com")}
	r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", request)

	tokens, right := s.dataDir()+"/softhsm/tokens", s.dataDir()+"/softhsm/right"
	if err := errors.Join(os.Rename(tokens, right), os.CopyFS(tokens, os.DirFS(stranger.dataDir()+"/softhsm/tokens"))); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		status, answer, err := r.do("POST", "/api/v1/certificates/sign-csr", request)
		if err != nil || status != http.StatusServiceUnavailable {
			t.Fatalf("a stranger's token: status %d, %v: %s", status, err, answer)
		}
	}
	if log := r.stderr.String(); !strings.Contains(log, "is another one") {
		t.Error("the log does not say that it is another token")
	}
	r.raw(http.StatusServiceUnavailable, "GET", "/readyz", nil)
	if err := errors.Join(os.RemoveAll(tokens), os.Rename(right, tokens)); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if status, _, _ := r.do("POST", "/api/v1/certificates/sign-csr", request); status == http.StatusCreated {
			break
		}
		if time.Since(start) > 2*time.Second {
			t.Fatal("the right token is not found again")
		}
	}
}
