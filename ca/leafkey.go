package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"signet/policy"
)

// leafKey is a key pair for a certificate, made in software: its PEM is the product.
type leafKey struct {
	public  crypto.PublicKey
	private []byte // PKCS #8 DER; nil when nobody keeps it
}

// leafKey takes a key that was made ahead, or makes one.
func (a *Authority) leafKey(ctx context.Context, spec policy.KeySpec, keep bool) (leafKey, error) {
	if key, ok := a.keyAhead(ctx, spec, keep); ok {
		return key, nil
	}
	select { // primes are expensive, so only as many callers as processors look for some at once
	case a.keygen <- struct{}{}:
		defer func() { <-a.keygen }()
	case <-ctx.Done():
		return leafKey{}, ctx.Err()
	}
	return generateLeafKey(spec, keep)
}

func generateLeafKey(spec policy.KeySpec, keep bool) (made leafKey, err error) {
	var key crypto.Signer
	switch spec.Type {
	case policy.RSA:
		key, err = rsa.GenerateKey(rand.Reader, spec.Size)
	case policy.EC:
		curve := map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}[spec.Size]
		key, err = ecdsa.GenerateKey(curve, rand.Reader)
	case policy.Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("unknown key type %q", spec.Type)
	}
	if err != nil {
		return leafKey{}, fmt.Errorf("generate leaf key: %w", err)
	}
	made.public = key.Public()
	if keep {
		if made.private, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return leafKey{}, fmt.Errorf("encode leaf key: %w", err)
		}
	}
	return made, nil
}
