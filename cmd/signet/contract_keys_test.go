package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
)

func noPrivateKey(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("nokey"), nil).want(http.StatusCreated).id()
	made := root.issue(authority, "nokey.example", "server", object{"include_private_key": false}).want(http.StatusCreated)
	expect(t, made.object(), object{"private_key": nil})
	if made.header.Get("Warning") == "" {
		t.Error("no Warning header says that the private half was discarded")
	}
	expect(t, root.ask("GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", made.id()), nil).want(http.StatusOK).object(), object{"private_key": nil})
	root.ask("GET", fmt.Sprintf("/api/v1/export/certificate/%d/private-key", made.id()), nil).refused(http.StatusNotFound, "")
	kept := root.issue(authority, "key.example", "server", nil).want(http.StatusCreated)
	equal(t, "Warning with a kept key", kept.header.Get("Warning"), "")
}

func ownPublicKey(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("own"), nil).want(http.StatusCreated).id()
	for _, c := range []struct {
		key  crypto.Signer
		size int
	}{{ecKey(t, elliptic.P384()), 384}, {rsaKey(t, 3072), 3072}, {edKey(t), 256}} {
		for _, include := range []any{false, nil} {
			text := publicPEM(t, c.key.Public())
			made := root.issue(authority, "own.example", "server", object{"public_key": text, "include_private_key": include, "key_type": nil, "key_size": nil}).want(http.StatusCreated)
			expect(t, made.object(), object{"private_key": nil, "key_size": c.size})
			equal(t, "Warning", made.header.Get("Warning"), "")
			equal(t, "public key", c.key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.x509().PublicKey), true)
		}
	}
}

func publicPEM(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PUBLIC KEY", der)
}

func ecKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func edKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func privateKeys(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("keys"), nil).want(http.StatusCreated).id()
	for _, c := range []struct {
		kind       string
		size, want any
	}{{"rsa", 2048, 2048}, {"rsa", nil, 2048}, {"ec", nil, 256}, {"ec", 384, 384}, {"ec", 521, 521}, {"ed25519", nil, 256}} {
		made := root.issue(authority, "keys.example", "dual_purpose", object{"key_type": c.kind, "key_size": c.size}).want(http.StatusCreated)
		expect(t, made.object(), object{"key_size": c.want})
		block, rest := pem.Decode([]byte(made.object()["private_key"].(string)))
		if block == nil || block.Type != "PRIVATE KEY" || len(rest) > 0 {
			t.Errorf("%s: private_key is not one PKCS#8 PEM block", c.kind)
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		equal(t, c.kind, key.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.x509().PublicKey), true)
		equal(t, c.kind+" again", root.ask("GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", made.id()), nil).object()["private_key"], made.object()["private_key"])
	}
}

func weakKeys(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("weak"), nil).want(http.StatusCreated)
	small := pemOf("PUBLIC KEY", rsaSPKI(t, new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(12345)), big.NewInt(65537)))
	modulus := rsaKey(t, 2048).Public().(*rsa.PublicKey).N
	for name, key := range map[string]string{
		"RSA-1024":            small,
		"exponent 1":          pemOf("PUBLIC KEY", rsaSPKI(t, modulus, big.NewInt(1))),
		"exponent 3":          pemOf("PUBLIC KEY", rsaSPKI(t, modulus, big.NewInt(3))),
		"even exponent":       pemOf("PUBLIC KEY", rsaSPKI(t, modulus, big.NewInt(65536))),
		"even modulus":        pemOf("PUBLIC KEY", rsaSPKI(t, new(big.Int).Sub(modulus, big.NewInt(1)), big.NewInt(65537))),
		"P-224":               publicPEM(t, ecKey(t, elliptic.P224()).Public()),
		"secp256k1":           opensslPublic(t, "ec", "ec_paramgen_curve:secp256k1"),
		"X25519":              opensslPublic(t, "X25519"),
		"a CA's own key":      publicPEM(t, authority.x509().PublicKey),
		"not a key":           "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		"a private key":       opensslPrivate(t),
		"a certificate":       authority.object()["certificate"].(string),
		"two keys":            publicPEM(t, edKey(t).Public()) + publicPEM(t, edKey(t).Public()),
		"the base point P256": publicPEM(t, &ecdsa.PublicKey{Curve: elliptic.P256(), X: elliptic.P256().Params().Gx, Y: elliptic.P256().Params().Gy}),
	} {
		a := root.issue(authority.id(), "weak.example", "server", object{"public_key": key, "include_private_key": false, "key_type": nil, "key_size": nil})
		if a.status != http.StatusBadRequest && a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: status %d: %s", name, a.status, a.body)
		}
		if strings.Contains(string(a.body), "PRIVATE") && name == "a private key" && strings.Contains(string(a.body), "BEGIN") {
			t.Errorf("the refusal repeats a private key")
		}
	}
	equal(t, "certificates issued", len(root.ask("GET", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority.id()), nil).list()), 0)
}

// rsaSPKI encodes any modulus and exponent, which crypto/x509 would not.
func rsaSPKI(t *testing.T, n, e *big.Int) []byte {
	t.Helper()
	key, err := asn1.Marshal(struct{ N, E *big.Int }{n, e})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Algorithm struct {
			OID  asn1.ObjectIdentifier
			Null asn1.RawValue
		}
		Key asn1.BitString
	}{struct {
		OID  asn1.ObjectIdentifier
		Null asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func opensslPrivate(t *testing.T) string {
	return tool(t, t.TempDir(), "openssl", "genpkey", "-algorithm", "ed25519")
}

func opensslPublic(t *testing.T, algorithm string, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"genpkey", "-algorithm", algorithm, "-out", "key"}
	for _, o := range options {
		args = append(args, "-pkeyopt", o)
	}
	tool(t, dir, "openssl", args...)
	return tool(t, dir, "openssl", "pkey", "-in", "key", "-pubout")
}
