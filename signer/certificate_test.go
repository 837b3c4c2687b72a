package signer_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"net"
	"reflect"
	"testing"
	"time"

	"signet/signer"
)

// The object identifiers are written out: the test must not share a mistake with the code.
const (
	subjectKeyIdentifier   = "2.5.29.14"
	keyUsage               = "2.5.29.15"
	subjectAltName         = "2.5.29.17"
	basicConstraints       = "2.5.29.19"
	crlDistributionPoints  = "2.5.29.31"
	authorityKeyIdentifier = "2.5.29.35"
	extendedKeyUsage       = "2.5.29.37"
	authorityInfoAccess    = "1.3.6.1.5.5.7.1.1"
)

var usages = []struct {
	name  string
	usage signer.Usage
	bits  x509.KeyUsage
	rsa   x509.KeyUsage // more bits, for RSA keys only
	ext   []x509.ExtKeyUsage
}{
	{
		name: "server", usage: signer.UsageServer,
		bits: x509.KeyUsageDigitalSignature, rsa: x509.KeyUsageKeyEncipherment,
		ext: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	},
	{
		name: "client", usage: signer.UsageClient,
		bits: x509.KeyUsageDigitalSignature,
		ext:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	},
	{
		name: "dual purpose", usage: signer.UsageDualPurpose,
		bits: x509.KeyUsageDigitalSignature, rsa: x509.KeyUsageKeyEncipherment,
		ext: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	},
	{
		name: "ca", usage: signer.UsageCA,
		bits: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	},
}

func TestEveryUsageOfEveryKindOfKeySaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	rootDER, issuer := newRoot(t, kindNamed("P-256"))
	root := parse(t, rootDER)
	for _, u := range usages {
		for _, k := range kinds {
			t.Run(u.name+" "+k.name, func(t *testing.T) {
				t.Parallel()
				template := leaf(u.usage, k.key())
				c := parse(t, sign(t)(issuer.Prepare(template)))

				bits := u.bits
				if k.rsa {
					bits |= u.rsa
				}
				if c.KeyUsage != bits {
					t.Errorf("keyUsage is %b, want %b", c.KeyUsage, bits)
				}
				if !reflect.DeepEqual(c.ExtKeyUsage, u.ext) || c.UnknownExtKeyUsage != nil {
					t.Errorf("extendedKeyUsage is %v and %v, want %v", c.ExtKeyUsage, c.UnknownExtKeyUsage, u.ext)
				}
				if c.IsCA != (u.usage == signer.UsageCA) || !c.BasicConstraintsValid || c.MaxPathLen != -1 {
					t.Errorf("basicConstraints: cA %t, pathLen %d", c.IsCA, c.MaxPathLen)
				}
				if !bytes.Equal(c.AuthorityKeyId, root.SubjectKeyId) || len(c.AuthorityKeyId) != 20 {
					t.Errorf("authority key identifier %x, want the issuer's %x", c.AuthorityKeyId, root.SubjectKeyId)
				}
				if want := rfc7093(t, c); !bytes.Equal(c.SubjectKeyId, want) {
					t.Errorf("subject key identifier %x, want %x", c.SubjectKeyId, want)
				}
				if !c.PublicKey.(interface{ Equal(x crypto.PublicKey) bool }).Equal(k.key().Public()) {
					t.Error("the public key is another one")
				}
				critical := map[string]bool{
					basicConstraints: true, keyUsage: true, subjectKeyIdentifier: false, authorityKeyIdentifier: false,
					subjectAltName: false, crlDistributionPoints: false, authorityInfoAccess: false,
				}
				if u.ext != nil {
					critical[extendedKeyUsage] = false
				}
				if got := criticality(c); !reflect.DeepEqual(got, critical) {
					t.Errorf("extensions and whether they are critical:\n got %v\nwant %v", got, critical)
				}
			})
		}
	}
}

// rfc7093 computes the key identifier from the bytes of the certificate itself.
func rfc7093(t *testing.T, c *x509.Certificate) []byte {
	t.Helper()
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20]
}

func criticality(c *x509.Certificate) map[string]bool {
	critical := map[string]bool{}
	for _, e := range c.Extensions {
		critical[e.Id.String()] = e.Critical
	}
	return critical
}

