// Package policy is the rules of the certificate authority: who may do what, which names, keys, subjects and
// validity periods are acceptable, and what a given CA may issue. Every rule is a pure function: no I/O, no clock,
// no randomness. The zero value of a caller or of a rule's input permits nothing.
package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Violation is a request that breaks one or more rules. It holds every reason found, each a sentence that says
// what to change.
type Violation struct{ Reasons []string }

func (v *Violation) Error() string { return strings.Join(v.Reasons, "; ") }

// maxReasons bounds what is said about one input: a stranger's thousand mistakes are not worth a thousand sentences.
const maxReasons = 20

// violation returns an error holding the non-empty reasons, or nil when there are none.
func violation(reasons ...string) error {
	reasons = slices.DeleteFunc(slices.Clone(reasons), func(r string) bool { return r == "" })
	if len(reasons) == 0 {
		return nil
	}
	if more := len(reasons) - maxReasons; more > 0 {
		reasons = append(reasons[:maxReasons], fmt.Sprintf("and %d more", more))
	}
	return &Violation{Reasons: reasons}
}
