package ca

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// reservationGrace is how old a reservation is when another replica may call it abandoned: longer than the time a
// request has to finish its record.
const reservationGrace = 2 * time.Minute

// Run publishes lists, keeps OCSP responders and answers, makes keys ahead, reconciles and drills, until ctx ends and what it began is
// finished. What concerns all replicas only one of them does, the one with the lease. Call it once at a time.
func (a *Authority) Run(ctx context.Context) {
	a.running.Store(true)
	var work sync.WaitGroup
	for _, task := range []func(context.Context){
		a.keepLease, a.followFeed, a.keepSchedule, a.reconcileInBackground, a.drillInBackground,
		a.keepResponders, a.signAnswersAhead, a.dropAnswers, a.makeKeysAhead, a.retainInBackground,
	} {
		work.Go(func() { task(ctx) })
	}
	work.Wait()
	a.publisher.flush()
	a.followed.flush()
	a.ocsp.kept.flush()
	a.endLease(ctx)
	a.policies.forget() // nobody reads them again
	a.running.Store(false)
}

// every calls f now and then at intervals, until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// alarm reports a failure that repeats itself once, until it is over.
type alarm struct {
	task   string
	raised bool
}

func (l *alarm) raise(a *Authority, err error) {
	if !l.raised {
		l.raised = true
		a.failed(l.task, err)
	}
}

func (l *alarm) end() { l.raised = false }

func (a *Authority) reconcileInBackground(ctx context.Context) {
	every(ctx, time.Minute, func() {
		if _, err := a.Reconcile(ctx, a.cfg.Now().Add(-reservationGrace)); err != nil && ctx.Err() == nil {
			a.failed("reconcile", err)
		}
	})
}

// Reconcile closes the reservations made before the given time: what they announced may have been signed, so their
// serials count as revoked from now on. It returns how many there were.
func (a *Authority) Reconcile(ctx context.Context, before time.Time) (int, error) {
	n, err := a.cfg.Store.Abandon(ctx, before, a.cfg.Now())
	if err != nil {
		return 0, fmt.Errorf("reconcile reservations: %w", err)
	}
	return n, nil
}
