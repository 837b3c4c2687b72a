package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"
)

const (
	// probeTimeout is how long a token in doubt may take to sign before it counts as away, and is asked once more.
	probeTimeout = time.Second
	// maxQuestions is how many questions a token may leave unanswered before it is asked no more. Each may cost a thread.
	maxQuestions = 8
	// drainTimeout is how long a restart of the module waits for the calls in flight.
	drainTimeout = time.Second
	// othersRest is how long the other tokens of a module are left alone before it is restarted again on behalf of one that
	// stays away.
	othersRest = 5 * time.Second
	// maxIdentifying is how many keys are looked for before a token counts as another one.
	maxIdentifying = 16
)

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

// identify decides whether a token that lacks the key it was asked for is still the one that was opened: if any other key
// that was used signs, or none was used, it is, and lacks only that one. Otherwise it stays away until the right one is
// back.
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
			t.forgetProbe()
			return nil
		} else if !lacking(err) {
			return err
		}
	}
	if len(others) == 0 { // nothing tells, and nothing can be signed by mistake
		t.forgetProbe()
		return nil
	}
	return fmt.Errorf("token %q is another one, with none of the keys that were used: %w", t.slot.label, why)
}

// forgetProbe lets the next check look for the health key, and make a new one if it is gone.
func (t *Token) forgetProbe() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.probe != nil {
		delete(t.keys, string(t.probe.id))
	}
	t.probe = nil
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
