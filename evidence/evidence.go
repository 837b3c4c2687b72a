// Package evidence says what is known of a CA key and how: what the token answered about it, what attacks on it
// achieved, the grade that follows, and a signed document that an auditor checks offline. It knows no token and no
// database.
//
// What must never happen: a grade higher than what was seen; a document that verifies although a byte of it was
// changed; words that claim more than the document proves.
package evidence

import (
	"slices"
	"time"
)

// Grade is how well a key is known to be unable to leave its token. Grades are ordered; the zero value is below all.
type Grade string

// The grades, lowest first.
const (
	// Exportable: the token itself says that the key can leave it. Such a key is never used.
	Exportable Grade = "exportable"
	// Imported: it cannot leave now, but the token does not say that it was born there and never could.
	Imported Grade = "imported"
	// Asserted: the token says that the key was born in it, is sensitive and never was extractable.
	Asserted Grade = "asserted"
	// Drilled: and every attack on it failed.
	Drilled Grade = "drilled"
	// Attested: and the token's vendor has signed so.
	Attested Grade = "attested"
)

// Grades is every grade, lowest first.
var Grades = []Grade{Exportable, Imported, Asserted, Drilled, Attested}

// AtLeast reports whether g is min or higher. An unknown grade is lower than all, and as min it is out of reach.
func (g Grade) AtLeast(min Grade) bool {
	has, needs := slices.Index(Grades, g), slices.Index(Grades, min)
	return has >= 0 && has >= needs && (needs >= 0 || min == "")
}

// Key is a key pair as the token describes it. In JSON its ID is in hexadecimal.
type Key struct {
	ID         []byte         // CKA_ID
	Label      string         // CKA_LABEL
	Type       string         // "rsa", "ec" or "ed25519"
	Size       int            // bits
	PublicKey  []byte         // DER SubjectPublicKeyInfo
	Attributes map[string]any // of the private key, by PKCS#11 name; bool, string or []string
	Token      Token
	ReadAt     time.Time

	Mechanism string // that it signs messages with, by PKCS#11 name; in a document it stands in the Statement
}

// Token names a token and the library it was reached through.
type Token struct {
	Name         string `json:"name"`  // in Signet's configuration
	Label        string `json:"label"` // CK_TOKEN_INFO.label
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Serial       string `json:"serial"`
	Firmware     string `json:"firmware"` // "major.minor"
	Module       Module `json:"module"`
}

// Module is a PKCS#11 library.
type Module struct {
	Path        string `json:"path"`
	SHA256      string `json:"sha256"` // of the file, lower-case hex
	Description string `json:"description"`
	Version     string `json:"version"`  // "major.minor"
	Cryptoki    string `json:"cryptoki"` // version of the standard, "major.minor"
}

// Drill is what attacks on a key achieved.
type Drill struct {
	At      time.Time `json:"at"`
	Token   string    `json:"token_serial"` // serial number of the token whose key was attacked
	Attacks []Attack  `json:"attacks"`
}

// Attack is one attempt to get at a private key.
type Attack struct {
	Name    string  `json:"name"`   // stable, in words joined by hyphens: "read-CKA_VALUE", "wrap-CKM_AES_KEY_WRAP"
	Call    string  `json:"call"`   // the PKCS#11 function: "C_WrapKey"
	Target  string  `json:"target"` // "key", or "canary": a throwaway key of the same template, when the attack could do harm
	Outcome Outcome `json:"outcome"`
	Result  string  `json:"result"` // what the token answered: "CKR_KEY_UNEXTRACTABLE", or words
}

// Outcome is how an attack ended.
type Outcome string

// The outcomes.
const (
	Refused       Outcome = "refused"        // the token refused
	Yielded       Outcome = "yielded"        // the token gave way
	NotApplicable Outcome = "not-applicable" // the token has no such function or mechanism
	Inconclusive  Outcome = "inconclusive"   // the token failed in a way that says nothing
)

// With lists the attacks with this outcome.
func (d Drill) With(o Outcome) []Attack {
	var found []Attack
	for _, a := range d.Attacks {
		if a.Outcome == o {
			found = append(found, a)
		}
	}
	return found
}

// Acceptance is the operator's explicit word that a key below [Drilled] may sign.
type Acceptance struct {
	Grade  Grade     `json:"grade"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}
