package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultPatience = 3 * time.Second
	// doubtAfter is how many attempts in a row, over all callers, fail before the token as a whole is in doubt.
	doubtAfter = 3
	// absenceEvery is how often a key that is not found any more puts the whole token in doubt.
	absenceEvery = 30 * time.Second
)

// State is how a token is doing.
type State struct {
	Up         bool
	Hung       bool          // away, because calls are not answered and keep it from being restarted
	Since      time.Time     // of the last change
	Cause      error         // why it is away; nil when it is up
	Outage     time.Duration // how long the last outage took; 0 before the first
	Recoveries int           // outages that ended, and doubts that a session or a restart of the module cleared
}

var (
	errNoAnswer = errors.New("the token does not answer")
	errInFlight = errors.New("calls are still in flight")
)

// health is a token's circuit breaker and what closes it again. Operations report failures; when several fail in a row, or
// one is not answered at all, one goroutine asks the token for a signature and does what is needed to get it: a session,
// a login, a restart of the module. While the token is away operations wait, and once it has been away for longer than
// patience they fail at once, so that nothing piles up behind it.
type health struct {
	patience time.Duration
	changed  func(State)

	failures atomic.Int32 // failed attempts since the last good one
	asking   atomic.Int32 // questions that are not answered yet, at most maxQuestions
	away     atomic.Bool  // !state.Up, for the hot path

	mu       sync.Mutex
	state    State
	back     chan struct{} // while away: closed when the token is back
	settled  chan struct{} // while a recovery runs: closed when its first verdict is known
	running  bool
	verdict  time.Time // when the last recovery ended
	stopping chan struct{}
	stopped  bool
}

func (h *health) start(cfg Config) {
	h.patience, h.changed = cfg.Patience, cfg.Changed
	if h.patience <= 0 {
		h.patience = defaultPatience
	}
	h.state = State{Up: true, Since: time.Now()}
	h.stopping = make(chan struct{})
}

// stop ends the recovery. What it has asked the token is answered later, to nobody.
func (h *health) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped {
		h.stopped = true
		close(h.stopping)
	}
}

// over reports that the recovery has to end, and lets those go on who wait for its verdict.
func (h *health) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		h.settle()
	}
	return h.stopped
}

// State is how the token is doing now.
func (t *Token) State() State {
	t.health.mu.Lock()
	defer t.health.mu.Unlock()
	return t.health.state
}

// await waits while the token is away, for as long as patience lasts. It fails with [ErrUnavailable] and the cause.
func (h *health) await(ctx context.Context) error {
	if !h.away.Load() {
		return nil
	}
	h.mu.Lock()
	state, back := h.state, h.back
	h.mu.Unlock()
	if state.Up {
		return nil
	}
	away := fmt.Errorf("%w since %s: %w", ErrUnavailable, state.Since.UTC().Format(time.RFC3339), state.Cause)
	left := h.patience - time.Since(state.Since)
	if left <= 0 || IsImpatient(ctx) {
		return away
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-back:
		return nil
	case <-timer.C:
		return away
	case <-ctx.Done():
		return unanswered(ctx)
	}
}

// succeeded notes an attempt that worked.
func (h *health) succeeded() {
	if h.failures.Load() != 0 {
		h.failures.Store(0)
	}
}

// failed notes an attempt that did not. The channel, if any, is closed when it is known whether another one has a chance.
func (t *Token) failed(err error) <-chan struct{} {
	if t.health.failures.Add(1) >= doubtAfter {
		return t.suspect(err)
	}
	return nil
}

// suspect makes sure that the token's health is being looked into. The channel is closed when the first verdict is known.
func (t *Token) suspect(err error) <-chan struct{} {
	t.health.mu.Lock()
	defer t.health.mu.Unlock()
	return t.doubt(err)
}

// doubt is suspect while health is locked.
func (t *Token) doubt(err error) <-chan struct{} {
	h := &t.health
	if !h.running && !h.stopped {
		h.running = true
		h.settled = make(chan struct{})
		go t.recover(err)
	}
	if h.settled == nil {
		h.settled = make(chan struct{})
		close(h.settled)
	}
	return h.settled
}

// missing is told that a key which was there is not found by somebody who began to look at the given time. SoftHSM2 says
// so, and goes on saying so, when its folder was away for a moment; only a restart of the module tells. It reports whether
// the key is worth another look: one look for each verdict on the token, and a verdict for each time that the key is
// lost.
func (t *Token) missing(ctx context.Context, k *missed, began time.Time, err error) bool {
	h := &t.health
	h.mu.Lock()
	now := time.Now().UnixNano()
	due := now-k.Load() > int64(absenceEvery)
	switch {
	case began.Before(h.verdict):
		h.mu.Unlock()
		return true
	case !h.running && !due:
		h.mu.Unlock()
		return false
	case !h.running:
		k.Store(now)
	}
	verdict := t.doubt(err)
	h.mu.Unlock()
	return wait(ctx, verdict) == nil
}

// goneAway opens the circuit breaker.
func (h *health) goneAway(cause error) {
	h.mu.Lock()
	was := h.state
	if was.Up {
		h.state = State{Since: time.Now(), Cause: cause, Outage: was.Outage, Recoveries: was.Recoveries}
		h.back = make(chan struct{})
	} else {
		h.state.Cause = cause
	}
	h.state.Hung = errors.Is(cause, errNoAnswer) || errors.Is(cause, errInFlight)
	h.away.Store(true)
	h.settle()
	state := h.state
	h.mu.Unlock()
	if was.Up && h.changed != nil {
		h.changed(state)
	}
}

// settle lets those go on who wait for a verdict. h is locked.
func (h *health) settle() {
	select {
	case <-h.settled:
	default:
		close(h.settled)
	}
}

// recovered closes the circuit breaker and ends the recovery.
func (h *health) recovered() {
	h.failures.Store(0)
	h.mu.Lock()
	was := h.state
	h.state.Recoveries++
	if !was.Up {
		h.state = State{Up: true, Since: time.Now(), Outage: time.Since(was.Since), Recoveries: h.state.Recoveries}
		close(h.back)
	}
	h.running, h.verdict = false, time.Now()
	h.away.Store(false)
	h.settle()
	state := h.state
	h.mu.Unlock()
	if !was.Up && h.changed != nil {
		h.changed(state)
	}
}
