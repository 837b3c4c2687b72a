// Package fresh holds what was read a moment ago, so that a thousand requests a second do not read the same record a
// thousand times.
//
// What must never happen: a value that is older than the age allows, counted from before it was read; a value that was read
// before a change of this process and is given to somebody who asks after it.
package fresh

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Cache gives values for keys that were read no longer than an age ago. Callers who ask at once share one read. It is safe for
// concurrent use.
type Cache[K comparable, V any] struct {
	age time.Duration
	max int

	mu      sync.Mutex
	entries map[K]*entry[V]
}

// entry is a read, begun or finished.
type entry[V any] struct {
	began time.Time
	done  chan struct{} // closed when value and err are set
	value V
	err   error
}

// New returns a cache of at most max values; with an age of 0 it holds none.
func New[K comparable, V any](age time.Duration, max int) *Cache[K, V] {
	return &Cache[K, V]{age: age, max: max, entries: map[K]*entry[V]{}}
}

var errUnfinished = errors.New("the read that was waited for did not end")

// Get returns the value that load gives for the key, or gave a moment ago. Values are shared: nobody may change them. load gets a
// context that outlives its caller's, as others may wait too; its errors are not held.
func (c *Cache[K, V]) Get(ctx context.Context, key K, load func(context.Context) (V, error)) (V, error) {
	if c.age <= 0 {
		return load(ctx)
	}
	now := time.Now()
	c.mu.Lock()
	e := c.entries[key]
	if e != nil && now.Sub(e.began) < c.age {
		c.mu.Unlock()
		return e.wait(ctx)
	}
	e = &entry[V]{began: now, done: make(chan struct{}), err: errUnfinished}
	if len(c.entries) >= c.max {
		clear(c.entries) // they would not be current for much longer anyway
	}
	c.entries[key] = e
	c.mu.Unlock()
	c.load(ctx, key, e, load)
	return e.value, e.err
}

func (c *Cache[K, V]) load(ctx context.Context, key K, e *entry[V], load func(context.Context) (V, error)) {
	defer func() {
		if e.err != nil {
			c.mu.Lock()
			if c.entries[key] == e {
				delete(c.entries, key)
			}
			c.mu.Unlock()
		}
		close(e.done)
	}()
	e.value, e.err = load(context.WithoutCancel(ctx))
}

func (e *entry[V]) wait(ctx context.Context) (V, error) {
	select {
	case <-e.done:
		return e.value, e.err
	default:
	}
	select {
	case <-e.done:
		return e.value, e.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// Forget makes every later call read anew. Call it after a change; reads that are under way serve those who wait for them, and
// nobody else.
func (c *Cache[K, V]) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
}
