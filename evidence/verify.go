package evidence

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"reflect"
	"time"
)

// MaxSize is the largest document that is read, in octets. Real ones have some ten thousand.
const MaxSize = 1 << 20

// skew is how far a document may be ahead of the verifier's clock.
const skew = 5 * time.Minute

// Options is what a document is held against, besides itself.
type Options struct {
	// Nonce is what the document must repeat. Empty: any nonce, and nothing is said about freshness.
	Nonce string
	// AttestationKey is the SHA-256 of the SubjectPublicKeyInfo of the only key that may have signed, known from
	// elsewhere. Nil: any key.
	AttestationKey []byte
	// Now is the verifier's time; a document from later than that (and five minutes) is refused, with the zero value
	// every one.
	Now time.Time
	// MaxAge is how old the document may be. 0: any age.
	MaxAge time.Duration
	// CACertificate is the DER certificate whose key the document must be about. Nil: none is compared.
	CACertificate []byte
}

// Reason says why a document was refused.
type Reason string

// The reasons.
const (
	TooLarge         Reason = "the document is too large"
	Malformed        Reason = "the document is malformed"
	NotCanonical     Reason = "the document is not in its one form"
	UnknownVersion   Reason = "the document's format or version is not known"
	BadSignature     Reason = "the signature is not valid"
	Disagreement     Reason = "the document contradicts itself"
	Inflated         Reason = "the document claims what its own content does not support"
	WrongSigner      Reason = "another attestation key signed"
	WrongNonce       Reason = "the nonce is another"
	FromTheFuture    Reason = "the document is from the future"
	TooOld           Reason = "the document is too old"
	WrongCertificate Reason = "the document is about another key than the CA certificate's"
)

// Error is why a document was refused.
type Error struct {
	Reason Reason
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return string(e.Reason) + ": " + plain(e.Detail) }

// Verify checks a document, in JSON or in DER, without asking anybody. It accepts only documents that [Sign] or [DER]
// could have made, octet for octet, whose grade, reasons and limits are what their own attributes and drill support,
// and that meet the options. Every refusal is an [*Error].
func Verify(data []byte, opts Options) (Report, error) {
	if len(data) > MaxSize {
		return Report{}, &Error{Reason: TooLarge, Detail: fmt.Sprintf("it has more than %d octets", MaxSize)}
	}
	form, der, written := "DER", data, (*file)(nil)
	if len(data) > 0 && data[0] == '{' { // DER begins with 0x30
		f, err := decodeFile(data)
		if err != nil {
			return Report{}, err
		}
		form, der, written = "JSON", f.Evidence, &f
	}
	d, err := open(der)
	if err != nil {
		return Report{}, err
	}
	if written != nil && !reflect.DeepEqual(*written, d.file()) {
		return Report{}, &Error{Reason: Disagreement, Detail: "the JSON for people and the signed DER in it differ"}
	}
	if err := opts.check(d.statement); err != nil {
		return Report{}, err
	}
	return report(d, form, opts), nil
}

// open takes a DER document apart and checks all that needs no options.
func open(der []byte) (document, error) {
	encoded, signature, err := decodeEvidence(der)
	if err != nil {
		return document{}, err
	}
	s, err := decodeStatement(encoded)
	if err != nil {
		return document{}, err
	}
	if s.Format != Format || s.Version != Version {
		return document{}, &Error{Reason: UnknownVersion, Detail: fmt.Sprintf("format %q, version %d", s.Format, s.Version)}
	}
	if err := s.check(); err != nil {
		return document{}, &Error{Reason: Disagreement, Detail: err.Error()}
	}
	public, err := parsePublicKey(s.AttestationKey.PublicKey)
	if err != nil {
		return document{}, &Error{Reason: Malformed, Detail: err.Error()}
	}
	a, err := algorithmOf(public)
	if err != nil {
		return document{}, &Error{Reason: BadSignature, Detail: err.Error()}
	}
	tbs, err := encodeTBS(s, encoded)
	if err != nil {
		return document{}, &Error{Reason: Malformed, Detail: err.Error()}
	}
	again, err := encodeEvidence(tbs, s.AttestationKey.PublicKey, a, signature)
	if err != nil || !bytes.Equal(again, der) {
		return document{}, &Error{Reason: Disagreement, Detail: "the claims for machines are not those of the statement"}
	}
	if !a.verify(tbs, signature) {
		return document{}, &Error{Reason: BadSignature, Detail: "it was changed, or the attestation key that it names did not sign it"}
	}
	if err := s.supported(encoded); err != nil {
		return document{}, err
	}
	return document{statement: s, algorithm: a, signature: signature, tbs: tbs, der: der}, nil
}

// supported makes anew what follows from the rest of the statement.
func (s Statement) supported(encoded []byte) error {
	made := s.complete()
	if s.Grade != made.Grade {
		return &Error{Reason: Inflated, Detail: fmt.Sprintf("it says %q, and its attributes and drill make %q", s.Grade, made.Grade)}
	}
	again, err := encodeStatement(made)
	if err != nil || !bytes.Equal(again, encoded) {
		return &Error{Reason: Inflated, Detail: "its reasons, its limits, its times or its fingerprint are not what follows from it"}
	}
	return nil
}

func (o Options) check(s Statement) error {
	if o.AttestationKey != nil && hex.EncodeToString(o.AttestationKey) != s.AttestationSHA256 {
		return &Error{Reason: WrongSigner, Detail: fmt.Sprintf("%s, not %x", s.AttestationSHA256, o.AttestationKey)}
	}
	if o.Nonce != "" && o.Nonce != s.Nonce {
		return &Error{Reason: WrongNonce, Detail: fmt.Sprintf("%q, not %q", s.Nonce, o.Nonce)}
	}
	age := o.Now.Sub(s.Time)
	if age < -skew {
		return &Error{Reason: FromTheFuture, Detail: fmt.Sprintf("it was signed at %s, and now is %s", stamp(s.Time), stamp(o.Now))}
	}
	if o.MaxAge > 0 && age > o.MaxAge {
		return &Error{Reason: TooOld, Detail: fmt.Sprintf("it was signed at %s, more than %s ago", stamp(s.Time), o.MaxAge)}
	}
	if o.CACertificate == nil {
		return nil
	}
	certificate, err := x509.ParseCertificate(o.CACertificate)
	if err != nil {
		return &Error{Reason: WrongCertificate, Detail: "the certificate to compare with cannot be read: " + err.Error()}
	}
	if !bytes.Equal(certificate.RawSubjectPublicKeyInfo, s.Key.PublicKey) {
		return &Error{Reason: WrongCertificate, Detail: fmt.Sprintf("it is about the key of %q, and the certificate's is another", s.CA.Name)}
	}
	return nil
}

// sameCertificate reports whether the certificate is the one that the statement names, and not just one of its key.
func (o Options) sameCertificate(s Statement) bool {
	sum := sha256.Sum256(o.CACertificate)
	return hex.EncodeToString(sum[:]) == s.CA.CertificateSHA256
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
