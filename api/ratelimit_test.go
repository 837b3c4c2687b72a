package api

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"signet/fault"
)

func TestAttemptsAreCountedPerClientAndWindow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := newLimiter(Rate{Attempts: 2, Per: time.Minute}, func() time.Time { return now })
	try := func(address string, allowed bool) {
		t.Helper()
		if err := l.take(address); (err == nil) != allowed {
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
	var f *fault.Error
	if err := l.take("192.0.2.1"); !errors.As(err, &f) || f.Code != fault.RateLimited || f.RetryAfter != 15*time.Second {
		t.Errorf("refusal %+v", f)
	}
	now = now.Add(15 * time.Second)
	try("192.0.2.1", true)
	now = now.Add(-time.Hour) // the clock was set back
	try("192.0.2.1", true)
}

func TestNoRateIsNoLimit(t *testing.T) {
	t.Parallel()
	l := newLimiter(Rate{}, time.Now)
	for range 1000 {
		if err := l.take("192.0.2.1"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheLimiterForgetsRatherThanGrows(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLimiter(Rate{Attempts: 1, Per: time.Minute}, func() time.Time { return now })
	for i := range maxClients + 1000 {
		if err := l.take(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.clients) > maxClients {
		t.Errorf("%d clients are remembered", len(l.clients))
	}
	now = now.Add(time.Hour)
	if err := l.take("192.0.2.1"); err != nil || len(l.clients) != 1 {
		t.Errorf("%d clients are remembered after their windows closed, %v", len(l.clients), err)
	}
}
