package policy

import (
	"fmt"
	"time"
)

// Issuer is what a CA may issue, as far as its own certificate and settings say.
type Issuer struct {
	ID             int64
	AllowLeafCerts bool
	PathLength     *int // nil: unlimited
	NotBefore      time.Time
	NotAfter       time.Time
	Revoked        bool
}

// CheckLeaf decides whether the issuer may issue an end-entity certificate at the time now. The error is a
// [*Violation].
func (i Issuer) CheckLeaf(now time.Time) error {
	reasons := i.standing(now)
	if !i.AllowLeafCerts {
		reasons = append(reasons, fmt.Sprintf("CA %d does not allow leaf certificate issuance", i.ID))
	}
	return violation(reasons...)
}

// CheckCA decides whether the issuer may certify another CA at the time now, and with which path length: want, or
// one less than the issuer's own when want is nil. The result is nil, unlimited, only below an issuer that is
// unlimited itself (RFC 5280, section 4.2.1.9). The error is a [*Violation].
func (i Issuer) CheckCA(now time.Time, want *int) (*int, error) {
	reasons := i.standing(now)
	if want != nil && *want < 0 {
		reasons = append(reasons, "path_length must not be negative")
	}
	switch {
	case i.PathLength == nil:
	case *i.PathLength <= 0:
		reasons = append(reasons, fmt.Sprintf("CA %d does not allow subordinate CAs: its path length is %d", i.ID, *i.PathLength))
	case want == nil:
		below := *i.PathLength - 1
		want = &below
	case *want >= *i.PathLength:
		reasons = append(reasons, fmt.Sprintf("path_length %d is too long below CA %d: at most %d", *want, i.ID, *i.PathLength-1))
	}
	if err := violation(reasons...); err != nil {
		return nil, err
	}
	if want == nil {
		return nil, nil
	}
	length := *want
	return &length, nil
}

// standing returns the reasons why the issuer may issue nothing at all at the time now.
func (i Issuer) standing(now time.Time) []string {
	var reasons []string
	if i.Revoked {
		reasons = append(reasons, fmt.Sprintf("CA %d is revoked", i.ID))
	}
	if i.expired(now) {
		reasons = append(reasons, i.expiry())
	}
	if now.Before(i.NotBefore) {
		reasons = append(reasons, fmt.Sprintf("CA %d is not valid before %s", i.ID, i.NotBefore.UTC().Format(time.RFC3339)))
	}
	return reasons
}

// expired is false up to and including the last second, which is part of the period (RFC 5280, section 4.1.2.5).
func (i Issuer) expired(now time.Time) bool { return now.Truncate(time.Second).After(i.NotAfter) }

func (i Issuer) expiry() string { return fmt.Sprintf("CA %d has expired", i.ID) }
