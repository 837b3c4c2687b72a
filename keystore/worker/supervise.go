package worker

import (
	"context"
	"errors"
	"time"

	"signet/keystore"
)

const (
	patience   = 2                      // starts that fail in a row before callers no longer wait for the next worker
	firstPause = 100 * time.Millisecond // after the second failure in a row; it doubles up to longestPause
	// longestPause is the longest time between two attempts, and so how late the return of a token may be noticed.
	longestPause = 500 * time.Millisecond
	// settled is how long a worker has to live for its death to count as the first.
	settled = 10 * time.Second
	// reaping is how long a killed worker is waited for. One that hangs in a device driver cannot be killed; the next
	// one is started beside it.
	reaping = 5 * time.Second
)

// supervise replaces workers until the token is closed or refuses the PIN.
func (t *Token) supervise(ctx context.Context, p *process) {
	for {
		<-p.dead
		p.kill()
		select {
		case <-p.exited:
		case <-time.After(reaping):
		}
		if !t.lost(p) {
			return
		}
		if p = t.replace(ctx); p == nil {
			return
		}
	}
}

// lost takes note of a dead worker and reports whether another one is wanted.
func (t *Token) lost(p *process) bool {
	lived, cause := time.Since(p.born), p.cause()
	t.mu.Lock()
	t.current = nil
	if lived >= settled {
		t.failures = 0
	}
	t.failures, t.failure = t.failures+1, cause
	final := t.final
	t.announce()
	t.mu.Unlock()
	if !errors.Is(final, errClosed) && t.cfg.Lost != nil {
		t.cfg.Lost(cause, lived)
	}
	return final == nil
}

// replace starts workers, with pauses, until one has opened the token; nil when none is wanted any more.
func (t *Token) replace(ctx context.Context) *process {
	for {
		if !t.pause(ctx) {
			return nil
		}
		p, err := t.spawn(ctx)
		if errors.Is(err, keystore.ErrPIN) {
			t.refuse(err)
		}
		t.mu.Lock()
		wanted := t.final == nil
		switch {
		case err != nil:
			t.failures, t.barren, t.failure = t.failures+1, t.barren+1, err
		case wanted:
			t.current, t.barren = p, 0
		}
		t.announce()
		t.mu.Unlock()
		switch {
		case err == nil && wanted:
			return p
		case err == nil:
			p.fail(errClosed)
			p.kill()
			<-p.exited
			return nil
		case !wanted:
			return nil
		}
	}
}

// pause waits before the next attempt, not at all after the first failure, and reports whether one is wanted.
func (t *Token) pause(ctx context.Context) bool {
	t.mu.Lock()
	failures, final := t.failures, t.final
	t.mu.Unlock()
	if final != nil {
		return false
	}
	if failures < 2 {
		return true
	}
	timer := time.NewTimer(min(longestPause, firstPause<<min(failures-2, 10)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
