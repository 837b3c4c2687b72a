package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"signet/fault"
	"signet/keystore"
)

func TestTheTokensErrorsBecomeFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		err   error
		code  fault.Code
		retry bool
	}{
		{name: "a lost connection is tried again", err: keystore.ErrUnavailable, code: fault.Unavailable, retry: true},
		{name: "a deadline that passed too", err: context.DeadlineExceeded, code: fault.Unavailable, retry: true},
		{name: "a refused PIN is not the caller's fault", err: keystore.ErrPIN, code: fault.Unavailable, retry: true},
		{name: "a key type the token lacks is the caller's choice", err: keystore.ErrUnsupported, code: fault.Invalid},
		{name: "a missing key needs the operator", err: keystore.ErrNotFound, code: fault.Internal},
		{name: "a replaced key needs the operator", err: keystore.ErrMismatch, code: fault.Internal},
		{name: "an id that is taken needs the operator", err: keystore.ErrExists, code: fault.Internal},
		{name: "a key without evidence needs the operator", err: keystore.ErrEvidence, code: fault.Internal},
		{name: "anything else is a defect", err: errors.New("CKR_GENERAL_ERROR"), code: fault.Internal},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := tokenFault(fmt.Errorf("sign: %w", test.err))
			if fault.CodeOf(got) != test.code || !errors.Is(got, test.err) {
				t.Errorf("got %v with code %s, want code %s", got, fault.CodeOf(got), test.code)
			}
			var f *fault.Error
			if errors.As(got, &f) && (f.RetryAfter > 0) != test.retry {
				t.Errorf("retry after %s", f.RetryAfter)
			}
		})
	}
	if err := tokenFault(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}
