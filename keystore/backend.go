package keystore

import (
	"context"
	"crypto"
	"fmt"
	"time"
)

// Backend is a token as [Set] uses it: a [Token] of this process, or one that is reached in another way and behaves alike.
type Backend interface {
	Generate(ctx context.Context, spec Spec) (crypto.Signer, error)
	Signer(ctx context.Context, id, public []byte, bar Bar) (Signer, error)
	Destroy(ctx context.Context, id []byte) error
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error)

	Check(ctx context.Context) error
	Inspect(ctx context.Context, id []byte) (Inspection, error)
	Drill(ctx context.Context, id []byte) ([]Attempt, error)
	Attester(ctx context.Context) (_ crypto.Signer, id []byte, err error)

	State() State
	Await(ctx context.Context) error // while it is away, as long as operations wait
	Sessions() int                   // that are open
	Timeout() time.Duration          // of one operation
	Close() error
}

// Timeout is the deadline of one operation.
func (t *Token) Timeout() time.Duration { return t.timeout }

// Signer is a key of a [Backend]. It is a [crypto.Signer] whose callers may also set a deadline of their own.
type Signer interface {
	crypto.MessageSigner

	// SignUnverified is SignMessage without the verification of the signature, for a caller who does that, and who asks
	// SignMessage again when the signature is bad.
	SignUnverified(message []byte, opts crypto.SignerOpts) ([]byte, error)

	// Ready waits, as long as operations do, for a token that is away. Errors: [ErrUnavailable].
	Ready() error

	// SignRequest is Sign or SignMessage, until ctx ends.
	SignRequest(ctx context.Context, r Request) ([]byte, error)
}

// Request is a signature that is wanted.
type Request struct {
	Input   []byte // a digest, as Sign takes it, or a message, as SignMessage does
	Message bool
	Opts    crypto.SignerOpts

	// Unverified leaves the verification of the signature to the caller, who must do it, and must ask again when it is bad:
	// without Unverified, or with Doubted.
	Unverified bool

	// Doubted says that the last answer to this request was bad: the key is looked up anew, and the signature is verified
	// whatever Unverified says.
	Doubted bool
}

func (r Request) plan(public publicKey) (p plan, err error) {
	if r.Message {
		p, err = planForMessage(public, r.Input, r.Opts)
	} else {
		p, err = planFor(public, r.Input, r.Opts)
	}
	if err != nil {
		return plan{}, fmt.Errorf("sign: %w", err)
	}
	return p, nil
}

// Verifier returns what holds an answer to the request against the key, or why no key of this type can answer it.
func (r Request) Verifier(public crypto.PublicKey) (func(signature []byte) bool, error) {
	key, ok := public.(publicKey)
	if !ok {
		return nil, fmt.Errorf("sign: %w: %T", ErrUnsupported, public)
	}
	p, err := r.plan(key)
	return p.verify, err
}

type impatience struct{}

// Impatient marks operations whose caller has another token to turn to: they do not wait for one that is away.
func Impatient(ctx context.Context) context.Context {
	return context.WithValue(ctx, impatience{}, true)
}

// IsImpatient reports whether ctx comes from [Impatient].
func IsImpatient(ctx context.Context) bool { return ctx.Value(impatience{}) != nil }
