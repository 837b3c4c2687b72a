// Package worker runs a keystore in a process of its own, so that a PKCS#11 module that crashes, hangs or leaks takes
// that process with it and not the certificate authority.
//
// What must never happen: a signature that came over the pipe is released without being verified here; a refused PIN
// is tried again by the next worker; the PIN stands in an argument, the environment or a log; a worker outlives the
// process that started it.
//
// The parent calls [Start] and gets a [Token] with the methods of [keystore.Token]. The child is the same program
// with other arguments and calls [Main]. Between them is a socket pair: requests are multiplexed, those that are ready
// together are written together, and signatures have a frame of their own that needs no reflection. Everything else
// is a gob, see methods.go.
//
// The worker is trusted with the PIN and with what is sealed and unsealed. It is not trusted to sign correctly, and it
// has neither the database nor the secrets of the API.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"signet/keystore"
)

const (
	defaultTimeout = 10 * time.Second // of keystore.Config
	slowFactor     = 6                // how much longer making a key may take
)

var errClosed = fmt.Errorf("the token worker is closed: %w", keystore.ErrUnavailable)

// Config says which program is the worker and which token it opens.
type Config struct {
	Keystore keystore.Config // its Observe is called in this process
	Program  string          // path of the executable that calls [Main]
	Args     []string        // its arguments, without the program's name
	Env      []string        // its environment; nil is this process's without the variables that begin with SIGNET_
	Stderr   io.Writer       // gets what the worker writes there, such as the trace of a crash; nil discards it

	// Lost, if set, is told of every worker that ended unasked: why, and how long it had served.
	Lost func(cause error, lived time.Duration)
}

// Token is a token in another process. It is safe for concurrent use.
//
// A worker that dies, or in which nothing works for as long as the deadline of a call, is killed and replaced. Calls in
// flight fail with [keystore.ErrUnavailable]; signatures and calls that change nothing are tried once more on the next
// worker, within their deadline. A PIN that was refused once ends that: all calls fail with [keystore.ErrPIN].
type Token struct {
	cfg     Config
	timeout time.Duration
	stop    context.CancelFunc // ends the supervisor
	ended   sync.WaitGroup

	keyNumber atomic.Uint32

	mu       sync.Mutex
	current  *process
	changed  chan struct{} // closed when current, failures or final change
	failures int           // starts that failed, or workers that died young, in a row
	barren   int           // starts that failed since one succeeded
	failure  error         // the last of all these
	final    error         // no worker will be started any more
	keys     map[string]*key
}

// Start starts a worker and opens the token in it. Errors are those of [keystore.Open].
func Start(ctx context.Context, cfg Config) (*Token, error) {
	if cfg.Keystore.Timeout <= 0 {
		cfg.Keystore.Timeout = defaultTimeout
	}
	t := &Token{cfg: cfg, timeout: cfg.Keystore.Timeout, changed: make(chan struct{}), keys: map[string]*key{}}
	p, err := t.spawn(ctx)
	if err != nil {
		return nil, fmt.Errorf("start token worker: %w", err)
	}
	t.current = p
	ctx, t.stop = context.WithCancel(context.WithoutCancel(ctx)) // ctx is that of the start, not of the service
	t.ended.Go(func() { t.supervise(ctx, p) })
	return t, nil
}

// Close lets the calls in flight finish, logs out and ends the worker.
func (t *Token) Close() error {
	t.mu.Lock()
	closed := errors.Is(t.final, errClosed)
	p := t.current
	t.current, t.final = nil, errClosed
	t.announce()
	t.mu.Unlock()
	if closed {
		return nil
	}
	t.stop()
	var err error
	if p != nil {
		ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
		defer cancel()
		if _, err = finish.on(ctx, p, true); errors.Is(err, errLost) {
			err = nil // it has ended, which is what was wanted
		}
		p.fail(errClosed)
	}
	t.ended.Wait()
	if err != nil {
		return fmt.Errorf("close token worker: %w", err)
	}
	return nil
}

// announce wakes those who wait for a worker. t.mu is held.
func (t *Token) announce() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// refuse ends all attempts: the token has refused the PIN, and some tokens lock after three refusals.
func (t *Token) refuse(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.final == nil {
		t.final = err
		t.announce()
	}
}

// worker returns the live worker, waiting for the next one while it starts. It fails at once when two starts in a row
// have failed: callers must not pile up behind a token that is away.
func (t *Token) worker(ctx context.Context) (*process, error) {
	for {
		t.mu.Lock()
		p, changed, barren, failure, final := t.current, t.changed, t.barren, t.failure, t.final
		t.mu.Unlock()
		switch {
		case final != nil:
			return nil, final
		case p != nil && !p.over():
			return p, nil
		case barren >= patience:
			return nil, unavailable(failure)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the token worker is starting: %w", keystore.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// do lets f use the live worker, and the next one if that is lost meanwhile and f may be done again.
func (t *Token) do(ctx context.Context, again bool, f func(*process) error) error {
	for ; ; again = false {
		p, err := t.worker(ctx)
		if err != nil {
			return err
		}
		if err = f(p); !again || !errors.Is(err, errLost) {
			return err
		}
	}
}

// unavailable makes sure that err says so.
func unavailable(err error) error {
	if errors.Is(err, keystore.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
}

func (t *Token) observe(op string, took time.Duration, err error) {
	if t.cfg.Keystore.Observe != nil {
		t.cfg.Keystore.Observe(op, took, err)
	}
}
