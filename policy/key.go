package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// KeyType is the algorithm of a key.
type KeyType string

// The key types.
const (
	RSA     KeyType = "rsa"
	EC      KeyType = "ec"
	Ed25519 KeyType = "ed25519"
)

// KeySpec is a key's type and size: bits of the modulus for RSA (2048, 3072, 4096), of the field for EC (256,
// 384, 521), 256 for Ed25519.
type KeySpec struct {
	Type KeyType
	Size int
}

// CheckKeySpec decides whether Signet makes keys of this kind. A size of 0 for EC or Ed25519 means their default
// (256); the spec returned is complete. The error is a [*Violation].
func CheckKeySpec(s KeySpec) (KeySpec, error) {
	if s.Size == 0 && (s.Type == EC || s.Type == Ed25519) {
		s.Size = 256
	}
	switch s {
	case KeySpec{RSA, 2048}, KeySpec{RSA, 3072}, KeySpec{RSA, 4096}, KeySpec{EC, 256}, KeySpec{EC, 384}, KeySpec{EC, 521}, KeySpec{Ed25519, 256}:
		return s, nil
	}
	var reason string
	switch s.Type {
	case RSA:
		reason = fmt.Sprintf("key_size of an rsa key must be 2048, 3072 or 4096, not %d", s.Size)
	case EC:
		reason = fmt.Sprintf("key_size of an ec key must be 256, 384 or 521, not %d", s.Size)
	case Ed25519:
		reason = fmt.Sprintf("key_size of an ed25519 key must be 256, not %d", s.Size)
	default:
		reason = fmt.Sprintf("key_type must be rsa, ec or ed25519, not %s", quote(string(s.Type)))
	}
	return KeySpec{}, violation(reason)
}

// CheckPublicKey decides whether a public key is acceptable in a certificate and returns what it is: *rsa.PublicKey
// of 2048 to 8192 bits with a sound exponent, *ecdsa.PublicKey on P-256, P-384 or P-521, or ed25519.PublicKey, and
// not one of the keys known to be weak. The error is a [*Violation].
func CheckPublicKey(pub crypto.PublicKey) (KeySpec, error) {
	var spec KeySpec
	var reasons []string
	switch k := pub.(type) {
	case *rsa.PublicKey:
		spec, reasons = checkRSA(k)
	case *ecdsa.PublicKey:
		spec, reasons = checkEC(k)
	case ed25519.PublicKey:
		spec, reasons = checkEd25519(k)
	default:
		reasons = []string{fmt.Sprintf("a key of type %T is not supported: use RSA, ECDSA or Ed25519", pub)}
	}
	if len(reasons) == 0 {
		reasons = append(reasons, checkPublished(pub))
	}
	if err := violation(reasons...); err != nil {
		return KeySpec{}, err
	}
	return spec, nil
}

// checkEC requires a point on one of the three curves (SP 800-186, appendix D.1.1).
func checkEC(k *ecdsa.PublicKey) (KeySpec, []string) {
	if k == nil || k.X == nil || k.Y == nil {
		return KeySpec{}, []string{"the public key is missing"}
	}
	switch k.Curve {
	case elliptic.P256(), elliptic.P384(), elliptic.P521():
	case nil:
		return KeySpec{}, []string{"the EC key has no curve: use P-256, P-384 or P-521"}
	default:
		return KeySpec{}, []string{fmt.Sprintf("EC keys on %s are not supported: use P-256, P-384 or P-521", quote(k.Curve.Params().Name))}
	}
	if _, err := k.ECDH(); err != nil {
		return KeySpec{}, []string{"the EC key is not a point on its curve: make a new key"}
	}
	curve := k.Curve.Params()
	if k.X.Cmp(curve.Gx) == 0 {
		return KeySpec{}, []string{"the EC key is the curve's base point, so its private key is known: make a new key"}
	}
	return KeySpec{Type: EC, Size: curve.BitSize}, nil
}

// published holds the SHA-256 of the SubjectPublicKeyInfo of keys whose private halves are printed in documents and
// source code, and which are copied from there into real systems.
var published = map[string]string{
	"8fb6bad671cfe698393c453357da61b56d757ab8c0f3fb9c87f2849e63131878": "RFC 9500, section 2.1 (testRSA2048)",
	"96465ea5dc9bb2da7b351d808a7196e5761f2412a5040131c68d719aaba28fb9": "RFC 9500, section 2.1 (testRSA4096)",
	"b2b04340cfaee616ec9c2c62d261b208e54bb197498df52e8cadede23ac0ba5e": "RFC 9500, section 2.3 (testECCP256)",
	"c4c10105a0be0ed4dd3354428dc38a9bfee64da141ce16e75c94eda272f9dd3a": "RFC 9500, section 2.3 (testECCP384)",
	"acb1b8327fef995e2458fdf5e3c33b2dc0749feabd6a894cb9bda9d70ac06c24": "RFC 9500, section 2.3 (testECCP521)",
	"06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9": "RFC 8032, section 7.1 (test 1)",
	"deb2ded39dc26fce0e6085b6fc34bf6b5941913bbfe2ea614113cff9e004c170": "RFC 8032, section 7.1 (test 2)",
	"8d39ba50abe50f77b6bb8ae7b6927aff7ffbeba35ad2837c0e51e82bcbcc60d5": "RFC 8032, section 7.1 (test 3)",
	"389f9ede520dbc33d2aebc489246ad89e221d1ec15f693c348c58b08219367aa": "the Go standard library (net/http/httptest)",
}

// checkPublished refuses keys whose private half everybody has.
func checkPublished(pub crypto.PublicKey) string {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "the public key cannot be encoded: make a new key"
	}
	sum := sha256.Sum256(spki)
	if source := published[hex.EncodeToString(sum[:])]; source != "" {
		return "the private key of this public key is published in " + source + ": make a new key"
	}
	return ""
}
