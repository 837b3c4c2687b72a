package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

const (
	defaultPatience = 3 * time.Second
	// doubtAfter is how many attempts in a row, over all callers, fail before the token as a whole is in doubt.
	doubtAfter = 3
	// probeTimeout is how long a token in doubt may take to sign before it counts as away, and is asked once more.
	probeTimeout = time.Second
	// maxQuestions is how many questions a token may leave unanswered before it is asked no more. Each may cost a thread.
	maxQuestions = 8
	// drainTimeout is how long a restart of the module waits for the calls in flight.
	drainTimeout = time.Second
	// othersRest is how long the other tokens of a module are left alone before it is restarted again on behalf of one that
	// stays away.
	othersRest = 5 * time.Second
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

// recover asks the token for a signature until there is one. It is alone.
func (t *Token) recover(cause error) {
	start := time.Now()
	q := &questions{token: t, answers: make(chan error), over: make(chan struct{})}
	defer close(q.over)
	for n := 0; ; n++ {
		err := q.ask(n, cause)
		if t.health.over() {
			return
		}
		if err == nil {
			t.health.recovered()
			if t.observe != nil {
				t.observe("recover", time.Since(start), nil)
			}
			return
		}
		cause = err
		t.health.goneAway(err)
		timer := time.NewTimer(between(n, start))
		select {
		case <-timer.C:
		case <-t.health.stopping:
			timer.Stop()
			return
		}
	}
}

// questions are what one recovery has asked the token.
type questions struct {
	token   *Token
	answers chan error
	over    chan struct{} // closed when nobody waits for an answer any more
}

// ask waits for an answer. A token that gives none is away, and is asked again on another session after twice the time:
// what was asked before it stopped answering may be lost for good.
func (q *questions) ask(n int, cause error) error {
	h := &q.token.health
	patience := probeTimeout
	q.begin(n, cause)
	for {
		timer := time.NewTimer(patience)
		select {
		case err := <-q.answers:
			timer.Stop()
			return err
		case <-timer.C:
			h.goneAway(fmt.Errorf("%w: %w", errNoAnswer, cause))
			q.begin(n, cause)
			patience = min(2*patience, time.Minute)
		case <-h.stopping:
			timer.Stop()
			return errClosed
		}
	}
}

// begin asks a question, unless too many are out.
func (q *questions) begin(n int, cause error) {
	h := &q.token.health
	if h.asking.Add(1) > maxQuestions {
		h.asking.Add(-1)
		return
	}
	go func() {
		defer h.asking.Add(-1)
		err := q.token.revive(n, errors.Is(cause, ErrNotFound))
		select {
		case q.answers <- err:
		case <-q.over:
		}
	}()
}

// between is the pause before the next look at a token that is away: short at first, for a hiccup, and never long.
func between(n int, start time.Time) time.Duration {
	switch away := time.Since(start); {
	case away > time.Minute:
		return time.Second
	case away > 10*time.Second:
		return 250 * time.Millisecond
	}
	return min(150*time.Millisecond, time.Duration(n+1)*50*time.Millisecond)
}

// revive makes the token sign with what it takes, and reports why it does not.
func (t *Token) revive(n int, absent bool) error {
	epoch := t.module.epoch.Load()
	err := t.signs(absent)
	if err != nil && !errors.Is(err, ErrPIN) {
		err = t.signs(absent) // once more: one call in fifty may fail for no reason
	}
	if err == nil || errors.Is(err, ErrPIN) {
		return err
	}
	if t.module.rests(n > 8) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if restart := t.module.restart(ctx, epoch); errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) && restart != nil {
		return restart // the last one did not work either: this is why
	} else if restart != nil {
		return fmt.Errorf("%w; %w", err, restart)
	}
	if err = t.signs(false); lacking(err) {
		return t.identify(err)
	}
	return err
}

// lacking reports that the token works and does not have the key, or has another one under its id.
func lacking(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrMismatch) || errors.Is(err, ErrEvidence)
}

// maxIdentifying is how many keys are looked for before a token counts as another one.
const maxIdentifying = 16

// identify decides whether a token that lacks the key it was asked for is still the one that was opened: if any other key
// that was used signs, it is, and lacks only that one. Otherwise it stays away until the right one is back.
func (t *Token) identify(why error) error {
	t.mu.Lock()
	missed := t.probe
	var others []*key
	for _, k := range t.keys {
		if k != missed && len(others) < maxIdentifying {
			others = append(others, k)
		}
	}
	t.mu.Unlock()
	for _, k := range others {
		if err := t.signWith(k); err == nil {
			t.mu.Lock()
			t.probe = nil // the next check makes a new one
			t.mu.Unlock()
			return nil
		} else if !lacking(err) {
			return err
		}
	}
	return fmt.Errorf("token %q is another one, with none of the keys that were used: %w", t.slot.label, why)
}

// signs makes a signature with the key that tells whether the token works. A token without known key only has to log in;
// one that has just missed a key has to be restarted.
func (t *Token) signs(absent bool) error {
	k := t.anyKey()
	if k == nil && absent {
		return ErrNotFound
	}
	return t.signWith(k)
}

// signWith makes a signature on a session of its own, with a key that is looked up anew; without a key it only logs in.
func (t *Token) signWith(k *key) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := t.module.gate.enter(ctx); err != nil {
		return fmt.Errorf("%w: the module is being drained: %w", ErrUnavailable, err)
	}
	defer t.module.gate.leave()
	s, err := t.openSession()
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) {
		if s = t.pool.take(t.module.epoch.Load()); s != nil {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	defer t.discard(s)
	if k == nil {
		return nil
	}
	k.found.Store(nil)
	p, err := k.challenge()
	if err != nil {
		return err
	}
	_, err = t.sign(s, k, p)
	return err
}

// anyKey is the key that tells whether the token signs: the health key, else any that was used.
func (t *Token) anyKey() *key {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.probe != nil {
		return t.probe
	}
	for _, k := range t.keys {
		return k
	}
	return nil
}
