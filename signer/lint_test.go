package signer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	zlint "github.com/zmap/zlint/v3/lint"
)

func TestWhatIsExcludedExistsAndHasAReason(t *testing.T) {
	t.Parallel()
	for name, reason := range excluded {
		if zlint.GlobalRegistry().CertificateLints().ByName(name) == nil {
			t.Errorf("%s is no lint (any more)", name)
		}
		if reason == "" {
			t.Errorf("%s is excluded without a reason", name)
		}
	}
}

func TestOnlyErrorsOfTheChosenSourcesRun(t *testing.T) {
	t.Parallel()
	running := map[string]bool{}
	for _, l := range lints() {
		running[l.Name] = true
		if !strings.HasPrefix(l.Name, "e_") || !linted[l.Source] || excluded[l.Name] != "" {
			t.Errorf("%s of %s runs", l.Name, l.Source)
		}
	}
	for _, name := range []string{
		"e_basic_constraints_not_critical", "e_ext_san_not_critical_without_subject", "e_serial_number_longer_than_20_octets",
		"e_key_usage_and_extended_key_usage_inconsistent", "e_validity_time_not_positive", "e_ecdsa_allowed_ku",
	} {
		if !running[name] {
			t.Errorf("%s does not run", name)
		}
	}
}

// certify makes a certificate of its own without the checks of this package.
func certify(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ski, err := keyIdentifier(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1 << 62), Subject: pkix.Name{CommonName: "www.corp.example"}, PublicKey: key.Public(),
		NotBefore: time.Unix(1_700_000_000, 0).UTC(), NotAfter: time.Unix(1_800_000_000, 0).UTC(),
		BasicConstraintsValid: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		SubjectKeyId: ski, AuthorityKeyId: ski, DNSNames: []string{"www.corp.example"},
		SignatureAlgorithm: x509.ECDSAWithSHA256,
	}
	if c.RawSubject, err = asn1.Marshal(c.Subject.ToRDNSequence()); err != nil {
		t.Fatal(err)
	}
	change(c)
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, SubjectKeyId: c.AuthorityKeyId}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, c.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestTheLinterFindsMistakesOfThisPackage(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*x509.Certificate)
		want   string // "" when nothing is wrong
	}{
		{"none", func(*x509.Certificate) {}, ""},
		{"a serial number of 21 octets", func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 160) }, "e_serial_number_longer_than_20_octets"},
		{"serial number zero", func(c *x509.Certificate) { c.SerialNumber = new(big.Int) }, "e_serial_number_not_positive"},
		{"a leaf that signs certificates", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }, "e_ext_key_usage_cert_sign_without_ca"},
		{"key encipherment with a key on a curve", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }, "e_ecdsa_allowed_ku"},
		{"a client that deciphers", func(c *x509.Certificate) {
			c.KeyUsage |= x509.KeyUsageKeyEncipherment
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, "e_key_usage_and_extended_key_usage_inconsistent"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			findings := lint(certify(t, row.change))
			for _, f := range findings {
				if row.want != "" && strings.HasPrefix(f, row.want+": ") {
					return
				}
			}
			if row.want != "" || len(findings) > 0 {
				t.Errorf("findings %q, want %q", findings, row.want)
			}
		})
	}
}

func TestACertificateThatSaysSomethingElseIsNoDraft(t *testing.T) {
	t.Parallel()
	wanted, other := certify(t, func(*x509.Certificate) {}), certify(t, func(*x509.Certificate) {})
	for _, row := range []struct {
		name   string
		change func(*x509.Certificate)
		want   string
	}{
		{"serial number", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(2) }, "serialNumber"},
		{"algorithm", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 }, "signature"},
		{"beginning", func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(time.Second) }, "validity"},
		{"end", func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Second) }, "validity"},
		{"subject", func(c *x509.Certificate) { c.RawSubject = []byte{0x30, 0x00} }, "subject"},
		{"key", func(c *x509.Certificate) { c.PublicKey = other.PublicKey }, "subjectPublicKeyInfo"},
		{"a CA", func(c *x509.Certificate) { c.IsCA = true }, "basicConstraints"},
		{"no basic constraints", func(c *x509.Certificate) { c.BasicConstraintsValid = false }, "basicConstraints"},
		{"key usage", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, "keyUsage"},
		{"one more purpose", func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) }, "extendedKeyUsage"},
		{"an unknown purpose", func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }, "extendedKeyUsage"},
		{"subject key identifier", func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} }, "subjectKeyIdentifier"},
		{"authority key identifier", func(c *x509.Certificate) { c.AuthorityKeyId = []byte{1} }, "authorityKeyIdentifier"},
		{"another host", func(c *x509.Certificate) { c.DNSNames = []string{"evil.example"} }, "dNSName"},
		{"one more address", func(c *x509.Certificate) { c.EmailAddresses = []string{"eve@evil.example"} }, "rfc822Name"},
		{"OCSP", func(c *x509.Certificate) { c.OCSPServer = []string{"http://evil.example/"} }, "ocsp"},
		{"a CRL elsewhere", func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://evil.example/"} }, "cRLDistributionPoints"},
		{"one more extension", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{0x05, 0x00}}}
		}, "extensions"},
		{"a critical SAN", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: []byte("\x30\x12\x82\x10www.corp.example")}}
		}, "extensions"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := certify(t, func(c *x509.Certificate) {
				*c = *wanted
				c.Extensions = nil
				row.change(c)
			})
			err := compare(got, wanted, wanted.RawIssuer)
			if err == nil || !strings.HasPrefix(err.Error(), row.want+" ") {
				t.Errorf("error %v, want %s", err, row.want)
			}
		})
	}
	if err := compare(wanted, wanted, wanted.RawSubject); err == nil {
		t.Error("another issuer is accepted")
	}
	if err := compare(wanted, wanted, wanted.RawIssuer); err != nil {
		t.Error(err)
	}
}
