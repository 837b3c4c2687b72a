package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// feedInterval is how often a replica looks for what others changed.
	feedInterval = 400 * time.Millisecond
	// policyInterval is how often it reads the revocation policies.
	policyInterval = time.Second
	// feedTimeout bounds one look.
	feedTimeout = 10 * time.Second
	// feedBatch is how many changes are read at once.
	feedBatch = 5000
)

// changed is told which serial numbers of a CA were revoked, held, released or given another reason, on whichever replica:
// at once when it was this one, otherwise within half a second. It may be told a change more than once, and must return soon.
type changed func(caID int64, serials []string)

// onChange adds a listener. Call it before Run.
func (a *Authority) onChange(f changed) { a.listeners = append(a.listeners, f) }

// feed is how far this replica has followed the changes.
type feed struct {
	mu   sync.Mutex
	seen map[int64]RevocationState // nil before the first look
}

// followFeed tells listeners what other replicas changed and drops what is not current any more, until ctx ends. While the database
// fails, what is held in memory stays: relying parties go on.
func (a *Authority) followFeed(ctx context.Context) {
	failing := alarm{task: "feed"}
	var policies time.Time
	every(ctx, feedInterval, func() {
		limited, cancel := context.WithTimeout(ctx, feedTimeout)
		defer cancel()
		var err error
		if time.Since(policies) >= policyInterval {
			policies = time.Now()
			err = a.policies.refresh(limited, a.cfg.Store)
		}
		if err == nil {
			err = a.look(limited)
		}
		switch {
		case err == nil:
			failing.end()
		case ctx.Err() == nil:
			failing.raise(a, fmt.Errorf("follow revocations: %w", err))
		}
	})
}

// look compares what each CA has numbered with what was seen of it.
func (a *Authority) look(ctx context.Context) error {
	states, err := a.cfg.Store.RevocationStates(ctx)
	if err != nil {
		return fmt.Errorf("read revocation states: %w", err)
	}
	a.feed.mu.Lock()
	defer a.feed.mu.Unlock()
	if a.feed.seen == nil {
		a.feed.seen = make(map[int64]RevocationState, len(states))
		for _, s := range states {
			a.feed.seen[s.CAID] = RevocationState{CAID: s.CAID, Sequence: s.Sequence}
		}
		a.ocsp.answers.clear() // what was answered while nobody followed may have changed since
	}
	var numbered []int64
	for _, s := range states {
		if err = a.catchUp(ctx, s); err != nil {
			break
		}
		if s.CRLNumber != a.feed.seen[s.CAID].CRLNumber {
			numbered = append(numbered, s.CAID)
		}
		a.feed.seen[s.CAID] = s
	}
	return errors.Join(err, a.dropReplaced(ctx, numbered)) // they count as seen
}

// catchUp tells what changed in a CA since the last look. What was told is not told again when it fails half-way.
func (a *Authority) catchUp(ctx context.Context, s RevocationState) error {
	seen := a.feed.seen[s.CAID]
	for after := seen.Sequence; after < s.Sequence; {
		entries, err := a.cfg.Store.ChangedSerials(ctx, s.CAID, after, feedBatch)
		if err != nil {
			return fmt.Errorf("read changes of CA %d: %w", s.CAID, err)
		}
		if len(entries) == 0 { // each was changed again, and that was told
			return nil
		}
		serials := make([]string, len(entries))
		shards := map[int]bool{}
		for i, e := range entries {
			serials[i], shards[e.Shard] = e.Serial, true
			after = max(after, e.Sequence)
		}
		a.tell(s.CAID, serials)
		if a.leads() {
			for shard := range shards {
				a.publisher.request(s.CAID, true, shard)
			}
		}
		seen.CAID, seen.Sequence = s.CAID, after
		a.feed.seen[s.CAID] = seen
	}
	return nil
}

func (a *Authority) tell(caID int64, serials []string) {
	for _, f := range a.listeners {
		f(caID, serials)
	}
}

// changedHere follows up a change of one serial number that was recorded by this replica.
func (a *Authority) changedHere(caID int64, shard int, serial string) {
	a.tell(caID, []string{serial})
	if a.leads() {
		a.publisher.request(caID, true, shard)
	} else {
		a.followed.request(caID, true, shard)
	}
}

// followPoll is how often a replica looks whether the one that publishes has listed a change.
const followPoll = 50 * time.Millisecond

// awaitLeader waits until the replica that publishes has listed what is recorded in these shards by now, but not longer than a
// relying party would. What readers then get is read anew.
func (a *Authority) awaitLeader(ctx context.Context, caID int64, shards []int) error {
	ctx, cancel := context.WithTimeout(ctx, publishWait)
	defer cancel()
	var wanted map[int]shardState
	every(ctx, followPoll, func() {
		all, err := a.shardStates(ctx, a.cfg.Now(), caID)
		if err != nil {
			return // the feed reports it
		}
		if wanted == nil {
			wanted = all[caID]
		}
		if !slices.ContainsFunc(shards, func(shard int) bool { return !all[caID][shard].lists(wanted[shard].Changed) }) {
			cancel()
		}
	})
	for _, shard := range shards {
		a.lists.drop(ListScope{CAID: caID, Shard: shard})
		a.lists.drop(ListScope{CAID: caID, Shard: shard, Delta: true})
	}
	return nil
}

// lists reports whether the changes up to a sequence can be read, from the complete list or its delta.
func (s shardState) lists(sequence int64) bool {
	return s.Current != nil && s.Current.Sequence >= sequence || s.delta != nil && s.delta.Sequence >= sequence
}
