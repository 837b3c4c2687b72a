// Package idempotency is the vocabulary of requests that may be sent twice and shall be done once.
//
// A caller gives such a request a key. Before it is done the key is claimed, and what the request makes is recorded in the
// claim by the transaction that makes it. It only names things: a store keeps the claims.
//
// What must never happen: two results under one key; a result that its claim does not know, or a claim with the result
// of a transaction that did not come about; a request that is recorded in a form from which somebody could guess what it said.
package idempotency

import (
	"context"
	"time"

	"signet/fault"
)

const (
	// Lifetime is how long a claim with its result is known, from the beginning of the request that made it.
	Lifetime = 24 * time.Hour
	// Lease is how long a claim without result keeps others off: longer than a request has to finish. Whoever comes after it
	// takes the claim over, and the request that made it can no longer complete anything.
	Lease = 2 * time.Minute
)

// Claim is one attempt to do a request.
type Claim struct {
	UserID  int64    // whose key it is; never 0
	Key     [32]byte // SHA-256 of the key
	Request [32]byte // what the key stands for: a keyed hash of method, path, query and body
	Attempt int64    // random: no two attempts share it
}

var (
	// ErrReused says that the key stands for another request.
	ErrReused = &fault.Error{
		Code: fault.Unprocessable, Message: "the Idempotency-Key was used with another request",
		Fields: []fault.Field{{Type: "idempotency_key_reused", Loc: []any{"header", "idempotency-key"},
			Msg: "The Idempotency-Key was used with another request in the last 24 hours"}},
	}
	// ErrLost says that an attempt took so long that another one may have taken its place. It has made nothing.
	ErrLost = &fault.Error{
		Code: fault.Conflict, Message: "The request took too long; another one with its Idempotency-Key may have taken its place",
		RetryAfter: time.Second,
	}
)

// maxRetryAfter bounds what a caller is told to wait for a request that is being answered.
const maxRetryAfter = 15 * time.Second

// InFlight says that the request was claimed that long ago and has no answer yet: a Conflict, with a RetryAfter that grows
// with the wait.
func InFlight(age time.Duration) error {
	return &fault.Error{
		Code: fault.Conflict, Message: "A request with this Idempotency-Key is being answered",
		RetryAfter: min(max(age, time.Second), maxRetryAfter),
	}
}

type claimKey struct{}

// With returns a context that carries c. Whoever creates a user, an organization, a CA or a certificate in it completes the claim
// in the same transaction, or fails with ErrLost.
func With(ctx context.Context, c Claim) context.Context {
	return context.WithValue(ctx, claimKey{}, &c)
}

// From returns the claim that ctx carries, or nil.
func From(ctx context.Context) *Claim {
	c, _ := ctx.Value(claimKey{}).(*Claim)
	return c
}
