package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/miekg/pkcs11"
)

// signer is a token key as a [crypto.Signer].
type signer struct {
	token *Token
	key   *key
}

// Public returns an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
func (s *signer) Public() crypto.PublicKey { return s.key.public }

// Ready waits, as long as operations do, for a token that is away. Errors: [ErrUnavailable].
func (s *signer) Ready() error { return s.token.Await(context.Background()) }

// Await waits, as long as operations do, for a token that is away. Errors: [ErrUnavailable].
func (t *Token) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	return t.health.await(ctx)
}

// Sign signs in the token and verifies the signature before returning it. RSA and ECDSA sign a digest of the length
// of opts' hash (SHA-256, SHA-384 or SHA-512), RSA with PSS when opts is an [*rsa.PSSOptions]; ECDSA signatures are
// ASN.1 DER. Ed25519 signs the message itself (opts.HashFunc() is 0). rand is not used. Errors: [ErrUnavailable],
// [ErrNotFound] and [ErrMismatch] when the key was destroyed or replaced.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignRequest(context.Background(), Request{Input: digest, Opts: opts})
}

// SignRequest implements [Signer].
func (s *signer) SignRequest(ctx context.Context, r Request) ([]byte, error) {
	p, err := r.plan(s.key.public)
	if err != nil {
		return nil, err
	}
	if r.Doubted {
		s.key.found.Store(nil)
	}
	p.unverified = r.Unverified && !r.Doubted
	return s.token.signPlan(ctx, s.key, "sign", p)
}

// signPlan makes a signature with a key that was found before.
func (t *Token) signPlan(ctx context.Context, k *key, name string, p plan) ([]byte, error) {
	return call(ctx, t, operation[[]byte]{name: name, known: k.lost(), run: func(session *session) ([]byte, error) {
		return t.sign(session, k, p)
	}})
}

func (t *Token) sign(session *session, k *key, p plan) ([]byte, error) {
	handle, err := t.handle(session, k)
	if err != nil {
		return nil, err
	}
	signature, err := session.sign(handle, t.hashed(session, p))
	if err == nil {
		signature, err = p.finish(signature)
	}
	if c := classOf(err); c == classObject {
		k.found.Store(nil)
	}
	return signature, err
}

func (s *session) sign(handle pkcs11.ObjectHandle, p plan) ([]byte, error) {
	if err := s.SignInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(p.mechanism, p.parameter)}, handle); err != nil {
		return nil, err
	}
	return s.Sign(s.handle, p.input)
}

// plan is a signature to be made: what the token is asked, and how its answer is read and verified.
type plan struct {
	mechanism uint
	parameter any // []byte or nil
	input     []byte
	encode    func(raw []byte) ([]byte, error) // of the token's answer; nil when that is the signature
	verify    func(signature []byte) bool

	unverified bool // somebody else verifies it

	message []byte // what the digest is of, with its hash; nil when only the digest is known
	hash    crypto.Hash
}

// finish makes a signature of the token's answer. Errors: errBadSignature when it does not verify.
func (p plan) finish(signature []byte) (_ []byte, err error) {
	if p.encode != nil {
		if signature, err = p.encode(signature); err != nil {
			return nil, err
		}
	}
	if !p.unverified && !p.verify(signature) {
		return nil, errBadSignature
	}
	return signature, nil
}

// hashes are the hash functions that are signed with, and their PKCS#11 names.
var hashes = map[crypto.Hash]struct {
	mechanism, mgf uint
	prefix         []byte // DER of DigestInfo up to the digest (RFC 8017, section 9.2, note 1)
}{
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, digestInfo(1, 32)},
	crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384, digestInfo(2, 48)},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512, digestInfo(3, 64)},
}

// digestInfo is the DER before a digest of size bytes made by the hash 2.16.840.1.101.3.4.2.n.
func digestInfo(n, size byte) []byte {
	return []byte{0x30, 17 + size, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, n, 0x05, 0x00, 0x04, size}
}

func planFor(public publicKey, digest []byte, opts crypto.SignerOpts) (plan, error) {
	if opts == nil {
		return plan{}, errors.New("no signature options")
	}
	hash := opts.HashFunc()
	if key, ok := public.(ed25519.PublicKey); ok {
		if o, ok := opts.(*ed25519.Options); hash != 0 || ok && o.Context != "" {
			return plan{}, errors.New("Ed25519 signs the message itself, without hash or context")
		}
		return planEd25519(key, digest), nil
	}
	if _, ok := hashes[hash]; !ok {
		return plan{}, fmt.Errorf("%w: signature hash %v", ErrUnsupported, hash)
	}
	if len(digest) != hash.Size() {
		return plan{}, fmt.Errorf("a digest of %d bytes is none of %v", len(digest), hash)
	}
	switch key := public.(type) {
	case *rsa.PublicKey:
		if o, ok := opts.(*rsa.PSSOptions); ok {
			return planPSS(key, digest, hash, o)
		}
		return planPKCS1(key, digest, hash), nil
	case *ecdsa.PublicKey:
		return planECDSA(key, digest), nil
	}
	return plan{}, fmt.Errorf("%w: %T", ErrUnsupported, public)
}

func planEd25519(key ed25519.PublicKey, message []byte) plan {
	return plan{mechanism: ckmEDDSA, parameter: nil, input: message, verify: func(signature []byte) bool {
		return ed25519.Verify(key, message, signature)
	}}
}

func planPKCS1(key *rsa.PublicKey, digest []byte, hash crypto.Hash) plan {
	input := append(bytes.Clone(hashes[hash].prefix), digest...)
	return plan{mechanism: pkcs11.CKM_RSA_PKCS, parameter: nil, input: input, verify: func(signature []byte) bool {
		return rsa.VerifyPKCS1v15(key, hash, digest, signature) == nil
	}}
}

func planPSS(key *rsa.PublicKey, digest []byte, hash crypto.Hash, opts *rsa.PSSOptions) (plan, error) {
	room := (key.N.BitLen()-1+7)/8 - 2 - hash.Size() // RFC 8017, section 9.1.1
	salt := opts.SaltLength
	switch {
	case salt == rsa.PSSSaltLengthEqualsHash:
		salt = hash.Size()
	case salt == rsa.PSSSaltLengthAuto:
		salt = room
	}
	if salt < 0 || salt > room {
		return plan{}, fmt.Errorf("no room for a PSS salt of %d bytes", salt)
	}
	h := hashes[hash]
	parameter := pkcs11.NewPSSParams(h.mechanism, h.mgf, uint(salt))
	return plan{mechanism: pkcs11.CKM_RSA_PKCS_PSS, parameter: parameter, input: digest, verify: func(signature []byte) bool {
		return rsa.VerifyPSS(key, hash, digest, signature, &rsa.PSSOptions{SaltLength: salt}) == nil
	}}, nil
}

// planECDSA asks for r||s (PKCS#11 2.40, section 2.3.1) and gives ECDSA-Sig-Value (RFC 5480, appendix A).
func planECDSA(key *ecdsa.PublicKey, digest []byte) plan {
	input := digest
	if size := (key.Params().BitSize + 7) / 8; len(input) > size {
		input = input[:size] // the leftmost bits (FIPS 186-5, section 6.4.1), as tokens do not agree on longer input
	}
	return plan{
		mechanism: pkcs11.CKM_ECDSA, parameter: nil, input: input, encode: sigValue,
		verify: func(signature []byte) bool { return ecdsa.VerifyASN1(key, digest, signature) },
	}
}

func sigValue(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, errBadSignature
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}
