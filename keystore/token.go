package keystore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

var (
	errClosed  = fmt.Errorf("the keystore is closed: %w", ErrUnavailable)
	errNoToken = errors.New("no such token")
)

const (
	defaultTimeout = 10 * time.Second
	// defaultSessions lets 32 signatures wait for a distant HSM at once. A token in this machine never sees so many:
	// sessions are opened when a call finds none free, and its calls are over sooner.
	defaultSessions = 32
)

// Token is a logged-in PKCS#11 token. It is safe for concurrent use.
type Token struct {
	module  *module
	slot    *slot
	pool    *pool
	timeout time.Duration
	observe func(op string, took time.Duration, err error)

	pin       []byte // guarded by slot.mu; nil once the token is closed
	pinSource func() (string, error)

	health health
	making chan struct{} // held over the look for, or the making of, the keys that Signet itself needs:
	kek    atomic.Pointer[current]
	bar    atomic.Int32 // Bar that Signet's own keys are held to
	probe  *key         // signs when the token's health is in doubt
	attest atomic.Pointer[attester]

	mu     sync.Mutex
	closed bool
	keys   map[string]*key    // by CKA_ID
	keks   map[string]*secret // by CKA_ID
}

// Open loads the module, finds the token by label and logs in. Errors: [ErrPIN], [ErrUnavailable], or a
// description of what is wrong with the configuration.
func Open(ctx context.Context, cfg Config) (*Token, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	t, err := within(ctx, func() (*Token, error) { return open(ctx, cfg) }, func(t *Token) { t.Close() })
	if err != nil {
		return nil, fmt.Errorf("open token %q: %w", cfg.Token, err)
	}
	return t, nil
}

func open(ctx context.Context, cfg Config) (*Token, error) {
	m, err := useModule(cfg.Module, cfg.InitArgs, cfg.Later)
	if err != nil {
		return nil, err
	}
	t, err := connect(ctx, m, cfg)
	if err != nil {
		return nil, errors.Join(err, m.release(ctx))
	}
	return t, nil
}

// connect finds the token and logs in once, so that a wrong PIN is known now.
func connect(ctx context.Context, m *module, cfg Config) (*Token, error) {
	reopen, err := m.gate.drain(ctx)
	if err != nil {
		return nil, fmt.Errorf("list slots: %w: %w", ErrUnavailable, err)
	}
	found, err := m.find(cfg.Token)
	if err != nil && !cfg.Later {
		reopen()
		return nil, err
	}
	var listing *listed
	if err == nil {
		listing = &found
	}
	t := newToken(m, m.slotOf(cfg.Token, listing), cfg, found.info)
	reopen()
	if err == nil {
		_, err = call(ctx, t, operation[struct{}]{name: "connect", run: nothing})
	}
	switch {
	case err == nil:
		return t, nil
	case cfg.Later && !errors.Is(err, ErrPIN):
		t.suspect(err)
		return t, nil
	}
	return nil, errors.Join(err, t.disconnect(ctx))
}

func newToken(m *module, s *slot, cfg Config, info pkcs11.TokenInfo) *Token {
	t := &Token{
		module: m, slot: s, timeout: cfg.Timeout, observe: cfg.Observe,
		pool: newPool(bound(cfg.MaxSessions, info)),
		pin:  []byte(cfg.PIN), pinSource: cfg.PINSource,
		keys: map[string]*key{}, keks: map[string]*secret{}, making: make(chan struct{}, 1),
	}
	t.health.start(cfg)
	return t
}

// nothing is an operation that is over once a session is open and logged in.
func nothing(*session) (struct{}, error) { return struct{}{}, nil }

// bound is the number of sessions: what is configured, and no more than the token says it has.
func bound(configured int, info pkcs11.TokenInfo) int {
	n := configured
	if n <= 0 {
		n = max(defaultSessions, 4*runtime.NumCPU())
	}
	if m := info.MaxRwSessionCount; m != pkcs11.CK_EFFECTIVELY_INFINITE && m != pkcs11.CK_UNAVAILABLE_INFORMATION {
		n = min(n, int(m))
	}
	if m := info.MaxSessionCount; m != pkcs11.CK_EFFECTIVELY_INFINITE && m != pkcs11.CK_UNAVAILABLE_INFORMATION {
		n = min(n, int(m))
	}
	return max(1, n)
}

// Close drains the calls in flight, logs out and finalizes the module. Closing the last session of an application
// is what logs it out (PKCS#11 2.40, section 5.6), so another Token on the same slot stays logged in.
func (t *Token) Close() error {
	t.mu.Lock()
	closed := t.closed
	t.closed = true
	t.mu.Unlock()
	if closed {
		return nil
	}
	t.health.stop()
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	longer, stop := context.WithTimeout(context.Background(), t.timeout+drainTimeout)
	defer stop()
	_, err := within(longer, func() (struct{}, error) { // a module that hangs keeps locks that know nothing of ctx
		return struct{}{}, errors.Join(t.disconnect(ctx), t.module.release(ctx))
	}, func(struct{}) {})
	return err
}

func (t *Token) disconnect(ctx context.Context) error {
	idle, err := t.pool.close(ctx)
	if err != nil {
		return fmt.Errorf("close token: calls are still in flight: %w", err)
	}
	if err := t.module.gate.enter(ctx); err != nil {
		return fmt.Errorf("close token: %w", err)
	}
	defer t.module.gate.leave()
	for _, s := range idle {
		t.discard(s)
	}
	t.slot.mu.Lock()
	defer t.slot.mu.Unlock()
	clear(t.pin)
	t.pin = nil
	return nil
}

// Sessions is the number of sessions that are open.
func (t *Token) Sessions() int { return t.pool.size() }
