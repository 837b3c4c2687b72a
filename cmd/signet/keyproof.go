package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"signet/ca"
	"signet/evidence"
	"signet/fault"
	"signet/keystore"
)

// Inspect implements [ca.Keys].
func (k *tokenKeys) Inspect(ctx context.Context, r ca.KeyRef) (evidence.Key, error) {
	token, name, err := k.named(r.Token)
	if err != nil {
		return evidence.Key{}, err
	}
	return inspect(ctx, token, name, r)
}

func inspect(ctx context.Context, token keystore.Backend, name string, r ca.KeyRef) (evidence.Key, error) {
	found, err := token.Inspect(ctx, r.ID)
	if err != nil {
		return evidence.Key{}, refFault(r, err)
	}
	public, err := x509.MarshalPKIXPublicKey(found.Public)
	if err != nil {
		return evidence.Key{}, fmt.Errorf("encode public key of %x: %w", r.ID, err)
	}
	if r.PublicKey != nil && string(public) != string(r.PublicKey) {
		return evidence.Key{}, tokenFault(fmt.Errorf("inspect key %x: %w", r.ID, keystore.ErrMismatch))
	}
	return evidence.Key{
		ID: found.ID, Label: found.Label, Type: string(found.Type), Size: found.Size, PublicKey: public, Mechanism: found.Mechanism,
		Attributes: found.Attributes, Token: tokenIdentity(name, found.Info), ReadAt: time.Now().UTC(),
	}, nil
}

func tokenIdentity(name string, i keystore.Info) evidence.Token {
	return evidence.Token{
		Name: name, Label: i.Label, Manufacturer: i.Manufacturer, Model: i.Model, Serial: i.Serial, Firmware: i.Firmware,
		Module: evidence.Module{
			Path: i.ModulePath, SHA256: i.ModuleSHA256, Description: i.LibraryDescription, Version: i.LibraryVersion, Cryptoki: i.Cryptoki,
		},
	}
}

// Drill implements [ca.Keys]. The key signs wherever a configured token has a clone of it, so every one that is there is
// attacked: a chain is as strong as its weakest link. The names of attacks on clones end with "@" and the token.
func (k *tokenKeys) Drill(ctx context.Context, r ca.KeyRef) (evidence.Drill, error) {
	token, home, err := k.named(r.Token)
	if err != nil {
		return evidence.Drill{}, err
	}
	d := evidence.Drill{At: time.Now().UTC()}
	if d.Attacks, err = attack(ctx, token, r, ""); err != nil {
		return d, err
	}
	for _, name := range k.Tokens() {
		if name == home || r.PublicKey == nil {
			continue
		}
		clone, _, err := k.named(name)
		if err != nil {
			return d, err
		}
		if !clone.State().Up {
			continue // it does not sign either
		}
		switch _, err := inspect(ctx, clone, name, r); {
		case errors.Is(err, keystore.ErrNotFound), errors.Is(err, keystore.ErrMismatch), fault.Is(err, fault.Unavailable):
			continue
		case err != nil:
			return d, err
		}
		attacks, err := attack(ctx, clone, r, "@"+name)
		d.Attacks = append(d.Attacks, attacks...)
		if err != nil {
			return d, err
		}
	}
	return d, nil
}

// attack drills a key on one token.
func attack(ctx context.Context, token keystore.Backend, r ca.KeyRef, suffix string) ([]evidence.Attack, error) {
	attempts, err := token.Drill(ctx, r.ID)
	if err != nil && len(attempts) == 0 {
		return nil, refFault(r, err)
	}
	attacks := make([]evidence.Attack, len(attempts))
	for i, a := range attempts {
		attacks[i] = evidence.Attack{Name: a.Name + suffix, Call: a.Call, Target: a.Target, Outcome: evidence.Outcome(a.Outcome), Result: a.Result}
	}
	if err != nil {
		return attacks, fault.Wrap(fault.Internal, "the drill left a key behind in the token", err)
	}
	return attacks, nil
}

// Attester implements [ca.Keys]. A key that was just made is on disk before it attests.
func (k *tokenKeys) Attester(ctx context.Context, name string) (crypto.Signer, evidence.Key, error) {
	token, name, err := k.named(name)
	if err != nil {
		return nil, evidence.Key{}, err
	}
	signer, id, err := token.Attester(ctx)
	if err != nil {
		return nil, evidence.Key{}, tokenFault(err)
	}
	if _, known := k.attesters.LoadOrStore(name, true); !known {
		if err := k.sync(); err != nil {
			k.attesters.Delete(name)
			return nil, evidence.Key{}, fmt.Errorf("keep attestation key: %w", err)
		}
	}
	key, err := inspect(ctx, token, name, ca.KeyRef{ID: id})
	return signer, key, err
}

// refFault is keyFault, unless the key is known: one that ought to be there and is not needs the operator.
func refFault(r ca.KeyRef, err error) error {
	if r.PublicKey != nil {
		return tokenFault(err)
	}
	return keyFault(err)
}

// named returns a token with its name; "" is the default one. Names in requests were checked before: one that is not
// configured here is that of a CA, whose token the settings no longer have.
func (k *tokenKeys) named(name string) (keystore.Backend, string, error) {
	token, err := k.tokens.Backend(name)
	if err != nil {
		return nil, "", fault.Wrap(fault.Internal, fmt.Sprintf("no token is named %q", name), err)
	}
	if name == "" {
		name = k.Default()
	}
	return token, name, nil
}
