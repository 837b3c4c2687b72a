package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"signet/fault"
)

func TestReadinessNamesTheComponentThatIsAway(t *testing.T) {
	t.Parallel()
	var databaseErr, tokenErr error
	observed := map[string]bool{}
	r := &readiness{
		log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		components: []component{
			{name: "database", failure: "the database does not answer", check: func(context.Context) error { return databaseErr }},
			{name: "token", failure: "the token does not sign", check: func(context.Context) error { return tokenErr }},
		},
		observe: func(name string, ok bool) { observed[name] = ok },
	}
	want := func(when, part string) {
		t.Helper()
		err := r.Check(t.Context())
		switch {
		case part == "" && err != nil:
			t.Errorf("%s: got %v", when, err)
		case part != "" && (!fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), part)):
			t.Errorf("%s: got %v, want Unavailable with %q", when, err, part)
		}
	}
	want("before the first check", "does not finish")
	r.refresh(t.Context())
	want("all is well", "")
	tokenErr = errors.New("CKR_DEVICE_REMOVED")
	want("between two checks the last verdict holds", "")
	r.refresh(t.Context())
	want("the token is away", "the token does not sign")
	if !observed["database"] || observed["token"] {
		t.Errorf("observed %v", observed)
	}
	databaseErr = errors.New("connection refused")
	r.refresh(t.Context())
	want("both are away", "the database does not answer")
	databaseErr, tokenErr = nil, nil
	r.refresh(t.Context())
	want("both are back", "")

	stopping, cancel := context.WithCancel(t.Context())
	cancel()
	databaseErr = context.Canceled
	r.refresh(stopping)
	want("a check that the end of the server cut off says nothing", "")
	r.at = r.at.Add(-2 * checkStale)
	want("a check that hangs", "does not finish")
}
