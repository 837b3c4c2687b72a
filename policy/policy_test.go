package policy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"signet/policy"
)

// reasons returns the text of a violation, "" for nil, and fails the test when the error is of any other type.
func reasons(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var v *policy.Violation
	if !errors.As(err, &v) {
		t.Fatalf("error is a %T (%v), want a *policy.Violation", err, err)
	}
	if len(v.Reasons) == 0 {
		t.Fatal("the violation has no reason")
	}
	for _, r := range v.Reasons {
		if r == "" || strings.ContainsAny(r, "\x00\n\r\t\x1b") {
			t.Fatalf("reason %q is empty or unfit to print", r)
		}
	}
	return err.Error()
}

func ref[T any](v T) *T { return &v }

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestViolationJoinsItsReasons(t *testing.T) {
	t.Parallel()
	v := &policy.Violation{Reasons: []string{"first", "second"}}
	if got := v.Error(); got != "first; second" {
		t.Errorf("got %q", got)
	}
}
