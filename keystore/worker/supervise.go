package worker

import (
	"context"
	"time"

	"signet/keystore"
)

const (
	firstPause = 100 * time.Millisecond // after the second failure in a row; it doubles up to longestPause
	// longestPause is the longest time between two attempts, and so how late the return of a module may be noticed.
	longestPause = 500 * time.Millisecond
	// settled is how long a worker has to live for its death to count as the first.
	settled = 10 * time.Second
	// reaping is how long a killed worker is waited for. The next one is started beside one that does not end.
	reaping = 5 * time.Second
)

// supervise replaces workers until the token is closed.
func (t *Token) supervise(ctx context.Context, p *process) {
	for p != nil {
		<-p.dead
		p.bury()
		cause := p.cause()
		t.change(func() {
			if time.Since(p.born) >= settled {
				t.failures = 0
			}
			t.current, t.failures, t.earlier = nil, t.failures+1, t.earlier+p.state.Recoveries
			t.state = keystore.State{Cause: cause, Recoveries: t.earlier}
		})
		p = t.replace(ctx)
	}
}

// replace starts workers, with pauses, until one has opened the token or looks for it; nil when the token is closed.
func (t *Token) replace(ctx context.Context) *process {
	for t.pause(ctx) {
		p, err := t.spawn(ctx, true)
		if err != nil {
			t.change(func() { t.failures, t.state.Cause = t.failures+1, err })
			continue
		}
		wanted := false
		t.change(func() {
			if wanted = !t.closed; !wanted {
				return
			}
			if t.current = p; p.state.Up {
				t.earlier++
			}
			t.state = t.told(p)
		})
		if !wanted {
			p.fail(errClosed)
			p.bury()
			return nil
		}
		return p
	}
	return nil
}

// pause waits before the next attempt, not at all after the first failure, and reports whether one is wanted.
func (t *Token) pause(ctx context.Context) bool {
	t.mu.Lock()
	failures, closed := t.failures, t.closed
	t.mu.Unlock()
	if closed || failures < 2 {
		return !closed
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
