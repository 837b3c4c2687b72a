package worker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"
	"io"
	"time"

	"signet/keystore"
)

// errBadSignature is a worker whose memory can no longer be trusted: its keystore has verified what it sent.
var errBadSignature = fmt.Errorf("%w: it sent a signature that does not verify", errLost)

// key is a key of the token. The worker knows it by its number, once it was told.
type key struct {
	id, der []byte // CKA_ID; SubjectPublicKeyInfo
	public  crypto.PublicKey
	bar     keystore.Bar
	number  uint32
	attests bool // it is the token's attestation key, for which the keystore knows the bar
}

// remember makes all signers of a key share its number.
func (t *Token) remember(k *key) *key {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.keys[string(k.id)]; old != nil && bytes.Equal(old.der, k.der) && old.bar == k.bar && old.attests == k.attests {
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

// introduce tells the worker of a key; the keystore compares its public key.
func (p *process) introduce(ctx context.Context, k *key) error {
	if _, known := p.bound.Load(k); known {
		return nil
	}
	if k.attests {
		found, err := attester.on(ctx, p, k.number)
		if err == nil && !bytes.Equal(found.Public, k.der) {
			err = fmt.Errorf("find attestation key: %w", keystore.ErrMismatch)
		}
		if err != nil {
			return err
		}
	} else if _, err := bind.on(ctx, p, keyRequest{k.number, k.id, k.der, k.bar}); err != nil {
		return err
	}
	p.bound.Store(k, true)
	return nil
}

// signer is a key of the token as a [keystore.Signer].
type signer struct {
	token *Token
	key   *key
}

// Public returns an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
func (s *signer) Public() crypto.PublicKey { return s.key.public }

// Ready implements [keystore.Signer].
func (s *signer) Ready() error { return s.token.Await(context.Background()) }

// Sign signs in the worker. Arguments and errors are those of the signers of [keystore.Token].
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignRequest(context.Background(), keystore.Request{Input: digest, Opts: opts})
}

// SignMessage implements [crypto.MessageSigner].
func (s *signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignRequest(context.Background(), keystore.Request{Input: message, Message: true, Opts: opts})
}

// SignUnverified implements [keystore.Signer].
func (s *signer) SignUnverified(message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignRequest(context.Background(), keystore.Request{Input: message, Message: true, Opts: opts, Unverified: true})
}

// SignRequest implements [keystore.Signer]. It signs in the worker, and once more in the next worker if that one is lost,
// and verifies the signature before it returns it, unless the caller does.
func (s *signer) SignRequest(ctx context.Context, r keystore.Request) (signature []byte, err error) {
	r = digested(s.key.public, r)
	verify, err := r.Verifier(s.key.public)
	if err != nil {
		return nil, err
	}
	if r.Unverified && !r.Doubted {
		verify = func([]byte) bool { return true }
	}
	start := time.Now()
	defer func() { s.token.observe("sign", time.Since(start), err) }()
	err = s.token.do(ctx, true, func(ctx context.Context, p *process) (err error) {
		signature, err = p.sign(ctx, s.key, r, verify)
		return err
	})
	return signature, err
}

// digested leaves messages out of the pipe where no token wants them: only RSA may be hashed in the token, and Ed25519
// has no digest.
func digested(public crypto.PublicKey, r keystore.Request) keystore.Request {
	if _, ok := public.(*ecdsa.PublicKey); !ok || !r.Message || r.Opts == nil || !r.Opts.HashFunc().Available() {
		return r
	}
	h := r.Opts.HashFunc().New()
	h.Write(r.Input)
	r.Input, r.Message = h.Sum(nil), false
	return r
}

// sign asks for the signature, and again for one that the keystore has verified when the first is bad.
func (p *process) sign(ctx context.Context, k *key, r keystore.Request, verify func([]byte) bool) ([]byte, error) {
	if err := p.introduce(ctx, k); err != nil {
		return nil, err
	}
	for ; ; r.Doubted = true {
		id := p.last.Add(1)
		a, err := p.answer(ctx, request{id: id, frame: encodeSign(k.number, limitsOf(ctx), r).frame(id)})
		if err == nil {
			err = a.err
		}
		switch {
		case err != nil:
			return nil, err
		case verify(a.body):
			return a.body, nil
		case r.Doubted:
			p.fail(errBadSignature)
			return nil, errBadSignature
		}
	}
}

// answer is exchange, but not for ever: the keystore answers within the deadline of an operation. A worker that has not in
// twice that time is beyond help, though it sends back every ping.
func (p *process) answer(ctx context.Context, r request) (answer, error) {
	limited, cancel := context.WithTimeout(ctx, 2*p.token.Timeout())
	defer cancel()
	a, err := p.exchange(limited, r)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		p.fail(errFrozen)
		return answer{}, p.cause()
	}
	return a, err
}

func encodeSign(number uint32, l limits, r keystore.Request) signRequest {
	s := signRequest{limits: l, key: number, hash: r.Opts.HashFunc(), input: r.Input}
	if pss, ok := r.Opts.(*rsa.PSSOptions); ok {
		s.flags, s.salt = s.flags|flagPSS, int32(pss.SaltLength)
	}
	if r.Message {
		s.flags |= flagMessage
	}
	if r.Doubted {
		s.flags |= flagDoubted
	}
	return s
}
