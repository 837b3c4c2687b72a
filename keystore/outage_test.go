package keystore_test

import (
	"crypto"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// signers sign without pause, eight of them, until they are stopped.
type signers struct {
	t        *testing.T
	stopping atomic.Bool
	group    sync.WaitGroup

	mu       sync.Mutex
	signed   int
	last     time.Time
	failures []error
	slowest  time.Duration
}

func startSigners(t *testing.T, key crypto.Signer) *signers {
	s := &signers{t: t}
	for range 8 {
		s.group.Go(func() {
			for !s.stopping.Load() {
				start := time.Now()
				err := signDigest(key) // verified by the signer itself, and here
				s.mu.Lock()
				s.slowest = max(s.slowest, time.Since(start))
				if err == nil {
					s.signed++
					s.last = time.Now()
				} else {
					s.failures = append(s.failures, err)
				}
				s.mu.Unlock()
				if err != nil {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	t.Cleanup(func() { s.stop() })
	return s
}

// stop returns the failures.
func (s *signers) stop() []error {
	s.stopping.Store(true)
	s.group.Wait()
	return s.failures
}

func (s *signers) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signed
}

// more waits until n more signatures were made, and returns how long the first of them took.
func (s *signers) more(n int, within time.Duration) time.Duration {
	s.t.Helper()
	start, before := time.Now(), s.count()
	var first time.Duration
	for s.count() < before+n {
		if first == 0 && s.count() > before {
			first = time.Since(start)
		}
		if time.Since(start) > within {
			s.t.Fatalf("%d signatures within %s, want %d; failures: %v", s.count()-before, within, n, s.failures[:min(3, len(s.failures))])
		}
		time.Sleep(time.Millisecond)
	}
	if first == 0 {
		first = time.Since(start)
	}
	return first
}

// faulty gives a test a token that breaks on command, with a key, and the health key that tells how it is.
func faulty(t *testing.T, change func(*keystore.Config)) (*keystore.Token, *softhsmtest.Faults, crypto.Signer) {
	t.Helper()
	cfg, faults := softhsmtest.Faulty(t)
	cfg.Timeout = 10 * time.Second
	if change != nil {
		change(&cfg)
	}
	token := openAs(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	if err := token.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	return token, faults, key
}

func TestHiccupsCostNoSignature(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(*softhsmtest.Faults)
	}{
		{"all sessions are dropped twice", func(f *softhsmtest.Faults) {
			f.DropSessions()
			time.Sleep(100 * time.Millisecond)
			f.DropSessions()
		}},
		{"sessions are dropped all the time", func(f *softhsmtest.Faults) {
			for range 20 {
				f.DropSessions()
				time.Sleep(10 * time.Millisecond)
			}
		}},
		{"one session in twenty dies at each step of a signature", func(f *softhsmtest.Faults) { f.DieAtSign(50) }},
		{"one call in fifty answers CKR_DEVICE_ERROR", func(f *softhsmtest.Faults) {
			f.Fail(softhsmtest.Every, pkcs11.CKR_DEVICE_ERROR, 20)
		}},
		{"a hidden limit of four sessions", func(f *softhsmtest.Faults) { f.LimitSessions(4); f.DropSessions() }},
		{"a hidden limit of one session", func(f *softhsmtest.Faults) { f.LimitSessions(1); f.DropSessions() }},
		{"one signature in ten is corrupted", func(f *softhsmtest.Faults) { f.FlipBits(100) }},
		{"away for less than patience", func(f *softhsmtest.Faults) {
			f.Remove()
			time.Sleep(500 * time.Millisecond)
			f.Restore()
		}},
		{"a connection that only C_Initialize brings back", func(f *softhsmtest.Faults) {
			f.Disconnect()
			time.Sleep(500 * time.Millisecond)
			f.Reconnect()
		}},
		{"all at once", func(f *softhsmtest.Faults) {
			f.DieAtSign(50)
			f.Fail(softhsmtest.Every, pkcs11.CKR_DEVICE_ERROR, 20)
			f.LimitSessions(4)
			f.FlipBits(50)
			f.DropSessions()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, faults, key := faulty(t, nil)
			s := startSigners(t, key)
			s.more(50, 10*time.Second)
			c.damage(faults)
			s.more(500, 30*time.Second)
			faults.Clear()
			s.more(50, 10*time.Second)
			if failures := s.stop(); len(failures) > 0 {
				t.Errorf("%d of %d signatures failed, the first with %v", len(failures), s.signed, failures[0])
			}
		})
	}
}

func TestATokenThatStaysAwayFailsAtOnceAndComesBackByItself(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		damage, mend func(*softhsmtest.Faults)
	}{
		{"removed", (*softhsmtest.Faults).Remove, (*softhsmtest.Faults).Restore},
		{"in need of C_Initialize", (*softhsmtest.Faults).Disconnect, (*softhsmtest.Faults).Reconnect},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var changes []bool
			token, faults, key := faulty(t, func(cfg *keystore.Config) {
				cfg.Patience = 300 * time.Millisecond
				cfg.Changed = func(s keystore.State) {
					mu.Lock()
					defer mu.Unlock()
					changes = append(changes, s.Up)
				}
			})
			c.damage(faults)
			if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
				t.Fatalf("sign on a token that is away: %v", err)
			}
			start := time.Now()
			if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) || time.Since(start) > 50*time.Millisecond {
				t.Errorf("once it is known to be away: %v after %s, want a refusal at once", err, time.Since(start))
			}
			if state := token.State(); state.Up || state.Cause == nil || keystore.Reason(state.Cause) == "" {
				t.Errorf("state %+v", state)
			}
			c.mend(faults)
			start = time.Now()
			for signDigest(key) != nil {
				if time.Since(start) > 5*time.Second {
					t.Fatal("it does not come back")
				}
				time.Sleep(5 * time.Millisecond)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("signing again %s after its return, want less than a second", took)
			}
			if state := token.State(); !state.Up || state.Cause != nil || state.Outage < 300*time.Millisecond {
				t.Errorf("state %+v", state)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(changes) != 2 || changes[0] || !changes[1] {
				t.Errorf("told of %v, want one outage and its end", changes)
			}
		})
	}
}

func TestAHangIsAbandonedBoundedAndOverWhenItEnds(t *testing.T) {
	t.Parallel()
	token, faults, key := faulty(t, func(cfg *keystore.Config) {
		cfg.Timeout, cfg.MaxSessions, cfg.Patience = time.Second, 4, 100*time.Millisecond
	})
	resume := faults.Hang("C_Sign")
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("sign while the token hangs: %v", err)
			}
		})
	}
	start := time.Now()
	group.Wait()
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("sixteen signatures with a deadline of a second took %s", took)
	}
	for start = time.Now(); token.State().Up; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("the circuit breaker does not open")
		}
	}
	time.Sleep(150 * time.Millisecond) // patience
	for range 100 {
		start := time.Now()
		if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) || time.Since(start) > 100*time.Millisecond {
			t.Fatalf("behind the circuit breaker: %v after %s", err, time.Since(start))
		}
	}
	if n := faults.Counts().Blocked; n > 16 {
		t.Errorf("%d calls hang, want at most twice the 4 sessions and 8 questions", n)
	}
	resume()
	for start = time.Now(); signDigest(key) != nil; time.Sleep(time.Millisecond) {
		if time.Since(start) > 2*time.Second {
			t.Fatal("no signature after the hang has ended")
		}
	}
}

