package worker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"time"

	"signet/keystore"
)

// errBadSignature is a worker whose memory can no longer be trusted: its keystore has verified what it sends.
var errBadSignature = fmt.Errorf("%w: it sent a signature that does not verify", errLost)

// key is a key of the token. The worker knows it by its number, once it was told.
type key struct {
	id, der []byte // CKA_ID; SubjectPublicKeyInfo
	public  crypto.PublicKey
	number  uint32
}

func (k *key) request() keyRequest { return keyRequest{k.number, k.id, k.der} }

// remember makes all signers of a key share its number.
func (t *Token) remember(k *key) *key {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.keys[string(k.id)]; old != nil && bytes.Equal(old.der, k.der) {
		return old
	}
	t.keys[string(k.id)] = k
	return k
}

// forget makes the next Signer ask the token again.
func (t *Token) forget(id []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.keys[string(id)]; k != nil {
		delete(t.keys, string(id))
		if t.current != nil {
			t.current.bound.Delete(k)
		}
	}
}

// knows reports whether the worker was told of the key.
func (p *process) knows(k *key) bool {
	_, known := p.bound.Load(k)
	return known
}

// introduce tells the worker of a key; the keystore compares its public key.
func (p *process) introduce(ctx context.Context, k *key) error {
	if p.knows(k) {
		return nil
	}
	if _, err := bind.on(ctx, p, k.request()); err != nil {
		return err
	}
	p.bound.Store(k, true)
	return nil
}

// signer is a key of the token as a [crypto.Signer].
type signer struct {
	token *Token
	key   *key
}

// Public returns an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
func (s *signer) Public() crypto.PublicKey { return s.key.public }

// Sign signs in the worker, and once more in the next worker if that one is lost or sends a signature that does not
// verify, within the deadline of one operation. Arguments and errors are those of the signers of [keystore.Token].
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	request, err := requestFor(s.key, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	t := s.token
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	start := time.Now()
	defer func() { t.observe("sign", time.Since(start), err) }()
	err = t.do(ctx, true, func(p *process) (err error) {
		signature, err = p.sign(ctx, s.key, request, opts)
		return err
	})
	return signature, err
}

func requestFor(k *key, digest []byte, opts crypto.SignerOpts) (signRequest, error) {
	if opts == nil {
		return signRequest{}, errors.New("no signature options")
	}
	hash := opts.HashFunc()
	r := signRequest{key: k.number, hash: hash, digest: digest}
	switch o := opts.(type) {
	case *rsa.PSSOptions:
		r.pss, r.salt = true, int32(o.SaltLength)
	case *ed25519.Options:
		if o.Context != "" {
			return signRequest{}, errors.New("Ed25519 signs the message itself, without hash or context")
		}
	}
	if hash > 255 {
		return signRequest{}, fmt.Errorf("%w: signature hash %v", keystore.ErrUnsupported, hash)
	}
	return r, nil
}

func (p *process) sign(ctx context.Context, k *key, r signRequest, opts crypto.SignerOpts) ([]byte, error) {
	if err := p.introduce(ctx, k); err != nil {
		return nil, err
	}
	id := p.last.Add(1)
	a, err := p.exchange(ctx, request{id: id, frame: r.frame(id), known: true})
	if err == nil {
		err = a.err
	}
	if err != nil {
		return nil, err
	}
	if !verifies(k.public, r.digest, a.body, opts) {
		p.fail(errBadSignature)
		return nil, errBadSignature
	}
	return a.body, nil
}

func verifies(public crypto.PublicKey, digest, signature []byte, opts crypto.SignerOpts) bool {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, digest, signature)
	case *rsa.PublicKey:
		if o, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(key, opts.HashFunc(), digest, signature, o) == nil
		}
		return rsa.VerifyPKCS1v15(key, opts.HashFunc(), digest, signature) == nil
	}
	return false
}
