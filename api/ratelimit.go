package api

import (
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

// maxClients bounds the addresses that a limiter remembers.
const maxClients = 1 << 16

// limiter counts attempts by client address in windows of one period; the first attempt opens the window.
type limiter struct {
	rate Rate
	now  func() time.Time

	mu      sync.Mutex
	clients map[netip.Prefix]window
	swept   time.Time
}

type window struct {
	opened   time.Time
	attempts int
}

func newLimiter(rate Rate, now func() time.Time) *limiter {
	return &limiter{rate: rate, now: now, clients: map[netip.Prefix]window{}}
}

// take counts an attempt; RateLimited when there is none left.
func (l *limiter) take(address string) error {
	if l.rate.Attempts <= 0 || l.rate.Per <= 0 {
		return nil
	}
	client, now := clientOf(address), l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	w, known := l.clients[client]
	if age := now.Sub(w.opened); !known || age < 0 || age >= l.rate.Per {
		w = window{opened: now}
	}
	if w.attempts >= l.rate.Attempts {
		return &fault.Error{
			Code: fault.RateLimited, Message: fmt.Sprintf("Rate limit exceeded: %d per %s", l.rate.Attempts, l.rate.Per),
			RetryAfter: w.opened.Add(l.rate.Per).Sub(now),
		}
	}
	if !known && len(l.clients) >= maxClients {
		l.makeRoom(now)
	}
	w.attempts++
	l.clients[client] = w
	return nil
}

// makeRoom forgets the windows that have closed, at most once per period, or else any one.
func (l *limiter) makeRoom(now time.Time) {
	if now.Sub(l.swept) >= l.rate.Per {
		l.swept = now
		for client, w := range l.clients {
			if now.Sub(w.opened) >= l.rate.Per {
				delete(l.clients, client)
			}
		}
	}
	for client := range l.clients {
		if len(l.clients) < maxClients {
			return
		}
		delete(l.clients, client)
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
