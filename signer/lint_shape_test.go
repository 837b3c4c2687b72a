package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// shapedKeys are keys of the kinds that leaves have.
func shapedKeys(t testing.TB) []crypto.PublicKey {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return []crypto.PublicKey{p256.Public(), p521.Public(), rsaKey.Public()}
}

// shapedCA issues what the test prepares.
func shapedCA(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	draft, err := PrepareRoot(Template{
		Subject: rdnSequence(t, attribute{oid: 3, tag: asn1.TagUTF8String, text: "Root"}),
		Usage:   UsageCA, NotBefore: now, NotAfter: now.AddDate(10, 0, 0),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := draft.Sign()
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := NewIssuer(der, key)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// attribute is one of X.520 (2.5.4).
type attribute struct {
	oid, tag int
	text     string
}

func rdnSequence(t testing.TB, attributes ...attribute) []byte {
	t.Helper()
	all := []pkix.RelativeDistinguishedNameSET{}
	for _, a := range attributes {
		all = append(all, pkix.RelativeDistinguishedNameSET{{
			Type: asn1.ObjectIdentifier{2, 5, 4, a.oid}, Value: asn1.RawValue{Tag: a.tag, Bytes: []byte(a.text)}}})
	}
	der, err := asn1.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// words are parts of names, some of which lints object to, alone or in company.
var words = []string{
	"www", "a", "0", "corp", "example", "com", "co.uk", "localhost", "internal", "x-y", "x--y", "-", "-x", "x-", "_", "_x", "x_y", "xn--", "xn--99999999",
	"xn--zrich-kva", "ab--c", ".", "..", " ", "", "*", "*.", "w*", "@", "\x00", "\x1b", "\x7f", "&amp;", "&", "<b>", "zürich", "Ã¼", "\ufffd", "O'Neill", "(c)", "+", "=", "?",
	"a@b", "a.b", ".a", "a.", "ada@corp.example", "ada..l@corp.example", "CH", "ch", "1.2.3.4", "::1", strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a.b", 70),
}

// phrase joins one to three words.
func phrase(r *mathrand.Rand, separator string) string {
	parts := []string{}
	for range 1 + r.IntN(3) {
		parts = append(parts, words[r.IntN(len(words))])
	}
	return strings.Join(parts, separator)
}

// randomTemplate is a template of which every part is sometimes a bad one.
func randomTemplate(t testing.TB, r *mathrand.Rand, keys []crypto.PublicKey) Template {
	t.Helper()
	subject := []attribute{}
	for range r.IntN(4) {
		subject = append(subject, attribute{
			oid:  []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 17, 42}[r.IntN(11)],
			tag:  []int{asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagUTF8String, asn1.TagIA5String, asn1.TagT61String}[r.IntN(5)],
			text: phrase(r, " "),
		})
	}
	begin := time.Date(1990+r.IntN(70), 1, 1, 0, 0, 0, 0, time.UTC)
	if r.IntN(3) > 0 {
		begin = time.Now()
	}
	made := Template{
		Subject: rdnSequence(t, subject...), PublicKey: keys[r.IntN(len(keys))], Usage: Usage(1 + r.IntN(3)),
		NotBefore: begin, NotAfter: begin.AddDate(r.IntN(12)-1, 0, r.IntN(3)),
	}
	for range r.IntN(3) {
		made.DNS = append(made.DNS, phrase(r, "."))
	}
	if r.IntN(4) == 0 {
		made.Emails = append(made.Emails, phrase(r, "@"))
	}
	if r.IntN(4) == 0 {
		made.IPs = append(made.IPs, net.IP{10, 0, 0, byte(r.IntN(256))})
	}
	if r.IntN(4) == 0 {
		made.CRLURL = "http://pki.corp.example/crl/root-1"
	}
	return made
}

// The lints say of a plain certificate what they said of another one of its shape.
func TestAShapeDecidesWhatTheLintsSay(t *testing.T) {
	t.Parallel()
	issuer, keys := shapedCA(t), shapedKeys(t)
	r := mathrand.New(mathrand.NewPCG(1, 2))
	said, again, refused := map[string][]string{}, 0, 0
	for range 6000 {
		template := randomTemplate(t, r, keys)
		b, err := build(template, issuer.certificate.RawSubject, issuer.certificate.SubjectKeyId, issuer.algorithm, issuer.certificate.PublicKey)
		if err != nil {
			continue // there is no encoding of it
		}
		findings := lintAll(b.certificate)
		if len(findings) > 0 {
			refused++
		}
		shape, plain := appendShape(nil, b.certificate)
		if !plain {
			continue
		}
		before, known := said[string(shape)]
		if known {
			again++
		}
		if known && !slices.Equal(before, findings) {
			t.Errorf("%+v: %q, of its shape %q", template, findings, before)
		}
		said[string(shape)] = findings
	}
	if again < 50 || refused < 500 {
		t.Errorf("%d certificates of a known shape and %d bad ones prove little", again, refused)
	}
}

// Whatever is changed in a good certificate is found by the lints, changes the shape, or is nothing to object to.
func TestNoBadCertificateHasTheShapeOfAGoodOne(t *testing.T) {
	t.Parallel()
	issuer := shapedCA(t)
	for _, key := range shapedKeys(t) {
		b, err := build(Template{
			Subject: rdnSequence(t, attribute{6, asn1.TagPrintableString, "CH"}, attribute{10, asn1.TagUTF8String, "Corp"}, attribute{3, asn1.TagPrintableString, "www"}),
			Usage:   UsageDualPurpose, PublicKey: key, NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0),
			DNS: []string{"*.corp.example", "nas"}, Emails: []string{"ada@corp.example"}, IPs: []net.IP{{10, 1, 2, 3}},
			CRLURL: "http://pki.corp.example/crl/root-1", OCSPURL: "http://pki.corp.example/ocsp/root-1",
		}, issuer.certificate.RawSubject, issuer.certificate.SubjectKeyId, issuer.algorithm, issuer.certificate.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		good, plain := appendShape(nil, b.certificate)
		if findings := lintAll(b.certificate); !plain || len(findings) > 0 {
			t.Fatalf("plain %t, findings %q", plain, findings)
		}
		same := 0
		for i := range b.certificate.Raw {
			for _, change := range []byte{0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x03, 0x1f, 0xff} {
				der := slices.Clone(b.certificate.Raw)
				der[i] ^= change
				changed, err := x509.ParseCertificate(der)
				if err != nil {
					continue
				}
				shape, plain := appendShape(nil, changed)
				if !plain || string(shape) != string(good) {
					continue
				}
				same++
				if findings := lintAll(changed); len(findings) > 0 {
					t.Errorf("octet %d changed by %#x: the shape stays, and the lints say %q", i, change, findings)
				}
			}
		}
		if same < 100 {
			t.Errorf("only %d changes leave the shape", same)
		}
	}
}

func TestWhatIsNotPlainHasNoShape(t *testing.T) {
	t.Parallel()
	if _, plain := appendShape(nil, certify(t, func(*x509.Certificate) {})); !plain {
		t.Fatal("a plain certificate has no shape")
	}
	for name, change := range map[string]func(*x509.Certificate){
		"a CA":                             func(c *x509.Certificate) { c.IsCA = true },
		"a certificate from before a lint": func(c *x509.Certificate) { c.NotBefore = newestLint().Add(-time.Second) },
		"an end before the beginning":      func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Second) },
		"an end in 2050":                   func(c *x509.Certificate) { c.NotAfter = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC) },
		"serial number zero":               func(c *x509.Certificate) { c.SerialNumber = new(big.Int) },
		"a serial number of 21 octets":     func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 160) },
		"an organization with an umlaut":   func(c *x509.Certificate) { c.RawSubject = rdnSequence(t, attribute{10, asn1.TagUTF8String, "Zürich"}) },
		"a given name":                     func(c *x509.Certificate) { c.RawSubject = rdnSequence(t, attribute{42, asn1.TagUTF8String, "Ada"}) },
		"a common name of 65 characters": func(c *x509.Certificate) {
			c.RawSubject = rdnSequence(t, attribute{3, asn1.TagUTF8String, strings.Repeat("a", 65)})
		},
		"a country of three letters": func(c *x509.Certificate) { c.RawSubject = rdnSequence(t, attribute{6, asn1.TagPrintableString, "CHE"}) },
		"a country in UTF-8":         func(c *x509.Certificate) { c.RawSubject = rdnSequence(t, attribute{6, asn1.TagUTF8String, "CH"}) },
		"two attributes in one RDN": func(c *x509.Certificate) {
			c.RawSubject = []byte("\x30\x18\x31\x16\x30\x09\x06\x03\x55\x04\x03\x0c\x02ab\x30\x09\x06\x03\x55\x04\x0a\x0c\x02ab")
		},
		"an A-label":    func(c *x509.Certificate) { c.DNSNames = []string{"xn--zrich-kva.example"} },
		"an underscore": func(c *x509.Certificate) { c.DNSNames = []string{"_dmarc.corp.example"} },
		"a URI": func(c *x509.Certificate) {
			c.DNSNames, c.ExtraExtensions = nil, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte("\x30\x09\x86\x07http://")}}
		},
		"a mailbox with two dots":            func(c *x509.Certificate) { c.EmailAddresses = []string{"a..b@corp.example"} },
		"a subject key identifier of a byte": func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} },
		"too many extensions to remember": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, maxShape)}}
		},
	} {
		if shape, plain := appendShape(nil, certify(t, change)); plain {
			t.Errorf("%s has the shape %x", name, shape)
		}
	}
}

func TestAShapeIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	v := verdicts{seen: map[string]int{}}
	shape, looks := []byte("shape"), 0
	for range 10 * relinted {
		if !v.pass(shape) {
			looks++
			v.learn(shape, true)
		}
	}
	if looks != 10 {
		t.Errorf("looked %d times, want 10", looks)
	}
	if v.learn(shape, false); v.pass(shape) {
		t.Error("a shape passes that was found bad")
	}
	for i := range 2*maxShapes + 1 {
		v.learn(fmt.Append(nil, i), true)
		if len(v.seen) > maxShapes {
			t.Fatalf("%d shapes are remembered", len(v.seen))
		}
	}
}
