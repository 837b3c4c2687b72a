package signer

import (
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// OCSPStatus is a CertStatus (RFC 6960, section 4.2.1).
type OCSPStatus int

// The statuses.
const (
	Good OCSPStatus = iota
	RevokedStatus
	Unknown
)

// The OCSPResponseStatus of responses that are not signed (RFC 6960, section 4.2.1).
const (
	MalformedRequest = 1
	InternalError    = 2
	TryLater         = 3
	SigRequired      = 5
	Unauthorized     = 6
)

// OCSPError is the DER of a response that says why there is no answer.
func OCSPError(status int) []byte { return []byte{0x30, 3, byte(tag.ENUM), 1, byte(status)} }

// SingleResponse is the answer for one certificate (RFC 6960, section 4.2.1). Times are written in whole seconds.
type SingleResponse struct {
	CertID     []byte // DER of the CertID, as it was asked for
	Status     OCSPStatus
	RevokedAt  time.Time // with RevokedStatus
	Reason     int       // CRLReason, with RevokedStatus; 0 (unspecified) is left out
	ThisUpdate time.Time
	NextUpdate time.Time
}

// Responder signs OCSP responses on behalf of one CA (RFC 6960, section 4.2.2.2). It is safe for concurrent use.
type Responder struct {
	certificate *x509.Certificate
	algorithm   *algorithm
	key         crypto.Signer
	id          []byte // DER of the ResponderID
}

// NewResponder joins a responder's certificate (DER), which the CA must have signed for this purpose, and its key. byName
// says how the responder names itself: by its subject, or by the hash of its key.
func NewResponder(caCertificate, responderCertificate []byte, key crypto.Signer, byName bool) (*Responder, error) {
	ca, err := x509.ParseCertificate(caCertificate)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	c, err := x509.ParseCertificate(responderCertificate)
	if err != nil {
		return nil, fmt.Errorf("parse responder certificate: %w", err)
	}
	if err := c.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("the responder certificate is not one of the CA: %w", err)
	}
	switch {
	case !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}):
		return nil, errors.New("the certificate is not that of an OCSP responder")
	case key == nil || !samePublicKey(c.PublicKey, key.Public()):
		return nil, errors.New("the key is not the one in the responder certificate")
	}
	a, err := algorithmOf(c.PublicKey)
	if err != nil {
		return nil, err
	}
	r := &Responder{certificate: c, algorithm: a, key: key}
	b := cryptobyte.NewBuilder(nil)
	if byName {
		b.AddASN1(tag.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(c.RawSubject) })
	} else {
		bits, err := subjectPublicKey(c.RawSubjectPublicKeyInfo)
		if err != nil {
			return nil, err
		}
		hash := sha1.Sum(bits) // RFC 6960, section 4.2.1: KeyHash is SHA-1
		b.AddASN1(tag.Tag(2).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(hash[:]) })
	}
	r.id, err = b.Bytes()
	return r, err
}

// NotAfter is the last second of the responder certificate.
func (r *Responder) NotAfter() time.Time { return r.certificate.NotAfter }

// Ready is [Issuer.Ready] for the responder's key.
func (r *Responder) Ready() error { return ready(r.key) }

// Sign returns the DER of a successful OCSPResponse with the responder's certificate inside. A nonce (1 to 128 octets, RFC
// 9654) is echoed; nil leaves it out. The signature is verified before it is returned; failures of the key wrap [ErrKey].
func (r *Responder) Sign(producedAt time.Time, responses []SingleResponse, nonce []byte) ([]byte, error) {
	if len(responses) == 0 {
		return nil, errors.New("build OCSP response: it answers nothing")
	}
	for _, s := range responses {
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("build OCSP response: %w", err)
		}
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(r.id)
		b.AddBytes(appendGeneralizedTime(nil, producedAt))
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, s := range responses {
				s.add(b)
			}
		})
		if nonce != nil {
			addNonce(b, nonce)
		}
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("build OCSP response: %w", err)
	}
	signature, err := r.algorithm.sign(r.key, tbs)
	if err != nil {
		return nil, fmt.Errorf("sign OCSP response: %w: %w", ErrKey, err)
	}
	if err := r.algorithm.verify(r.certificate.PublicKey, tbs, signature); err != nil {
		return nil, fmt.Errorf("verify signature of OCSP response: %w: %w", ErrKey, err)
	}
	return r.assemble(tbs, signature)
}

// oidBasic is id-pkix-ocsp-basic, oidNonce id-pkix-ocsp-nonce.
var (
	oidBasic = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
)

func (r *Responder) assemble(tbs, signature []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+len(r.certificate.Raw)+100))
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0) // successful
		b.AddASN1(tag.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidBasic)
				b.AddASN1(tag.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(tbs)
						b.AddBytes(r.algorithm.identifier())
						b.AddASN1BitString(signature)
						b.AddASN1(tag.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
							b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(r.certificate.Raw) })
						})
					})
				})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("assemble OCSP response: %w", err)
	}
	return der, nil
}

func (s SingleResponse) check() error {
	switch {
	case len(s.CertID) == 0:
		return errors.New("a response has no CertID")
	case s.Status < Good || s.Status > Unknown:
		return fmt.Errorf("status %d is unknown", s.Status)
	case s.Status == RevokedStatus && s.RevokedAt.IsZero():
		return errors.New("revocation time is missing")
	case s.Reason < 0 || s.Reason > 10 || s.Reason == 7 || s.Reason == 8:
		return fmt.Errorf("reason %d is not one of a revoked certificate", s.Reason)
	case s.ThisUpdate.IsZero() || !wholeSecond(s.NextUpdate).After(wholeSecond(s.ThisUpdate)):
		return errors.New("nextUpdate is not after thisUpdate")
	}
	return nil
}

func (s SingleResponse) add(b *cryptobyte.Builder) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(s.CertID)
		if s.Status == RevokedStatus {
			b.AddASN1(tag.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
				b.AddBytes(appendGeneralizedTime(nil, s.RevokedAt))
				if s.Reason != 0 {
					b.AddASN1(tag.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
				}
			})
		} else {
			b.AddASN1(tag.Tag(s.Status).ContextSpecific(), func(*cryptobyte.Builder) {}) // an implicit NULL
		}
		b.AddBytes(appendGeneralizedTime(nil, s.ThisUpdate))
		b.AddASN1(tag.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddBytes(appendGeneralizedTime(nil, s.NextUpdate))
		})
	})
}

// addNonce writes responseExtensions with the nonce alone (RFC 9654, section 2.1).
func addNonce(b *cryptobyte.Builder, nonce []byte) {
	b.AddASN1(tag.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidNonce)
				b.AddASN1(tag.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
			})
		})
	})
}
