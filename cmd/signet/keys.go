package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"signet/ca"
	"signet/evidence"
	"signet/fault"
	"signet/keystore"
)

// tokenKeys is the PKCS#11 tokens as the certificate authority sees them.
type tokenKeys struct {
	tokens *keystore.Set
	sync   func() error // makes new keys survive a power failure

	sealing sync.Mutex             // held by the first Seal under a key-encryption key
	durable atomic.Pointer[string] // the key-encryption key that is known to be on disk

	attesters sync.Map // names of the tokens whose attestation key is known to be on disk
}

var _ ca.Keys = (*tokenKeys)(nil)

// Default implements [ca.Keys].
func (k *tokenKeys) Default() string { return k.tokens.Names()[0] }

// Tokens implements [ca.Keys].
func (k *tokenKeys) Tokens() []string { return k.tokens.Names() }

// Generate implements [ca.Keys]. The key is on disk when it returns. That it cannot leave the token is proven here; what
// the token says of its birth is for the grade, which is made before the key signs, and which says what to do about it.
func (k *tokenKeys) Generate(ctx context.Context, r ca.KeyRequest) (crypto.Signer, error) {
	token, _, err := k.named(r.Token)
	if err != nil {
		return nil, err
	}
	key, err := token.Generate(ctx, keystore.Spec{
		ID: r.ID, Label: r.Label, Type: keystore.KeyType(r.Spec.Type), Size: r.Spec.Size, Bar: keystore.BarHeld,
	})
	if err != nil {
		return nil, tokenFault(err)
	}
	if err := k.sync(); err != nil {
		return nil, fmt.Errorf("keep key %x: %w", r.ID, err)
	}
	return key, nil
}

// Signer implements [ca.Keys].
func (k *tokenKeys) Signer(ctx context.Context, r ca.KeyRef) (crypto.Signer, error) {
	key, err := k.tokens.Signer(ctx, r.Token, r.ID, r.PublicKey, bar(r.Accept))
	return key, tokenFault(err)
}

// bar is what a token must say of a key when this grade is accepted. Only what was accepted in so many words lowers it.
func bar(accept evidence.Grade) keystore.Bar {
	switch accept {
	case evidence.Imported:
		return keystore.BarHeld
	case evidence.Asserted:
		return keystore.BarAnyUse
	}
	return keystore.BarBorn
}

// Destroy implements [ca.Keys]. The key is gone from the disk too when it returns.
func (k *tokenKeys) Destroy(ctx context.Context, token string, id []byte) error {
	t, _, err := k.named(token)
	if err != nil {
		return err
	}
	if err := t.Destroy(ctx, id); err != nil {
		return keyFault(err)
	}
	if err := k.sync(); err != nil {
		return fmt.Errorf("keep that key %x is gone: %w", id, err)
	}
	return nil
}

// keyFault is tokenFault for a key that somebody asked for by its id: that it is not there is an answer.
func keyFault(err error) error {
	if errors.Is(err, keystore.ErrNotFound) {
		return fault.Wrap(fault.NotFound, "the token has no such key", err)
	}
	return tokenFault(err)
}

// Seal implements [ca.Keys]. The first one makes the key-encryption key, or finds one that was made shortly before, by
// the last run or by another process: nothing leaves here under a key that is not on disk.
func (k *tokenKeys) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	sealed, err := k.tokens.Seal(ctx, plaintext, aad)
	if err != nil {
		return nil, tokenFault(err)
	}
	if err := k.keepSealingKey(sealed); err != nil {
		return nil, fmt.Errorf("keep key-encryption key: %w", err)
	}
	return sealed, nil
}

func (k *tokenKeys) keepSealingKey(sealed []byte) error {
	id, err := keystore.SealedUnder(sealed)
	if err != nil {
		return err
	}
	kek := string(id)
	kept := func() bool { last := k.durable.Load(); return last != nil && *last == kek }
	if kept() {
		return nil
	}
	k.sealing.Lock()
	defer k.sealing.Unlock()
	if kept() {
		return nil
	}
	if err := k.sync(); err != nil {
		return err
	}
	k.durable.Store(&kek)
	return nil
}

// Unseal implements [ca.Keys].
func (k *tokenKeys) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	plaintext, err := k.tokens.Unseal(ctx, sealed, aad)
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
	case errors.Is(err, keystore.ErrUnavailable), errors.Is(err, keystore.ErrPIN),
		errors.Is(err, context.DeadlineExceeded):
		return &fault.Error{Code: fault.Unavailable, Message: "the signing token is not available", RetryAfter: time.Second, Err: err}
	case errors.Is(err, keystore.ErrNotFound), errors.Is(err, keystore.ErrMismatch),
		errors.Is(err, keystore.ErrEvidence), errors.Is(err, keystore.ErrExists):
		return fault.Wrap(fault.Internal, "the CA key cannot be used", err)
	}
	return fmt.Errorf("use token: %w", err)
}
