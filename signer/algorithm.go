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
	"sync"
)

// algorithm is how a kind of CA key signs.
type algorithm struct {
	id   x509.SignatureAlgorithm
	hash crypto.Hash // 0: the message itself is signed (Ed25519, RFC 8410)

	// identifier is the DER of the AlgorithmIdentifier: with NULL for RSA (RFC 4055, section 5), without parameters for
	// the others (RFC 5758, section 3.2; RFC 8410, section 3).
	identifier string

	// throwaway returns the key that signs what is linted, made once per process. Its signature is never
	// published, and the TBSCertificate names the algorithm only, so any key that serves the algorithm will do:
	// the smallest does it fastest.
	throwaway func() (crypto.Signer, error)
}

var (
	throwawayRSA = sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	throwawayEC  = sync.OnceValues(func() (crypto.Signer, error) {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	})
	throwawayEd = sync.OnceValues(func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	})

	rsaSHA256   = &algorithm{x509.SHA256WithRSA, crypto.SHA256, "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00", throwawayRSA}
	ecdsaSHA256 = &algorithm{x509.ECDSAWithSHA256, crypto.SHA256, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", throwawayEC}
	ecdsaSHA384 = &algorithm{x509.ECDSAWithSHA384, crypto.SHA384, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03", throwawayEC}
	ecdsaSHA512 = &algorithm{x509.ECDSAWithSHA512, crypto.SHA512, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04", throwawayEC}
	pureEd25519 = &algorithm{x509.PureEd25519, 0, "\x30\x05\x06\x03\x2b\x65\x70", throwawayEd}
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

// sign returns the key's signature over the message, which a [crypto.MessageSigner] hashes itself. It is not verified
// yet.
func (a *algorithm) sign(key crypto.Signer, message []byte) ([]byte, error) {
	return crypto.SignMessage(key, rand.Reader, message, a.hash)
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
