package ca

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"signet/fault"
)

const (
	// aheadBatch is how many answers are signed ahead before as long a pause as that took, and aheadLook how many certificates
	// are looked at for those that need one.
	aheadBatch = 32
	aheadLook  = 500
	// aheadCAs is how many CAs have answers signed ahead at once.
	aheadCAs = 2
	// aheadRest is how many times as long as it took a look is followed by none.
	aheadRest = 10
	// maxAheadPause is the longest time between two looks for what has no answer.
	maxAheadPause = 30 * time.Second
	// maxAheadSteps bounds the answers about one certificate for one outage: beyond, each is valid for longer.
	maxAheadSteps = 200
)

// ahead is when answers of a CA are signed ahead next.
type ahead struct {
	next    time.Time // by the clock of the records
	rest    time.Time // by this process's: not before
	policy  time.Time // UpdatedAt of the one in effect
	busy    bool
	failing alarm
}

// aheadDesk is the CAs that have answers signed ahead.
type aheadDesk struct {
	mu    sync.Mutex
	all   map[int64]*ahead
	slots chan struct{}
}

// nudge has a CA looked after soon: something that was signed ahead is not true any more.
func (d *aheadDesk) nudge(caID int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.all[caID]; w != nil {
		w.next = time.Time{}
	}
}

// begin takes a CA whose turn has come; nil when it has not.
func (d *aheadDesk) begin(caID int64, p RevocationPolicy, now time.Time) *ahead {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.all[caID]
	if w == nil {
		w = &ahead{failing: alarm{task: "presign"}}
		d.all[caID] = w
	}
	changed := !w.policy.Equal(p.UpdatedAt)
	if w.busy || !changed && (now.Before(w.next) || time.Now().Before(w.rest)) {
		return nil
	}
	w.busy, w.policy, w.next = true, p.UpdatedAt, now.Add(min(maxAheadPause, p.OCSPValidity/32))
	return w
}

func (d *aheadDesk) end(w *ahead, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.busy, w.rest = false, time.Now().Add(aheadRest*took)
}

// signAnswersAhead keeps an answer about every certificate of the CAs that want it so, and answers of the time to come for
// declared outages, until ctx ends. It yields to whatever else needs the token.
func (a *Authority) signAnswersAhead(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	failing := alarm{task: "presign"}
	every(ctx, time.Second, func() {
		if !a.leads() {
			return
		}
		states, err := a.cfg.Store.RevocationStates(ctx)
		if err != nil {
			if ctx.Err() == nil {
				failing.raise(a, fmt.Errorf("list CAs: %w", err))
			}
			return
		}
		failing.end()
		for _, s := range states {
			p, err := a.policyOf(ctx, s.CAID)
			now := a.cfg.Now()
			if err != nil || !p.Presign && !now.Before(p.Outage.Until) {
				continue
			}
			p = a.Effective(p)
			w := a.ocsp.ahead.begin(s.CAID, p, now)
			if w == nil {
				continue
			}
			work.Go(func() { a.lookAhead(ctx, s.CAID, p, w) })
		}
	})
}

func (a *Authority) lookAhead(ctx context.Context, caID int64, p RevocationPolicy, w *ahead) {
	start := time.Now()
	defer func() { a.ocsp.ahead.end(w, time.Since(start)) }()
	release, err := take(ctx, a.ocsp.ahead.slots)
	if err != nil {
		return
	}
	defer release()
	start = time.Now()
	switch err := a.signMissing(ctx, caID, p); {
	case err == nil, errors.Is(err, errNoResponder):
		w.failing.end()
	case ctx.Err() == nil:
		w.failing.raise(a, fmt.Errorf("sign OCSP answers of CA %d ahead: %w", caID, err))
	}
}

// aheadStep is a time at which each certificate must have an answer that stays valid for long enough.
type aheadStep struct {
	at       time.Time
	validity time.Duration
	left     time.Duration
}

