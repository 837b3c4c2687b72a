package signer

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"

	_ "crypto/sha1" // crypto.SHA1, the hash in most CertIDs
)

// oidNoCheck is id-pkix-ocsp-nocheck (RFC 6960, section 4.2.2.2.1): who revokes a responder lets its short life end.
var oidNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}

// PrepareResponder builds the certificate of a delegated OCSP responder of the CA, with id-kp-OCSPSigning alone and
// id-pkix-ocsp-nocheck, and lints it as Prepare does.
func (i *Issuer) PrepareResponder(pub crypto.PublicKey, notBefore, notAfter time.Time) (*Draft, error) {
	// The name differs from that of the CA, whatever that is, and between the CAs of one operator.
	name := pkix.Name{CommonName: fmt.Sprintf("OCSP responder of %x", i.certificate.SubjectKeyId[:min(8, len(i.certificate.SubjectKeyId))])}
	subject, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		return nil, fmt.Errorf("encode subject: %w", err)
	}
	return i.Prepare(Template{Subject: subject, PublicKey: pub, Usage: usageResponder, NotBefore: notBefore, NotAfter: notAfter})
}

// IssuerHashes are issuerNameHash and issuerKeyHash of the CertIDs of what a CA issued (RFC 6960, section 4.1.1).
func IssuerHashes(caCertificate []byte, h crypto.Hash) (nameHash, keyHash []byte, err error) {
	c, err := x509.ParseCertificate(caCertificate)
	if err != nil {
		return nil, nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	bits, err := subjectPublicKey(c.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, nil, err
	}
	if !h.Available() {
		return nil, nil, fmt.Errorf("hash %v is not available", h)
	}
	name, key := h.New(), h.New()
	name.Write(c.RawSubject)
	key.Write(bits)
	return name.Sum(nil), key.Sum(nil), nil
}

// subjectPublicKey is the content of the BIT STRING, without its unused bits.
func subjectPublicKey(spki []byte) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return nil, fmt.Errorf("decode public key: %w", err)
	}
	return info.PublicKey.RightAlign(), nil
}
