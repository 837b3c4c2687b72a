package ca

import (
	"sync"
	"time"
)

// maxBudgets bounds the clients that are remembered.
const maxBudgets = 1 << 16

// budget is how many signatures each client may cause: so many at once, and so many per second in the long run.
type budget struct {
	rate  float64 // per second; 0: no limit
	burst float64
	now   func() time.Time

	mu      sync.Mutex
	clients *generations[string, *bucket]
}

// bucket is what a client has left.
type bucket struct {
	left float64
	at   time.Time
}

func newBudget(cfg OCSPConfig, now func() time.Time) *budget {
	return &budget{rate: cfg.ClientRate, burst: float64(cfg.ClientBurst), now: now, clients: newGenerations[string, *bucket](maxBudgets)}
}

// take reports whether a client may cause a signature now, and counts it.
func (b *budget) take(client string) bool {
	if b.rate <= 0 {
		return true
	}
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket := b.of(client, now)
	if waited := now.Sub(bucket.at).Seconds(); waited > 0 {
		bucket.left, bucket.at = min(b.burst, bucket.left+waited*b.rate), now
	}
	if bucket.left < 1 {
		return false
	}
	bucket.left--
	return true
}

func (b *budget) of(client string, now time.Time) *bucket {
	known, found, old := b.clients.find(client)
	if !found {
		known = &bucket{b.burst, now}
	}
	if !found || old {
		b.clients.put(client, known)
	}
	return known
}
