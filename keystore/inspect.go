package keystore

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Inspection is what the token says of a private key and of itself.
type Inspection struct {
	ID         []byte // CKA_ID
	Label      string // CKA_LABEL
	Type       KeyType
	Size       int    // bits, as in [Spec]
	Mechanism  string // that messages are signed with, as SHA-256 goes: "CKM_ECDSA"
	Public     crypto.PublicKey
	Attributes map[string]any // of the private key, by PKCS#11 name: bool, string (constants by name, CKA_ID in hex) or []string
	Info       Info
}

// Inspect reads what the token says of the private key with this CKA_ID, whatever it says: of imported and extractable
// keys, too, which nothing else here uses. The public key is that of the public key object with the same CKA_ID; where
// there is none, of the private key object, if the token keeps the public parts there. Errors: [ErrNotFound] for no
// such key, or one without public key; [ErrMismatch] for several keys under the id, or a public key object that
// belongs to another private key; [ErrUnsupported]; [ErrUnavailable].
func (t *Token) Inspect(ctx context.Context, id []byte) (Inspection, error) {
	read, err := call(ctx, t, operation[Inspection]{name: "inspect", run: func(s *session) (Inspection, error) {
		return t.inspect(s, id)
	}})
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect key %x: %w", id, err)
	}
	if read.Info, err = t.Info(ctx); err != nil {
		return Inspection{}, fmt.Errorf("inspect key %x: %w", id, err)
	}
	return read, nil
}

func (t *Token) inspect(s *session, id []byte) (Inspection, error) {
	p, err := t.anyPair(s, id)
	if err != nil {
		return Inspection{}, err
	}
	attributes, err := s.attributes(p.private)
	if err != nil {
		return Inspection{}, err
	}
	label, _ := attributes["CKA_LABEL"].(string)
	keyType, size := describe(p.public)
	return Inspection{
		ID: id, Label: label, Type: keyType, Size: size, Public: p.public, Mechanism: t.mechanismOf(s, keyType), Attributes: attributes,
	}, nil
}

// mechanismOf is what the token is asked to sign messages with.
func (t *Token) mechanismOf(s *session, keyType KeyType) string {
	mechanism := uint(pkcs11.CKM_ECDSA)
	switch {
	case keyType == Ed25519:
		mechanism = ckmEDDSA
	case keyType == RSA && t.lists(s, hashing[crypto.SHA256]):
		mechanism = hashing[crypto.SHA256]
	case keyType == RSA:
		mechanism = pkcs11.CKM_RSA_PKCS
	}
	return nameOf(mechanismNames, mechanism)
}

// anyPair is lookup for keys that others made: the public key object may be missing.
func (t *Token) anyPair(s *session, id []byte) (pair, error) {
	private, publics, err := t.objects(s, id)
	if err != nil {
		return pair{}, err
	}
	own, err := s.publicOfPrivate(private)
	if err != nil {
		return pair{}, err
	}
	if len(publics) == 0 {
		if own == nil {
			return pair{}, fmt.Errorf("%w: the private key has no public key object beside it, nor public parts of its own", ErrNotFound)
		}
		return pair{private, own}, nil
	}
	public, err := s.readPublic(publics[0])
	if err == nil && own != nil && !own.Equal(public) {
		err = fmt.Errorf("%w: the public key object belongs to another private key", ErrMismatch)
	}
	return pair{private, public}, err
}

// publicOfPrivate reads the public parts that a private key object may have: RSA keys in most tokens, EC keys in
// tpm2-pkcs11, CKA_PUBLIC_KEY_INFO (PKCS#11 2.40, section 4.9) in few. It returns nil when there are none.
func (s *session) publicOfPrivate(private pkcs11.ObjectHandle) (publicKey, error) {
	public, err := s.readPublic(private)
	if err == nil {
		return public, nil
	}
	if lost(err) {
		return nil, err
	}
	info, err := s.attribute(private, pkcs11.CKA_PUBLIC_KEY_INFO)
	if lost(err) {
		return nil, err
	}
	if parsed, err := x509.ParsePKIXPublicKey(info); err == nil {
		if public, ok := parsed.(publicKey); ok {
			return public, nil
		}
	}
	return nil, nil
}

// lost reports that a read failed because of the session or the object handle, so that nothing is known of the
// attribute. What else a token answers means that it does not tell; p11-kit says CKR_DEVICE_ERROR then.
func lost(err error) bool {
	c := classOf(err)
	return c == classSession || c == classLogin || c == classObject
}

// describe returns type and size of a public key in the terms of [Spec].
func describe(public crypto.PublicKey) (KeyType, int) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return RSA, k.N.BitLen()
	case *ecdsa.PublicKey:
		return EC, k.Curve.Params().BitSize
	case ed25519.PublicKey:
		return Ed25519, 256
	}
	return "", 0
}
