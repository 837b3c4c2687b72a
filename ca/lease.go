package ca

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// LeaseStore decides which replica does what only one should do.
type LeaseStore interface {
	// Lease gives the named lease to the holder for ttl from now, by the clock of the database, unless another one has it
	// and it has not ended. It reports whether the holder has it.
	Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error)
	// EndLease gives the lease up. Another holder's stays.
	EndLease(ctx context.Context, name, holder string) error
}

const (
	// publisherLease is whose replica publishes, renews responders, signs ahead and notifies.
	publisherLease = "publisher"
	// defaultLeaseTTL is the LeaseTTL of a Config without.
	defaultLeaseTTL = 10 * time.Second
)

// lease is this replica's part in deciding who does the background work.
type lease struct {
	holder string // random

	mu   sync.Mutex
	ends time.Time // by the monotonic clock of this process; zero: another replica has it
}

func (l *lease) set(ends time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = ends
}

func (l *lease) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.ends)
}

// leads reports whether this replica does the background work: while Run runs, one of them does. Without Run, as in a
// command beside the server, whoever changes something follows it up.
func (a *Authority) leads() bool { return !a.running.Load() || a.lease.held() }

// keepLease tries to get the lease and keeps it, until ctx ends. With what is granted and how often it is tried, a replica that
// died is followed within LeaseTTL, and one that cannot renew twice stops.
func (a *Authority) keepLease(ctx context.Context) {
	granted, renewal, attempt := a.cfg.LeaseTTL*4/5, a.cfg.LeaseTTL/3, min(a.cfg.LeaseTTL/10, time.Second)
	var renewed time.Time
	failing := alarm{task: "lease"}
	every(ctx, max(attempt, time.Millisecond), func() {
		if a.lease.held() && time.Since(renewed) < renewal {
			return
		}
		start := time.Now() // before the database starts to count
		limited, cancel := context.WithTimeout(ctx, granted)
		defer cancel()
		mine, err := a.cfg.Store.Lease(limited, publisherLease, a.lease.holder, granted)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				failing.raise(a, fmt.Errorf("get the lease to publish: %w", err))
			}
			return
		case mine:
			renewed = start
			a.lease.set(start.Add(granted))
		default:
			a.lease.set(time.Time{})
		}
		failing.end()
	})
}

// endLease gives the lease up.
func (a *Authority) endLease(ctx context.Context) {
	held := a.lease.held()
	a.lease.set(time.Time{})
	if !held {
		return
	}
	ctx, cancel := finish(ctx, endLeaseTimeout)
	defer cancel()
	if err := a.cfg.Store.EndLease(ctx, publisherLease, a.lease.holder); err != nil {
		a.failed("lease", fmt.Errorf("give up the lease to publish: %w", err)) // it ends by itself
	}
}

const endLeaseTimeout = 5 * time.Second
