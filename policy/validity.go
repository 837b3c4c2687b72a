package policy

import (
	"fmt"
	"time"
)

// MaxValidDays is the longest validity period that may be asked for, in days.
const MaxValidDays = 36500

const (
	day = 24 * time.Hour
	// backdating lets a relying party whose clock is a little slow accept a new certificate at once.
	backdating = time.Minute
)

// Validity is a certificate's validity period. Both ends are inclusive, in whole seconds, UTC (RFC 5280, section
// 4.1.2.5).
type Validity struct{ NotBefore, NotAfter time.Time }

// Days is the length of the period in days, rounded up; 0 if the period is empty.
func (v Validity) Days() int {
	length := v.NotAfter.Sub(v.NotBefore) + time.Second
	if length <= 0 {
		return 0
	}
	return int((length + day - 1) / day)
}

// ResolveValidity returns the period of a certificate asked for at the time now for so many days: exactly that
// many days of 86,400 seconds, the last second included (Baseline Requirements 1.6.1). It starts a minute in the
// past and never lies outside the issuer's own period: an earlier start is moved and a later end is cut to the
// issuer's. issuer is nil for a self-signed root. The error is a [*Violation].
func ResolveValidity(now time.Time, days int, issuer *Issuer) (Validity, error) {
	var reasons []string
	if days < 1 || days > MaxValidDays {
		reasons = append(reasons, fmt.Sprintf("valid_days must be between 1 and %d, not %d", MaxValidDays, days))
	}
	if issuer != nil && issuer.expired(now) {
		reasons = append(reasons, issuer.expiry())
	}
	if err := violation(reasons...); err != nil {
		return Validity{}, err
	}
	v := Validity{NotBefore: now.UTC().Truncate(time.Second).Add(-backdating)}
	if issuer != nil && v.NotBefore.Before(issuer.NotBefore) {
		v.NotBefore = issuer.NotBefore.UTC()
	}
	v.NotAfter = v.NotBefore.Add(time.Duration(days)*day - time.Second)
	if issuer != nil && v.NotAfter.After(issuer.NotAfter) {
		v.NotAfter = issuer.NotAfter.UTC()
	}
	return v, nil
}
