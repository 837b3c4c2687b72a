package worker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"

	"signet/keystore"
)

// Generate is [keystore.Token.Generate]. When the worker dies meanwhile, a key may be left in the token that nobody
// knows: it is not looked for, because an id that was taken before must never lose its key.
func (t *Token) Generate(ctx context.Context, spec keystore.Spec) (crypto.Signer, error) {
	number := t.numbers.Add(1)
	der, err := generate.call(ctx, t, generateRequest{number, spec}, func([]byte) {
		_, _ = destroy.call(context.WithoutCancel(ctx), t, spec.ID, nil) // made, and unwanted
	})
	if err != nil {
		return nil, err
	}
	return t.signer(&key{id: bytes.Clone(spec.ID), der: der, bar: spec.Bar, number: number})
}

// Signer is [keystore.Token.Signer].
func (t *Token) Signer(ctx context.Context, id, public []byte, bar keystore.Bar) (keystore.Signer, error) {
	s, err := t.signer(&key{id: bytes.Clone(id), der: bytes.Clone(public), bar: bar, number: t.numbers.Add(1)})
	if err != nil {
		return nil, fmt.Errorf("find key %x: %w", id, err)
	}
	if err := t.do(ctx, true, func(ctx context.Context, p *process) error { return p.introduce(ctx, s.key) }); err != nil {
		return nil, err
	}
	return s, nil
}

// Attester is [keystore.Token.Attester].
func (t *Token) Attester(ctx context.Context) (_ crypto.Signer, id []byte, err error) {
	number := t.numbers.Add(1)
	found, err := attester.call(ctx, t, number, nil)
	if err != nil {
		return nil, nil, err
	}
	s, err := t.signer(&key{id: found.ID, der: found.Public, number: number, attests: true})
	if err != nil {
		return nil, nil, fmt.Errorf("find attestation key: %w", err)
	}
	return s, found.ID, nil
}

// signer reads the public key, and takes the number that the key has already, if it has one.
func (t *Token) signer(k *key) (_ *signer, err error) {
	if k.public, err = x509.ParsePKIXPublicKey(k.der); err != nil {
		return nil, fmt.Errorf("read its public key: %w", err)
	}
	return &signer{t, t.remember(k)}, nil
}

// Destroy is [keystore.Token.Destroy].
func (t *Token) Destroy(ctx context.Context, id []byte) error {
	_, err := destroy.call(ctx, t, id, nil)
	t.forget(id)
	return err
}

// Seal is [keystore.Token.Seal].
func (t *Token) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	return sealSecret.call(ctx, t, sealRequest{plaintext, aad}, nil)
}

// Unseal is [keystore.Token.Unseal].
func (t *Token) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	return unsealSecret.call(ctx, t, sealRequest{sealed, aad}, nil)
}

// Check is [keystore.Token.Check]: it does not wait for a worker that is being replaced.
func (t *Token) Check(ctx context.Context) error {
	sessions, err := check.call(keystore.Impatient(ctx), t, true, nil)
	if err == nil {
		t.sessions.Store(int64(sessions))
	}
	return err
}

// Sessions is how many sessions were open at the last Check.
func (t *Token) Sessions() int { return int(t.sessions.Load()) }

// Inspect is [keystore.Token.Inspect].
func (t *Token) Inspect(ctx context.Context, id []byte) (keystore.Inspection, error) {
	found, err := inspect.call(ctx, t, id, nil)
	if err != nil {
		return keystore.Inspection{}, err
	}
	if found.Public, err = x509.ParsePKIXPublicKey(found.DER); err != nil {
		return keystore.Inspection{}, fmt.Errorf("inspect key %x: read its public key: %w", id, err)
	}
	return found.Inspection, nil
}

// Drill is [keystore.Token.Drill]. A canary that is left when the worker dies is destroyed by the next drill.
func (t *Token) Drill(ctx context.Context, id []byte) ([]keystore.Attempt, error) {
	result, err := drill.call(ctx, t, id, nil)
	if err == nil && result.Failed != nil {
		err = decodeError(result.Failed)
	}
	return result.Attempts, err
}
