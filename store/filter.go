package store

import (
	"strings"

	"signet/ca"
)

// hidden is the condition that a certificate does not exist for callers although it is completed.
const hidden = "issuer_id IN (SELECT id FROM certificate_authorities WHERE deleted_at IS NOT NULL)"

// selected is the condition of a filter on certificates, the scope and the query aside. It is false when nothing can match.
func selected(f ca.CertificateFilter) (c condition, possible bool) {
	switch f.Status {
	case "":
		c = c.and(completed)
	case "valid":
		c = c.and("state = 'valid'").and("not_after >= ?", at(f.Now))
	case "expired":
		c = c.and("state = 'valid'").and("not_after < ?", at(f.Now))
	case "revoked":
		c = c.and("state = 'revoked'")
	default: // no certificate has it
		return c, false
	}
	c = c.and("NOT " + hidden)
	if f.ExpiresBefore != nil {
		c = c.and("not_after < ?", at(*f.ExpiresBefore))
	}
	if f.IssuerID != nil {
		c = c.and("issuer_id = ?", *f.IssuerID)
	}
	if f.Serial != "" {
		c = c.and("serial = ?", f.Serial)
	}
	return c, true
}

// within is the condition that a record is in scope, and its alternatives: each is what one index finds.
func within(s ca.Scope) (c condition, alternatives []condition) {
	var none condition
	if s.All {
		return none, []condition{none}
	}
	if s.UserID != 0 {
		alternatives = append(alternatives, none.and("created_by = ?", s.UserID))
	}
	if s.OrganizationID != nil {
		alternatives = append(alternatives, none.and("organization_id = ?", *s.OrganizationID))
	}
	return either(alternatives), alternatives
}

// either is the condition that one of several holds: none of no condition.
func either(all []condition) condition {
	if len(all) == 0 {
		return condition{}.and("1 = 0")
	}
	var terms []string
	var args []any
	for _, c := range all {
		terms, args = append(terms, c.String()), append(args, c.args...)
	}
	return condition{}.and("("+strings.Join(terms, " OR ")+")", args...)
}

// both is the condition that two hold.
func both(a, b condition) condition {
	if len(b.terms) == 0 {
		return a
	}
	return a.and(b.String(), b.args...)
}

// likePattern makes a pattern that matches the text anywhere, whatever is in it; the escape character is \.
func likePattern(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
}
