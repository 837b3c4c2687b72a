package keystore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// publicKey is what the three public key types of the standard library have in common.
type publicKey interface {
	crypto.PublicKey
	Equal(crypto.PublicKey) bool
}

// readPublic reads the public key out of a public key object.
func (s *session) readPublic(object pkcs11.ObjectHandle) (publicKey, error) {
	raw, err := s.attribute(object, pkcs11.CKA_KEY_TYPE)
	if err != nil {
		return nil, fmt.Errorf("read CKA_KEY_TYPE: %w", err)
	}
	switch keyType := number(raw); keyType {
	case pkcs11.CKK_RSA:
		return s.readRSA(object)
	case pkcs11.CKK_EC:
		parameters, point, err := s.readPoint(object)
		if err != nil {
			return nil, err
		}
		return parseEC(parameters, point)
	case ckkECEdwards:
		_, point, err := s.readPoint(object)
		if err != nil {
			return nil, err
		}
		return parseEdwards(point)
	default:
		return nil, fmt.Errorf("%w: CKA_KEY_TYPE 0x%x", ErrUnsupported, keyType)
	}
}

func (s *session) readRSA(object pkcs11.ObjectHandle) (publicKey, error) {
	modulus, err := s.attribute(object, pkcs11.CKA_MODULUS)
	if err != nil {
		return nil, fmt.Errorf("read CKA_MODULUS: %w", err)
	}
	exponent, err := s.attribute(object, pkcs11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, fmt.Errorf("read CKA_PUBLIC_EXPONENT: %w", err)
	}
	return parseRSA(modulus, exponent)
}

func (s *session) readPoint(object pkcs11.ObjectHandle) (parameters, point []byte, err error) {
	if parameters, err = s.attribute(object, pkcs11.CKA_EC_PARAMS); err != nil {
		return nil, nil, fmt.Errorf("read CKA_EC_PARAMS: %w", err)
	}
	if point, err = s.attribute(object, pkcs11.CKA_EC_POINT); err != nil {
		return nil, nil, fmt.Errorf("read CKA_EC_POINT: %w", err)
	}
	return parameters, point, nil
}

// parseRSA reads two big-endian numbers (PKCS#11 2.40, section 2.1.2).
func parseRSA(modulus, exponent []byte) (publicKey, error) {
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if e.BitLen() > 31 || e.Cmp(big.NewInt(3)) < 0 || n.BitLen() < 1024 {
		return nil, errors.New("malformed RSA public key in the token")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// parseEC reads an uncompressed point, wrapped in an OCTET STRING (PKCS#11 2.40, section 2.3.3) or bare, as some
// tokens give it.
func parseEC(parameters, point []byte) (publicKey, error) {
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(parameters, &oid); err != nil || len(rest) > 0 {
		return nil, errors.New("malformed CKA_EC_PARAMS in the token: not a named curve")
	}
	for _, c := range curves {
		if !c.oid.Equal(oid) {
			continue
		}
		key, err := ecdsa.ParseUncompressedPublicKey(c.curve, unwrapped(point))
		if err != nil {
			key, err = ecdsa.ParseUncompressedPublicKey(c.curve, point)
		}
		if err != nil {
			return nil, fmt.Errorf("malformed CKA_EC_POINT in the token: %w", err)
		}
		return key, nil
	}
	return nil, fmt.Errorf("%w: curve %s", ErrUnsupported, oid)
}

func parseEdwards(point []byte) (publicKey, error) {
	if len(point) != ed25519.PublicKeySize {
		point = unwrapped(point)
	}
	if len(point) != ed25519.PublicKeySize {
		return nil, errors.New("malformed CKA_EC_POINT in the token: not an Ed25519 point")
	}
	return ed25519.PublicKey(bytes.Clone(point)), nil
}

// unwrapped is the content of a DER OCTET STRING, or point itself when it is none.
func unwrapped(point []byte) []byte {
	var octets []byte
	if rest, err := asn1.Unmarshal(point, &octets); err != nil || len(rest) > 0 {
		return point
	}
	return octets
}

// number reads a CK_ULONG, which has the width and byte order of the platform. Anything else is the value that
// PKCS#11 gives to what is not available.
func number(value []byte) uint {
	switch len(value) {
	case 4:
		return uint(binary.NativeEndian.Uint32(value))
	case 8:
		return uint(binary.NativeEndian.Uint64(value))
	}
	return pkcs11.CK_UNAVAILABLE_INFORMATION
}
