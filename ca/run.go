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

// Run publishes lists, keeps OCSP responders and answers, reconciles and drills, until ctx ends and what it began is finished.
func (a *Authority) Run(ctx context.Context) {
	var drills sync.WaitGroup
	defer drills.Wait()
	drills.Go(func() { a.drillInBackground(ctx) })
	reservations := time.NewTicker(time.Minute)
	defer reservations.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-reservations.C:
			if _, err := a.Reconcile(ctx, a.cfg.Now().Add(-reservationGrace)); err != nil && ctx.Err() == nil {
				a.failed("reconcile", err)
			}
		}
	}
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
