package ca

import (
	"context"
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

// leads reports whether this replica does the background work.
func (a *Authority) leads() bool { return true }
