package policy_test

import (
	"testing"
	"time"

	"signet/policy"
)

func TestResolveValidity(t *testing.T) {
	t.Parallel()
	const now = "2026-06-01T12:00:30.75Z"
	between := func(from, to string) *policy.Issuer {
		return &policy.Issuer{ID: 7, NotBefore: at(from), NotAfter: at(to)}
	}
	year := between("2026-01-01T00:00:00Z", "2026-12-31T23:59:59Z")
	tests := []struct {
		name     string
		now      string
		days     int
		issuer   *policy.Issuer
		from, to string
		reported int
		reason   string
	}{
		{name: "no days", now: now, days: 0, reason: "valid_days must be between 1 and 36500, not 0"},
		{name: "negative days", now: now, days: -1, reason: "valid_days must be between 1 and 36500, not -1"},
		{name: "more than a century", now: now, days: 36501, reason: "valid_days must be between 1 and 36500, not 36501"},
		{name: "so many days that a duration overflows", now: now, days: 1 << 40, reason: "valid_days must be between 1 and 36500, not 1099511627776"},
		{name: "no days below an issuer", now: now, days: 0, issuer: year, reason: "valid_days must be between 1 and 36500, not 0"},
		{name: "an expired issuer", now: "2027-01-01T00:00:00Z", days: 1, issuer: year, reason: "CA 7 has expired"},
		{name: "an issuer that expired long ago", now: "2036-01-01T00:00:00Z", days: 1, issuer: year, reason: "CA 7 has expired"},
		{name: "the zero issuer", now: now, days: 1, issuer: &policy.Issuer{}, reason: "CA 0 has expired"},
		{name: "every reason is told", now: "2027-01-01T00:00:00Z", days: 0, issuer: year, reason: "valid_days must be between 1 and 36500, not 0; CA 7 has expired"},

		{name: "a root starts a minute ago and includes its last second", now: now, days: 1, from: "2026-06-01T11:59:30Z", to: "2026-06-02T11:59:29Z", reported: 1},
		{name: "a century", now: now, days: 36500, from: "2026-06-01T11:59:30Z", to: "2126-05-08T11:59:29Z", reported: 36500},
		{name: "any time zone becomes UTC", now: "2026-06-01T14:00:30+02:00", days: 1, from: "2026-06-01T11:59:30Z", to: "2026-06-02T11:59:29Z", reported: 1},
		{name: "within the issuer's period nothing is cut", now: now, days: 30, issuer: year, from: "2026-06-01T11:59:30Z", to: "2026-07-01T11:59:29Z", reported: 30},
		{name: "a leaf never outlives its issuer", now: now, days: 365, issuer: year, from: "2026-06-01T11:59:30Z", to: "2026-12-31T23:59:59Z", reported: 214},
		{name: "a cut of one second still counts as the whole", now: now, days: 1, issuer: between("2026-01-01T00:00:00Z", "2026-06-02T11:59:28Z"), from: "2026-06-01T11:59:30Z", to: "2026-06-02T11:59:28Z", reported: 1},
		{name: "a start before the issuer's is moved", now: "2026-01-01T00:00:10Z", days: 2, issuer: year, from: "2026-01-01T00:00:00Z", to: "2026-01-02T23:59:59Z", reported: 2},
		{name: "the same days as the issuer, asked for at once, end with it", now: "2026-01-01T00:00:30Z", days: 365, issuer: year, from: "2026-01-01T00:00:00Z", to: "2026-12-31T23:59:59Z", reported: 365},
		{name: "the issuer's last second", now: "2026-12-31T23:59:59.9Z", days: 5, issuer: year, from: "2026-12-31T23:58:59Z", to: "2026-12-31T23:59:59Z", reported: 1},
		{name: "past 2050 the arithmetic is the same", now: "2049-12-31T00:01:00Z", days: 2, from: "2049-12-31T00:00:00Z", to: "2050-01-01T23:59:59Z", reported: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, err := policy.ResolveValidity(at(tt.now), tt.days, tt.issuer)
			if got := reasons(t, err); got != tt.reason {
				t.Fatalf("got  %q\nwant %q", got, tt.reason)
			}
			if tt.reason != "" {
				if v != (policy.Validity{}) {
					t.Errorf("a refused period is %v, want the zero value", v)
				}
				return
			}
			if v.NotBefore != at(tt.from) || v.NotAfter != at(tt.to) {
				t.Errorf("got %s to %s\nwant %s to %s", v.NotBefore.Format(time.RFC3339Nano), v.NotAfter.Format(time.RFC3339Nano), tt.from, tt.to)
			}
			if v.Days() != tt.reported {
				t.Errorf("%d days, want %d", v.Days(), tt.reported)
			}
		})
	}
}

func TestValidityDays(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		from, to string
		want     int
	}{
		{"the end before the start", "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", 0},
		{"nothing: the end is the second before the start", "2026-01-01T00:00:00Z", "2025-12-31T23:59:59Z", 0},
		{"a single second", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", 1},
		{"a day", "2026-01-01T00:00:00Z", "2026-01-01T23:59:59Z", 1},
		{"a day and a second", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", 2},
		{"a leap year", "2028-01-01T00:00:00Z", "2028-12-31T23:59:59Z", 366},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := policy.Validity{NotBefore: at(tt.from), NotAfter: at(tt.to)}
			if got := v.Days(); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
