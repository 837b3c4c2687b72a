package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

const kekLabel = "signet-kek"

// secret is a key-encryption key in the token, named by its CKA_ID.
type secret struct {
	id    []byte
	bar   Bar
	found atomic.Pointer[found]
}

// Seal encrypts a small secret so that only this token opens it again: AES-256-GCM under a fresh data key, which is
// itself wrapped by the key-encryption key in the token. aad binds the result to its place. The first Seal of a
// token makes the key-encryption key. Errors: [ErrUnsupported], [ErrUnavailable].
func (t *Token) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	kek, err := t.sealingKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("find key-encryption key: %w", err)
	}
	e := envelope{kek: kek.id, iv: random(nonceSize), nonce: random(nonceSize)}
	dataKey := random(dataKeySize)
	defer clear(dataKey)
	if e.iv, e.wrapped, err = t.wrap(ctx, kek, e.iv, dataKey, e.wrapAAD()); err != nil {
		return nil, err
	}
	return e.seal(dataKey, plaintext, aad)
}

// Unseal reverses Seal. Errors: [ErrNotFound] when the key-encryption key is not in this token, [ErrUnavailable], or
// that the sealed secret or its aad is not what Seal made.
func (t *Token) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	e, err := parseEnvelope(sealed)
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	dataKey, err := t.unwrap(ctx, t.secret(e.kek), e)
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	plaintext, err := e.open(dataKey, aad)
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	return plaintext, nil
}

// wrapping is what the token made of a data key, with the IV that it used: some tokens choose their own.
type wrapping struct{ iv, wrapped []byte }

func (t *Token) wrap(ctx context.Context, kek *secret, iv, dataKey, aad []byte) (usedIV, wrapped []byte, err error) {
	input := append([]byte(nil), dataKey...) // the token may still be reading when we have given up
	w, err := call(ctx, t, operation[wrapping]{name: "seal", run: func(s *session) (wrapping, error) {
		handle, err := t.secretHandle(s, kek)
		if err != nil {
			return wrapping{}, err
		}
		parameters := pkcs11.NewGCMParams(iv, aad, tagSize*8)
		defer parameters.Free()
		if err := s.EncryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, parameters)}, handle); err != nil {
			return wrapping{}, kek.forget(err)
		}
		out, err := s.Encrypt(s.handle, input)
		if err != nil {
			return wrapping{}, kek.forget(err)
		}
		if used := parameters.IV(); len(used) != nonceSize || len(out) != wrappedSize {
			return wrapping{}, fmt.Errorf("%w: its AES-GCM gives %d bytes under an IV of %d", ErrUnsupported, len(out), len(used))
		}
		return wrapping{parameters.IV(), out}, nil
	}})
	return w.iv, w.wrapped, err
}

func (t *Token) unwrap(ctx context.Context, kek *secret, e envelope) ([]byte, error) {
	dataKey, err := t.decrypt(ctx, kek, e)
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrPIN) || ctx.Err() != nil {
		return dataKey, err
	}
	// Tokens answer a false tag with the codes of a broken device (SoftHSM2: CKR_GENERAL_ERROR). Only when the same
	// key opens what it has just sealed is the envelope at fault.
	probe := envelope{kek: e.kek, iv: random(nonceSize)}
	var probeErr error
	if probe.iv, probe.wrapped, probeErr = t.wrap(ctx, kek, probe.iv, random(dataKeySize), probe.wrapAAD()); probeErr != nil {
		return nil, err
	}
	if _, probeErr = t.decrypt(ctx, kek, probe); probeErr != nil {
		return nil, err
	}
	return nil, fmt.Errorf("unseal: %w", errSealed)
}

func (t *Token) decrypt(ctx context.Context, kek *secret, e envelope) ([]byte, error) {
	return call(ctx, t, operation[[]byte]{name: "unseal", run: func(s *session) ([]byte, error) {
		handle, err := t.secretHandle(s, kek)
		if err != nil {
			return nil, err
		}
		parameters := pkcs11.NewGCMParams(e.iv, e.wrapAAD(), tagSize*8)
		defer parameters.Free()
		if err := s.DecryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, parameters)}, handle); err != nil {
			return nil, kek.forget(err)
		}
		out, err := s.Decrypt(s.handle, e.wrapped)
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

// secretHandle is handle for a key-encryption key. No public key can be compared; instead the attributes must prove
// that the key cannot leave the token.
func (t *Token) secretHandle(s *session, k *secret) (pkcs11.ObjectHandle, error) {
	generation := t.slot.handles()
	if f := k.found.Load(); f != nil && f.generation == generation {
		return f.handle, nil
	}
	objects, err := s.find(2, template(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY, pkcs11.CKA_ID, k.id).ToSlice()...)
	if err != nil {
		return 0, err
	}
	switch len(objects) {
	case 0:
		return 0, t.absent(s)
	case 2:
		return 0, fmt.Errorf("%w: there are several secret keys with it", ErrMismatch)
	}
	if err := s.prove(objects[0], pkcs11.CKO_SECRET_KEY, k.bar); err != nil {
		return 0, err
	}
	k.found.Store(&found{generation, objects[0]})
	return objects[0], nil
}

// secret returns the key-encryption key with this CKA_ID, whether the token has it or not.
func (t *Token) secret(id []byte) *secret {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.keks[string(id)]; k != nil {
		return k
	}
	return &secret{id: append([]byte(nil), id...)}
}

// sealingKey returns the key-encryption key that seals, and makes one in a token that has none. Two processes may
// make one each: both are kept, later processes take the one with the lower CKA_ID, and a sealed secret names its own.
func (t *Token) sealingKey(ctx context.Context) (*secret, error) {
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if t.kek != nil {
		return t.kek, nil
	}
	id, bar, err := t.ownKey(ctx, pkcs11.CKO_SECRET_KEY, kekLabel, func(id []byte, bar Bar) error {
		b := &birth{id: id, class: pkcs11.CKO_SECRET_KEY, bar: bar, generate: func(s *session) error {
			return s.generateSecret(pkcs11.CKM_AES_KEY_GEN, secretTemplate(id, kekLabel))
		}}
		_, err := call(ctx, t, operation[struct{}]{name: "generate", lock: t.slot.generating, run: func(s *session) (struct{}, error) {
			return struct{}{}, b.produce(s)
		}})
		return err
	})
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kek = &secret{id: id, bar: bar}
	t.keks[string(id)] = t.kek
	return t.kek, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return b
}
