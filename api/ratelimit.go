package api

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"signet/fault"
)

// Rate is how many attempts one client address has in a period. The zero value is no limit.
type Rate struct {
	Attempts int
	Per      time.Duration
}

// Logins counts the login attempts of clients for all replicas.
type Logins interface {
	// LoginAttempt counts an attempt of a client at now and returns when its window was opened and how many attempts it has
	// seen, this one included; more than limit are one more than limit. The first attempt opens a window, and so does
	// one a period after that.
	LoginAttempt(ctx context.Context, client string, limit int, per time.Duration, now time.Time) (opened time.Time, attempts int, err error)
	// PruneLoginAttempts forgets windows that were opened before a time, some of them if there are many.
	PruneLoginAttempts(ctx context.Context, before time.Time) error
}

// maxClients bounds the refused clients that a limiter remembers.
const maxClients = 1 << 16

// pruneAfter is how many attempts make the limiter look for windows to forget: fewer than are forgotten then.
const pruneAfter = 200

// limiter counts attempts by client address in windows of one period. The counts are in the database; who has none left is
// remembered here, so that a flood does not reach it.
type limiter struct {
	rate   Rate
	now    func() time.Time
	logins Logins

	mu      sync.Mutex
	refused map[netip.Prefix]time.Time // when their windows were opened
	counted int
}

func newLimiter(rate Rate, logins Logins, now func() time.Time) *limiter {
	return &limiter{rate: rate, logins: logins, now: now, refused: map[netip.Prefix]time.Time{}}
}

// take counts an attempt; RateLimited when there is none left.
func (l *limiter) take(ctx context.Context, address string) error {
	if l.rate.Attempts <= 0 || l.rate.Per <= 0 {
		return nil
	}
	client, now := clientOf(address), l.now()
	if opened, refused := l.remembered(client, now); refused {
		return l.refusal(opened, now)
	}
	opened, attempts, err := l.logins.LoginAttempt(ctx, client.String(), l.rate.Attempts, l.rate.Per, now)
	if err != nil {
		return fmt.Errorf("count login attempt: %w", err)
	}
	if l.countedMany() {
		if err := l.logins.PruneLoginAttempts(ctx, now.Add(-l.rate.Per)); err != nil {
			return fmt.Errorf("forget login attempts: %w", err)
		}
	}
	if attempts <= l.rate.Attempts {
		return nil
	}
	l.remember(client, opened)
	return l.refusal(opened, now)
}

// remembered reports whether the client is known to have no attempts left.
func (l *limiter) remembered(client netip.Prefix, now time.Time) (opened time.Time, refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	opened, refused = l.refused[client]
	if age := now.Sub(opened); refused && (age <= -l.rate.Per || age >= l.rate.Per) {
		delete(l.refused, client)
		refused = false
	}
	return opened, refused
}

func (l *limiter) remember(client netip.Prefix, opened time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.refused) >= maxClients {
		clear(l.refused) // the database still knows them
	}
	l.refused[client] = opened
}

func (l *limiter) countedMany() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counted++
	return l.counted%pruneAfter == 0
}

func (l *limiter) refusal(opened, now time.Time) error {
	return &fault.Error{
		Code: fault.RateLimited, Message: fmt.Sprintf("Rate limit exceeded: %d per %s", l.rate.Attempts, l.rate.Per),
		RetryAfter: opened.Add(l.rate.Per).Sub(now),
	}
}

// clientOf is the address, or the /64 of an IPv6 address: that much a single customer has.
func clientOf(address string) netip.Prefix {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	prefix, _ := a.Prefix(bits) // the length fits the address
	return prefix
}
