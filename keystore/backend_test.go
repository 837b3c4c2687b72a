package keystore_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"testing"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

func TestWhoeverVerifiesHimselfAsksAgain(t *testing.T) {
	t.Parallel()
	cfg, faults := softhsmtest.Faulty(t)
	token := openAs(t, cfg)
	digest := sha256.Sum256([]byte("message"))
	for _, k := range []struct {
		kind keystore.KeyType
		size int
		opts crypto.SignerOpts
	}{{keystore.EC, 256, crypto.SHA256}, {keystore.RSA, 2048, crypto.SHA256}, {keystore.Ed25519, 256, crypto.Hash(0)}} {
		made, _ := generate(t, token, k.kind, k.size)
		key := made.(keystore.Signer)
		r := keystore.Request{Input: digest[:], Opts: k.opts, Unverified: true}
		good, err := r.Verifier(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		faults.FlipBits(1000)
		if signature, err := key.SignRequest(t.Context(), r); err != nil || good(signature) {
			t.Errorf("%s: a bad signature is held back (%v), or its verifier takes it", k.kind, err)
		}
		if signature, err := key.SignUnverified(digest[:], k.opts); err != nil || len(signature) == 0 {
			t.Errorf("%s: of a message: %x, %v", k.kind, signature, err)
		}
		r.Doubted = true
		if signature, err := key.SignRequest(t.Context(), r); !errors.Is(err, keystore.ErrUnavailable) || signature != nil {
			t.Errorf("%s: the doubted signature is %x, %v", k.kind, signature, err)
		}
		faults.FlipBits(200)
		if signature, err := key.SignRequest(t.Context(), r); err != nil || !good(signature) {
			t.Errorf("%s: of eleven attempts none is good: %v", k.kind, err)
		}
		faults.FlipBits(0)
		if signature, err := key.Sign(nil, digest[:], k.opts); err != nil || !good(signature) {
			t.Errorf("%s: a good signature does not verify: %v", k.kind, err)
		}
	}
}

func TestRequestsThatNoKeyAnswers(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	ec, _ := generate(t, token, keystore.EC, 256)
	ed, _ := generate(t, token, keystore.Ed25519, 256)
	for name, c := range map[string]struct {
		public crypto.PublicKey
		r      keystore.Request
	}{
		"no options":              {ec.Public(), keystore.Request{}},
		"a digest of wrong size":  {ec.Public(), keystore.Request{Input: []byte("x"), Opts: crypto.SHA256}},
		"a hash that none signs":  {ec.Public(), keystore.Request{Input: []byte("x"), Message: true, Opts: crypto.SHA1}},
		"a digest for Ed25519":    {ed.Public(), keystore.Request{Input: make([]byte, 32), Opts: crypto.SHA256}},
		"a key of no known type":  {"key", keystore.Request{Input: make([]byte, 32), Opts: crypto.SHA256}},
		"a message, no algorithm": {ec.Public(), keystore.Request{Input: []byte("x"), Message: true}},
	} {
		if _, err := c.r.Verifier(c.public); err == nil {
			t.Errorf("%s: there is a verifier", name)
		}
	}
}

func TestImpatienceIsInTheContext(t *testing.T) {
	t.Parallel()
	if keystore.IsImpatient(context.Background()) || !keystore.IsImpatient(keystore.Impatient(context.Background())) {
		t.Error("impatience is not what was marked")
	}
}
