package keystore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// The hashes of OAEP, as the sealed form numbers them. SHA-1 is no weakness here: OAEP does not rest on the collision
// resistance that it lost (RFC 8017, appendix B.1), and SoftHSM2 2.6.1 knows no other.
const (
	hashSHA256 = 1
	hashSHA1   = 2
)

// oaepHashes are what the hashes are here and in the token.
var oaepHashes = map[byte]struct {
	new            func() hash.Hash
	mechanism, mgf uint
}{
	hashSHA256: {sha256.New, pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	hashSHA1:   {sha1.New, pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1},
}

// oaepKey is what seals under a key pair in the token.
type oaepKey struct {
	public *rsa.PublicKey
	hash   byte // the best that the token opens
}

// encrypt wraps a data key. Both hashes have the empty label, which is all that SoftHSM2 takes.
func (k *oaepKey) encrypt(dataKey []byte) ([]byte, error) {
	wrapped, err := rsa.EncryptOAEP(oaepHashes[k.hash].new(), rand.Reader, k.public, dataKey, nil)
	if err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	return wrapped, nil
}

func (s *session) decryptOAEP(key pkcs11.ObjectHandle, hash byte, wrapped []byte) ([]byte, error) {
	h := oaepHashes[hash]
	parameters := pkcs11.NewOAEPParams(h.mechanism, h.mgf, pkcs11.CKZ_DATA_SPECIFIED, nil)
	if err := s.DecryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, parameters)}, key); err != nil {
		return nil, err
	}
	return s.Decrypt(s.handle, wrapped)
}

// makePair makes a key pair that does nothing but decrypt, and finds out how. A pair that the token cannot use is
// destroyed again.
func (t *Token) makePair(ctx context.Context, label string, bits int) (*secret, error) {
	id := random(16)
	b := &birth{id: id, class: pkcs11.CKO_PRIVATE_KEY,
		generate: func(s *session) error {
			return s.generatePair(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, pairPublicTemplate(id, label, bits), pairPrivateTemplate(id, label))
		},
		prove: func(s *session) error {
			objects, err := s.find(1, template(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKA_ID, id).ToSlice()...)
			if err == nil && len(objects) == 0 {
				err = ErrNotFound
			}
			if err != nil {
				return err
			}
			return s.proveKEK(objects[0], pkcs11.CKO_PRIVATE_KEY, t.ownBar())
		},
	}
	if _, err := t.generate(ctx, b); err != nil {
		return nil, fmt.Errorf("make RSA-%d key: %w", bits, err)
	}
	k, err := t.readyFor(ctx, &secret{class: pkcs11.CKO_PRIVATE_KEY, id: id})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("use RSA-%d key: %w", bits, err), t.destroyObjects(ctx, id))
	}
	return k, nil
}

// readyFor returns the key-encryption key with all that sealing under it needs. Of a key pair the public half is read
// from the token, where anybody who is logged in could have replaced it: what is encrypted under it must come back.
func (t *Token) readyFor(ctx context.Context, k *secret) (*secret, error) {
	if k.class == pkcs11.CKO_SECRET_KEY || k.pair != nil {
		return k, nil
	}
	p, err := call(ctx, t, operation[pair]{name: "find", run: func(s *session) (pair, error) { return t.lookup(s, k.id) }})
	if err != nil {
		return nil, fmt.Errorf("read key pair: %w", err)
	}
	public, ok := p.public.(*rsa.PublicKey)
	if !ok || public.Size() < minModulusSize || public.Size() > maxModulusSize {
		return nil, fmt.Errorf("%w: no RSA key of 2048 to 8192 bits", ErrMismatch)
	}
	var failures []error
	for _, hash := range []byte{hashSHA256, hashSHA1} {
		ready := &secret{class: k.class, id: k.id, pair: &oaepKey{public, hash}}
		err := t.roundTrip(ctx, ready)
		if err == nil {
			return ready, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil || errors.Is(err, ErrPIN) {
			break
		}
	}
	err = errors.Join(failures...)
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrMismatch) {
		err = fmt.Errorf("%w: it does no RSA-OAEP: %w", ErrUnsupported, err)
	}
	return nil, err
}

// roundTrip proves that the token opens what is sealed under the key.
func (t *Token) roundTrip(ctx context.Context, k *secret) error {
	want := random(dataKeySize)
	defer clear(want)
	e, err := t.envelopeUnder(ctx, k, want)
	if err != nil {
		return err
	}
	got, err := t.decrypt(ctx, k, e)
	defer clear(got)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(got, want):
		return fmt.Errorf("%w: it does not open what was sealed under its public key", ErrMismatch)
	}
	return nil
}

// pairPrivateTemplate is a key that decrypts inside the token, and no more.
func pairPrivateTemplate(id []byte, label string) crypto11.AttributeSet {
	set := privateTemplate(Spec{ID: id, Label: label}, kind{keyType: pkcs11.CKK_RSA, signing: []uint{pkcs11.CKM_RSA_PKCS_OAEP}})
	for attribute, value := range map[uint]bool{pkcs11.CKA_SIGN: false, pkcs11.CKA_DECRYPT: true} {
		set[attribute] = pkcs11.NewAttribute(attribute, value)
	}
	return set
}

// pairPublicTemplate is its public half, which the token itself never uses. What that
// could do is left unsaid: tpm2-pkcs11 has ideas of its own about CKA_VERIFY and CKA_ENCRYPT, and refuses others.
func pairPublicTemplate(id []byte, label string, bits int) crypto11.AttributeSet {
	set := publicTemplate(Spec{ID: id, Label: label}, kind{keyType: pkcs11.CKK_RSA, parameter: pkcs11.CKA_MODULUS_BITS}, bits)
	set.Unset(pkcs11.CKA_VERIFY)
	set.Unset(pkcs11.CKA_ENCRYPT)
	return set
}
