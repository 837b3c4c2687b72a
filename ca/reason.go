package ca

import (
	"strings"
	"unicode"
)

// MaxReasonText is the longest reason text that is kept, in bytes.
const MaxReasonText = 1024

// reasons are the CRLReasons a caller may name (RFC 5280, section 5.3.1), by their letters. The order matters: the
// first name found in the caller's text wins. removeFromCRL is not a reason to revoke.
var reasons = []struct {
	name string
	code int
}{
	{"cacompromise", 2},
	{"aacompromise", 10},
	{"keycompromise", 1},
	{"affiliationchange", 3},
	{"superseded", 4},
	{"cessationofoperation", 5},
	{"certificatehold", 6},
	{"privilegewithdrawn", 9},
}

// ReasonCode maps a human-readable reason to a CRLReason; what names none is unspecified (0).
func ReasonCode(text string) int {
	letters := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, text)
	for _, r := range reasons {
		if strings.Contains(letters, r.name) {
			return r.code
		}
	}
	return 0
}
