package api

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/fault"
	"signet/store"
)

// counted is a database whose questions are counted.
type counted struct {
	*store.DB
	attempts atomic.Int64
}

func (c *counted) LoginAttempt(ctx context.Context, client string, limit int, per time.Duration, now time.Time) (time.Time, int, error) {
	c.attempts.Add(1)
	return c.DB.LoginAttempt(ctx, client, limit, per, now)
}

func logins(t *testing.T) *counted {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "signet.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &counted{DB: db}
}

func TestAttemptsAreCountedPerClientAndWindowOnAllReplicas(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	db := logins(t)
	var replicas [3]*limiter
	for i := range replicas {
		replicas[i] = newLimiter(Rate{Attempts: 2, Per: time.Minute}, db, func() time.Time { return now })
	}
	asked := 0
	try := func(address string, allowed bool) {
		t.Helper()
		asked++
		if err := replicas[asked%len(replicas)].take(t.Context(), address); (err == nil) != allowed {
			t.Errorf("%s: %v", address, err)
		}
	}
	try("192.0.2.1", true)
	try("192.0.2.1", true)
	try("192.0.2.1", false)
	try("::ffff:192.0.2.1", false) // the same client, seen through an IPv6 socket
	try("192.0.2.2", true)         // somebody else
	try("2001:db8::1", true)
	try("2001:db8::2", true)
	try("2001:db8::3", false) // the same /64
	try("2001:db8:0:1::3", true)

	now = now.Add(45 * time.Second)
	for _, l := range replicas {
		var f *fault.Error
		if err := l.take(t.Context(), "192.0.2.1"); !errors.As(err, &f) || f.Code != fault.RateLimited || f.RetryAfter != 15*time.Second {
			t.Errorf("refusal %+v", f)
		}
	}
	now = now.Add(15 * time.Second)
	try("192.0.2.1", true)
	now = now.Add(-time.Hour) // the clock was set back
	try("192.0.2.1", true)
	try("192.0.2.1", true)
	try("192.0.2.1", false)
}

func TestOfParallelAttemptsOnlyAsManyAsAllowedPass(t *testing.T) {
	t.Parallel()
	db := logins(t)
	var passed atomic.Int64
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if newLimiter(Rate{Attempts: 5, Per: time.Hour}, db, time.Now).take(t.Context(), "192.0.2.1") == nil {
				passed.Add(1)
			}
		})
	}
	if group.Wait(); passed.Load() != 5 {
		t.Errorf("%d attempts passed, want 5", passed.Load())
	}
}

func TestNoRateIsNoLimit(t *testing.T) {
	t.Parallel()
	l := newLimiter(Rate{}, nil, time.Now)
	for range 1000 {
		if err := l.take(t.Context(), "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFloodOfOneClientDoesNotReachTheDatabase(t *testing.T) {
	t.Parallel()
	db := logins(t)
	l := newLimiter(Rate{Attempts: 2, Per: time.Hour}, db, time.Now)
	for range 1000 {
		_ = l.take(t.Context(), "192.0.2.1")
	}
	if n := db.attempts.Load(); n != 3 {
		t.Errorf("the database was asked %d times, want 3: two attempts and the first refusal", n)
	}
}

func TestWithoutDatabaseNobodyIsLetIn(t *testing.T) {
	t.Parallel()
	db := logins(t)
	db.Close()
	l := newLimiter(Rate{Attempts: 2, Per: time.Hour}, db, time.Now)
	if err := l.take(t.Context(), "192.0.2.1"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestWindowsThatAreOpenAreNotForgotten(t *testing.T) {
	t.Parallel()
	now := time.Now()
	db := logins(t)
	l := newLimiter(Rate{Attempts: 1, Per: time.Minute}, db, func() time.Time { return now })
	flood := func() {
		for i := range pruneAfter {
			if err := l.take(t.Context(), fmt.Sprintf("2001:db8:0:%x::1", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	flood()
	now = now.Add(time.Minute)
	flood()
	now = now.Add(time.Second) // in the windows of the second flood
	if err := l.take(t.Context(), "2001:db8::1"); !fault.Is(err, fault.RateLimited) {
		t.Errorf("an open window was forgotten: %v", err)
	}
}

func TestTheLimiterForgetsRatherThanGrows(t *testing.T) {
	t.Parallel()
	l := newLimiter(Rate{Attempts: 1, Per: time.Hour}, nil, time.Now)
	for i := range maxClients + 10 {
		l.remember(clientOf(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)), time.Now())
	}
	if len(l.refused) > maxClients {
		t.Errorf("%d clients are remembered", len(l.refused))
	}
}
