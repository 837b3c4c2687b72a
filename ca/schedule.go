package ca

import (
	"context"
	"fmt"
	"time"
)

// shardState is the complete list of a shard and its delta.
type shardState struct {
	ScopeState
	delta *List // the newest delta whose time has come; nil: none
}

// need is what a shard lacks.
type need int

const (
	needNothing need = iota
	needDelta
	needComplete // with a delta beside it, if the CA makes deltas
)

// needs decides what is to be signed for a shard now. Durations of the policy are those in effect.
func (p RevocationPolicy) needs(s shardState, now time.Time) need {
	current := s.Current
	switch {
	case current == nil, current.ThisUpdate.Before(p.UpdatedAt) && !p.UpdatedAt.After(now): // the clock may have been set back
		return needComplete
	case s.signedAhead(p.Outage, now):
		return needNothing // what is to be served until the token is back
	case !now.Before(current.ThisUpdate.Add(p.CRLRefresh)), !now.Before(current.NextUpdate.Add(-p.CRLOverlap)):
		return needComplete
	case !p.Delta && current.Sequence < s.Changed:
		return needComplete
	case p.Delta && (s.delta == nil || s.delta.Sequence < s.Changed):
		// A delta would not withdraw the complete lists of the future, and none could be signed ahead that has its changes.
		if s.Last.Number != current.Number || now.Before(p.Outage.Until) {
			return needComplete
		}
		return needDelta
	}
	return needNothing
}

// signedAhead reports whether it is a time of outage, for which every list that it needs is signed.
func (s shardState) signedAhead(o Outage, now time.Time) bool {
	return !now.Before(o.From) && now.Before(o.Until) && s.Last.NextUpdate.After(o.Until) &&
		s.Last.Sequence >= s.Changed && s.Current.Sequence >= s.Changed
}

// lacksFuture reports whether lists are to be signed ahead.
func (p RevocationPolicy) lacksFuture(s shardState, now time.Time) bool {
	return now.Before(p.Outage.Until) && s.Current != nil && s.Last.Sequence >= s.Changed && !s.Last.NextUpdate.After(p.Outage.Until)
}

// shardStates returns the lists that are to be kept up, of these CAs or of all.
func (a *Authority) shardStates(ctx context.Context, now time.Time, caIDs ...int64) (map[int64]map[int]shardState, error) {
	scopes, err := a.cfg.Store.ListScopes(ctx, now, caIDs...)
	if err != nil {
		return nil, fmt.Errorf("find lists: %w", err)
	}
	all := map[int64]map[int]shardState{}
	for _, scope := range scopes {
		shards := all[scope.CAID]
		if shards == nil {
			shards = map[int]shardState{}
			all[scope.CAID] = shards
		}
		s := shards[scope.Shard]
		if scope.Delta {
			s.delta = scope.Current
		} else {
			s.ScopeState = scope
		}
		shards[scope.Shard] = s
	}
	return all, nil
}

// scheduleInterval is how often lists are looked through.
const scheduleInterval = time.Second

// keepSchedule publishes the lists that are missing, behind, or about to lapse, until ctx ends.
func (a *Authority) keepSchedule(ctx context.Context) {
	every(ctx, scheduleInterval, func() {
		if !a.leads() {
			return
		}
		if err := a.publishDue(ctx); err != nil && ctx.Err() == nil {
			a.failed("crl", err)
		}
	})
}

func (a *Authority) publishDue(ctx context.Context) error {
	now := a.cfg.Now()
	all, err := a.shardStates(ctx, now)
	if err != nil {
		return err
	}
	for caID, shards := range all {
		p, err := a.policyOf(ctx, caID)
		if err != nil {
			return fmt.Errorf("find revocation policy of CA %d: %w", caID, err)
		}
		p = a.Effective(p)
		var due []int
		for shard, s := range shards {
			if p.needs(s, now) != needNothing || p.lacksFuture(s, now) {
				due = append(due, shard)
			}
		}
		if len(due) > 0 {
			a.publisher.request(caID, false, due...)
		}
	}
	return nil
}
