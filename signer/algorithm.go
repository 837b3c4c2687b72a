package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha512" // crypto.SHA384, crypto.SHA512
	"crypto/x509"
	"fmt"
	"strings"
)

// algorithm is how a kind of CA key signs.
type algorithm struct {
	id   x509.SignatureAlgorithm
	hash crypto.Hash // 0: the message itself is signed (Ed25519, RFC 8410)

	// identifier is the DER of the AlgorithmIdentifier: with NULL for RSA (RFC 4055, section 5), without parameters for
	// the others (RFC 5758, section 3.2; RFC 8410, section 3).
	identifier string

	// placeholder stands where the signature will be while a certificate is compared and linted. It has the form of one and
	// verifies under no key.
	placeholder string
}

// placeholderEC is an ECDSA-Sig-Value (RFC 5480, appendix A) with r = s = 1.
const placeholderEC = "\x30\x06\x02\x01\x01\x02\x01\x01"

var (
	rsaSHA256   = &algorithm{x509.SHA256WithRSA, crypto.SHA256, "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00", strings.Repeat("\x00", 256)}
	ecdsaSHA256 = &algorithm{x509.ECDSAWithSHA256, crypto.SHA256, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", placeholderEC}
	ecdsaSHA384 = &algorithm{x509.ECDSAWithSHA384, crypto.SHA384, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03", placeholderEC}
	ecdsaSHA512 = &algorithm{x509.ECDSAWithSHA512, crypto.SHA512, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04", placeholderEC}
	pureEd25519 = &algorithm{x509.PureEd25519, 0, "\x30\x05\x06\x03\x2b\x65\x70", strings.Repeat("\x00", 64)}
)

// algorithmOf returns how the private half of pub signs. The hash matches the strength of the curve (RFC 5480,
// section 4).
func algorithmOf(pub crypto.PublicKey) (*algorithm, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return rsaSHA256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ecdsaSHA256, nil
		case elliptic.P384():
			return ecdsaSHA384, nil
		case elliptic.P521():
			return ecdsaSHA512, nil
		}
		return nil, fmt.Errorf("unsupported curve of a public key")
	case ed25519.PublicKey:
		return pureEd25519, nil
	}
	return nil, fmt.Errorf("unsupported public key type %T", pub)
}

// unverified is a key that can leave out the verification of its own signatures.
type unverified interface {
	SignUnverified(message []byte, opts crypto.SignerOpts) ([]byte, error)
}

// sign returns the key's signature over the message, which a [crypto.MessageSigner] hashes itself, once it has verified
// under the issuer's public key. A key that verifies what it signs is spared that the first time; when the signature is
// bad, the key is asked again as it usually is, with its own verification and whatever it does after a bad one. Errors
// wrap [ErrKey].
func (a *algorithm) sign(key crypto.Signer, pub crypto.PublicKey, message []byte) ([]byte, error) {
	if k, ok := key.(unverified); ok {
		signature, err := k.SignUnverified(message, a.hash)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		if a.verify(pub, message, signature) == nil {
			return signature, nil
		}
	}
	signature, err := crypto.SignMessage(key, rand.Reader, message, a.hash)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if err := a.verify(pub, message, signature); err != nil {
		return nil, fmt.Errorf("verify: %w: %w", ErrKey, err)
	}
	return signature, nil
}

// verify checks a signature over the message.
func (a *algorithm) verify(pub crypto.PublicKey, message, signature []byte) error {
	return (&x509.Certificate{PublicKey: pub}).CheckSignature(a.id, message, signature)
}

// samePublicKey compares by value. Keys of the standard library all have Equal.
func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
