package keystore_test

import (
	"crypto"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"signet/keystore"
)

// BenchmarkSign compares the keystore, which verifies what it returns, with bare C_SignInit and C_Sign.
func BenchmarkSign(b *testing.B) {
	for _, k := range []struct {
		kind      keystore.KeyType
		size      int
		mechanism uint
	}{
		{keystore.EC, 256, pkcs11.CKM_ECDSA},
		{keystore.RSA, 2048, pkcs11.CKM_RSA_PKCS},
		{keystore.RSA, 4096, pkcs11.CKM_RSA_PKCS},
		{keystore.Ed25519, 256, 0x1057},
	} {
		token, cfg := open(b)
		key, id := generate(b, token, k.kind, k.size)
		digest := sha256.Sum256([]byte("message"))
		var hash crypto.Hash
		if k.kind != keystore.Ed25519 {
			hash = crypto.SHA256
		}
		name := fmt.Sprintf("%s%d", k.kind, k.size)
		b.Run(name+"/keystore", func(b *testing.B) {
			for b.Loop() {
				if _, err := key.Sign(nil, digest[:], hash); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/keystore-parallel", func(b *testing.B) {
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := key.Sign(nil, digest[:], hash); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run(name+"/miekg", func(b *testing.B) { signRaw(b, cfg, id, k.mechanism, digest[:]) })
	}
}

func signRaw(b *testing.B, cfg keystore.Config, id []byte, mechanism uint, digest []byte) {
	p := pkcs11.New(cfg.Module) // the library is initialized already, by the token under test
	session, err := logIn(p, errand{Token: cfg.Token, PIN: cfg.PIN})
	if err != nil && err != error(pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		b.Fatal(err)
	}
	defer p.CloseSession(session)
	found, err := find(p, session, pkcs11.CKO_PRIVATE_KEY, id)
	if err != nil || len(found) != 1 {
		b.Fatalf("found %d keys: %v", len(found), err)
	}
	for b.Loop() {
		if err := p.SignInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, found[0]); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Sign(session, digest); err != nil {
			b.Fatal(err)
		}
	}
}
