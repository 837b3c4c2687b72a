package ca

import (
	"context"
	"time"
)

const (
	// maxStaged bounds how many lists of a shard are signed ahead.
	maxStaged = 400
	// restageFactor is how many publication intervals pass between two times that lists are signed ahead: each change
	// withdraws them.
	restageFactor = 10
)

// spacing is the time between two lists that are signed ahead: as long as it can be while there is always a current one.
func (p RevocationPolicy) spacing() time.Duration {
	return min(max(p.CRLValidity-p.CRLOverlap, p.CRLRefresh), p.CRLValidity*9/10).Truncate(time.Second)
}

// signAhead signs the lists that an outage needs. It stops when something is to be published, which withdraws them, and when
// Run ends; the schedule goes on with it.
func (a *Authority) signAhead(ctx context.Context, caID int64, p RevocationPolicy) error {
	now := a.cfg.Now()
	if !now.Before(p.Outage.Until) {
		return nil
	}
	if a.publisher.interrupts(caID) {
		return nil
	}
	if last, ok := a.staged.Load(caID); ok && time.Since(last.(time.Time)) < restageFactor*a.cfg.CRLCoalesce {
		return nil
	}
	all, err := a.shardStates(ctx, now, caID)
	if err != nil {
		return err
	}
	states := all[caID]
	var lists *press
	for shard, s := range states {
		for n := 0; n < maxStaged && p.lacksFuture(s, now); n++ {
			if lists == nil {
				if lists, err = a.openPress(ctx, caID, p, states); err != nil {
					return err
				}
				a.staged.Store(caID, time.Now())
			}
			at := s.Last.ThisUpdate.Add(p.spacing())
			if at.Before(now) {
				at = now
			}
			next, err := lists.complete(ctx, shard, s.Last, at)
			if err != nil {
				return err
			}
			s.Last = &next
			if a.publisher.interrupts(caID) {
				return nil
			}
		}
	}
	return nil
}
