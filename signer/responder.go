package signer

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// derNull is the value of ocsp-nocheck.
var derNull = []byte{0x05, 0x00}

// PrepareResponder is Prepare for the certificate of a delegated OCSP responder (RFC 6960, section 4.2.2.2): the purpose is
// OCSP signing alone, and ocsp-nocheck makes clients trust it as long as it is valid (section 4.2.2.2.1), which is why it should
// be valid for days. It names no CRL and no further authority: nobody is to ask about it.
//
// The subject has country and organization of the CA and the common name "OCSP responder" with the first 8 octets of the
// key identifier, so that it is the same in the next certificate of the key, and that of no CA and no other responder.
func (i *Issuer) PrepareResponder(pub crypto.PublicKey, notBefore, notAfter time.Time) (*Draft, error) {
	c, err := plain(pub, notBefore, notAfter)
	if err != nil {
		return nil, fmt.Errorf("build responder certificate: %w", err)
	}
	if c.RawSubject, err = responderName(i.certificate.RawSubject, c.SubjectKeyId); err != nil {
		return nil, fmt.Errorf("build responder certificate: %w", err)
	}
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	c.ExtraExtensions = []pkix.Extension{{Id: ocspNoCheck, Value: derNull}}
	b, err := assemble(c, i.certificate.RawSubject, i.certificate.SubjectKeyId, i.algorithm, i.certificate.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("build responder certificate: %w", err)
	}
	return b.draft(i.algorithm, i.key, i.certificate.PublicKey)
}

var (
	countryName      = asn1.ObjectIdentifier{2, 5, 4, 6}
	organizationName = asn1.ObjectIdentifier{2, 5, 4, 10}
	commonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
)

// responderName is the DER of the Name of a responder. What it has of the issuer's name is encoded as it is there.
func responderName(issuer, keyID []byte) ([]byte, error) {
	var all, kept []asn1.RawValue
	if _, err := asn1.Unmarshal(issuer, &all); err != nil {
		return nil, fmt.Errorf("decode name of the CA: %w", err)
	}
	for _, rdn := range all {
		var attributes pkix.RelativeDistinguishedNameSET
		if _, err := asn1.Unmarshal(rdn.FullBytes, &attributes); err != nil {
			return nil, fmt.Errorf("decode name of the CA: %w", err)
		}
		if len(attributes) == 1 && (attributes[0].Type.Equal(countryName) || attributes[0].Type.Equal(organizationName)) {
			kept = append(kept, rdn)
		}
	}
	own, err := asn1.Marshal(pkix.RelativeDistinguishedNameSET{{Type: commonName, Value: fmt.Sprintf("OCSP responder %x", keyID[:8])}})
	if err != nil {
		return nil, fmt.Errorf("encode common name: %w", err)
	}
	return asn1.Marshal(append(kept, asn1.RawValue{FullBytes: own}))
}

// Responder signs OCSP responses on behalf of a CA that has certified its key. It is safe for concurrent use.
type Responder struct {
	certificate *x509.Certificate
	algorithm   *algorithm
	key         crypto.Signer
	id          []byte // DER of the ResponderID
}

