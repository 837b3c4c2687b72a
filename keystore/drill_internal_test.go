package keystore

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
)

// ModuleSum is the SHA-256 of a library file that Info shows.
func ModuleSum(path string) string { return moduleSums.of(path) }

func TestResultsNameTheAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{pkcs11.Error(pkcs11.CKR_KEY_UNEXTRACTABLE), "CKR_KEY_UNEXTRACTABLE"},
		{pkcs11.Error(0x1B), "CKR_ACTION_PROHIBITED"},
		{pkcs11.Error(0x1234), "CKR 0x1234"},
		{pkcs11.Error(0x80000001), "CKR 0x80000001"},
		{fmt.Errorf("drill: %w: %w", ErrUnavailable, pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)), "CKR_DEVICE_ERROR"},
		{fmt.Errorf("drill: %w: no answer", ErrUnavailable), "no answer in time"},
		{fmt.Errorf("%w: CKA_SIGN", errUnlike), "the canary is not like the key: CKA_SIGN"},
	} {
		if got := ckrName(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestOnlyCanariesThatNobodyNeedsAreLeftovers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ours := newCanaryID()
	theirs := append([]byte(nil), ours...)
	theirs[10] ^= 1
	for _, tt := range []struct {
		name string
		id   []byte
		now  time.Time
		want bool
	}{
		{"one of this process", ours, now, true},
		{"a fresh one of another process", theirs, now, false},
		{"an old one of another process", theirs, now.Add(3 * time.Minute), true},
		{"one from the future", theirs, now.Add(-3 * time.Minute), true},
		{"a short id", ours[:15], now, false},
		{"no id", nil, now, false},
		{"a random id", random(16), now.Add(time.Hour), false},
	} {
		if got := isLeftover(tt.id, tt.now); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestAnAttackThatCostsTheSessionEndsInconclusive(t *testing.T) {
	t.Parallel()
	l := newLedger([]attack{{name: "deadly"}, {name: "harmless"}})
	gone := pkcs11.Error(pkcs11.CKR_SESSION_HANDLE_INVALID)
	for range maxTries {
		if !l.begin(0) {
			t.Fatal("given up too early")
		}
		l.end(0, verdict{}, gone)
	}
	if l.begin(0) {
		t.Error("tried again")
	}
	got := fmt.Sprint(l.attempts(errors.New("the canary hatched")))
	want := "[{deadly   inconclusive CKR_SESSION_HANDLE_INVALID} {harmless   inconclusive not attempted: the canary hatched}]"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestACopyIsComparedWithItsOriginal(t *testing.T) {
	t.Parallel()
	strong := map[uint]bool{pkcs11.CKA_SENSITIVE: true, pkcs11.CKA_EXTRACTABLE: false, pkcs11.CKA_MODIFIABLE: false}
	for _, tt := range []struct {
		name  string
		after map[uint]bool
		want  string
	}{
		{"the same", strong, "[]"},
		{"weaker", map[uint]bool{pkcs11.CKA_SENSITIVE: false, pkcs11.CKA_EXTRACTABLE: true, pkcs11.CKA_MODIFIABLE: false}, "[CKA_EXTRACTABLE is true CKA_SENSITIVE is false]"},
		{"silent", map[uint]bool{}, "[]"},
	} {
		if got := fmt.Sprint(weakened(strong, tt.after)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := weakened(map[uint]bool{pkcs11.CKA_SENSITIVE: false}, strong); len(got) > 0 {
		t.Errorf("a stronger copy is weaker: %v", got)
	}
}
