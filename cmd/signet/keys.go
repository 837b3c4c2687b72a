package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"signet/ca"
	"signet/fault"
	"signet/keystore"
	"signet/policy"
)

// tokenKeys is a PKCS#11 token as the certificate authority sees it.
type tokenKeys struct{ token *keystore.Token }

var _ ca.Keys = tokenKeys{}

// Generate implements [ca.Keys].
func (k tokenKeys) Generate(ctx context.Context, id []byte, label string, spec policy.KeySpec) (crypto.Signer, error) {
	key, err := k.token.Generate(ctx, keystore.Spec{ID: id, Label: label, Type: keystore.KeyType(spec.Type), Size: spec.Size})
	return key, tokenFault(err)
}

// Signer implements [ca.Keys].
func (k tokenKeys) Signer(ctx context.Context, id, publicKey []byte) (crypto.Signer, error) {
	key, err := k.token.Signer(ctx, id, publicKey)
	return key, tokenFault(err)
}

// Seal implements [ca.Keys].
func (k tokenKeys) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	sealed, err := k.token.Seal(ctx, plaintext, aad)
	return sealed, tokenFault(err)
}

// Unseal implements [ca.Keys].
func (k tokenKeys) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	plaintext, err := k.token.Unseal(ctx, sealed, aad)
	return plaintext, tokenFault(err)
}

// tokenFault says whose fault an error of the token is. A key that is missing, replaced or without evidence is not the
// caller's, and no retry helps: it needs the operator, who finds the reason in the log.
func tokenFault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keystore.ErrUnsupported):
		return fault.Wrap(fault.Invalid, "the token does not support this key type or size", err)
	case errors.Is(err, keystore.ErrNotFound), errors.Is(err, keystore.ErrMismatch),
		errors.Is(err, keystore.ErrEvidence), errors.Is(err, keystore.ErrExists):
		return fault.Wrap(fault.Internal, "the CA key cannot be used", err)
	case errors.Is(err, keystore.ErrUnavailable), errors.Is(err, keystore.ErrPIN),
		errors.Is(err, context.DeadlineExceeded):
		return &fault.Error{Code: fault.Unavailable, Message: "the signing token is not available", RetryAfter: time.Second, Err: err}
	}
	return fmt.Errorf("use token: %w", err)
}