// NewResponder joins the certificate (DER) of a responder and its key. It fails when they do not belong together, or when the
// certificate is not what RFC 6960, section 4.2.2.2 asks for: signed by this very CA, for OCSP signing, with ocsp-nocheck.
// The responder names itself by its subject, or by the hash of its key.
func NewResponder(caCertificate, responderCertificate []byte, key crypto.Signer, byName bool) (*Responder, error) {
	ca, err := x509.ParseCertificate(caCertificate)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	c, err := x509.ParseCertificate(responderCertificate)
	if err != nil {
		return nil, fmt.Errorf("parse responder certificate: %w", err)
	}
	noCheck := func(e pkix.Extension) bool { return e.Id.Equal(ocspNoCheck) && bytes.Equal(e.Value, derNull) }
	switch {
	case !bytes.Equal(c.RawIssuer, ca.RawSubject) || !bytes.Equal(c.AuthorityKeyId, ca.SubjectKeyId):
		return nil, errors.New("the responder certificate names another issuer")
	case c.IsCA || c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, errors.New("the responder certificate is not one of an end entity that signs")
	case !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}) || len(c.UnknownExtKeyUsage) > 0:
		return nil, errors.New("the purpose of the responder certificate is not OCSP signing alone")
	case !slices.ContainsFunc(c.Extensions, noCheck):
		return nil, errors.New("the responder certificate has no ocsp-nocheck")
	case !c.NotAfter.After(c.NotBefore):
		return nil, errors.New("the responder certificate ends before it begins")
	case key == nil || !samePublicKey(c.PublicKey, key.Public()):
		return nil, errors.New("the key is not the one in the responder certificate")
	}
	if err := c.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("verify responder certificate: %w", err)
	}
	a, err := algorithmOf(c.PublicKey)
	if err != nil {
		return nil, err
	}
	id, err := responderID(c, byName)
	if err != nil {
		return nil, err
	}
	return &Responder{certificate: c, algorithm: a, key: key, id: id}, nil
}

// responderID encodes a ResponderID (RFC 6960, section 4.2.1). The hash of a key is SHA-1 always.
func responderID(c *x509.Certificate, byName bool) ([]byte, error) {
	key, err := subjectPublicKey(c.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	if byName {
		b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { b.AddBytes(c.RawSubject) })
	} else {
		b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest(crypto.SHA1, key)) })
	}
	return b.Bytes()
}

// Ready reports whether the key is there to sign, as [Issuer.Ready] does. Errors wrap [ErrKey].
func (r *Responder) Ready() error { return ready(r.key) }

// NotAfter is the last second in which the responder's certificate is valid. No answer should be meant to last longer.
func (r *Responder) NotAfter() time.Time { return r.certificate.NotAfter }

// Sign signs a response of type id-pkix-ocsp-basic (RFC 6960, section 4.2.1) with the responder's certificate in it, verifies the
// signature and returns the DER of the OCSPResponse, whose status is successful. nonce, 1 to [MaxNonce] octets, is the one
// of the request (RFC 9654); nil leaves it out. Failures of the key wrap [ErrKey].
func (r *Responder) Sign(producedAt time.Time, responses []SingleResponse, nonce []byte) ([]byte, error) {
	data, err := r.responseData(producedAt, responses, nonce)
	if err != nil {
		return nil, fmt.Errorf("build OCSP response: %w", err)
	}
	signature, err := r.algorithm.sign(r.key, r.certificate.PublicKey, data)
	if err != nil {
		return nil, fmt.Errorf("sign OCSP response: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0) // successful
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(ocspBasic)
				b.AddASN1(tag.OCTET_STRING, func(b *cryptobyte.Builder) { r.addBasic(b, data, signature) })
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("assemble OCSP response: %w", err)
	}
	return der, nil
}

// addBasic adds a BasicOCSPResponse.
func (r *Responder) addBasic(b *cryptobyte.Builder, data, signature []byte) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(data)
		b.AddBytes([]byte(r.algorithm.identifier))
		b.AddASN1BitString(signature)
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(r.certificate.Raw) })
		})
	})
}

// responseData encodes a ResponseData.
func (r *Responder) responseData(producedAt time.Time, responses []SingleResponse, nonce []byte) ([]byte, error) {
	switch {
	case producedAt.IsZero() || !validTime(wholeSecond(producedAt)):
		return nil, errors.New("producedAt is missing or out of range")
	case len(responses) == 0:
		return nil, errors.New("there is no response in it")
	case nonce != nil && (len(nonce) == 0 || len(nonce) > MaxNonce):
		return nil, fmt.Errorf("nonce of %d octets", len(nonce))
	}
	for n, single := range responses {
		if err := single.check(); err != nil {
			return nil, fmt.Errorf("response %d: %w", n+1, err)
		}
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { // version 1 is the default
		b.AddBytes(r.id)
		addGeneralizedTime(b, producedAt)
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, single := range responses {
				single.add(b)
			}
		})
		if nonce != nil {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					addExtension(b, ocspNonce, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
				})
			})
		}
	})
	return b.Bytes()
}
