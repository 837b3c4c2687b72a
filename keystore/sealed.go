package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"slices"
)

// The sealed form, version 1. All of it up to the ciphertext is authenticated together with the caller's aad.
//
//	 1 byte   version, 1
//	 1 byte   length n of the key-encryption key's CKA_ID, 1 to 255
//	 n bytes  CKA_ID of the key-encryption key, so that several may coexist
//	12 bytes  IV of the wrapping
//	48 bytes  data key, AES-256-GCM under the key-encryption key with that IV; aad is everything before the IV
//	12 bytes  nonce
//	          secret, AES-256-GCM under the data key with that nonce; aad is everything before, then the caller's aad
const (
	sealVersion = 1
	dataKeySize = 32
	nonceSize   = 12
	tagSize     = 16
	wrappedSize = dataKeySize + tagSize
)

var errSealed = errors.New("the sealed secret was changed, cut short, or sealed for another place")

// envelope is the sealed form taken apart. Its parts alias what was parsed.
type envelope struct {
	kek        []byte // CKA_ID
	iv         []byte
	wrapped    []byte
	nonce      []byte
	ciphertext []byte
}

// parseEnvelope reads the sealed form. It decrypts nothing.
func parseEnvelope(sealed []byte) (envelope, error) {
	if len(sealed) < 2 || sealed[0] != sealVersion || sealed[1] == 0 {
		return envelope{}, errSealed
	}
	n := int(sealed[1])
	rest := sealed[2:]
	if len(rest) < n+nonceSize+wrappedSize+nonceSize+tagSize {
		return envelope{}, errSealed
	}
	next := func(n int) []byte {
		part := rest[:n:n]
		rest = rest[n:]
		return part
	}
	return envelope{kek: next(n), iv: next(nonceSize), wrapped: next(wrappedSize), nonce: next(nonceSize), ciphertext: rest}, nil
}

// wrapAAD is what the wrapping of the data key authenticates.
func (e envelope) wrapAAD() []byte {
	return append([]byte{sealVersion, byte(len(e.kek))}, e.kek...)
}

// header is everything before the ciphertext.
func (e envelope) header() []byte {
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
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
