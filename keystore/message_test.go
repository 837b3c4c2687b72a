package keystore_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"testing"

	"signet/keystore"
)

func TestAMessageIsSignedAsItsDigest(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	message := []byte("a message of any length")
	sum256, sum384 := sha256.Sum256(message), sha512.Sum384(message)
	for _, c := range []struct {
		kind   keystore.KeyType
		size   int
		opts   crypto.SignerOpts
		digest []byte // nil is refused
	}{
		{keystore.RSA, 2048, crypto.SHA256, sum256[:]},
		{keystore.RSA, 2048, crypto.SHA384, sum384[:]},
		{keystore.EC, 256, crypto.SHA256, sum256[:]},
		{keystore.EC, 384, crypto.SHA384, sum384[:]},
		{keystore.Ed25519, 256, crypto.Hash(0), message},
		{keystore.RSA, 2048, crypto.SHA1, nil},
		{keystore.RSA, 2048, crypto.Hash(0), nil},
		{keystore.EC, 256, crypto.Hash(0), nil},
		{keystore.Ed25519, 256, crypto.SHA256, nil},
		{keystore.RSA, 2048, nil, nil},
	} {
		key, _ := generate(t, token, c.kind, c.size)
		signature, err := key.(crypto.MessageSigner).SignMessage(rand.Reader, message, c.opts)
		if c.digest == nil {
			if err == nil {
				t.Errorf("%s %d signs with %v", c.kind, c.size, c.opts)
			}
			continue
		}
		if err == nil {
			err = verify(key.Public(), c.digest, signature, c.opts.HashFunc())
		}
		if err != nil {
			t.Errorf("%s %d, %v: %v", c.kind, c.size, c.opts, err)
		}
	}
	key, _ := generate(t, token, keystore.RSA, 2048)
	pss := &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthEqualsHash}
	signature, err := key.(crypto.MessageSigner).SignMessage(rand.Reader, message, pss)
	if err == nil {
		err = rsa.VerifyPSS(key.Public().(*rsa.PublicKey), crypto.SHA256, sum256[:], signature, pss)
	}
	if err != nil {
		t.Errorf("PSS: %v", err)
	}
}
