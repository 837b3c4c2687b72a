package ca

import (
	"slices"
	"strings"
	"unicode"
)

// MaxReasonText is the longest reason text that is kept, in bytes.
const MaxReasonText = 1024

// Some CRLReasons (RFC 5280, section 5.3.1).
const (
	keyCompromise   = 1
	caCompromise    = 2
	certificateHold = 6
	removeFromCRL   = 8 // of a delta's entry that is not revoked any more
	aaCompromise    = 10
)

// reasons are the CRLReasons a caller may name, by their letters. The order matters: the first name found in the caller's text
// wins.
var reasons = []struct {
	name string
	code int
}{
	{"cacompromise", caCompromise},
	{"aacompromise", aaCompromise},
	{"keycompromise", keyCompromise},
	{"affiliationchange", 3},
	{"superseded", 4},
	{"cessationofoperation", 5},
	{"certificatehold", certificateHold},
	{"privilegewithdrawn", 9},
}

// ReasonCode maps a human-readable reason to a CRLReason; what names none is unspecified (0).
func ReasonCode(text string) int {
	letters := lettersOf(text)
	for _, r := range reasons {
		if strings.Contains(letters, r.name) {
			return r.code
		}
	}
	return 0
}

// namesRemoval reports whether a text names removeFromCRL, which is no reason to revoke.
func namesRemoval(text string) bool { return strings.Contains(lettersOf(text), "removefromcrl") }

func lettersOf(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}

// compromises are the reasons that make a key untrustworthy also before it was revoked.
var compromises = []int{keyCompromise, caCompromise, aaCompromise}

// replacedBy lists the reasons in whose place a reason may come.
func replacedBy(reason int) []int {
	switch {
	case reason == certificateHold:
		return nil
	case !slices.Contains(compromises, reason):
		return []int{certificateHold}
	}
	weaker := []int{0} // unspecified
	for _, r := range reasons {
		if !slices.Contains(compromises, r.code) {
			weaker = append(weaker, r.code)
		}
	}
	return weaker
}
