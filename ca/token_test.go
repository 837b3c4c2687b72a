package ca_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"sync"
	"time"

	"signet/ca"
	"signet/ca/catest"
	"signet/evidence"
	"signet/fault"
	"signet/keystore"
)

// tokenKeys is a real SoftHSM2 token behind ca.Keys; what drills achieve is scripted. Tests may take it away.
type tokenKeys struct {
	catest.Script
	token *keystore.Token
	mu    sync.Mutex
	away  bool
	idle  string         // CKA_ID of a key that is there, but neither signs nor goes
	made  map[string]int // signatures by CKA_ID
}

// signatures is how often a key has signed.
func (k *tokenKeys) signatures(id []byte) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.made[string(id)]
}

var errAway = &fault.Error{Code: fault.Unavailable, Message: "the signing token is not available", RetryAfter: time.Second}

func (k *tokenKeys) setAway(away bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = away
}

// setIdle names a key that neither signs nor can be destroyed; nil: there is none.
func (k *tokenKeys) setIdle(id []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.idle = string(id)
}

func (k *tokenKeys) check() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return errAway
	}
	return nil
}

func (k *tokenKeys) Default() string  { return "main" }
func (k *tokenKeys) Tokens() []string { return []string{"main"} }

func (k *tokenKeys) Generate(ctx context.Context, r ca.KeyRequest) (crypto.Signer, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	key, err := k.token.Generate(ctx, keystore.Spec{ID: r.ID, Label: r.Label, Type: keystore.KeyType(r.Spec.Type), Size: r.Spec.Size})
	return &switchedSigner{key, k, string(r.ID)}, err
}

func (k *tokenKeys) Signer(ctx context.Context, r ca.KeyRef) (crypto.Signer, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	key, err := k.token.Signer(ctx, r.ID, r.PublicKey, keystore.BarBorn)
	return &switchedSigner{key, k, string(r.ID)}, err
}

func (k *tokenKeys) Inspect(ctx context.Context, r ca.KeyRef) (evidence.Key, error) {
	if err := k.check(); err != nil {
		return evidence.Key{}, err
	}
	found, err := k.token.Inspect(ctx, r.ID)
	if errors.Is(err, keystore.ErrNotFound) {
		return evidence.Key{}, fault.Wrap(fault.NotFound, "the token has no such key", err)
	}
	if err != nil {
		return evidence.Key{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(found.Public)
	return evidence.Key{
		ID: r.ID, Type: string(found.Type), Size: found.Size, PublicKey: public, Attributes: found.Attributes, Mechanism: found.Mechanism,
		ReadAt: time.Now(),
	}, err
}

func (k *tokenKeys) Drill(context.Context, ca.KeyRef) (evidence.Drill, error) {
	if err := k.check(); err != nil {
		return evidence.Drill{}, err
	}
	return k.Script.Drill()
}

func (k *tokenKeys) Attester(ctx context.Context, _ string) (crypto.Signer, evidence.Key, error) {
	if err := k.check(); err != nil {
		return nil, evidence.Key{}, err
	}
	id := []byte("attester")
	key, err := k.token.Generate(ctx, keystore.Spec{ID: id, Label: "attester", Type: keystore.EC, Size: 256})
	if err != nil {
		return nil, evidence.Key{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	return key, evidence.Key{ID: id, Type: "ec", Size: 256, PublicKey: public}, err
}

func (k *tokenKeys) Destroy(ctx context.Context, _ string, id []byte) error {
	if err := k.check(); err != nil {
		return err
	}
	k.mu.Lock()
	idle := k.idle == string(id)
	k.mu.Unlock()
	if idle {
		return errAway
	}
	return k.token.Destroy(ctx, id)
}

func (k *tokenKeys) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	return k.token.Seal(ctx, plaintext, aad)
}

func (k *tokenKeys) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	return k.token.Unseal(ctx, sealed, aad)
}

type switchedSigner struct {
	crypto.Signer
	keys *tokenKeys
	id   string
}

func (s *switchedSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := s.keys.check(); err != nil {
		return nil, err
	}
	s.keys.mu.Lock()
	if s.keys.idle == s.id {
		s.keys.mu.Unlock()
		return nil, errAway
	}
	if s.keys.made == nil {
		s.keys.made = map[string]int{}
	}
	s.keys.made[s.id]++
	s.keys.mu.Unlock()
	return s.Signer.Sign(rand, digest, opts)
}
