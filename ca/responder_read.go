package ca

import (
	"context"
	"fmt"

	"signet/policy"
)

// KnownResponder is the OCSP responder of a CA as its people see it.
type KnownResponder struct {
	Responder
	ByName bool   // it names itself by its subject
	URL    string // where it answers
}

// ResponderOf returns the OCSP responder of a CA that the caller may read, the one that was certified last. NotFound until
// there is one.
func (a *Authority) ResponderOf(ctx context.Context, caller policy.Caller, id int64) (KnownResponder, error) {
	c, err := a.CA(ctx, caller, id)
	if err != nil {
		return KnownResponder{}, err
	}
	r, err := a.cfg.Store.LatestResponder(ctx, id)
	if err != nil {
		return KnownResponder{}, fmt.Errorf("find OCSP responder of CA %d: %w", id, err)
	}
	p, err := a.policyOf(ctx, id)
	if err != nil {
		return KnownResponder{}, fmt.Errorf("find revocation policy of CA %d: %w", id, err)
	}
	return KnownResponder{Responder: r, ByName: p.ByName, URL: a.urls(c).ocsp()}, nil
}

// ListURL is where relying parties find the current list of a scope of a CA.
func (a *Authority) ListURL(c CA, s ListScope) string { return a.urls(c).list(s.Shard, s.Delta) }
