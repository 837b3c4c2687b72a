package api_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"time"

	"signet/ca"
	"signet/ca/catest"
	"signet/evidence"
	"signet/fault"
	"signet/keystore"
)

// keys is a SoftHSM2 token as the certificate authority sees it; what drills achieve is scripted.
type keys struct {
	*keystore.Token
	catest.Script
}

func (k *keys) Default() string  { return "main" }
func (k *keys) Tokens() []string { return []string{"main", "spare"} }

func (k *keys) Generate(ctx context.Context, r ca.KeyRequest) (crypto.Signer, error) {
	return k.Token.Generate(ctx, keystore.Spec{ID: r.ID, Label: r.Label, Type: keystore.KeyType(r.Spec.Type), Size: r.Spec.Size})
}

func (k *keys) Signer(ctx context.Context, r ca.KeyRef) (crypto.Signer, error) {
	return k.Token.Signer(ctx, r.ID, r.PublicKey, keystore.BarBorn)
}

func (k *keys) Inspect(ctx context.Context, r ca.KeyRef) (evidence.Key, error) {
	found, err := k.Token.Inspect(ctx, r.ID)
	if errors.Is(err, keystore.ErrNotFound) {
		return evidence.Key{}, fault.Wrap(fault.NotFound, "the token has no such key", err)
	}
	return evidence.Key{ID: r.ID, Type: "ec", Size: 256, PublicKey: r.PublicKey, Attributes: found.Attributes, ReadAt: time.Now()}, err
}

func (k *keys) Drill(context.Context, ca.KeyRef) (evidence.Drill, error) { return k.Script.Drill() }

func (k *keys) Attester(ctx context.Context, _ string) (crypto.Signer, evidence.Key, error) {
	id := []byte(time.Now().String()) // a new one each time does no harm here
	key, err := k.Token.Generate(ctx, keystore.Spec{ID: id, Label: "attester", Type: keystore.EC, Size: 256})
	if err != nil {
		return nil, evidence.Key{}, &fault.Error{Code: fault.Unavailable, Message: "the signing token is not available", RetryAfter: time.Second, Err: err}
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	return key, evidence.Key{ID: id, Type: "ec", Size: 256, PublicKey: public}, err
}

func (k *keys) Destroy(ctx context.Context, _ string, id []byte) error {
	return k.Token.Destroy(ctx, id)
}
