package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// secret is a key-encryption key in the token, named by its CKA_ID: an AES key, or an RSA key pair in a token without
// AES-GCM.
type secret struct {
	class  int // CKO_SECRET_KEY or CKO_PRIVATE_KEY
	id     []byte
	found  atomic.Pointer[found]
	missed missed
	pair   *oaepKey // what seals under a key pair; set before the secret is shared
}

// Seal encrypts a small secret so that only this token opens it again: AES-256-GCM under a fresh data key, which is
// itself wrapped by the newest key-encryption key in the token. aad binds the result to its place. The first Seal of a
// token makes the key-encryption key. Errors: [ErrUnsupported], [ErrUnavailable].
func (t *Token) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	kek, err := t.sealingKey(ctx)
	if errors.Is(err, ErrEvidence) && t.lowered(ctx) {
		kek, err = t.sealingKey(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("find key-encryption key: %w", err)
	}
	sealed, err := t.sealUnder(ctx, kek, plaintext, aad)
	if err == nil || !errors.Is(err, ErrNotFound) && !unable(err) {
		return sealed, err
	}
	// Another process has destroyed the key, or the token can no longer do what the key needs.
	other, replaceErr := t.replaceSealingKey(ctx, kek, unable(err))
	if replaceErr != nil {
		return nil, errors.Join(err, replaceErr)
	}
	return t.sealUnder(ctx, other, plaintext, aad)
}

func (t *Token) sealUnder(ctx context.Context, kek *secret, plaintext, aad []byte) (_ []byte, err error) {
	dataKey := random(dataKeySize)
	defer clear(dataKey)
	e, err := t.envelopeUnder(ctx, kek, dataKey)
	if err != nil {
		return nil, err
	}
	e.nonce = random(nonceSize)
	return e.seal(dataKey, plaintext, aad)
}

// envelopeUnder wraps a data key: with AES in the token, with RSA here, because the public key is no secret.
func (t *Token) envelopeUnder(ctx context.Context, kek *secret, dataKey []byte) (e envelope, err error) {
	if kek.pair != nil {
		e = envelope{version: sealVersionRSA, kek: kek.id, hash: kek.pair.hash}
		e.wrapped, err = kek.pair.encrypt(dataKey)
		return e, err
	}
	e = envelope{version: sealVersion, kek: kek.id, iv: random(nonceSize)}
	e.iv, e.wrapped, err = t.wrap(ctx, kek, e.iv, dataKey, e.wrapAAD())
	return e, err
}

// Unseal reverses Seal. Errors: [ErrNotFound] when the key-encryption key is not in this token, [ErrUnavailable], or
// that the sealed secret or its aad is not what Seal made.
func (t *Token) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	e, err := parseEnvelope(sealed)
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	class := pkcs11.CKO_SECRET_KEY
	if e.version == sealVersionRSA {
		class = pkcs11.CKO_PRIVATE_KEY
	}
	kek := t.secret(class, e.kek)
	dataKey, err := t.unwrap(ctx, kek, e)
	if errors.Is(err, ErrEvidence) && t.lowered(ctx) {
		dataKey, err = t.unwrap(ctx, kek, e)
	}
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	plaintext, err := e.open(dataKey, aad)
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	t.rememberSecret(kek)
	return plaintext, nil
}

// wrapping is what the token made of a data key, with the IV that it used: some tokens choose their own.
type wrapping struct{ iv, wrapped []byte }

func (t *Token) wrap(ctx context.Context, kek *secret, iv, dataKey, aad []byte) (usedIV, wrapped []byte, err error) {
	input := slices.Clone(dataKey) // the token may still be reading when we have given up
	w, err := call(ctx, t, operation[wrapping]{name: "seal", known: &kek.missed, run: func(s *session) (wrapping, error) {
		handle, err := t.secretHandle(s, kek)
		if err != nil {
			return wrapping{}, err
		}
		w, err := s.encryptGCM(handle, iv, input, aad)
		if err != nil {
			return wrapping{}, kek.forget(err)
		}
		return w, nil
	}})
	return w.iv, w.wrapped, err
}

