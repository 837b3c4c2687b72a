package signer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"sync"
	"testing"
	"time"

	"signet/signer"
)

// kind is a kind of key that a CA or a subject may have.
type kind struct {
	name      string
	key       func() crypto.Signer // always the same one
	algorithm x509.SignatureAlgorithm
	rsa       bool
}

var kinds = []kind{
	{"RSA-2048", rsaKey(2048), x509.SHA256WithRSA, true},
	{"RSA-3072", rsaKey(3072), x509.SHA256WithRSA, true},
	{"RSA-4096", rsaKey(4096), x509.SHA256WithRSA, true},
	{"P-256", ecKey(elliptic.P256()), x509.ECDSAWithSHA256, false},
	{"P-384", ecKey(elliptic.P384()), x509.ECDSAWithSHA384, false},
	{"P-521", ecKey(elliptic.P521()), x509.ECDSAWithSHA512, false},
	{"Ed25519", edKey(), x509.PureEd25519, false},
}

func kindNamed(name string) kind {
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	panic("no kind of key is named " + name)
}

func rsaKey(bits int) func() crypto.Signer {
	return sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, bits)) })
}

func ecKey(curve elliptic.Curve) func() crypto.Signer {
	return sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(curve, rand.Reader)) })
}

func edKey() func() crypto.Signer {
	return sync.OnceValue(func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var emptySubject = []byte{0x30, 0x00}

func subject(commonName string) []byte {
	name := pkix.Name{Country: []string{"CH"}, Organization: []string{"Zürich Trust"}, CommonName: commonName}
	return must(asn1.Marshal(name.ToRDNSequence()))
}

// start is in the past, in whole seconds.
var start = time.Now().UTC().Truncate(time.Second).Add(-time.Minute)

// leaf is a template that nobody objects to.
func leaf(usage signer.Usage, key crypto.Signer) signer.Template {
	return signer.Template{
		Subject:   subject("www.corp.example"),
		PublicKey: key.Public(),
		Usage:     usage,
		NotBefore: start,
		NotAfter:  start.AddDate(1, 0, 0),
		DNS:       []string{"www.corp.example"},
		CRLURL:    "http://pki.corp.example/crl/root-1",
		IssuerURL: "http://pki.corp.example/ca/root-1.crt",
		OCSPURL:   "http://pki.corp.example/ocsp/root-1",
	}
}

func authority(commonName string) signer.Template {
	return signer.Template{
		Subject:   subject(commonName),
		Usage:     signer.UsageCA,
		NotBefore: start,
		NotAfter:  start.AddDate(10, 0, 0),
	}
}

// newRoot makes a root CA of the kind.
func newRoot(t testing.TB, k kind) ([]byte, *signer.Issuer) {
	t.Helper()
	der := sign(t)(signer.PrepareRoot(authority("Root "+k.name), k.key()))
	issuer, err := signer.NewIssuer(der, k.key())
	if err != nil {
		t.Fatal(err)
	}
	return der, issuer
}

// newIntermediate makes a CA of the kind under the issuer.
func newIntermediate(t testing.TB, issuer *signer.Issuer, k kind) ([]byte, *signer.Issuer) {
	t.Helper()
	template := leaf(signer.UsageCA, k.key())
	template.Subject, template.DNS = subject("Intermediate "+k.name), nil
	template.NotAfter = start.AddDate(5, 0, 0)
	template.PathLength = new(int)
	der := sign(t)(issuer.Prepare(template))
	intermediate, err := signer.NewIssuer(der, k.key())
	if err != nil {
		t.Fatal(err)
	}
	return der, intermediate
}

// sign signs a draft that has to be good.
func sign(t testing.TB) func(*signer.Draft, error) []byte {
	return func(d *signer.Draft, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		der, err := d.Sign()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serialOf(t testing.TB, der []byte) string {
	t.Helper()
	return parse(t, der).SerialNumber.Text(16)
}

// signList signs a CRL that has to be good.
func signList(t testing.TB, issuer *signer.Issuer, c signer.CRL) []byte {
	t.Helper()
	der, _, err := issuer.SignCRL(c)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// inside returns the content of the element that is all of der.
func inside(t testing.TB, der []byte) []byte {
	t.Helper()
	var e asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &e); err != nil || len(rest) > 0 {
		t.Fatalf("%x: %v", rest, err)
	}
	return e.Bytes
}
