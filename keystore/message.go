package keystore

import (
	"context"
	"crypto"
	"io"
	"sync"

	"github.com/miekg/pkcs11"
)

// hashing are the mechanisms that hash a message in the token and sign it with RSA, PKCS #1 v1.5.
var hashing = map[crypto.Hash]uint{
	crypto.SHA256: pkcs11.CKM_SHA256_RSA_PKCS,
	crypto.SHA384: pkcs11.CKM_SHA384_RSA_PKCS,
	crypto.SHA512: pkcs11.CKM_SHA512_RSA_PKCS,
}

// SignMessage signs a message, as Sign does its digest, and implements [crypto.MessageSigner]. RSA keys hash it in the
// token where that is offered. On a TPM it is the only way: to sign what is padded already is decryption there, and our
// keys may not decrypt.
func (s *signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignRequest(context.Background(), Request{Input: message, Message: true, Opts: opts})
}

// SignUnverified implements [Signer].
func (s *signer) SignUnverified(message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignRequest(context.Background(), Request{Input: message, Message: true, Opts: opts, Unverified: true})
}

// planForMessage is planFor when more than the digest is known.
func planForMessage(public publicKey, message []byte, opts crypto.SignerOpts) (plan, error) {
	if opts == nil || opts.HashFunc() != 0 && hashes[opts.HashFunc()].prefix == nil {
		return planFor(public, nil, opts) // which says what is wrong
	}
	p, err := planFor(public, digestOf(opts.HashFunc(), message), opts)
	p.message, p.hash = message, opts.HashFunc()
	return p, err
}

// hashed turns a plan for a digest into one for the message, if the message is known, the key is RSA and the token knows
// how.
func (t *Token) hashed(s *session, p plan) plan {
	if p.message != nil && p.mechanism == pkcs11.CKM_RSA_PKCS && t.lists(s, hashing[p.hash]) {
		p.mechanism, p.input = hashing[p.hash], p.message
	}
	return p
}

// offers remembers what tokens answered to lists, by slot and mechanism.
var offers sync.Map

type offer struct {
	slot      *slot
	mechanism uint
}

// lists reports whether the token says that it signs with the mechanism.
func (t *Token) lists(s *session, mechanism uint) bool {
	if known, ok := offers.Load(offer{t.slot, mechanism}); ok {
		return known.(bool)
	}
	info, err := s.GetMechanismInfo(t.slot.id, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)})
	if classOf(err).retried() {
		return false // it says nothing of the mechanism; the signature will tell what is wrong
	}
	listed := err == nil && info.Flags&pkcs11.CKF_SIGN != 0
	offers.Store(offer{t.slot, mechanism}, listed)
	return listed
}

// try signs something with a key that was just made: tokens make keys that they then cannot use.
func (t *Token) try(s *session, k *key) error {
	p, err := k.challenge()
	if err == nil {
		_, err = t.sign(s, k, p)
	}
	return err
}

// digestOf is the message itself for the hash 0.
func digestOf(hash crypto.Hash, message []byte) []byte {
	if hash == 0 {
		return message
	}
	h := hash.New()
	h.Write(message)
	return h.Sum(nil)
}