func (s *session) encryptGCM(key pkcs11.ObjectHandle, iv, input, aad []byte) (wrapping, error) {
	parameters := pkcs11.NewGCMParams(iv, aad, tagSize*8)
	defer parameters.Free()
	if err := s.EncryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, parameters)}, key); err != nil {
		return wrapping{}, err
	}
	out, err := s.Encrypt(s.handle, input)
	if err != nil {
		return wrapping{}, err
	}
	if used := parameters.IV(); len(used) != nonceSize || len(out) != wrappedSize {
		return wrapping{}, fmt.Errorf("%w: its AES-GCM gives %d bytes under an IV of %d", ErrUnsupported, len(out), len(used))
	}
	return wrapping{parameters.IV(), out}, nil
}

func (s *session) decryptGCM(key pkcs11.ObjectHandle, iv, wrapped, aad []byte) ([]byte, error) {
	parameters := pkcs11.NewGCMParams(iv, aad, tagSize*8)
	defer parameters.Free()
	if err := s.DecryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, parameters)}, key); err != nil {
		return nil, err
	}
	return s.Decrypt(s.handle, wrapped)
}

func (t *Token) unwrap(ctx context.Context, kek *secret, e envelope) ([]byte, error) {
	dataKey, err := t.decrypt(ctx, kek, e)
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrPIN) || ctx.Err() != nil {
		return dataKey, err
	}
	// Tokens answer a false tag or false padding with the codes of a broken device (SoftHSM2: CKR_GENERAL_ERROR). Only
	// when the same key opens what was just sealed under it is the envelope at fault, and then the answer is the same
	// whatever was wrong with it: nobody learns about paddings here.
	probed, probeErr := t.readyFor(ctx, kek)
	if probeErr != nil {
		return nil, err
	}
	probe, probeErr := t.envelopeUnder(ctx, probed, random(dataKeySize))
	if probeErr != nil {
		return nil, err
	}
	if _, probeErr = t.decrypt(ctx, kek, probe); probeErr != nil {
		return nil, err
	}
	return nil, fmt.Errorf("unseal: %w", errSealed)
}

func (t *Token) decrypt(ctx context.Context, kek *secret, e envelope) ([]byte, error) {
	return call(ctx, t, operation[[]byte]{name: "unseal", known: t.used(kek), run: func(s *session) (out []byte, err error) {
		handle, err := t.secretHandle(s, kek)
		if err != nil {
			return nil, err
		}
		if e.version == sealVersionRSA {
			out, err = s.decryptOAEP(handle, e.hash, e.wrapped)
		} else {
			out, err = s.decryptGCM(handle, e.iv, e.wrapped, e.wrapAAD())
		}
		if err != nil {
			return nil, kek.forget(err)
		}
		return out, nil
	}})
}

// forget drops the handle that a failed call used.
func (k *secret) forget(err error) error {
	k.found.Store(nil)
	return err
}

// secretHandle is handle for a key-encryption key. What it must show is that it cannot leave the token: that a key pair
// is whole, its first use proves.
func (t *Token) secretHandle(s *session, k *secret) (pkcs11.ObjectHandle, error) {
	generation := t.slot.handles()
	if f := k.found.Load(); f != nil && f.generation == generation {
		return f.handle, nil
	}
	objects, err := s.find(2, template(pkcs11.CKA_CLASS, k.class, pkcs11.CKA_ID, k.id).ToSlice()...)
	if err != nil {
		return 0, err
	}
	switch len(objects) {
	case 0:
		return 0, t.absent(s)
	case 2:
		return 0, fmt.Errorf("%w: there are several secret keys with it", ErrMismatch)
	}
	if err := s.proveKEK(objects[0], k.class, t.ownBar()); err != nil {
		return 0, err
	}
	k.found.Store(&found{generation, objects[0]})
	return objects[0], nil
}

// secret returns the key-encryption key with this CKA_ID, whether the token has it or not.
func (t *Token) secret(class int, id []byte) *secret {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.keks[string(id)]; k != nil && k.class == class {
		return k
	}
	return &secret{class: class, id: slices.Clone(id)}
}

// used tells when a key-encryption key that has proved itself was missed; nil for another one.
func (t *Token) used(k *secret) *missed {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keks[string(k.id)] != k {
		return nil
	}
	return &k.missed
}

// rememberSecret keeps a key-encryption key that has proved itself, and with it its handle.
func (t *Token) rememberSecret(k *secret) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.keks[string(k.id)]; known == nil || known.class != k.class || known.pair == nil && k.pair != nil {
		t.keks[string(k.id)] = k
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return b
}