// One call that is never answered must not cost the token a session for ever.
func TestALostAnswerCostsOneSignature(t *testing.T) {
	t.Parallel()
	token, _, key := faulty(t, func(cfg *keystore.Config) { cfg.Timeout, cfg.MaxSessions = 500*time.Millisecond, 1 })
	until := make(chan struct{})
	defer close(until)
	if err := token.Block(t.Context(), until); !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("a call that is not answered: %v", err)
	}
	if err := signDigest(key); err != nil {
		t.Errorf("sign beside it: %v", err)
	}
}

func TestADistantTokenIsAskedInParallel(t *testing.T) {
	t.Parallel()
	_, faults, key := faulty(t, nil)
	faults.Delay("C_Sign", 20*time.Millisecond)
	var group sync.WaitGroup
	start := time.Now()
	for range 32 {
		group.Go(func() {
			for range 5 {
				if err := signDigest(key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if most := faults.Counts().MostRunning; most < 24 {
		t.Errorf("160 signatures of 20 ms for 32 callers took %s with %d calls in parallel", time.Since(start), most)
	}
}

// The PIN is changed by somebody else; the operator puts the new one where the server looks, a little later.
func TestAChangedPINIsTriedOnceAndReadAgain(t *testing.T) {
	t.Parallel()
	var source atomic.Pointer[string]
	var cfg keystore.Config
	_, faults, key := faulty(t, func(c *keystore.Config) {
		source.Store(&c.PIN)
		c.Patience = 100 * time.Millisecond
		c.PINSource = func() (string, error) { return *source.Load(), nil }
		cfg = *c
	})
	changed := "another-pin"
	if err := openAs(t, cfg).SetPIN(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	before := faults.Counts().Logins
	faults.DropSessions()
	for range 20 {
		if err := signDigest(key); !errors.Is(err, keystore.ErrPIN) {
			t.Fatalf("sign with a PIN that was refused: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := faults.Counts().Logins - before; n != 1 {
		t.Errorf("the PIN was tried %d times, want once", n)
	}
	source.Store(&changed)
	for start := time.Now(); signDigest(key) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 3*time.Second {
			t.Fatal("the new PIN is not read")
		}
	}
}