func extension(t *testing.T, c *x509.Certificate, oid string) []byte {
	t.Helper()
	for _, e := range c.Extensions {
		if e.Id.String() == oid {
			return e.Value
		}
	}
	t.Fatalf("no extension %s", oid)
	return nil
}

func TestTheIssuersKeyDecidesTheSignatureAlgorithm(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			rootDER, issuer := newRoot(t, k)
			root := parse(t, rootDER)
			c := parse(t, sign(t)(issuer.Prepare(leaf(signer.UsageServer, kindNamed("P-256").key()))))
			if root.SignatureAlgorithm != k.algorithm || c.SignatureAlgorithm != k.algorithm {
				t.Errorf("root %v, leaf %v, want %v", root.SignatureAlgorithm, c.SignatureAlgorithm, k.algorithm)
			}
			if err := c.CheckSignatureFrom(root); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(c.RawIssuer, root.RawSubject) {
				t.Error("the issuer name is not the root's subject")
			}
		})
	}
}

func TestARootIsItsOwnAuthority(t *testing.T) {
	t.Parallel()
	template := authority("Root")
	template.PublicKey = kindNamed("P-521").key().Public() // ignored
	c := parse(t, sign(t)(signer.PrepareRoot(template, kindNamed("P-256").key())))

	if !bytes.Equal(c.RawIssuer, template.Subject) || !bytes.Equal(c.RawSubject, template.Subject) {
		t.Error("subject and issuer are not the subject given")
	}
	if !bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId) || !bytes.Equal(c.SubjectKeyId, rfc7093(t, c)) {
		t.Errorf("authority %x, subject %x", c.AuthorityKeyId, c.SubjectKeyId)
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		t.Error(err)
	}
	want := map[string]bool{basicConstraints: true, keyUsage: true, subjectKeyIdentifier: false, authorityKeyIdentifier: false}
	if got := criticality(c); !reflect.DeepEqual(got, want) {
		t.Errorf("extensions are %v, want %v", got, want)
	}
}

func TestARootMayNameItsCRLAndItself(t *testing.T) {
	t.Parallel()
	template := authority("Root")
	template.CRLURL, template.IssuerURL = "http://pki.corp.example/crl/root-1", "https://pki.corp.example/ca/root-1.crt"
	c := parse(t, sign(t)(signer.PrepareRoot(template, kindNamed("P-256").key())))
	if !reflect.DeepEqual(c.CRLDistributionPoints, []string{template.CRLURL}) {
		t.Errorf("CRL distribution points %v", c.CRLDistributionPoints)
	}
	if !reflect.DeepEqual(c.IssuingCertificateURL, []string{template.IssuerURL}) || c.OCSPServer != nil {
		t.Errorf("caIssuers %v, OCSP %v", c.IssuingCertificateURL, c.OCSPServer)
	}
}

func TestACertificateSaysWhereItsStatusIs(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	for _, row := range []struct{ issuerURL, ocspURL string }{
		{"http://pki.corp.example/ca/root-1.crt", "http://pki.corp.example/ocsp/root-1"},
		{"", "https://pki.corp.example/ocsp/root-1"},
		{"http://pki.corp.example/ca/root-1.crt", ""},
		{"", ""},
	} {
		for _, u := range usages {
			template := leaf(u.usage, kindNamed("P-256").key())
			template.IssuerURL, template.OCSPURL = row.issuerURL, row.ocspURL
			c := parse(t, sign(t)(issuer.Prepare(template)))
			var issuers, ocsp []string
			if row.issuerURL != "" {
				issuers = []string{row.issuerURL}
			}
			if row.ocspURL != "" {
				ocsp = []string{row.ocspURL}
			}
			if !reflect.DeepEqual(c.IssuingCertificateURL, issuers) || !reflect.DeepEqual(c.OCSPServer, ocsp) {
				t.Errorf("%s: caIssuers %v, OCSP %v, want %v and %v", u.name, c.IssuingCertificateURL, c.OCSPServer, issuers, ocsp)
			}
			if critical, present := criticality(c)[authorityInfoAccess]; critical || present != (len(issuers)+len(ocsp) > 0) {
				t.Errorf("%s: authority information access present %t, critical %t", u.name, present, critical)
			}
		}
	}
}

