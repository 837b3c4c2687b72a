package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The name and version of the document. The words of [GradeOf] and of a statement's limits belong to the version: a
// verifier makes them anew and compares.
const (
	Format  = "signet-key-evidence"
	Version = 1
)

// MaxNonce is the longest nonce, in characters.
const MaxNonce = 64

// Statement is everything that a document says and its signature covers. [Sign] and [DER] fill in Format, Version,
// AttestationSHA256, Grade, Reasons and Limits and overwrite what is there: nobody claims them.
type Statement struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Time    time.Time `json:"time"`  // when it was signed, by Signet's clock
	Nonce   string    `json:"nonce"` // the client's, as it was given; empty without one
	Signet  string    `json:"signet_version"`

	Grade   Grade    `json:"grade"`
	Reasons []string `json:"reasons"`

	CA          CA           `json:"ca"`
	Key         Key          `json:"key"`
	Mechanism   string       `json:"mechanism"` // that the key signs with, by PKCS#11 name
	Drill       *Drill       `json:"drill"`     // the last one; nil when there was none
	Acceptance  *Acceptance  `json:"acceptance"`
	Attestation *Attestation `json:"vendor_attestation"`

	AttestationKey    Key      `json:"attestation_key"`
	AttestationSHA256 string   `json:"attestation_key_sha256"` // of its SubjectPublicKeyInfo, lower-case hex
	Limits            []string `json:"limits"`                 // what is not proven
}

// CA names the authority whose key this is about.
type CA struct {
	ID                int64  `json:"id"`
	Name              string `json:"name"`
	Subject           string `json:"subject"`            // distinguished name, RFC 4514
	CertificateSHA256 string `json:"certificate_sha256"` // lower-case hex; empty while there is no certificate
	OrganizationID    *int64 `json:"organization_id"`
}

// Attestation is what a token's vendor has signed about a key, carried along for whoever can check it. Signet cannot,
// and rests no grade on it.
type Attestation struct {
	Format string `json:"format"`
	Data   []byte `json:"data"`
}

// Fingerprint is the SHA-256 of a public key's DER SubjectPublicKeyInfo, in lower-case hex.
func Fingerprint(publicKey []byte) string {
	sum := sha256.Sum256(publicKey)
	return hex.EncodeToString(sum[:])
}

// CheckNonce says what is wrong with a client's nonce: it is printable ASCII, at most [MaxNonce] characters. The
// empty one is none.
func CheckNonce(nonce string) error {
	if len(nonce) > MaxNonce {
		return fmt.Errorf("a nonce has at most %d characters", MaxNonce)
	}
	if strings.ContainsFunc(nonce, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("a nonce is printable ASCII")
	}
	return nil
}

// complete fills in what follows from the rest, and brings the rest into the one form that is signed.
func (s Statement) complete() Statement {
	s.Format, s.Version = Format, Version
	s.Time = second(s.Time)
	s.Key, s.AttestationKey = s.Key.normal(), s.AttestationKey.normal()
	drill := Drill{}
	if s.Drill != nil {
		drill = Drill{At: second(s.Drill.At), Token: s.Drill.Token, Attacks: append([]Attack{}, s.Drill.Attacks...)}
		s.Drill = &drill
	}
	if s.Acceptance != nil {
		accepted := *s.Acceptance
		accepted.At = second(accepted.At)
		s.Acceptance = &accepted
	}
	s.AttestationSHA256 = Fingerprint(s.AttestationKey.PublicKey)
	s.Grade, s.Reasons = s.grade(drill)
	s.Limits = s.limits()
	return s
}

// grade is [GradeOf], for which a drill on another token than the one that has the key now is none.
func (s Statement) grade(drill Drill) (Grade, []string) {
	if drill.Token == s.Key.Token.Serial {
		return GradeOf(s.Key.Attributes, drill)
	}
	grade, reasons := GradeOf(s.Key.Attributes, Drill{})
	if len(drill.Attacks) > 0 {
		reasons = append(reasons, fmt.Sprintf("the last drill was on another token, with the serial number %q", drill.Token))
	}
	return grade, reasons
}

func (k Key) normal() Key {
	k.ReadAt = second(k.ReadAt)
	if k.Attributes == nil {
		k.Attributes = map[string]any{}
	}
	return k
}

func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// limits is what a statement of this content does not prove.
func (s Statement) limits() []string {
	limits := []string{
		"that the token tells the truth: the attributes are its own answers, and software or changed firmware can answer anything",
		"that the token is what it says: manufacturer, model, serial number and firmware are its own words",
		"that the attestation key is in hardware or even in the token: Signet asked the token for both keys, and the token signs what Signet gives it without checking it",
		"what became of the key before its attributes were read, and since",
	}
	if s.Grade == Exportable || s.Grade == Imported {
		limits = append(limits, "that there is no copy of the key elsewhere, for example one that was made before it came into the token")
	}
	switch {
	case s.Drill == nil || len(s.Drill.Attacks) == 0:
		limits = append(limits, "that the token refuses to give the key away: no attack was tried")
	case len(s.Drill.With(Yielded)) > 0:
		limits = append(limits, "that the token refuses to give the key away: it gave way to an attack")
	default:
		limits = append(limits, "that attacks other than those listed fail")
	}
	if s.Drill != nil && s.Drill.onCanary() {
		limits = append(limits, "that this key withstands what was tried on a canary: that was another key, made with the same template")
	}
	if s.Attestation != nil {
		limits = append(limits, "what the enclosed attestation of the vendor says: Signet carries it and does not check it")
	}
	return limits
}

func (d Drill) onCanary() bool {
	for _, a := range d.Attacks {
		if a.Target != targetKey {
			return true
		}
	}
	return false
}

// check says what is wrong with a statement, whoever made it.
func (s Statement) check() error {
	if err := CheckNonce(s.Nonce); err != nil {
		return err
	}
	if bytes.Equal(s.Key.PublicKey, s.AttestationKey.PublicKey) {
		return errors.New("the key would attest itself")
	}
	for what, key := range map[string]Key{"key": s.Key, "attestation key": s.AttestationKey} {
		if err := key.check(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// check holds what a key claims to be against its public key.
func (k Key) check() error {
	for name, value := range k.Attributes {
		switch value.(type) {
		case bool, string, []string:
		default:
			return fmt.Errorf("attribute %s is neither boolean, text nor a list of texts", name)
		}
	}
	public, err := parsePublicKey(k.PublicKey)
	if err != nil {
		return err
	}
	kind, sizes := "", []int{0, 0}
	switch p := public.(type) {
	case *rsa.PublicKey:
		kind, sizes = "rsa", []int{p.N.BitLen(), p.N.BitLen()}
	case *ecdsa.PublicKey:
		kind, sizes = "ec", []int{p.Params().BitSize, p.Params().BitSize}
	case ed25519.PublicKey:
		kind, sizes = "ed25519", []int{255, 256} // the field's size, or the key's: both are in use
	}
	if k.Type != kind || k.Size < sizes[0] || k.Size > sizes[1] {
		return fmt.Errorf("it is called a key of type %q with %d bits, and its public key is not that", k.Type, k.Size)
	}
	return nil
}

// parsePublicKey reads a DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) in its one encoding.
func parsePublicKey(der []byte) (any, error) {
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	switch p := public.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("read public key: a %T is not known", p)
	}
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !bytes.Equal(again, der) {
		return nil, errors.New("read public key: it is not in its one DER form")
	}
	return public, nil
}
