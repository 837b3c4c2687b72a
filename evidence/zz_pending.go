package evidence

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxNonce is the longest nonce, in characters.
const MaxNonce = 64

// Statement is everything that a document says and its signature covers.
type Statement struct {
	Time           time.Time
	Nonce          string
	Signet         string
	Grade          Grade
	Reasons        []string
	CA             CA
	Key            Key
	Mechanism      string
	Drill          *Drill
	Acceptance     *Acceptance
	AttestationKey Key
}

// CA names the authority whose key a statement is about.
type CA struct {
	ID                int64
	Name              string
	Subject           string
	CertificateSHA256 string
	OrganizationID    *int64
}

// CheckNonce says what is wrong with a client's nonce.
func CheckNonce(nonce string) error {
	if len(nonce) > MaxNonce {
		return fmt.Errorf("a nonce has at most %d characters", MaxNonce)
	}
	if strings.ContainsFunc(nonce, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("a nonce is printable ASCII")
	}
	return nil
}

// Fingerprint is the SHA-256 of a public key's DER SubjectPublicKeyInfo, in lower-case hex.
func Fingerprint(publicKey []byte) string {
	sum := sha256.Sum256(publicKey)
	return hex.EncodeToString(sum[:])
}

// GradeOf grades a key by its attributes and the last drill.
func GradeOf(attributes map[string]any, drill Drill) (Grade, []string) {
	unmet := func(want map[string]bool) (reasons []string) {
		for name, value := range want {
			if attributes[name] != value {
				reasons = append(reasons, fmt.Sprintf("%s is not %t", name, value))
			}
		}
		return reasons
	}
	if reasons := unmet(map[string]bool{"CKA_EXTRACTABLE": false, "CKA_SENSITIVE": true}); reasons != nil {
		return Exportable, reasons
	}
	if reasons := unmet(map[string]bool{"CKA_LOCAL": true, "CKA_ALWAYS_SENSITIVE": true, "CKA_NEVER_EXTRACTABLE": true}); reasons != nil {
		return Imported, reasons
	}
	if len(drill.With(Refused)) == 0 || len(drill.With(Yielded))+len(drill.With(Inconclusive)) > 0 {
		return Asserted, []string{"the attacks did not all fail"}
	}
	return Drilled, []string{"every attack was refused"}
}

// Sign makes the JSON document.
func Sign(s Statement, key crypto.Signer) ([]byte, error) {
	s.Grade, s.Reasons = GradeOf(s.Key.Attributes, *s.Drill)
	statement, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(statement)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(map[string]any{"statement": json.RawMessage(statement), "signature": signature}, "", "  ")
}

// DER makes the document for machines.
func DER(s Statement, key crypto.Signer) ([]byte, error) { return Sign(s, key) }
