package store

import (
	"strings"

	"gorm.io/gorm"

	"signet/ca"
)

// likePattern makes a pattern that matches the text anywhere, whatever is in it; the escape character is \.
func likePattern(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
}

// selected restricts a query on certificates, visibility aside. A certificate that is older than its column names is found
// by its common name; in SQLite, which lowers ASCII only, by the letters of ASCII in any case and others as they are written.
func selected(q *gorm.DB, f ca.CertificateFilter) *gorm.DB {
	if f.IssuerID != nil {
		q = q.Where("issuer_id = ?", *f.IssuerID)
	}
	switch f.Status {
	case "":
	case "valid":
		q = q.Where("state = 'valid' AND not_after >= ?", at(f.Now))
	case "expired":
		q = q.Where("state = 'valid' AND not_after < ?", at(f.Now))
	case "revoked":
		q = q.Where("state = 'revoked'")
	default: // no certificate has it
		q = q.Where("1 = 0")
	}
	if f.ExpiresBefore != nil {
		q = q.Where("not_after < ?", at(*f.ExpiresBefore))
	}
	if f.Serial != "" {
		q = q.Where("serial = ?", f.Serial)
	}
	if f.Query != "" {
		pattern := likePattern(f.Query)
		q = q.Where(`(serial = ? OR names LIKE ? ESCAPE '\' OR (names = '' AND lower(common_name) LIKE ? ESCAPE '\'))`,
			f.Query, pattern, pattern)
	}
	return scoped(q, f.Scope)
}
