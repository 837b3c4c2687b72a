package signer_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"signet/signer"
)

func TestAResponderCertificateIsForOCSPSigningAlone(t *testing.T) {
	t.Parallel()
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			ca, issuer := newRoot(t, kinds[(i+1)%len(kinds)])
			root := parse(t, ca)
			draft := must(issuer.PrepareResponder(k.key().Public(), start, start.AddDate(0, 0, 14)))
			c := parse(t, sign(t)(draft, nil))
			if err := c.CheckSignatureFrom(root); err != nil {
				t.Error(err)
			}
			if c.KeyUsage != x509.KeyUsageDigitalSignature || !reflect.DeepEqual(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}) ||
				c.UnknownExtKeyUsage != nil || c.IsCA || !c.BasicConstraintsValid {
				t.Errorf("keyUsage %b, extendedKeyUsage %v, CA %t", c.KeyUsage, c.ExtKeyUsage, c.IsCA)
			}
			if !bytes.Equal(c.AuthorityKeyId, root.SubjectKeyId) || !bytes.Equal(c.SubjectKeyId, rfc7093(t, c)) {
				t.Errorf("key identifiers %x of %x", c.SubjectKeyId, c.AuthorityKeyId)
			}
			if !c.NotBefore.Equal(start) || !c.NotAfter.Equal(start.AddDate(0, 0, 14)) || c.SerialNumber.Text(16) != draft.Serial() {
				t.Errorf("serial number %x, from %v to %v", c.SerialNumber, c.NotBefore, c.NotAfter)
			}
			critical := map[string]bool{
				basicConstraints: true, keyUsage: true, extendedKeyUsage: false, subjectKeyIdentifier: false, authorityKeyIdentifier: false,
				"1.3.6.1.5.5.7.48.1.5": false,
			}
			if got := criticality(c); !reflect.DeepEqual(got, critical) {
				t.Errorf("extensions and whether they are critical:\n got %v\nwant %v", got, critical)
			}
			for _, e := range c.Extensions {
				if e.Id.String() == "1.3.6.1.5.5.7.48.1.5" && !bytes.Equal(e.Value, []byte{0x05, 0x00}) {
					t.Errorf("ocsp-nocheck %x", e.Value)
				}
			}
		})
	}
}

func TestAResponderIsNamedAfterItsKeyAndItsCA(t *testing.T) {
	t.Parallel()
	k, other := kindNamed("P-256"), kindNamed("P-384")
	ca, issuer := newRoot(t, k)
	prepare := func(k kind) *x509.Certificate {
		return parse(t, sign(t)(issuer.PrepareResponder(k.key().Public(), start, start.AddDate(0, 0, 14))))
	}
	first, renewed, another := prepare(k), prepare(k), prepare(other)
	if !bytes.Equal(first.RawSubject, renewed.RawSubject) || first.SerialNumber.Cmp(renewed.SerialNumber) == 0 {
		t.Errorf("%v is renewed as %v", first.Subject, renewed.Subject)
	}
	if bytes.Equal(first.RawSubject, another.RawSubject) || bytes.Equal(first.RawSubject, parse(t, ca).RawSubject) {
		t.Errorf("%v is the name of two", first.Subject)
	}
	if got := first.Subject.String(); !strings.HasPrefix(got, "CN=OCSP responder ") || !strings.HasSuffix(got, ",O=Zürich Trust,C=CH") {
		t.Errorf("named %s", got)
	}
	// A name from elsewhere: several values in a set, several organizations, nothing to take over.
	for name, want := range map[string]string{
		"": "", "O=A,O=B": ",O=B,O=A", "CN=Root,OU=Unit": "",
	} {
		var rdns pkix.RDNSequence
		for part := range strings.SplitSeq(name, ",") {
			if kind, value, ok := strings.Cut(part, "="); ok {
				id := map[string]asn1.ObjectIdentifier{"O": {2, 5, 4, 10}, "CN": {2, 5, 4, 3}, "OU": {2, 5, 4, 11}}[kind]
				rdns = append(rdns, pkix.RelativeDistinguishedNameSET{{Type: id, Value: value}})
			}
		}
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Multi"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "Valued"},
		})
		template := authority("")
		template.Subject = must(asn1.Marshal(rdns))
		issuer := must(signer.NewIssuer(sign(t)(signer.PrepareRoot(template, k.key())), k.key()))
		c := parse(t, sign(t)(issuer.PrepareResponder(k.key().Public(), start, start.AddDate(0, 0, 14))))
		var got pkix.RDNSequence
		must(asn1.Unmarshal(c.RawSubject, &got))
		if want := fmt.Sprintf("CN=OCSP responder %x%s", c.SubjectKeyId[:8], want); got.String() != want {
			t.Errorf("the responder of %q is named %q, want %q", name, got, want)
		}
	}
}

