package ca

import (
	"context"
	"crypto"

	"signet/evidence"
	"signet/policy"
)

// KeyRef names a key pair in a token.
type KeyRef struct {
	Token     string // a configured name; "" is the default one
	ID        []byte // CKA_ID
	PublicKey []byte // DER SubjectPublicKeyInfo that the key must have; nil: any

	// Accept is the lowest grade with which the key may sign. A token judges by the attributes of the key alone: between
	// Asserted and Drilled is for it only whether the key can do more than sign.
	Accept evidence.Grade
}

// KeyRequest asks for a key pair.
type KeyRequest struct {
	Token string // a configured name; "" is the default one
	ID    []byte // CKA_ID; must not exist yet
	Label string // CKA_LABEL, for people
	Spec  policy.KeySpec
}

// Keys is the tokens: they make the CA keys, sign with them and seal secrets. Errors are *fault.Error with code
// Unavailable when the token is away, Invalid when it does not support what was asked, and NotFound where it says so.
type Keys interface {
	// Default names the token that is used when none is named, and Tokens names them all.
	Default() string
	Tokens() []string

	// Generate makes a key pair that cannot leave its token now. What its grade is, Inspect and Drill tell.
	Generate(ctx context.Context, r KeyRequest) (crypto.Signer, error)
	// Signer returns a key, after comparing its public key.
	Signer(ctx context.Context, r KeyRef) (crypto.Signer, error)
	// Inspect reads back what the token says of a key, whatever its grade. NotFound when the token has no such key, unless
	// its public key was given: then it ought to be there.
	Inspect(ctx context.Context, r KeyRef) (evidence.Key, error)
	// Drill attacks a key and says what each attack achieved. It leaves the key as it was. An error beside attacks
	// says that they left something else behind in the token.
	Drill(ctx context.Context, r KeyRef) (evidence.Drill, error)
	// Attester returns the key of a token that signs evidence. It is never a CA key.
	Attester(ctx context.Context, token string) (crypto.Signer, evidence.Key, error)
	// Destroy ends a key pair. NotFound when the token has no such key.
	Destroy(ctx context.Context, token string, id []byte) error

	// Seal encrypts a secret so that only the token opens it; aad binds it to its place.
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Unseal reverses Seal.
	Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// KeyRef names the key of a CA as it must be to sign certificates.
func (c CA) KeyRef() KeyRef {
	return KeyRef{Token: c.Token, ID: c.KeyID, PublicKey: c.PublicKey, Accept: c.Proof.Needs()}
}
