package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signet/keystore"
)

// State is how the token is doing: what the worker's keystore says, and away while there is no worker.
func (t *Token) State() keystore.State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// change lets f change the token under its lock, and tells of a token that went away or is back. Of the state f sets
// what the worker knows; since when that has been so is known here. The end of a token that is closed is no news.
func (t *Token) change(f func()) {
	t.telling.Lock()
	defer t.telling.Unlock()
	t.mu.Lock()
	was := t.state
	f()
	t.state.Since, t.state.Outage = was.Since, was.Outage
	if t.state.Up != was.Up {
		t.state.Since = time.Now()
	}
	if t.state.Up && !was.Up {
		t.state.Outage = time.Since(was.Since)
	}
	now, closed := t.state, t.closed
	t.announce()
	t.mu.Unlock()
	if now.Up != was.Up && !closed && t.cfg.Keystore.Changed != nil {
		t.cfg.Keystore.Changed(now)
	}
}

// told is what a worker said last, as a part of the token's state. t.mu is held.
func (t *Token) told(p *process) keystore.State {
	s := p.state
	s.Recoveries += t.earlier
	return s
}

// worker returns the live worker, waiting for the next one while it starts.
func (t *Token) worker(ctx context.Context) (p *process, err error) {
	err = t.await(ctx, func() bool {
		p = t.current
		return p != nil && !p.over()
	})
	return p, err
}

// Await is [keystore.Token.Await].
func (t *Token) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout())
	defer cancel()
	return t.await(ctx, func() bool { return t.state.Up })
}

// await waits until something is so, while a token that is away has patience left. enough is called with t.mu held.
func (t *Token) await(ctx context.Context, enough func() bool) error {
	for {
		t.mu.Lock()
		state, changed, closed, fine := t.state, t.changed, t.closed, enough()
		t.mu.Unlock()
		switch {
		case closed:
			return errClosed
		case fine:
			return nil
		}
		left := t.cfg.Keystore.Patience
		if !state.Up {
			left -= time.Since(state.Since)
		}
		if left <= 0 || keystore.IsImpatient(ctx) {
			return away(state)
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return unanswered(ctx)
		}
		timer.Stop()
	}
}

func away(s keystore.State) error {
	if s.Cause == nil { // its worker has just ended
		return errLost
	}
	return fmt.Errorf("%w since %s: %w", keystore.ErrUnavailable, s.Since.UTC().Format(time.RFC3339), s.Cause)
}

func unanswered(ctx context.Context) error {
	return fmt.Errorf("%w: no answer in time: %w", keystore.ErrUnavailable, context.Cause(ctx))
}

// unavailable makes sure that err says so.
func unavailable(err error) error {
	if errors.Is(err, keystore.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
}
