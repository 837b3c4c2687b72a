package evidence

import (
	"fmt"
	"strconv"
	"strings"
)

// Who says something.
const (
	checkedHere = "checked here"
	keySigned   = "the attestation key signed"
	tokenSaid   = "the token said"
	signetTried = "Signet tried"
	operator    = "the operator said"
)

// Report is what a valid document shows and what it does not.
type Report struct {
	Form           string    `json:"form"` // "JSON" or "DER"
	Grade          Grade     `json:"grade"`
	Summary        string    `json:"summary"` // the grade in one sentence
	Pinned         bool      `json:"signer_pinned"`
	AttestationKey string    `json:"attestation_key_sha256"`
	Reasons        []string  `json:"reasons"` // why not a higher grade
	Shown          []Finding `json:"shown"`
	NotShown       []string  `json:"not_shown"`
	Statement      Statement `json:"statement"`
}

// Finding is something that a document shows, and on whose word.
type Finding struct {
	By   string `json:"by"`
	What string `json:"what"`
}

var summaries = map[Grade]string{
	Exportable: "The token itself says that the key can leave it. It must not be used.",
	Imported:   "The token says that the key cannot leave it now, but not that it was born there and never could.",
	Asserted:   "The token says that the key was born in it and never could leave; not every attack on it was seen to fail.",
	Drilled:    "The token says that the key was born in it and never could leave, and every attack that Signet tried failed.",
}

func report(d document, form string, opts Options) Report {
	s := d.statement
	r := Report{
		Form: form, Grade: s.Grade, Summary: summaries[s.Grade], Pinned: opts.AttestationKey != nil,
		AttestationKey: s.AttestationSHA256, Reasons: s.Reasons, Statement: s,
	}
	if s.Drill != nil && len(s.Drill.With(Yielded)) > 0 {
		r.Summary += " An attack on it SUCCEEDED."
	}
	r.checked(d, opts)
	r.say(keySigned, "this document at %s, by Signet's clock", stamp(s.Time))
	r.say(keySigned, "that the key is that of CA %d %q, subject %q", s.CA.ID, s.CA.Name, s.CA.Subject)
	r.token(s)
	r.drill(s)
	if a := s.Acceptance; a != nil {
		r.say(operator, "the grade %q is enough for this key: %q at %s, because %q", a.Grade, a.By, stamp(a.At), a.Reason)
	}
	r.NotShown = append(r.NotShown, s.Limits...)
	return r
}

func (r *Report) say(by, format string, args ...any) {
	r.Shown = append(r.Shown, Finding{By: by, What: fmt.Sprintf(format, args...)})
}

// checked is what this verification itself did, and what it was not asked to do.
func (r *Report) checked(d document, opts Options) {
	s := d.statement
	r.say(checkedHere, "the signature (%s) is valid, and the document has not been changed since", d.algorithm.name)
	r.say(checkedHere, "the grade is what the attributes and the drill in the document make")
	if r.Pinned {
		r.say(checkedHere, "the attestation key is the one whose fingerprint was given")
	} else {
		r.NotShown = append(r.NotShown, "whose attestation key this is: no fingerprint known from elsewhere was given to compare, and anybody can make a key and sign with it")
	}
	switch {
	case opts.Nonce != "":
		r.say(checkedHere, "the nonce is the one that was given, so the document was made after it")
	case s.Nonce != "":
		r.NotShown = append(r.NotShown, fmt.Sprintf("that the document is an answer to your question: it has the nonce %q, and none was given to compare", s.Nonce))
	default:
		r.NotShown = append(r.NotShown, "that the document is an answer to your question: it has no nonce")
	}
	if opts.MaxAge > 0 {
		r.say(checkedHere, "it says that it is not older than %s", opts.MaxAge)
	}
	switch {
	case opts.CACertificate == nil:
		r.NotShown = append(r.NotShown, "that the key is that of a CA you know: no CA certificate was given to compare")
	case opts.sameCertificate(s):
		r.say(checkedHere, "the key is the one in the CA certificate that was given, and the document names that certificate")
	default:
		r.say(checkedHere, "the key is the one in the CA certificate that was given; the document names another certificate of it")
	}
}

func (r *Report) token(s Statement) {
	k, t := s.Key, s.Key.Token
	r.say(tokenSaid, "it is %q, model %q, serial number %q, firmware %q, label %q", t.Manufacturer, t.Model, t.Serial, t.Firmware, t.Label)
	r.say(keySigned, "that Signet reached it through the module %q, SHA-256 %q", t.Module.Path, t.Module.SHA256)
	r.say(tokenSaid, "the key %x, label %q, is of type %s with %d bits and signs with %s", k.ID, k.Label, k.Type, k.Size, s.Mechanism)
	r.say(tokenSaid, "at %s: %s", stamp(k.ReadAt), attributesInWords(k.Attributes))
	grade, _ := GradeOf(s.AttestationKey.Attributes, Drill{})
	r.say(tokenSaid, "the attestation key: %s, which alone makes %q", attributesInWords(s.AttestationKey.Attributes), grade)
}

// attributesInWords is what grades rest on; the rest is in the document.
func attributesInWords(attributes map[string]any) string {
	var words []string
	for _, r := range append(append([]requirement{}, mustNotLeave...), mustBeBornThere...) {
		value := "not answered"
		if v, known := attributes[r.attribute].(bool); known {
			value = strconv.FormatBool(v)
		}
		words = append(words, strings.TrimPrefix(r.attribute, "CKA_")+" "+value)
	}
	return strings.Join(words, ", ")
}

func (r *Report) drill(s Statement) {
	if s.Drill == nil || len(s.Drill.Attacks) == 0 {
		return
	}
	d := *s.Drill
	inconclusive := len(d.Attacks) - len(d.With(Refused)) - len(d.With(NotApplicable)) - len(d.With(Yielded))
	r.say(signetTried, "%d attacks at %s: the token refused %d, gave way to %d, has no means for %d; %d ended without a clear answer",
		len(d.Attacks), stamp(d.At), len(d.With(Refused)), len(d.With(Yielded)), len(d.With(NotApplicable)), inconclusive)
	for _, a := range d.Attacks {
		r.say(signetTried, "%s on the %s: %s, %s", a.Name, a.Target, a.Outcome, a.Result)
	}
}

// Text is the report in plain words, for a terminal: whatever of the document is not printable is escaped.
func (r Report) Text() string {
	var out strings.Builder
	line := func(text string) { out.WriteString(plain(text) + "\n") }
	if r.Pinned {
		line("The signer is the attestation key whose fingerprint was given.")
	} else {
		line("The signer is NOT pinned: compare the fingerprint " + r.AttestationKey + " with one that you know from elsewhere.")
	}
	line("")
	line("Grade: " + string(r.Grade) + ". " + r.Summary)
	for _, reason := range r.Reasons {
		line("  - " + reason)
	}
	line("")
	line("What the document shows, and on whose word:")
	for _, by := range []string{checkedHere, keySigned, tokenSaid, signetTried, operator} {
		shown := false
		for _, f := range r.Shown {
			if f.By == by {
				if !shown {
					line("  " + by + ":")
				}
				shown = true
				line("  - " + f.What)
			}
		}
	}
	line("")
	line("What it does not show:")
	for _, limit := range r.NotShown {
		line("  - " + limit)
	}
	return out.String()
}

// plain escapes whatever could move a cursor or turn the direction of writing.
func plain(text string) string {
	var out strings.Builder
	for _, r := range text {
		if strconv.IsPrint(r) {
			out.WriteRune(r)
		} else {
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}
