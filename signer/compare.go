package signer

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
)

// Object identifiers of the extensions that this package writes (RFC 5280, section 4.2).
const (
	oidSubjectKeyID     = "2.5.29.14"
	oidKeyUsage         = "2.5.29.15"
	oidSubjectAltName   = "2.5.29.17"
	oidBasicConstraints = "2.5.29.19"
	oidCRLDistribution  = "2.5.29.31"
	oidAuthorityKeyID   = "2.5.29.35"
	oidExtKeyUsage      = "2.5.29.37"
	oidAuthorityInfo    = "1.3.6.1.5.5.7.1.1"
)

// compare holds a certificate against what was asked for: it says all of it, and nothing else.
func compare(got, want *x509.Certificate, issuer []byte) error {
	for _, field := range []struct {
		name string
		same bool
	}{
		{"version", got.Version == 3},
		{"serialNumber", got.SerialNumber.Cmp(want.SerialNumber) == 0},
		{"signature", got.SignatureAlgorithm == want.SignatureAlgorithm},
		{"issuer", bytes.Equal(got.RawIssuer, issuer)},
		{"validity", got.NotBefore.Equal(want.NotBefore) && got.NotAfter.Equal(want.NotAfter)},
		{"subject", bytes.Equal(got.RawSubject, want.RawSubject)},
		{"subjectPublicKeyInfo", samePublicKey(got.PublicKey, want.PublicKey)},
		{"basicConstraints", got.BasicConstraintsValid && got.IsCA == want.IsCA && got.MaxPathLen == want.MaxPathLen},
		{"keyUsage", got.KeyUsage == want.KeyUsage},
		{"extendedKeyUsage", slices.Equal(got.ExtKeyUsage, want.ExtKeyUsage) && len(got.UnknownExtKeyUsage) == 0},
		{"subjectKeyIdentifier", bytes.Equal(got.SubjectKeyId, want.SubjectKeyId)},
		{"authorityKeyIdentifier", bytes.Equal(got.AuthorityKeyId, want.AuthorityKeyId)},
		{"dNSName", slices.Equal(got.DNSNames, want.DNSNames)},
		{"rfc822Name", slices.Equal(got.EmailAddresses, want.EmailAddresses)},
		{"iPAddress", slices.EqualFunc(got.IPAddresses, want.IPAddresses, net.IP.Equal)},
		{"uniformResourceIdentifier", len(got.URIs) == 0},
		{"cRLDistributionPoints", slices.Equal(got.CRLDistributionPoints, want.CRLDistributionPoints)},
		{"caIssuers", slices.Equal(got.IssuingCertificateURL, want.IssuingCertificateURL)},
		{"ocsp", slices.Equal(got.OCSPServer, want.OCSPServer)},
		{"extensions", sameExtensions(got, want)},
	} {
		if !field.same {
			return fmt.Errorf("%s is not what was asked for", field.name)
		}
	}
	return nil
}

// sameExtensions reports whether the certificate has exactly the extensions that its content calls for, each once
// and each as critical as it has to be.
func sameExtensions(got, want *x509.Certificate) bool {
	critical := map[string]bool{
		oidBasicConstraints: true,
		oidKeyUsage:         true,
		oidSubjectKeyID:     false,
		oidAuthorityKeyID:   false,
	}
	if len(want.ExtKeyUsage) > 0 {
		critical[oidExtKeyUsage] = false
	}
	if len(want.DNSNames)+len(want.IPAddresses)+len(want.EmailAddresses) > 0 {
		critical[oidSubjectAltName] = bytes.Equal(want.RawSubject, []byte{0x30, 0x00})
	}
	if len(want.CRLDistributionPoints) > 0 {
		critical[oidCRLDistribution] = false
	}
	if len(want.IssuingCertificateURL)+len(want.OCSPServer) > 0 {
		critical[oidAuthorityInfo] = false
	}
	extra := map[string][]byte{}
	for _, e := range want.ExtraExtensions {
		critical[e.Id.String()], extra[e.Id.String()] = e.Critical, e.Value
	}
	for _, e := range got.Extensions {
		c, expected := critical[e.Id.String()]
		if !expected || c != e.Critical {
			return false
		}
		if value, known := extra[e.Id.String()]; known && !bytes.Equal(e.Value, value) {
			return false
		}
		delete(critical, e.Id.String())
	}
	return len(critical) == 0
}
