package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// Not parallel, like all tests that keep calls in flight: the tokens of parallel tests share the module, and it is
// drained whenever one of them is opened.
func TestLostSessionsAreSurvived(t *testing.T) {
	token, _ := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	sealed, err := token.Seal(t.Context(), []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		use  func() error
	}{
		{"sign", func() error { return signDigest(key) }},
		{"check", func() error { return token.Check(t.Context()) }},
		{"seal", func() error { _, err := token.Seal(t.Context(), []byte("x"), nil); return err }},
		{"unseal", func() error { _, err := token.Unseal(t.Context(), sealed, nil); return err }},
		{"find", func() error {
			_, err := token.Signer(t.Context(), id, mustDER(t, key.Public()), keystore.BarBorn)
			return err
		}},
		{"inspect", func() error { _, err := token.Inspect(t.Context(), id); return err }},
		{"info", func() error { _, err := token.Info(t.Context()); return err }},
		{"generate", func() error {
			_, err := token.Generate(t.Context(), keystore.Spec{ID: []byte("after"), Type: keystore.EC, Size: 256})
			return err
		}},
		{"destroy", func() error { return token.Destroy(t.Context(), []byte("after")) }},
	} {
		several(t, token)
		if err := token.DropSessions(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.use(); err != nil {
			t.Errorf("%s after the sessions were lost: %v", c.name, err)
		}
	}
}

// several makes the pool hold more than one session, so that all of them may be lost together.
func several(t *testing.T, token *keystore.Token) {
	t.Helper()
	until := make(chan struct{})
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			if err := token.Block(context.Background(), until); err != nil {
				t.Error(err)
			}
		})
	}
	for token.OpenSessions() < 3 {
		time.Sleep(time.Millisecond)
	}
	close(until)
	wait.Wait()
}

func TestNoSignatureFailsWhileSessionsAreLost(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	key, _ := generate(t, token, keystore.EC, 256)
	var stop atomic.Bool
	var signed atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for !stop.Load() {
				if err := signDigest(key); err != nil {
					t.Error(err)
					return
				}
				signed.Add(1)
			}
		})
	}
	for range 10 {
		seen := signed.Load()
		for signed.Load() < seen+50 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		if err := token.DropSessions(t.Context()); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wait.Wait()
}

func TestALogoutIsSurvived(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	logout := func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error { return p.Logout(s) }
	if err := token.Raw(t.Context(), logout); err != nil {
		t.Fatal(err)
	}
	if err := signDigest(key); err != nil {
		t.Errorf("sign: %v", err)
	}
	if err := token.Raw(t.Context(), logout); err != nil {
		t.Fatal(err)
	}
	if _, err := token.Inspect(t.Context(), id); err != nil {
		t.Errorf("a private key that nobody may see is taken for absent: %v", err)
	}
}

func TestAKeyDestroyedElsewhereIsReported(t *testing.T) { // not parallel, see elsewhere
	token, cfg := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	if _, err := elsewhere(t, cfg, "destroy", id); err != nil {
		t.Fatal(err)
	}
	if err := signDigest(key); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("sign with a key that another process destroyed: %v", err)
	}
}

func TestAKeyReplacedElsewhereIsRefused(t *testing.T) { // not parallel, see elsewhere
	token, cfg := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	if _, err := elsewhere(t, cfg, "replace", id); err != nil {
		t.Fatal(err)
	}
	if err := signDigest(key); !errors.Is(err, keystore.ErrMismatch) {
		t.Errorf("sign with another key of the same id: %v", err)
	}
	if err := token.DropSessions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := signDigest(key); !errors.Is(err, keystore.ErrMismatch) {
		t.Errorf("the same after a reconnect: %v", err)
	}
}

