// Package idempotency lets a request that creates something be repeated without creating it twice (the Idempotency-Key header
// field, draft-ietf-httpapi-idempotency-key-header). A request claims its key before it does anything; what it creates and the
// use of its claim are one transaction.
package idempotency

import (
	"context"
	"time"
)

const (
	// Lifetime is how long a key stands for what was created with it.
	Lifetime = 24 * time.Hour
	// Lease is how old a claim is when its request is taken for dead, longer than any request takes. Another request with the same
	// key then takes the claim over; should the first one still live, its claim is void, and it creates nothing.
	Lease = 2 * time.Minute
)

// Claim is a request's hold on a key.
type Claim struct {
	UserID int64  // whose key it is
	Key    string // 1 to 255 characters
	Token  string // of this claim and no other
}

// Found is what a key stands for.
type Found struct {
	Claimed     bool   // by this request: go on
	Fingerprint []byte // of the request that used the key first
	Done        bool   // it created ResourceID; otherwise it is still at work
	ResourceID  int64
}

type contextKey struct{}

// With returns a context whose claim is used up by whatever completes a record with it.
func With(ctx context.Context, c Claim) context.Context {
	return context.WithValue(ctx, contextKey{}, &c)
}

// From returns the claim of a context, nil when there is none.
func From(ctx context.Context) *Claim {
	c, _ := ctx.Value(contextKey{}).(*Claim)
	return c
}