// steps are the times for which answers are signed now, with a responder that ends then. What is released in an outage has
// thisUpdates that are half a validity apart, whatever else there is.
func (p RevocationPolicy) steps(now, ends time.Time) (all []aheadStep) {
	add := func(at time.Time, validity, left time.Duration) {
		if rest := ends.Sub(at); rest > lastMinute {
			all = append(all, aheadStep{at, validity, min(left, rest/2)})
		}
	}
	if p.Presign {
		// Before half of it is over, from when on it is not fresh.
		add(now, p.OCSPValidity, min(p.OCSPValidity, ends.Sub(now))*5/8)
	}
	if !now.Before(p.Outage.Until) {
		return all
	}
	from := now
	if p.Outage.From.After(now) {
		from = p.Outage.From
	}
	apart := max(p.OCSPValidity/2, p.Outage.Until.Sub(p.Outage.From)/maxAheadSteps, time.Second).Truncate(time.Second)
	first := from.Truncate(apart)
	if !first.After(now) {
		next := first.Add(apart)
		add(now, 2*apart, next.Sub(now)+apart/4)
		first = next
	}
	for at := first; at.Before(p.Outage.Until); at = at.Add(apart) {
		add(at, 2*apart, apart+time.Second)
	}
	return all
}

// signMissing signs the answers that a CA does not have yet.
func (a *Authority) signMissing(ctx context.Context, caID int64, p RevocationPolicy) error {
	c, err := a.cfg.Store.PublicCA(ctx, caID)
	if err != nil {
		return fmt.Errorf("find CA: %w", err)
	}
	s, err := a.subject(ctx, Slug(c.Name, c.ID))
	if err != nil {
		return err
	}
	responder, err := a.cfg.Store.LatestResponder(ctx, caID)
	if fault.Is(err, fault.NotFound) {
		return nil // it is about to be certified, and tells us
	}
	if err != nil {
		return fmt.Errorf("find OCSP responder: %w", err)
	}
	for _, step := range p.steps(a.cfg.Now(), responder.NotAfter) {
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			if err := a.signStep(ctx, s, p, hash, step); err != nil {
				return err
			}
		}
	}
	return nil
}

// signStep signs the answers that are missing at one time.
func (a *Authority) signStep(ctx context.Context, s *subject, p RevocationPolicy, hash crypto.Hash, step aheadStep) error {
	p.OCSPValidity = step.validity
	for after := ""; a.leads(); {
		start := time.Now()
		serials, last, err := a.cfg.Store.Unanswered(ctx, s.id, hash, step.at, step.left, after, aheadLook)
		if err != nil {
			return fmt.Errorf("list certificates without OCSP answer: %w", err)
		}
		for batch := range slices.Chunk(serials, aheadBatch) {
			if err := a.signBatch(ctx, s, p, hash, step.at, batch); err != nil {
				return err
			}
			if err := pause(ctx, time.Since(start)); err != nil {
				return err
			}
			start = time.Now()
		}
		if last == "" {
			return nil
		}
		if err := pause(ctx, time.Since(start)); err != nil {
			return err
		}
		after = last
	}
	return nil
}

// signBatch signs and stores one answer about each serial number.
func (a *Authority) signBatch(ctx context.Context, s *subject, p RevocationPolicy, hash crypto.Hash, at time.Time, serials []string) error {
	batch := make([]SignedAnswer, len(serials))
	for i, serial := range serials {
		status, err := a.cfg.Store.SerialStatus(ctx, s.id, serial)
		if err != nil {
			return fmt.Errorf("find status of serial %s: %w", serial, err)
		}
		if batch[i], err = a.signAnswer(ctx, s, statusKey{s.id, hash, serial}, status, p, at); err != nil {
			return err
		}
	}
	if err := a.cfg.Store.KeepAnswers(ctx, batch); err != nil {
		return fmt.Errorf("store OCSP answers: %w", err)
	}
	return nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
