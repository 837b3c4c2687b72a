package keystore_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"testing"

	"signet/keystore"
)

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	ec, _ := generate(t, token, keystore.EC, 256)
	rsaKey, _ := generate(t, token, keystore.RSA, 2048)
	ed, _ := generate(t, token, keystore.Ed25519, 256)
	for _, c := range []struct {
		name   string
		key    crypto.Signer
		digest []byte
		opts   crypto.SignerOpts
	}{
		{"a digest longer than the hash", ec, make([]byte, 33), crypto.SHA256},
		{"a digest shorter than the hash", rsaKey, make([]byte, 31), crypto.SHA256},
		{"a whole message as digest", ec, make([]byte, 4096), crypto.SHA256},
		{"an empty digest", ec, nil, crypto.SHA256},
		{"no options", ec, make([]byte, 32), nil},
		{"no hash", ec, make([]byte, 32), crypto.Hash(0)},
		{"no hash with RSA", rsaKey, make([]byte, 32), crypto.Hash(0)},
		{"SHA-1", rsaKey, make([]byte, 20), crypto.SHA1},
		{"MD5", ec, make([]byte, 16), crypto.MD5},
		{"a salt without room", rsaKey, make([]byte, 32), &rsa.PSSOptions{SaltLength: 223, Hash: crypto.SHA256}},
		{"a negative salt", rsaKey, make([]byte, 32), &rsa.PSSOptions{SaltLength: -2, Hash: crypto.SHA256}},
		{"Ed25519 over a digest", ed, make([]byte, 64), crypto.SHA512},
		{"Ed25519 with a context", ed, make([]byte, 64), &ed25519.Options{Context: "x"}},
	} {
		if signature, err := c.key.Sign(rand.Reader, c.digest, c.opts); err == nil || signature != nil {
			t.Errorf("%s is signed", c.name)
		} else if errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: %v, but the token is not at fault", c.name, err)
		}
	}
}

// A digest longer than the curve's order is cut, not refused (FIPS 186-5, section 6.4.1).
func TestECDSATakesEveryHashOnEveryCurve(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	for _, size := range []int{256, 384, 521} {
		key, _ := generate(t, token, keystore.EC, size)
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			h := hash.New()
			h.Write([]byte("message"))
			signature, err := key.Sign(nil, h.Sum(nil), hash)
			if err == nil {
				err = verify(key.Public(), h.Sum(nil), signature, hash)
			}
			if err != nil {
				t.Errorf("P-%d with %v: %v", size, hash, err)
			}
		}
	}
}

func TestSignerRefuses(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	public := mustDER(t, key.Public())
	sibling, _ := generate(t, token, keystore.EC, 256)
	foreign, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, fresh := range []bool{false, true} { // the second time on a token that has never seen the key
		if fresh {
			token = openAs(t, cfg)
		}
		for _, c := range []struct {
			name       string
			id, public []byte
			want       error
		}{
			{"an unknown id", []byte("unknown"), public, keystore.ErrNotFound},
			{"an empty id", nil, public, keystore.ErrNotFound},
			{"a prefix of the id", id[:8], public, keystore.ErrNotFound},
			{"the public key of another key of the token", id, mustDER(t, sibling.Public()), keystore.ErrMismatch},
			{"a public key on another curve", id, mustDER(t, foreign.Public()), keystore.ErrMismatch},
			{"a public key of another type", id, mustDER(t, edwards), keystore.ErrMismatch},
			{"a public key that cannot verify", id, mustDER(t, agreement.PublicKey()), keystore.ErrMismatch},
			{"a truncated public key", id, public[:len(public)-1], nil},
			{"no public key", id, nil, nil},
		} {
			switch _, err := token.Signer(t.Context(), c.id, c.public, keystore.BarBorn); {
			case err == nil:
				t.Errorf("fresh %t: %s is accepted", fresh, c.name)
			case c.want != nil && !errors.Is(err, c.want):
				t.Errorf("fresh %t: %s: %v, want %v", fresh, c.name, err, c.want)
			}
		}
		if again, err := token.Signer(t.Context(), id, public, keystore.BarBorn); err != nil {
			t.Error(err)
		} else if err := signDigest(again); err != nil {
			t.Error(err)
		}
	}
}

func TestTwoKeysUnderOneIDAreRefused(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	if err := token.Raw(t.Context(), rawGenerate(id)); err != nil {
		t.Fatal(err)
	}
	other := openAs(t, cfg)
	if _, err := other.Signer(t.Context(), id, mustDER(t, key.Public()), keystore.BarBorn); !errors.Is(err, keystore.ErrMismatch) {
		t.Errorf("two private keys under one CKA_ID: %v", err)
	}
	if _, err := other.Inspect(t.Context(), id); !errors.Is(err, keystore.ErrMismatch) {
		t.Errorf("attributes of one of two keys: %v", err)
	}
}

func TestAKeyThatCouldLeaveIsNotUsed(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	id := []byte("made by somebody else")
	if err := token.Raw(t.Context(), rawGenerate(id)); err != nil {
		t.Fatal(err)
	}
	public, err := token.PublicKey(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Signer(t.Context(), id, mustDER(t, public), keystore.BarBorn); !errors.Is(err, keystore.ErrEvidence) {
		t.Errorf("a key with the token's own template is used: %v", err)
	}
}

func TestAttributesOfNoKey(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	if _, err := token.Inspect(t.Context(), []byte("unknown")); !errors.Is(err, keystore.ErrNotFound) {
		t.Error(err)
	}
}

func TestPublicReturnsTheStandardTypes(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	for _, kind := range []struct {
		kind keystore.KeyType
		size int
		want x509.PublicKeyAlgorithm
	}{{keystore.EC, 256, x509.ECDSA}, {keystore.Ed25519, 256, x509.Ed25519}, {keystore.RSA, 2048, x509.RSA}} {
		key, _ := generate(t, token, kind.kind, kind.size)
		got := x509.UnknownPublicKeyAlgorithm
		switch public := key.Public().(type) {
		case *rsa.PublicKey:
			got = x509.RSA
			if public.E != 65537 || public.N.BitLen() != kind.size {
				t.Errorf("RSA key of %d bits, exponent %d", public.N.BitLen(), public.E)
			}
		case *ecdsa.PublicKey:
			got = x509.ECDSA
		case ed25519.PublicKey:
			got = x509.Ed25519
		}
		if got != kind.want {
			t.Errorf("%s: %T", kind.kind, key.Public())
		}
	}
}
