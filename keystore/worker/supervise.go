package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signet/keystore"
)

const (
	firstPause = 100 * time.Millisecond // after the second failure in a row; it doubles up to longestPause
	// longestPause is the longest time between two attempts, and so how late the return of a module may be noticed.
	longestPause = 300 * time.Millisecond
	// settled is how long a worker has to live for its death to count as the first.
	settled = 10 * time.Second
	// maxIdentifying is how many keys are looked for before a token counts as another one.
	maxIdentifying = 16
	// reaping is how long a killed worker is waited for. The next one is started beside one that does not end.
	reaping = 5 * time.Second
	// lastWords is how long a worker that ends by itself may take.
	lastWords = 200 * time.Millisecond
)

// supervise replaces workers until the token is closed.
func (t *Token) supervise(ctx context.Context, p *process) {
	for p != nil {
		<-p.dead
		p.bury()
		cause := p.cause()
		if t.cfg.Lost != nil && !errors.Is(cause, errClosed) {
			t.cfg.Lost(cause)
		}
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
		if err == nil {
			if err = t.try(ctx, p); err != nil {
				p.fail(err)
				p.bury()
			}
		}
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

// try asks a worker that replaces another one for a signature: a module that hangs, or fails, in C_Sign may well log in. One
// that looks for its token is left to that. It has as long as any operation: when the module answers, it is there already.
func (t *Token) try(ctx context.Context, p *process) error {
	t.mu.Lock()
	up := p.state.Up
	t.mu.Unlock()
	if !up {
		return nil
	}
	ctx, cancel := context.WithTimeout(keystore.Impatient(ctx), t.Timeout())
	defer cancel()
	if err := t.identify(ctx, p); err != nil {
		return err
	}
	_, err := check.on(ctx, p, true)
	return err
}

// identify makes sure that a new worker has not found another token under the label: one of the keys that were used is in
// it, if any was.
func (t *Token) identify(ctx context.Context, p *process) (err error) {
	t.mu.Lock()
	var used []*key
	for _, k := range t.keys {
		if !k.attests && len(used) < maxIdentifying { // an attestation key would be made where there is none
			used = append(used, k)
		}
	}
	t.mu.Unlock()
	for _, k := range used {
		if err = p.introduce(ctx, k); !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrMismatch) && !errors.Is(err, keystore.ErrEvidence) {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("%w: it is another token, with none of the keys that were used: %w", keystore.ErrUnavailable, err)
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
