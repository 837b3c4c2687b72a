package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

func TestAComponentThatHangsLeavesTheOthersTheirVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		observed := map[string]bool{}
		hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		r := &readiness{
			log: quiet,
			components: []component{
				{name: "database", failure: "the database does not answer", check: hangs},
				{name: "token", failure: "the token does not sign", check: func(ctx context.Context) error { return ctx.Err() }},
				{name: "other", failure: "the other does not answer", check: hangs},
			},
			observe: func(name string, ok bool) { observed[name] = ok },
		}
		start := time.Now()
		r.refresh(t.Context())
		if took := time.Since(start); took != checkTimeout {
			t.Errorf("took %s, want %s", took, checkTimeout)
		}
		if observed["database"] || !observed["token"] || observed["other"] {
			t.Errorf("observed %v", observed)
		}
		if err := r.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "the database does not answer") {
			t.Errorf("got %v", err)
		}
	})
}
