package policy

import (
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"strings"
)

const (
	// maxAttributes bounds the attributes of one name.
	maxAttributes = 64
	// maxSubject bounds the string form of a name, in bytes.
	maxSubject = 8192
)

// DN is a distinguished name: RDNs in the order of the certificate, each with one or more attributes.
// The zero value is the empty name.
type DN struct {
	rdns pkix.RDNSequence // every Value is a checked string
}

// ParseDN reads a distinguished name in the string form of RFC 4514: escapes, multi-valued RDNs, dotted OIDs,
// #hex values, and the quoted values of its predecessor (RFC 2253, section 4). The RDNs keep the order in which
// they are written, first written first in the certificate, as FastPKI does. Unknown attribute types, empty values
// and values over their RFC 5280 upper bound are a [*Violation].
func ParseDN(s string) (DN, error) {
	if strings.Trim(s, " ") == "" {
		return DN{}, violation("subject must not be empty: give at least a CN")
	}
	if len(s) > maxSubject {
		return DN{}, violation(fmt.Sprintf("subject has %d bytes: at most %d are allowed", len(s), maxSubject))
	}
	if reason := checkText(s); reason != "" {
		return DN{}, violation(fmt.Sprintf("subject %s %s", quote(s), reason))
	}
	p := dnParser{s: s}
	rdns, reason := p.parse()
	if reason != "" {
		return DN{}, violation(fmt.Sprintf("subject %s: %s", quote(s), reason))
	}
	if err := violation(p.unknown...); err != nil {
		return DN{}, err
	}
	return newDN(rdns)
}

// newDN checks every attribute and puts its value into its proper form.
func newDN(rdns pkix.RDNSequence) (DN, error) {
	var reasons []string
	count := 0
	for _, rdn := range rdns {
		count += len(rdn)
	}
	if count > maxAttributes {
		return DN{}, violation(fmt.Sprintf("subject has %d attributes: at most %d are allowed", count, maxAttributes))
	}
	for _, rdn := range rdns {
		for i := range rdn {
			value, reason := checkAttribute(rdn[i].Type, rdn[i].Value.(string))
			rdn[i].Value = value
			reasons = append(reasons, reason)
			// X.501 wants the types of an RDN to differ. Go and what is written in it (cert-manager) put several
			// OUs into one RDN all the same; only a second common name would be ambiguous.
			if isCommonName(rdn[i]) && slices.ContainsFunc(rdn[:i], isCommonName) {
				reasons = append(reasons, "CN occurs twice in one relative distinguished name: separate the two with a comma")
			}
		}
	}
	if err := violation(reasons...); err != nil {
		return DN{}, err
	}
	return DN{rdns}, nil
}

// CommonNames counts the common names.
func (d DN) CommonNames() int {
	n := 0
	for _, rdn := range d.rdns {
		for _, a := range rdn {
			if isCommonName(a) {
				n++
			}
		}
	}
	return n
}

func isCommonName(a pkix.AttributeTypeAndValue) bool { return a.Type.Equal(oidCommonName) }

// String writes the name in the form that [ParseDN] reads.
func (d DN) String() string {
	var b strings.Builder
	for i, rdn := range d.rdns {
		for j, a := range rdn {
			switch {
			case j > 0:
				b.WriteByte('+')
			case i > 0:
				b.WriteByte(',')
			}
			writeAttribute(&b, a.Type, a.Value.(string))
		}
	}
	return b.String()
}

// IsEmpty reports whether the name has no RDN.
func (d DN) IsEmpty() bool { return len(d.rdns) == 0 }

// CommonName returns the first common name, or "".
func (d DN) CommonName() string {
	for _, rdn := range d.rdns {
		for _, a := range rdn {
			if isCommonName(a) {
				return a.Value.(string)
			}
		}
	}
	return ""
}

// WithCommonName returns the name with its common name replaced, or put first when it has none. Further common
// names are removed, since some relying parties look at the last one. The error is a [*Violation].
func (d DN) WithCommonName(cn string) (DN, error) {
	attribute := pkix.AttributeTypeAndValue{Type: oidCommonName, Value: cn}
	var rdns pkix.RDNSequence
	placed := false
	for _, rdn := range d.rdns {
		var kept pkix.RelativeDistinguishedNameSET
		for _, a := range rdn {
			switch {
			case !a.Type.Equal(oidCommonName):
				kept = append(kept, a)
			case !placed:
				kept, placed = append(kept, attribute), true
			}
		}
		if len(kept) > 0 {
			rdns = append(rdns, kept)
		}
	}
	if !placed {
		rdns = slices.Insert(rdns, 0, pkix.RelativeDistinguishedNameSET{attribute})
	}
	return newDN(rdns)
}
