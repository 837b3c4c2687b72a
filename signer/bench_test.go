package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"
)

// benchIssuers are CAs with software keys, by name.
func benchIssuers(b *testing.B) map[string]*Issuer {
	b.Helper()
	keys := map[string]crypto.Signer{}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		keys[curve.Params().Name] = key
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	keys["RSA-2048"], keys["Ed25519"] = rsaKey, edKey

	issuers := map[string]*Issuer{}
	for name, key := range keys {
		root := benchTemplate(b, "Root", key.Public())
		root.Usage, root.DNS = UsageCA, nil
		draft, err := PrepareRoot(root, key)
		if err != nil {
			b.Fatal(err)
		}
		der, err := draft.Sign()
		if err != nil {
			b.Fatal(err)
		}
		if issuers[name], err = NewIssuer(der, key); err != nil {
			b.Fatal(err)
		}
	}
	return issuers
}

func benchTemplate(b *testing.B, commonName string, pub crypto.PublicKey) Template {
	b.Helper()
	name, err := asn1.Marshal(pkix.Name{CommonName: commonName, Organization: []string{"Corp"}, Country: []string{"CH"}}.ToRDNSequence())
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	return Template{
		Subject: name, PublicKey: pub, Usage: UsageServer, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
		DNS:    []string{"www.corp.example", "corp.example"},
		CRLURL: "http://pki.corp.example/crl/root-1", IssuerURL: "http://pki.corp.example/ca/root-1.crt",
	}
}

// benchSubject is what a benchmark certifies: a server's key on P-256.
func benchSubject(b *testing.B) Template {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return benchTemplate(b, "www.corp.example", key.Public())
}

func BenchmarkPrepare(b *testing.B) {
	template := benchSubject(b)
	for name, i := range benchIssuers(b) {
		b.Run(name+"/with lint", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := i.Prepare(template); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/without lint", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := build(template, i.certificate.RawSubject, i.certificate.SubjectKeyId, i.algorithm); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLint is what the linter costs by the kind of the subject's key.
func BenchmarkLint(b *testing.B) {
	issuers := benchIssuers(b)
	for name, subject := range issuers {
		i := issuers["P-256"]
		built, err := build(benchTemplate(b, "www.corp.example", subject.certificate.PublicKey), i.certificate.RawSubject, i.certificate.SubjectKeyId, i.algorithm)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lint(built.certificate)
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	template := benchSubject(b)
	for name, i := range benchIssuers(b) {
		draft, err := i.Prepare(template)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				draft.spent.Store(false)
				if _, err := draft.Sign(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSignCRL(b *testing.B) {
	now := time.Now()
	crl := CRL{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 7)}
	for n := range 10_000 {
		crl.Entries = append(crl.Entries, Revoked{Serial: big.NewInt(int64(n + 1)), At: now, Reason: 1})
	}
	i := benchIssuers(b)["P-256"]
	b.Run("10000 entries", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := i.SignCRL(crl); err != nil {
				b.Fatal(err)
			}
		}
	})
}