func TestADefectiveResponderCertificateIsNotPrepared(t *testing.T) {
	t.Parallel()
	k := kindNamed("P-256")
	ca, _ := newRoot(t, k)
	issuer := must(signer.NewIssuer(ca, untouchable{k.key(), t}))
	for name, row := range map[string]struct {
		key      crypto.PublicKey
		from, to time.Time
	}{
		"no key":                       {nil, start, start.AddDate(0, 0, 14)},
		"a curve that is too small":    {ecKey(elliptic.P224())().Public(), start, start.AddDate(0, 0, 14)},
		"no beginning":                 {k.key().Public(), time.Time{}, start},
		"no end":                       {k.key().Public(), start, time.Time{}},
		"an end before the beginning":  {k.key().Public(), start, start.Add(-time.Second)},
		"a key that is not a key type": {"key", start, start.AddDate(0, 0, 14)},
	} {
		if d, err := issuer.PrepareResponder(row.key, row.from, row.to); d != nil || err == nil {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
}

func TestAResponderIsRefused(t *testing.T) {
	t.Parallel()
	k, other := kindNamed("P-256"), kindNamed("P-384")
	ca, issuer := newRoot(t, k)
	der, _ := newResponder(t, ca, issuer, k, false)
	otherCA, _ := newIntermediate(t, issuer, other)
	// twin has the name and the key identifier of the CA, and another key.
	impostor, parent := parse(t, ca), parse(t, ca)
	impostor.Extensions, impostor.SignatureAlgorithm, parent.PublicKey = nil, other.algorithm, nil
	twin := must(x509.CreateCertificate(rand.Reader, impostor, parent, other.key().Public(), other.key()))
	like := func(change func(*x509.Certificate)) []byte {
		c := parse(t, der)
		c.ExtraExtensions, c.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{0x05, 0x00}}}, nil
		change(c)
		return must(x509.CreateCertificate(rand.Reader, c, parse(t, ca), k.key().Public(), k.key()))
	}
	if _, err := signer.NewResponder(ca, like(func(*x509.Certificate) {}), k.key(), true); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name            string
		ca, certificate []byte
		key             crypto.Signer
		want            string
	}{
		{"of no CA", der[1:], der, k.key(), "parse CA certificate"},
		{"that is no certificate", ca, der[1:], k.key(), "parse responder certificate"},
		{"of another CA", otherCA, der, k.key(), "another issuer"},
		{"of a CA of the same name", twin, der, k.key(), "verify responder certificate"},
		{"that is the CA itself", ca, ca, k.key(), "not one of an end entity"},
		{"that is a server", ca, sign(t)(issuer.Prepare(leaf(signer.UsageServer, k.key()))), k.key(), "not OCSP signing alone"},
		{"that may do more", ca, like(func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }), k.key(), "not OCSP signing alone"},
		{"that does not sign", ca, like(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), k.key(), "not one of an end entity"},
		{"that has to be checked", ca, like(func(c *x509.Certificate) { c.ExtraExtensions = nil }), k.key(), "ocsp-nocheck"},
		{"that ends before it begins", ca, like(func(c *x509.Certificate) { c.NotAfter = c.NotBefore }), k.key(), "ends before"},
		{"without key", ca, der, nil, "the key is not the one"},
		{"with another key", ca, der, ecKey(elliptic.P256())(), "the key is not the one"},
		{"with a key that tells nothing", ca, der, hostile{}, "the key is not the one"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := signer.NewResponder(row.ca, row.certificate, row.key, false)
			if got != nil || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("responder %v, error %v, want %q", got, err, row.want)
			}
		})
	}
}

func TestAHostileKeyGetsNoOCSPResponseOut(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{kindNamed("RSA-2048"), kindNamed("P-256"), kindNamed("P-521"), kindNamed("Ed25519")} {
		ca, issuer := newRoot(t, k)
		der, _ := newResponder(t, ca, issuer, k, false)
		for name, key := range attacks(k) {
			t.Run(k.name+" "+name, func(t *testing.T) {
				t.Parallel()
				r := must(signer.NewResponder(ca, der, key, false))
				got, err := r.Sign(start, []signer.SingleResponse{good(t, ca)}, nil)
				if got != nil || !errors.Is(err, signer.ErrKey) {
					t.Errorf("%x, error %v, want ErrKey", got, err)
				}
				if strings.HasSuffix(name, "fails") && !errors.Is(err, errToken) {
					t.Errorf("error %v does not wrap the key's own", err)
				}
			})
		}
	}
}

// absent is a key that says when it is not there.
type absent struct {
	crypto.Signer
	err error
}

func (a absent) Ready() error { return a.err }

func TestAResponderIsReadyWhenItsKeyIs(t *testing.T) {
	t.Parallel()
	k := kindNamed("P-256")
	ca, issuer := newRoot(t, k)
	der, r := newResponder(t, ca, issuer, k, false)
	if err := r.Ready(); err != nil {
		t.Errorf("a key that does not tell: %v", err)
	}
	if !r.NotAfter().Equal(start.AddDate(0, 0, 14)) {
		t.Errorf("valid until %v", r.NotAfter())
	}
	if err := must(signer.NewResponder(ca, der, absent{k.key(), nil}, false)).Ready(); err != nil {
		t.Error(err)
	}
	err := must(signer.NewResponder(ca, der, absent{k.key(), errToken}, false)).Ready()
	if !errors.Is(err, signer.ErrKey) || !errors.Is(err, errToken) {
		t.Errorf("a key that is away: %v", err)
	}
}
