package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"signet/ca"
	"signet/fault"
	"signet/keystore"
	"signet/policy"
	"signet/softhsm/softhsmtest"
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

func TestAKeyThatOughtToBeThereAndIsNotNeedsTheOperator(t *testing.T) {
	t.Parallel()
	tokens, err := keystore.OpenSet(t.Context(), []keystore.Named{{Name: defaultToken, Config: softhsmtest.Token(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tokens.Close() })
	keys := &tokenKeys{tokens: tokens, sync: func() error { return nil }}
	for _, row := range []struct {
		name string
		ref  ca.KeyRef
		code fault.Code
	}{
		{"somebody asks for a key", ca.KeyRef{ID: []byte("none")}, fault.NotFound},
		{"the key of a CA is gone", ca.KeyRef{ID: []byte("none"), PublicKey: []byte("known")}, fault.Internal},
		{"the token of a CA is not configured", ca.KeyRef{Token: "former", ID: []byte("none"), PublicKey: []byte("known")}, fault.Internal},
	} {
		_, inspectErr := keys.Inspect(t.Context(), row.ref)
		_, drillErr := keys.Drill(t.Context(), row.ref)
		for call, err := range map[string]error{"Inspect": inspectErr, "Drill": drillErr} {
			if fault.CodeOf(err) != row.code {
				t.Errorf("%s: %s says %v", row.name, call, err)
			}
		}
	}
}

func TestANewKeyIsOnDiskBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	tokens, err := keystore.OpenSet(t.Context(), []keystore.Named{{Name: defaultToken, Config: softhsmtest.Token(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tokens.Close() })
	synced, full := 0, errors.New("no space left on device")
	var failure error
	keys := &tokenKeys{tokens: tokens, sync: func() error { synced++; return failure }}
	want := func(when string, times int, got, err error) {
		t.Helper()
		if synced != times || !errors.Is(got, err) {
			t.Errorf("%s: synced %d times with %v, want %d with %v", when, synced, got, times, err)
		}
	}
	generate := func(id string) error {
		_, err := keys.Generate(t.Context(), ca.KeyRequest{ID: []byte(id), Label: "ca", Spec: policy.KeySpec{Type: policy.EC, Size: 256}})
		return err
	}
	seal := func() error {
		_, err := keys.Seal(t.Context(), []byte("secret"), nil)
		return err
	}
	want("a key", 1, generate("first"), nil)
	if err := generate("first"); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("the same id again: got %v", err)
	}
	want("a key that was not made", 1, nil, nil)
	failure = full
	want("a key on a full disk", 2, generate("second"), full)
	want("the first secret on a full disk", 3, seal(), full)
	failure = nil
	want("the first secret", 4, seal(), nil)
	want("the second secret", 4, seal(), nil)
}

func TestThePINOfTheTokenInTheDataFolder(t *testing.T) {
	t.Parallel()
	for _, pin := range []string{"123", strings.Repeat("1", 256)} {
		c := Config{DataDir: t.TempDir(), PKCS11PINFile: secretFile(t, pin, 0o600)}
		if _, err := c.tokenConfig(quiet); err == nil || !strings.Contains(err.Error(), "4 to 255") || strings.Contains(err.Error(), pin) {
			t.Errorf("%d characters: got %v", len(pin), err)
		}
	}
}
