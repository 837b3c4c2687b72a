package policy_test

import (
	"testing"
	"time"

	"signet/policy"
)

var issuerStart, issuerEnd = at("2026-01-01T00:00:00Z"), at("2026-12-31T23:59:59Z")

// issuer returns a CA that may issue anything during 2026, changed by the given functions.
func issuer(changes ...func(*policy.Issuer)) policy.Issuer {
	i := policy.Issuer{ID: 7, AllowLeafCerts: true, NotBefore: issuerStart, NotAfter: issuerEnd}
	for _, change := range changes {
		change(&i)
	}
	return i
}

func noLeaves(i *policy.Issuer) { i.AllowLeafCerts = false }
func revoked(i *policy.Issuer)  { i.Revoked = true }

func pathLength(n int) func(*policy.Issuer) {
	return func(i *policy.Issuer) { i.PathLength = &n }
}

func TestIssuerCheckLeaf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		issuer policy.Issuer
		now    string
		want   string
	}{
		{"the zero issuer issues nothing", policy.Issuer{}, "2026-06-01T00:00:00Z", "CA 0 has expired; CA 0 does not allow leaf certificate issuance"},
		{"a CA without leaves", issuer(noLeaves), "2026-06-01T00:00:00Z", "CA 7 does not allow leaf certificate issuance"},
		{"a revoked CA", issuer(revoked), "2026-06-01T00:00:00Z", "CA 7 is revoked"},
		{"an expired CA", issuer(), "2027-01-01T00:00:00Z", "CA 7 has expired"},
		{"a CA whose period has not begun", issuer(), "2025-12-31T23:59:59Z", "CA 7 is not valid before 2026-01-01T00:00:00Z"},
		{"every reason is told", issuer(revoked, noLeaves), "2027-06-01T00:00:00Z", "CA 7 is revoked; CA 7 has expired; CA 7 does not allow leaf certificate issuance"},
		{"a time zone makes no difference", issuer(), "2027-01-01T01:00:00+01:00", "CA 7 has expired"},
		{"the first second counts", issuer(), "2026-01-01T00:00:00Z", ""},
		{"the last second counts, to its end", issuer(), "2026-12-31T23:59:59.999Z", ""},
		{"a path length of 0 is no obstacle to leaves", issuer(pathLength(0)), "2026-06-01T00:00:00Z", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := reasons(t, tt.issuer.CheckLeaf(at(tt.now))); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestIssuerCheckCA(t *testing.T) {
	t.Parallel()
	now := at("2026-06-01T00:00:00Z")
	tests := []struct {
		name   string
		issuer policy.Issuer
		now    time.Time
		want   *int
		length *int
		reason string
	}{
		{name: "the zero issuer certifies nothing", issuer: policy.Issuer{}, now: now, reason: "CA 0 has expired"},
		{name: "a revoked CA", issuer: issuer(revoked), now: now, reason: "CA 7 is revoked"},
		{name: "an expired CA", issuer: issuer(), now: issuerEnd.Add(time.Second), reason: "CA 7 has expired"},
		{name: "a CA whose period has not begun", issuer: issuer(), now: issuerStart.Add(-time.Second), reason: "CA 7 is not valid before 2026-01-01T00:00:00Z"},
		{name: "path length 0 ends the chain", issuer: issuer(pathLength(0)), now: now, reason: "CA 7 does not allow subordinate CAs: its path length is 0"},
		{name: "path length 0 ends the chain, whatever is wanted", issuer: issuer(pathLength(0)), now: now, want: ref(0), reason: "CA 7 does not allow subordinate CAs: its path length is 0"},
		{name: "a negative path length of the issuer permits nothing", issuer: issuer(pathLength(-1)), now: now, reason: "CA 7 does not allow subordinate CAs: its path length is -1"},
		{name: "a negative wish", issuer: issuer(), now: now, want: ref(-1), reason: "path_length must not be negative"},
		{name: "a negative wish below a limit", issuer: issuer(pathLength(3)), now: now, want: ref(-5), reason: "path_length must not be negative"},
		{name: "as much as the issuer has", issuer: issuer(pathLength(2)), now: now, want: ref(2), reason: "path_length 2 is too long below CA 7: at most 1"},
		{name: "more than the issuer has", issuer: issuer(pathLength(1)), now: now, want: ref(9), reason: "path_length 9 is too long below CA 7: at most 0"},
		{name: "every reason is told", issuer: issuer(revoked, pathLength(0)), now: issuerEnd.Add(time.Hour), want: ref(-1), reason: "CA 7 is revoked; CA 7 has expired; path_length must not be negative; CA 7 does not allow subordinate CAs: its path length is 0"},

		{name: "no wish below an unlimited issuer is unlimited", issuer: issuer(), now: now},
		{name: "any wish below an unlimited issuer", issuer: issuer(), now: now, want: ref(5), length: ref(5)},
		{name: "no wish takes one less than the issuer", issuer: issuer(pathLength(3)), now: now, length: ref(2)},
		{name: "one less than the issuer", issuer: issuer(pathLength(3)), now: now, want: ref(2), length: ref(2)},
		{name: "less than it could be", issuer: issuer(pathLength(3)), now: now, want: ref(0), length: ref(0)},
		{name: "the last in the chain", issuer: issuer(pathLength(1)), now: now, length: ref(0)},
		{name: "a CA without leaves certifies CAs", issuer: issuer(noLeaves), now: now, want: ref(0), length: ref(0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			length, err := tt.issuer.CheckCA(tt.now, tt.want)
			if got := reasons(t, err); got != tt.reason {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if (length == nil) != (tt.length == nil) || length != nil && *length != *tt.length {
				t.Errorf("path length %v, want %v", length, tt.length)
			}
			if length != nil && (length == tt.want || length == tt.issuer.PathLength) {
				t.Error("the path length returned is shared with an argument")
			}
		})
	}
}
