// Package policy is the rules of the certificate authority: who may do what, which names, keys, subjects and
// validity periods are acceptable, and what a given CA may issue. Every rule is a pure function: no I/O, no clock,
// no randomness. The zero value of a caller or of a rule's input permits nothing.
package policy

import "strings"

// Violation is a request that breaks one or more rules. It holds every reason found, each a sentence that says
// what to change.
type Violation struct{ Reasons []string }

func (v *Violation) Error() string { return strings.Join(v.Reasons, "; ") }

// violation returns an error holding the non-empty reasons, or nil when there are none.
func violation(reasons ...string) error {
	var kept []string
	for _, r := range reasons {
		if r != "" {
			kept = append(kept, r)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return &Violation{Reasons: kept}
}