func TestBasicConstraintsAreEncodedAsDER(t *testing.T) {
	t.Parallel()
	zero, three := 0, 3
	_, issuer := newRoot(t, kindNamed("P-256"))
	for _, row := range []struct {
		name       string
		usage      signer.Usage
		pathLength *int
		want       []byte
	}{
		{"a leaf's is the empty sequence", signer.UsageServer, nil, []byte{0x30, 0x00}},
		{"a CA without limit", signer.UsageCA, nil, []byte{0x30, 0x03, 0x01, 0x01, 0xff}},
		{"a CA for leaves only", signer.UsageCA, &zero, []byte{0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00}},
		{"a CA with three below", signer.UsageCA, &three, []byte{0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x03}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			template := leaf(row.usage, kindNamed("P-256").key())
			template.PathLength = row.pathLength
			c := parse(t, sign(t)(issuer.Prepare(template)))
			if got := extension(t, c, basicConstraints); !bytes.Equal(got, row.want) {
				t.Errorf("basicConstraints is %x, want %x", got, row.want)
			}
		})
	}
}

func TestNamesAreEncodedAsGiven(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	template := leaf(signer.UsageDualPurpose, kindNamed("P-256").key())
	template.DNS = []string{"b.example", "*.a.example", "xn--zrich-kva.example", "localhost"}
	template.IPs = []net.IP{net.ParseIP("192.0.2.1"), net.IPv4(10, 0, 0, 1).To4(), net.ParseIP("2001:db8::1")}
	template.Emails = []string{"Ada.Lovelace+pki@corp.example"}
	c := parse(t, sign(t)(issuer.Prepare(template)))

	var names []asn1.RawValue
	if _, err := asn1.Unmarshal(extension(t, c, subjectAltName), &names); err != nil {
		t.Fatal(err)
	}
	type name struct {
		tag   int // context-specific: 1 rfc822Name, 2 dNSName, 7 iPAddress (RFC 5280, section 4.2.1.6)
		value string
	}
	var got []name
	for _, n := range names {
		if n.Class != asn1.ClassContextSpecific {
			t.Errorf("name of class %d", n.Class)
		}
		got = append(got, name{n.Tag, string(n.Bytes)})
	}
	want := []name{
		{2, "b.example"}, {2, "*.a.example"}, {2, "xn--zrich-kva.example"}, {2, "localhost"},
		{1, "Ada.Lovelace+pki@corp.example"},
		{7, "\xc0\x00\x02\x01"}, {7, "\x0a\x00\x00\x01"}, {7, "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("names\n got %v\nwant %v", got, want)
	}
}

func TestAnEmptySubjectMakesTheNamesCritical(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	template := leaf(signer.UsageServer, kindNamed("P-256").key())
	template.Subject = emptySubject
	c := parse(t, sign(t)(issuer.Prepare(template)))
	if !bytes.Equal(c.RawSubject, emptySubject) {
		t.Errorf("subject is %x", c.RawSubject)
	}
	if !criticality(c)[subjectAltName] {
		t.Error("the subject alternative name is not critical")
	}
}

func TestTheSubjectIsTakenByteForByte(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	template := leaf(signer.UsageServer, kindNamed("P-256").key())
	// CN before O, CN as UTF8String although PrintableString would do: Go would write it differently.
	template.Subject = []byte("\x30\x1d\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x0c\x04web1\x31\x0c\x30\x0a\x06\x03\x55\x04\x0a\x0c\x03Lab")
	c := parse(t, sign(t)(issuer.Prepare(template)))
	if !bytes.Equal(c.RawSubject, template.Subject) {
		t.Errorf("subject is\n%x, want\n%x", c.RawSubject, template.Subject)
	}
}

func TestValidityIsInWholeSecondsUTC(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	template := leaf(signer.UsageServer, kindNamed("P-256").key())
	zone := time.FixedZone("+05:30", 19800)
	template.NotBefore = time.Date(2049, 12, 31, 23, 59, 58, 999, time.UTC).In(zone)
	template.NotAfter = time.Date(2050, 1, 1, 0, 0, 0, 999_999_999, time.UTC).In(zone)
	der := sign(t)(issuer.Prepare(template))

	// UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280, section 4.1.2.5).
	if want := []byte("\x17\x0d491231235958Z\x18\x0f20500101000000Z"); !bytes.Contains(der, want) {
		t.Errorf("no validity %q in %x", want, der)
	}
}
