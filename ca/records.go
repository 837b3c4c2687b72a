package ca

import (
	"context"
	"time"

	"signet/audit"
	"signet/fresh"
)

// maxRecords bounds the CAs that are held in memory for issuing.
const maxRecords = 1024

// recordKey names the record of a CA as authenticated callers find it, or as relying parties do.
type recordKey struct {
	id     int64
	public bool
}

// issuing is [Store.CA] as of a moment ago, for issuing alone: the reservation that follows checks in the database that the CA is
// neither deleted nor revoked nor locked by then. What this replica changes is known at once.
func (a *Authority) issuing(ctx context.Context, id int64) (CA, error) {
	return a.records.Get(ctx, recordKey{id: id}, func(ctx context.Context) (CA, error) { return a.cfg.Store.CA(ctx, id) })
}

// above is [Store.PublicCA] as of a moment ago: a CA in the chain of one that issues.
func (a *Authority) above(ctx context.Context, id int64) (CA, error) {
	return a.records.Get(ctx, recordKey{id, true}, func(ctx context.Context) (CA, error) { return a.cfg.Store.PublicCA(ctx, id) })
}

// forgetful is a store whose changes to CAs are felt by issuing at once, also those that may have been made: an error does not
// say that there was no change.
type forgetful struct {
	Store
	records *fresh.Cache[recordKey, CA]
}

func (f forgetful) CompleteCA(ctx context.Context, id int64, der []byte, e audit.Event) (CA, error) {
	defer f.records.Forget() // its parent issues no leaves any more
	return f.Store.CompleteCA(ctx, id, der, e)
}

func (f forgetful) AdoptCA(ctx context.Context, c CA, e audit.Event) (CA, error) {
	defer f.records.Forget() // likewise
	return f.Store.AdoptCA(ctx, c, e)
}

func (f forgetful) RevokeCA(ctx context.Context, id int64, r Revocation, replaces []int, e audit.Event) (CA, error) {
	defer f.records.Forget()
	return f.Store.RevokeCA(ctx, id, r, replaces, e)
}

func (f forgetful) DeleteCA(ctx context.Context, id int64, at time.Time, e audit.Event) error {
	defer f.records.Forget()
	return f.Store.DeleteCA(ctx, id, at, e)
}

func (f forgetful) ProveCA(ctx context.Context, id int64, was, is KeyProof, d *KeyDrill, events ...audit.Event) error {
	defer f.records.Forget()
	return f.Store.ProveCA(ctx, id, was, is, d, events...)
}

func (f forgetful) KeyDestroyed(ctx context.Context, id int64, at time.Time, e audit.Event) error {
	defer f.records.Forget()
	return f.Store.KeyDestroyed(ctx, id, at, e)
}
