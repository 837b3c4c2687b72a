package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"
)

// generateFactor is how much longer than any other operation the generation of a key may take: a busy software token
// needs many seconds for the primes of RSA-4096.
const generateFactor = 6

// hangAfter is how long a call may go unanswered before the whole token is in doubt, whoever's deadline ended it; less for
// a token whose own deadline is short, of which impatient callers wait for half.
const hangAfter = 4 * time.Second

// operation is one use of a session. run is called in a goroutine that has the session to itself; it may be called
// again, on another session. late gets the result when the caller has given up waiting, on the same session.
type operation[T any] struct {
	name    string
	slow    bool          // a key is being made: the deadline is longer
	probing bool          // what the token answers says nothing of its health: the attempt provokes errors
	once    bool          // never repeat it: it cannot be told whether a failed attempt did its work
	known   *missed       // of the key that is used, if it was found before: that it is gone needs a second look
	lock    chan struct{} // if set, held from before the session is taken until run has returned, waited for or not
	run     func(*session) (T, error)
	late    func(*session, T)
}

// call runs an operation: within the token's deadline, again on a new session when the first was lost. It fails
// with what explain makes of the last error.
func call[T any](ctx context.Context, t *Token, o operation[T]) (T, error) {
	deadline := t.timeout
	if o.slow {
		deadline *= generateFactor
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	start := time.Now()
	v, err := attempts(ctx, t, o)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && time.Since(start) >= min(t.timeout/3, hangAfter) {
			t.suspect(err)
		}
		err = explain(o.name, err)
	}
	if t.observe != nil {
		t.observe(o.name, time.Since(start), err)
	}
	return v, err
}

// attempts runs the operation until it works, is hopeless, or has used up its time. While the token is away it waits, and
// what failed before that is forgotten.
func attempts[T any](ctx context.Context, t *Token, o operation[T]) (v T, err error) {
	retries, fresh := 0, false
	for {
		if t.health.away.Load() {
			if err := t.health.await(ctx); err != nil {
				return v, err
			}
			retries, fresh = 0, true
		}
		began := time.Now()
		v, err = attempt(ctx, t, o, fresh)
		c := classOf(err)
		switch {
		case err == nil:
			t.health.succeeded()
			if o.known != nil && o.known.Load() != 0 {
				o.known.Store(0)
			}
			return v, nil
		case ctx.Err() != nil || o.once:
			return v, err
		case c == classBusy:
			if err := t.awaitSession(ctx); err != nil {
				return v, err
			}
		case errors.Is(err, ErrNotFound) && o.known != nil && t.missing(ctx, o.known, began, err):
		case c.retried() && retries < maxRetries:
			retries++
			var verdict <-chan struct{}
			if c.suspicious() && !o.probing {
				verdict = t.failed(err)
			}
			if verdict != nil && wait(ctx, verdict) != nil {
				return v, unanswered(ctx)
			}
			if err := pause(ctx, retries); err != nil {
				return v, err
			}
		default:
			return v, err
		}
		fresh = true
	}
}

// pause waits before another attempt: not at all at first, as most failures are over with a new session.
func pause(ctx context.Context, retries int) error {
	if retries == 1 {
		return nil
	}
	timer := time.NewTimer(min(time.Millisecond<<retries, 100*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return unanswered(ctx)
	}
}

// awaitSession reacts to CKR_SESSION_COUNT. With sessions of our own, the smaller pool makes the next attempt wait
// for one of them; with none, somebody else has to let go first.
func (t *Token) awaitSession(ctx context.Context) error {
	if t.pool.shrink() {
		return nil
	}
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, pkcs11.Error(pkcs11.CKR_SESSION_COUNT))
	}
}

type outcome[T any] struct {
	value T
	err   error
}

// attempt runs the operation once, on a fresh session if the last one failed. When ctx ends before the module answers,
// the call goes on alone: its session and its place in the gate come back when the module returns, not before.
func attempt[T any](ctx context.Context, t *Token, o operation[T], fresh bool) (v T, err error) {
	if o.lock != nil {
		select {
		case o.lock <- struct{}{}:
		case <-ctx.Done():
			return v, unanswered(ctx)
		}
	}
	unlock := func() {
		if o.lock != nil {
			<-o.lock
		}
	}
	permit, err := t.admit(ctx)
	if err != nil {
		unlock()
		return v, err
	}
	answer := make(chan outcome[T])
	go func() {
		defer permit.end()
		defer t.module.gate.leave()
		defer unlock()
		s, err := t.session(fresh)
		if err != nil {
			deliver(ctx, answer, outcome[T]{err: err})
			return
		}
		v, err := o.run(s)
		switch {
		case err != nil:
			t.discard(s)
			deliver(ctx, answer, outcome[T]{v, err})
		case o.late == nil:
			t.pool.put(s) // before the caller goes on: the next call finds it
			deliver(ctx, answer, outcome[T]{value: v})
		default:
			if !deliver(ctx, answer, outcome[T]{value: v}) {
				o.late(s, v)
			}
			t.pool.put(s)
		}
	}()
	select {
	case a := <-answer:
		return a.value, a.err
	case <-ctx.Done():
		permit.abandon()
		return v, unanswered(ctx)
	}
}

// admit takes a permit and a place in the gate.
func (t *Token) admit(ctx context.Context) (*permit, error) {
	permit, err := t.pool.acquire(ctx)
	if err != nil {
		if errors.Is(err, ErrUnavailable) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: no free session: %w", ErrUnavailable, err)
	}
	if err := t.module.gate.enter(ctx); err != nil {
		permit.end()
		return nil, fmt.Errorf("%w: the module is being drained: %w", ErrUnavailable, err)
	}
	return permit, nil
}

// deliver hands the outcome to the caller and reports whether it is still there.
func deliver[T any](ctx context.Context, answer chan<- outcome[T], o outcome[T]) bool {
	select {
	case answer <- o:
		return true
	case <-ctx.Done():
		return false
	}
}

func unanswered(ctx context.Context) error {
	return fmt.Errorf("%w: no answer in time: %w", ErrUnavailable, context.Cause(ctx))
}

// within runs f in a goroutine of its own until ctx ends; late gets a result that nobody waits for any more.
func within[T any](ctx context.Context, f func() (T, error), late func(T)) (v T, err error) {
	answer := make(chan outcome[T])
	go func() {
		v, err := f()
		if !deliver(ctx, answer, outcome[T]{v, err}) && err == nil {
			late(v)
		}
	}()
	select {
	case a := <-answer:
		return a.value, a.err
	case <-ctx.Done():
		return v, unanswered(ctx)
	}
}
