package signer

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// certificate translates the template, under a new serial number, for x509.CreateCertificate. Issuer, authority key
// identifier and signature algorithm are missing still.
func (t Template) certificate() (*x509.Certificate, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	c, err := plain(t.PublicKey, t.NotBefore, t.NotAfter)
	if err != nil {
		return nil, err
	}
	c.RawSubject = t.Subject
	c.DNSNames, c.IPAddresses, c.EmailAddresses = t.DNS, t.IPs, t.Emails
	c.KeyUsage, c.ExtKeyUsage = keyUsages(t.Usage, t.PublicKey)
	c.IsCA = t.Usage == UsageCA
	if t.PathLength != nil {
		c.MaxPathLen, c.MaxPathLenZero = *t.PathLength, *t.PathLength == 0
	}
	if t.CRLURL != "" {
		c.CRLDistributionPoints = []string{t.CRLURL}
	}
	if t.IssuerURL != "" {
		c.IssuingCertificateURL = []string{t.IssuerURL}
	}
	if t.OCSPURL != "" {
		c.OCSPServer = []string{t.OCSPURL}
	}
	return c, nil
}

// plain is what every certificate has: a new serial number, a key and its identifier, a validity, and basicConstraints.
func plain(pub crypto.PublicKey, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	if notBefore.IsZero() || notAfter.IsZero() {
		return nil, errors.New("validity is missing")
	}
	if _, err := algorithmOf(pub); err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	ski, err := keyIdentifier(pub)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		PublicKey:             pub,
		NotBefore:             wholeSecond(notBefore),
		NotAfter:              wholeSecond(notAfter),
		BasicConstraintsValid: true,
		MaxPathLen:            -1,
		SubjectKeyId:          ski,
	}, nil
}

// check refuses what cannot be encoded, or would be encoded as something else. Whether the content is good is for
// the linter to say.
func (t Template) check() error {
	switch {
	case t.Usage < UsageServer || t.Usage > UsageCA:
		return fmt.Errorf("usage %d is unknown", t.Usage)
	case len(t.Subject) == 0:
		return errors.New("subject is missing (an empty one is the empty sequence)")
	case t.PathLength != nil && t.Usage != UsageCA:
		return errors.New("only a CA certificate has a path length")
	case t.PathLength != nil && *t.PathLength < 0:
		return fmt.Errorf("path length %d is negative", *t.PathLength)
	}
	for _, ip := range t.IPs {
		if len(ip) != 4 && len(ip) != 16 {
			return fmt.Errorf("IP address of %d octets", len(ip))
		}
	}
	for _, u := range []string{t.CRLURL, t.IssuerURL, t.OCSPURL} {
		if err := checkURL(u); u != "" && err != nil {
			return err
		}
	}
	return nil
}

// keyUsages returns keyUsage and extendedKeyUsage (RFC 5280, sections 4.2.1.3 and 4.2.1.12). A server's RSA key
// takes part in the key exchange of TLS 1.2 with keyEncipherment; a client's key only ever signs, and section
// 4.2.1.12 does not hold keyEncipherment to be consistent with clientAuth.
func keyUsages(u Usage, pub crypto.PublicKey) (x509.KeyUsage, []x509.ExtKeyUsage) {
	server := x509.KeyUsageDigitalSignature
	if _, ok := pub.(*rsa.PublicKey); ok {
		server |= x509.KeyUsageKeyEncipherment
	}
	switch u {
	case UsageServer:
		return server, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case UsageClient:
		return x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case UsageDualPurpose:
		return server, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	return x509.KeyUsageCertSign | x509.KeyUsageCRLSign, nil
}

// keyIdentifier is the leftmost 160 bits of the SHA-256 of the subjectPublicKey (RFC 7093, section 2, method 1).
func keyIdentifier(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	octets, err := subjectPublicKey(der)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(octets)
	return sum[:20], nil
}

// subjectPublicKey returns the octets of the BIT STRING of a SubjectPublicKeyInfo, without tag, length and unused bits.
func subjectPublicKey(info []byte) ([]byte, error) {
	var parts struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(info, &parts); err != nil {
		return nil, fmt.Errorf("decode public key: %w", err)
	}
	return parts.PublicKey.RightAlign(), nil
}

// checkURL refuses what relying parties could not fetch. An URL in a certificate is an IA5String (RFC 5280, section
// 4.2.1.6), which x509.CreateCertificate does not check here.
func checkURL(s string) error {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return fmt.Errorf("URL %q is not printable ASCII", s)
		}
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("parse URL: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("URL %q is not an absolute http or https URL", s)
	}
	return nil
}

func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