func TestSessionsStayWithinTheBound(t *testing.T) {
	t.Parallel()
	cfg := softhsmtest.Token(t)
	cfg.MaxSessions = 3
	token := openAs(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	var highest atomic.Int64
	var wait sync.WaitGroup
	for range 64 {
		wait.Go(func() {
			for range 10 {
				if err := signDigest(key); err != nil {
					t.Error(err)
				}
				if n := int64(token.OpenSessions()); n > highest.Load() {
					highest.Store(n)
				}
			}
		})
	}
	wait.Wait()
	if n := highest.Load(); n > 3 {
		t.Errorf("%d sessions were open, want at most 3", n)
	}
	info, err := token.Info(t.Context())
	if err != nil || info.Sessions > 3 || info.Sessions < 1 || info.Label != cfg.Token || info.Manufacturer == "" || info.Serial == "" || info.Library == "" {
		t.Errorf("info %+v, %v", info, err)
	}
}

// What hangs is abandoned, keeps its session, and cannot be joined by more than the pool holds. Not parallel, see
// TestLostSessionsAreSurvived.
func TestAHangingTokenIsUnavailableInTime(t *testing.T) {
	cfg := softhsmtest.Token(t)
	cfg.MaxSessions = 2
	token := openAs(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	token.SetTimeout(50 * time.Millisecond)
	until := make(chan struct{})
	start := time.Now()
	for range 8 {
		if err := token.Block(t.Context(), until); !errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a hanging call: %v", err)
		}
	}
	if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("sign while everything hangs: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("nine deadlines of 50 ms took %v", took)
	}
	if n := token.OpenSessions(); n < 2 || n > 4 {
		t.Errorf("%d sessions are open, want those that hang: 2, and no more than 2 in their place", n)
	}
	close(until)
	token.SetTimeout(time.Minute)
	if err := signDigest(key); err != nil {
		t.Errorf("sign after the hang: %v", err)
	}
}

func TestAKeyThatNobodyWaitsForIsDestroyed(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	token.SetTimeout(2 * time.Millisecond)
	start := time.Now()
	_, err := token.Generate(t.Context(), keystore.Spec{ID: []byte("late"), Type: keystore.RSA, Size: 4096})
	if !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("a deadline of 2 ms for RSA-4096: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the deadline of 2 ms took %v", took)
	}
	token.SetTimeout(time.Minute)
	generate(t, token, keystore.EC, 256) // waits its turn behind the late one
	if n := count(t, token, []byte("late")); n != 0 {
		t.Errorf("%d objects of the late key are left", n)
	}
}

func TestACallerWhoLeavesIsNotKept(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"generate": func() error {
			_, err := token.Generate(ctx, keystore.Spec{ID: []byte{1}, Type: keystore.EC, Size: 256})
			return err
		},
		"seal":    func() error { _, err := token.Seal(ctx, nil, nil); return err },
		"check":   func() error { return token.Check(ctx) },
		"info":    func() error { _, err := token.Info(ctx); return err },
		"destroy": func() error { return token.Destroy(ctx, []byte{1}) },
	} {
		if err := call(); !errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAClosedTokenIsUnavailable(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	neighbour := openAs(t, cfg)
	again, err := neighbour.Signer(t.Context(), id, mustDER(t, key.Public()), keystore.BarBorn)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("sign on a closed token: %v", err)
	}
	if err := signDigest(again); err != nil {
		t.Errorf("another Token on the same slot: %v", err)
	}
}

func TestCloseWaitsForCallsInFlight(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	key, _ := generate(t, token, keystore.EC, 256)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for {
				if err := signDigest(key); errors.Is(err, keystore.ErrUnavailable) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	if err := token.Close(); err != nil {
		t.Error(err)
	}
	wait.Wait()
}

func TestGenerationAndSigningSideBySide(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() {
			for j := range 4 {
				id := fmt.Appendf(nil, "%d-%d", i, j)
				key, err := token.Generate(t.Context(), keystore.Spec{ID: id, Type: keystore.EC, Size: 256})
				if err == nil {
					err = signDigest(key)
				}
				if err == nil {
					err = token.Destroy(t.Context(), id)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}
