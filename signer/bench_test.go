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
	"fmt"
	"math/big"
	"runtime"
	"runtime/metrics"
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
				if _, err := build(template, i.certificate.RawSubject, i.certificate.SubjectKeyId, i.algorithm, i.certificate.PublicKey); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLint is what the linter costs by the kind of the subject's key, with all lints, and with all of them on one in
// [relinted] only.
func BenchmarkLint(b *testing.B) {
	issuers := benchIssuers(b)
	for name, subject := range issuers {
		i := issuers["P-256"]
		built, err := build(benchTemplate(b, "www.corp.example", subject.certificate.PublicKey), i.certificate.RawSubject, i.certificate.SubjectKeyId, i.algorithm, i.certificate.PublicKey)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/all", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lintAll(built.certificate)
			}
		})
		b.Run(name+"/of a known shape", func(b *testing.B) {
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

// BenchmarkSignCRL also reports the octets of the list, and how much the heap grew at most, in units of them: with and without
// knowing the size before. What the entries come from allocates nothing.
func BenchmarkSignCRL(b *testing.B) {
	i := benchIssuers(b)["P-256"]
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		crl := benchCRL(n)
		b.Run(fmt.Sprintf("%d entries", n), func(b *testing.B) { benchSignCRL(b, i, crl) })
		der, _, err := i.SignCRL(crl)
		if err != nil {
			b.Fatal(err)
		}
		crl.Size = len(der)
		b.Run(fmt.Sprintf("%d entries of known size", n), func(b *testing.B) { benchSignCRL(b, i, crl) })
	}
}

func benchSignCRL(b *testing.B, i *Issuer, crl CRL) {
	b.Helper()
	b.ReportAllocs()
	var size int
	var peak float64
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		before, highest := heap(), uint64(0)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				highest = max(highest, heap())
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		}()
		b.StartTimer()
		der, _, err := i.SignCRL(crl)
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		close(stop)
		<-stopped
		highest = max(highest, heap())
		size, peak = len(der), max(peak, float64(highest-before)/float64(len(der)))
		b.StartTimer()
	}
	b.ReportMetric(float64(size), "octets")
	b.ReportMetric(peak, "peak/size")
}

// heap is how many octets are allocated, garbage included.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// benchCRL has entries with serial numbers of 20 octets and a reason.
func benchCRL(n int) CRL {
	now := time.Now()
	serials := make([]byte, 0, 40*n)
	for i := range n {
		serials = fmt.Appendf(serials, "7f%038x", i)
	}
	all := string(serials)
	return CRL{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 7), Entries: func(yield func(Revoked, error) bool) {
		for i := range n {
			if !yield(Revoked{Serial: all[40*i : 40*i+40], At: now, Reason: 1}, nil) {
				return
			}
		}
	}}
}

// BenchmarkSignOCSP is one response by the kind of the responder's key.
func BenchmarkSignOCSP(b *testing.B) {
	for name, i := range benchIssuers(b) {
		now := time.Now()
		draft, err := i.PrepareResponder(i.key.Public(), now, now.AddDate(0, 0, 14))
		if err != nil {
			b.Fatal(err)
		}
		der, err := draft.Sign()
		if err != nil {
			b.Fatal(err)
		}
		r, err := NewResponder(i.certificate.Raw, der, i.key, false)
		if err != nil {
			b.Fatal(err)
		}
		answer := []SingleResponse{{CertID: []byte{0x30, 0}, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Sign(now, answer, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
