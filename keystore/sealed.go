package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The sealed form. All of it up to the ciphertext is authenticated together with the caller's aad.
//
//	1 byte   version: 1 or 2, as the key-encryption key is an AES key or an RSA key pair
//	1 byte   length n of the key-encryption key's CKA_ID, 1 to 255
//	n bytes  CKA_ID of the key-encryption key, so that several may coexist
//
// then in version 1, the wrapping with AES-256-GCM:
//
//	12 bytes  IV of the wrapping
//	48 bytes  data key, AES-256-GCM under the key-encryption key with that IV; aad is everything before the IV
//
// or in version 2, the wrapping with RSAES-OAEP (RFC 8017, section 7.1) and an empty label:
//
//	1 byte   hash, of OAEP and of MGF1: 1 is SHA-256, 2 is SHA-1
//	2 bytes  length w of the wrapped data key, big-endian, 256 to 1024: that of the modulus
//	w bytes  data key, encrypted to the public key
//
// and in both:
//
//	12 bytes  nonce
//	          secret, AES-256-GCM under the data key with that nonce; aad is everything before, then the caller's aad
//
// Version 1 can be made only by who may use the key in the token. Version 2 can be made by whoever knows the public
// key: it keeps a secret as well, and does not say who sealed it.
const (
	sealVersion    = 1
	sealVersionRSA = 2

	dataKeySize = 32
	nonceSize   = 12
	tagSize     = 16
	wrappedSize = dataKeySize + tagSize // in version 1

	minModulusSize = 256 // bytes
	maxModulusSize = 1024
)

var errSealed = errors.New("the sealed secret was changed, cut short, or sealed for another place")

// envelope is the sealed form taken apart. Its parts alias what was parsed.
type envelope struct {
	version    byte
	kek        []byte // CKA_ID
	iv         []byte // version 1
	hash       byte   // version 2
	wrapped    []byte
	nonce      []byte
	ciphertext []byte
}

// parseEnvelope reads the sealed form. It decrypts nothing.
func parseEnvelope(sealed []byte) (envelope, error) {
	rest := sealed
	short := false
	next := func(n int) []byte {
		if short = short || len(rest) < n; short {
			return make([]byte, n)
		}
		part := rest[:n:n]
		rest = rest[n:]
		return part
	}
	e := envelope{version: next(1)[0]}
	n := int(next(1)[0])
	e.kek = next(n)
	switch e.version {
	case sealVersion:
		e.iv, e.wrapped = next(nonceSize), next(wrappedSize)
	case sealVersionRSA:
		e.hash = next(1)[0]
		w := int(binary.BigEndian.Uint16(next(2)))
		if e.hash < hashSHA256 || e.hash > hashSHA1 || w < minModulusSize || w > maxModulusSize {
			return envelope{}, errSealed
		}
		e.wrapped = next(w)
	default:
		return envelope{}, errSealed
	}
	e.nonce, e.ciphertext = next(nonceSize), rest
	if short || n == 0 || len(rest) < tagSize {
		return envelope{}, errSealed
	}
	return e, nil
}

// wrapAAD is what the wrapping of the data key authenticates in version 1, and how the form begins in both.
func (e envelope) wrapAAD() []byte {
	return append([]byte{e.version, byte(len(e.kek))}, e.kek...)
}

// header is everything before the ciphertext.
func (e envelope) header() []byte {
	if e.version == sealVersionRSA {
		size := binary.BigEndian.AppendUint16([]byte{e.hash}, uint16(len(e.wrapped)))
		return slices.Concat(e.wrapAAD(), size, e.wrapped, e.nonce)
	}
	return slices.Concat(e.wrapAAD(), e.iv, e.wrapped, e.nonce)
}

// seal encrypts plaintext under the data key and returns the whole sealed form.
func (e envelope) seal(dataKey, plaintext, aad []byte) ([]byte, error) {
	aead, err := newGCM(dataKey)
	if err != nil {
		return nil, err
	}
	header := e.header()
	return aead.Seal(header, e.nonce, plaintext, slices.Concat(header, aad)), nil
}

// open reverses seal.
func (e envelope) open(dataKey, aad []byte) ([]byte, error) {
	aead, err := newGCM(dataKey)
	if err != nil {
		return nil, errSealed
	}
	plaintext, err := aead.Open(nil, e.nonce, e.ciphertext, slices.Concat(e.header(), aad))
	if err != nil {
		return nil, errSealed
	}
	return plaintext, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	if len(key) != dataKeySize {
		return nil, fmt.Errorf("a data key has %d bytes, not %d", dataKeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// SealedUnder returns the CKA_ID of the key-encryption key that a sealed secret names. It asks no token and proves
// nothing: what was tampered with may name any key.
func SealedUnder(sealed []byte) (id []byte, err error) {
	e, err := parseEnvelope(sealed)
	if err != nil {
		return nil, fmt.Errorf("read sealed secret: %w", err)
	}
	return slices.Clone(e.kek), nil
}
