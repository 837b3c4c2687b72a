package evidence

import (
	"fmt"
	"strings"
)

// readAttack begins the names of the attacks that ask the token for a private component, and targetKey is what they are
// made on when it is no canary.
const (
	readAttack = "read-"
	targetKey  = "key"
)

// requirement is what an attribute must be, and what it means that it is not.
type requirement struct {
	attribute string
	want      bool
	broken    string // when it has the other value
}

// The requirements of each grade, in the order in which people ask.
var (
	mustNotLeave = []requirement{
		{"CKA_EXTRACTABLE", false, "the token lets the key be wrapped and taken out"},
		{"CKA_SENSITIVE", true, "the token gives the key's value in plain text to whoever is logged in"},
	}
	mustBeBornThere = []requirement{
		{"CKA_LOCAL", true, "the token does not say that the key was generated in it"},
		{"CKA_ALWAYS_SENSITIVE", true, "the key's value could once be read in plain text"},
		{"CKA_NEVER_EXTRACTABLE", true, "the key could once be wrapped and taken out"},
		{"CKA_TOKEN", true, "the key is a session object, which is not kept in the token"},
		{"CKA_PRIVATE", true, "the key can be used without logging in"},
	}
)

// secondUses are the powers that a signing key must not have beside signing.
var secondUses = []struct{ attribute, word string }{
	{"CKA_DECRYPT", "decrypt"}, {"CKA_UNWRAP", "unwrap other keys"}, {"CKA_DERIVE", "derive other keys"},
}

// GradeOf grades a key by the attributes that its token showed and by the last drill; the zero Drill is none at all.
// What is not known counts as bad, except for powers beside signing: many tokens do not answer for those that a key
// type cannot have. The reasons say, in words and lowest grade first, what keeps the key from a higher grade, and for
// a drilled key what it rests on. GradeOf never answers [Attested]: it has not seen a vendor's signature.
func GradeOf(attributes map[string]any, drill Drill) (Grade, []string) {
	exportable := unmet(attributes, mustNotLeave)
	imported := unmet(attributes, mustBeBornThere)
	asserted := append(powers(attributes), drillGaps(drill)...)
	reasons := append(append(exportable, imported...), asserted...)
	switch {
	case len(exportable) > 0:
		return Exportable, reasons
	case len(imported) > 0:
		return Imported, reasons
	case len(asserted) > 0:
		return Asserted, reasons
	}
	return Drilled, []string{
		"the token says that the key was generated in it, is sensitive and never was extractable",
		fmt.Sprintf("the token refused %d attacks and has no means for %d more", len(drill.With(Refused)), len(drill.With(NotApplicable))),
		"the token's vendor has not signed for it",
	}
}

func unmet(attributes map[string]any, requirements []requirement) (reasons []string) {
	for _, r := range requirements {
		switch value, known := attributes[r.attribute].(bool); {
		case !known:
			reasons = append(reasons, fmt.Sprintf("the token does not answer for %s, and unknown is not safe", r.attribute))
		case value != r.want:
			reasons = append(reasons, fmt.Sprintf("%s (%s is %t)", r.broken, r.attribute, value))
		}
	}
	return reasons
}

func powers(attributes map[string]any) (reasons []string) {
	for _, use := range secondUses {
		if attributes[use.attribute] == true {
			reasons = append(reasons, fmt.Sprintf("the key may also %s (%s is true), and a signing key should only sign", use.word, use.attribute))
		}
	}
	return reasons
}

// drillGaps is what a drill left open.
func drillGaps(drill Drill) (reasons []string) {
	if len(drill.Attacks) == 0 {
		return []string{"no attack on the key was tried"}
	}
	reads := 0
	for _, a := range drill.Attacks {
		switch a.Outcome {
		case Refused:
			if strings.HasPrefix(a.Name, readAttack) && a.Target == targetKey { // a canary's secret is another
				reads++
			}
		case NotApplicable:
		case Yielded:
			reasons = append(reasons, fmt.Sprintf("the token gave way to the attack %s on the %s: %s", a.Name, a.Target, a.Result))
		default: // words that this version does not know say nothing either
			reasons = append(reasons, fmt.Sprintf("the attack %s on the %s ended without a clear answer: %s", a.Name, a.Target, a.Result))
		}
	}
	if reads == 0 {
		reasons = append(reasons, "the token did not once refuse to read the private key")
	}
	return reasons
}
