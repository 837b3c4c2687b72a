// Package worker runs a keystore in a process of its own, so that a PKCS#11 module that crashes, hangs or leaks takes
// that process with it and not the certificate authority.
//
// What must never happen: a signature that came over the pipe is released without being verified here; a refused PIN
// is tried again by the next worker; the PIN stands in an argument, the environment or a log; a worker outlives the
// process that started it.
//
// The parent calls [Start] and gets a [Token], a [keystore.Backend]. The child is the same program with other arguments
// and calls [Main]. Between them is a socket pair: requests are multiplexed, those that are ready together are written
// together, and signatures have a frame of their own that needs no reflection. Everything else is a gob, see methods.go.
//
// Deadlines, retries and the recovery of the token are those of the keystore in the child. The parent adds what a
// keystore cannot do for itself: it replaces one that has crashed, that does not answer, or whose module hangs.
//
// The worker is trusted with the PIN and with what is sealed and unsealed. It is not trusted to sign correctly, and it
// has neither the database nor the secrets of the API.
package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"signet/keystore"
)

// The defaults of keystore.Config.
const (
	defaultTimeout  = 10 * time.Second
	defaultPatience = 3 * time.Second
)

var errClosed = fmt.Errorf("the token worker is closed: %w", keystore.ErrUnavailable)

// Config says which program is the worker and which token it opens.
type Config struct {
	Keystore keystore.Config // its functions are called in this process
	Program  string          // path of the executable that calls [Main]
	Args     []string        // its arguments, without the program's name
	Env      []string        // its environment; nil is this process's without the variables that begin with SIGNET_
	Stderr   io.Writer       // gets what the worker writes there, such as the trace of a crash; nil discards it

	// Lost, if set, is told why a worker ended that was not told to.
	Lost func(cause error)
}

// Token is a token in another process. It is safe for concurrent use.
//
// While a worker is being replaced the token is away: operations wait for it as long as Patience says, and then fail at
// once with [keystore.ErrUnavailable]. Those that were in flight fail likewise; signatures, and what changes nothing, are
// tried once more on the next worker.
type Token struct {
	cfg      Config
	stop     context.CancelFunc // ends the supervisor
	ended    sync.WaitGroup
	numbers  atomic.Uint32 // of keys
	sessions atomic.Int64

	telling sync.Mutex // held over a change of state and the telling of it

	mu       sync.Mutex
	current  *process
	changed  chan struct{} // closed when current, state or closed change
	closed   bool
	state    keystore.State
	earlier  int // recoveries of workers that have ended, and those that were a new worker
	failures int // starts that failed, or workers that died young, in a row
	pin      string
	refused  map[[sha256.Size]byte]error // by the PIN
	keys     map[string]*key
}

var _ keystore.Backend = (*Token)(nil)

// Start starts a worker and opens the token in it. Errors are those of [keystore.Open].
func Start(ctx context.Context, cfg Config) (*Token, error) {
	if cfg.Keystore.Timeout <= 0 {
		cfg.Keystore.Timeout = defaultTimeout
	}
	if cfg.Keystore.Patience <= 0 {
		cfg.Keystore.Patience = defaultPatience
	}
	t := &Token{
		cfg: cfg, changed: make(chan struct{}), keys: map[string]*key{},
		state: keystore.State{Up: true, Since: time.Now()},
		pin:   cfg.Keystore.PIN, refused: map[[sha256.Size]byte]error{},
	}
	p, err := t.spawn(ctx, cfg.Keystore.Later)
	if err != nil {
		return nil, fmt.Errorf("start token worker: %w", err)
	}
	t.change(func() { t.current, t.state = p, t.told(p) })
	ctx, t.stop = context.WithCancel(context.WithoutCancel(ctx)) // ctx is that of the start, not of the service
	t.ended.Go(func() { t.supervise(ctx, p) })
	return t, nil
}

// Timeout is the deadline of one operation.
func (t *Token) Timeout() time.Duration { return t.cfg.Keystore.Timeout }

// Close lets the calls in flight finish, logs out and ends the worker.
func (t *Token) Close() error {
	t.mu.Lock()
	closed, p := t.closed, t.current
	t.current, t.closed = nil, true
	t.announce()
	t.mu.Unlock()
	if closed {
		return nil
	}
	t.stop()
	var err error
	if p != nil {
		ctx, cancel := context.WithTimeout(context.Background(), t.Timeout())
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

// announce wakes those who wait for a change. t.mu is held.
func (t *Token) announce() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// do lets f use the live worker, and the next one if that is lost meanwhile and f may be done again.
func (t *Token) do(ctx context.Context, again bool, f func(context.Context, *process) error) error {
	start := time.Now()
	p, err := t.worker(ctx)
	if err != nil {
		return err
	}
	if err = f(ctx, p); !again || !errors.Is(err, errLost) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, max(t.Timeout()-time.Since(start), t.Timeout()/4))
	defer cancel()
	if p, err = t.worker(ctx); err != nil {
		return err
	}
	return f(ctx, p)
}

func (t *Token) observe(op string, took time.Duration, err error) {
	if t.cfg.Keystore.Observe != nil {
		t.cfg.Keystore.Observe(op, took, err)
	}
}
