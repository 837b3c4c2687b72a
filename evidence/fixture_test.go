package evidence_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"maps"
	"math/big"
	"testing"
	"time"

	"signet/evidence"
)

var signedAt = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// born are the attributes of a key as Signet makes it.
var born = map[string]any{
	"CKA_CLASS": "CKO_PRIVATE_KEY", "CKA_KEY_TYPE": "CKK_EC", "CKA_ID": "c0ffee", "CKA_LABEL": "root",
	"CKA_TOKEN": true, "CKA_PRIVATE": true, "CKA_SENSITIVE": true, "CKA_ALWAYS_SENSITIVE": true,
	"CKA_EXTRACTABLE": false, "CKA_NEVER_EXTRACTABLE": true, "CKA_LOCAL": true, "CKA_SIGN": true,
	"CKA_DECRYPT": false, "CKA_UNWRAP": false, "CKA_DERIVE": false, "CKA_ALLOWED_MECHANISMS": []string{"CKM_ECDSA"},
}

// but is the attributes of born with some changed; nil takes one away.
func but(changes map[string]any) map[string]any {
	attributes := maps.Clone(born)
	for name, value := range changes {
		attributes[name] = value
		if value == nil {
			delete(attributes, name)
		}
	}
	return attributes
}

func attack(name string, outcome evidence.Outcome, result string) evidence.Attack {
	return evidence.Attack{Name: name, Call: "C_Call", Target: "key", Outcome: outcome, Result: result}
}

var (
	refusedRead = attack("read-CKA_VALUE", evidence.Refused, "CKR_ATTRIBUTE_SENSITIVE")
	refusedWrap = attack("wrap-CKM_AES_KEY_WRAP", evidence.Refused, "CKR_KEY_UNEXTRACTABLE")
	noDerive    = attack("derive", evidence.NotApplicable, "no such mechanism")
)

func drill(attacks ...evidence.Attack) evidence.Drill {
	return evidence.Drill{At: signedAt.Add(-time.Hour), Token: "1f2e3d4c", Attacks: attacks}
}

// seeded is the same key in each run: its documents can be kept in files.
func seeded(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func spki(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

var token = evidence.Token{
	Name: "hsm", Label: "lab", Manufacturer: "SoftHSM project", Model: "SoftHSM v2", Serial: "1f2e3d4c", Firmware: "2.6",
	Module: evidence.Module{
		Path: "/usr/lib/softhsm/libsofthsm2.so", SHA256: hex.EncodeToString(make([]byte, 32)),
		Description: "Implementation of PKCS11", Version: "2.6", Cryptoki: "2.40",
	},
}

func describe(t testing.TB, public crypto.PublicKey, label string) evidence.Key {
	t.Helper()
	k := evidence.Key{
		ID: []byte{0xc0, 0xff, 0xee}, Label: label, PublicKey: spki(t, public), Attributes: born, Token: token, ReadAt: signedAt,
	}
	switch p := public.(type) {
	case *rsa.PublicKey:
		k.Type, k.Size = "rsa", p.N.BitLen()
	case *ecdsa.PublicKey:
		k.Type, k.Size = "ec", p.Params().BitSize
	case ed25519.PublicKey:
		k.Type, k.Size = "ed25519", 255
	}
	return k
}

// statement is a drilled key of the CA "Root", to be signed by this key.
func statement(t testing.TB, attester crypto.PublicKey) evidence.Statement {
	t.Helper()
	d := drill(refusedRead, refusedWrap, noDerive)
	return evidence.Statement{
		Time: signedAt, Nonce: "for-the-auditor", Signet: "1.0.0",
		CA:  evidence.CA{ID: 7, Name: "Root", Subject: "CN=Root,O=Acme", CertificateSHA256: hex.EncodeToString(make([]byte, 32))},
		Key: describe(t, seeded("ca").Public(), "root"), Mechanism: "CKM_EDDSA", Drill: &d,
		AttestationKey: attestationKey(t, attester),
	}
}

func attestationKey(t testing.TB, public crypto.PublicKey) evidence.Key {
	t.Helper()
	k := describe(t, public, "attester")
	k.ID, k.Attributes = []byte{0xbe, 0xef}, but(map[string]any{"CKA_ID": "beef", "CKA_LABEL": "attester"})
	return k
}

func signers(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"P-256": p256, "P-384": p384, "RSA": rsa2048, "Ed25519": seeded("attester")}
}

// certificate is a CA certificate of this key.
func certificate(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: signedAt, NotAfter: signedAt.AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func sign(t testing.TB, s evidence.Statement, key crypto.Signer) []byte {
	t.Helper()
	data, err := evidence.Sign(s, key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func signDER(t testing.TB, s evidence.Statement, key crypto.Signer) []byte {
	t.Helper()
	data, err := evidence.DER(s, key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func fingerprint(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	sum := sha256.Sum256(spki(t, public))
	return sum[:]
}
