package ca

import (
	"context"
	"crypto"

	"signet/policy"
)

// Keys is the token: it makes the CA keys, signs with them and seals secrets. Errors are *fault.Error with code
// Unavailable when the token is away and Invalid when it does not support what was asked.
type Keys interface {
	// Generate makes a non-exportable key pair named by id.
	Generate(ctx context.Context, id []byte, label string, spec policy.KeySpec) (crypto.Signer, error)
	// Signer returns the key named by id, after comparing it with publicKey (DER SubjectPublicKeyInfo).
	Signer(ctx context.Context, id, publicKey []byte) (crypto.Signer, error)
	// Seal encrypts a secret so that only the token opens it; aad binds it to its place.
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Unseal reverses Seal.
	Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error)
}
