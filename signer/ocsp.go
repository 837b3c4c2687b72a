package signer

import (
	"crypto"
	_ "crypto/sha1" // crypto.SHA1, which names issuers and keys in OCSP (RFC 6960, section 4.3); it protects nothing there
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	ocspBasic   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	ocspNonce   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	ocspNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
)

// MaxNonce is the longest nonce in octets (RFC 9654, section 2.1).
const MaxNonce = 128

// OCSPStatus is a CertStatus (RFC 6960, section 4.2.1): the number is its tag.
type OCSPStatus int

// The statuses.
const (
	StatusGood OCSPStatus = iota
	StatusRevoked
	StatusUnknown
)

// SingleResponse is the status of one certificate (RFC 6960, section 4.2.1). Times are written in whole seconds; fractions are
// cut off.
type SingleResponse struct {
	CertID     []byte // DER, as it was asked for
	Status     OCSPStatus
	RevokedAt  time.Time // StatusRevoked only
	Reason     int       // StatusRevoked only: CRLReason but removeFromCRL; 0 (unspecified) leaves it out
	ThisUpdate time.Time
	NextUpdate time.Time // zero leaves it out: newer information is available all the time
}

// Values of OCSPResponseStatus of responses without signature (RFC 6960, section 4.2.1).
const (
	OCSPMalformedRequest = 1
	OCSPInternalError    = 2
	OCSPTryLater         = 3
	OCSPSigRequired      = 5
	OCSPUnauthorized     = 6
)

// OCSPError is the DER of an OCSPResponse that says nothing but why there is no answer. What is not one of the constants
// becomes internalError.
func OCSPError(status int) []byte {
	switch status {
	case OCSPMalformedRequest, OCSPTryLater, OCSPSigRequired, OCSPUnauthorized:
	default:
		status = OCSPInternalError
	}
	return []byte{0x30, 0x03, 0x0a, 0x01, byte(status)}
}

// IssuerHashes returns what a CertID of this hash says of the CA (RFC 6960, section 4.1.1): the hashes of its subject and of its
// public key. It fails when the certificate is none, or the hash is neither SHA-1 nor SHA-256.
func IssuerHashes(caCertificate []byte, h crypto.Hash) (nameHash, keyHash []byte, err error) {
	if h != crypto.SHA1 && h != crypto.SHA256 {
		return nil, nil, fmt.Errorf("hash %d does not name an issuer", h)
	}
	c, err := x509.ParseCertificate(caCertificate)
	if err != nil {
		return nil, nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	key, err := subjectPublicKey(c.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, nil, err
	}
	return digest(h, c.RawSubject), digest(h, key), nil
}

func digest(h crypto.Hash, octets []byte) []byte {
	sum := h.New()
	sum.Write(octets)
	return sum.Sum(nil)
}

// check refuses what cannot be encoded, or would be understood as something else.
func (r SingleResponse) check() error {
	id, inner := cryptobyte.String(r.CertID), cryptobyte.String(nil)
	this, next := wholeSecond(r.ThisUpdate), wholeSecond(r.NextUpdate)
	switch {
	case !id.ReadASN1(&inner, tag.SEQUENCE) || !id.Empty():
		return errors.New("certID is not a SEQUENCE in DER")
	case r.Status < StatusGood || r.Status > StatusUnknown:
		return fmt.Errorf("status %d is unknown", r.Status)
	case r.ThisUpdate.IsZero() || !r.NextUpdate.IsZero() && !next.After(this):
		return errors.New("nextUpdate is not after thisUpdate")
	case !validTime(this) || !r.NextUpdate.IsZero() && !validTime(next):
		return errors.New("thisUpdate or nextUpdate is out of range")
	}
	revoked := r.Status == StatusRevoked
	switch {
	case revoked && (r.RevokedAt.IsZero() || !validTime(wholeSecond(r.RevokedAt))):
		return errors.New("revocation time is missing or out of range")
	case revoked && !validReason(r.Reason, false):
		return fmt.Errorf("reason %d is not one of a revoked certificate", r.Reason)
	case !revoked && (!r.RevokedAt.IsZero() || r.Reason != 0):
		return errors.New("a certificate that is not revoked has a revocation time or reason")
	}
	return nil
}

// add encodes a SingleResponse.
func (r SingleResponse) add(b *cryptobyte.Builder) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(r.CertID)
		status := tag.Tag(r.Status).ContextSpecific() // good and unknown are NULLs
		if r.Status == StatusRevoked {
			b.AddASN1(status.Constructed(), func(b *cryptobyte.Builder) {
				addGeneralizedTime(b, r.RevokedAt)
				if r.Reason != 0 {
					b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(r.Reason)) })
				}
			})
		} else {
			b.AddASN1(status, func(*cryptobyte.Builder) {})
		}
		addGeneralizedTime(b, r.ThisUpdate)
		if !r.NextUpdate.IsZero() {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { addGeneralizedTime(b, r.NextUpdate) })
		}
	})
}

// explicit is the tag of an element that is tagged explicitly.
func explicit(n int) tag.Tag { return tag.Tag(n).ContextSpecific().Constructed() }

func addGeneralizedTime(b *cryptobyte.Builder, t time.Time) {
	b.AddBytes(appendGeneralizedTime(nil, wholeSecond(t)))
}
