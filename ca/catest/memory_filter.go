package catest

import (
	"strings"

	"signet/ca"
)

// selects reports whether a certificate is selected, its scope aside.
func selects(f ca.CertificateFilter, c *ca.Certificate) bool {
	switch {
	case f.IssuerID != nil && *f.IssuerID != c.IssuerID:
		return false
	case f.Status != "" && f.Status != c.Status(instant(f.Now)):
		return false
	case f.ExpiresBefore != nil && !c.NotAfter.Before(instant(*f.ExpiresBefore)):
		return false
	case f.Serial != "" && f.Serial != c.Serial:
		return false
	}
	return f.Query == "" || f.Query == c.Serial || strings.Contains(c.Names, f.Query)
}
