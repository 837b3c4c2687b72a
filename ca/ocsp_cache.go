package ca

import (
	"crypto"
	"sync"
	"time"
)

const (
	// minAnswers is how many answers are held in memory at least.
	minAnswers = 64
	// maxUnknown is how many of those are about serial numbers that were never issued, which anybody can make up.
	maxUnknown = 1024
	// maxFlights bounds the answers that are being made: a client that has gone does not end what it asked for.
	maxFlights = 4096
)

// statusKey is what an answer without nonce is about.
type statusKey struct {
	caID   int64
	hash   crypto.Hash
	serial string
}

// heldAnswer is an answer in memory.
type heldAnswer struct {
	StatusAnswer
	byName  bool // how the responder named itself
	unknown bool // it was never issued
}

// fresh reports whether no newer answer need be looked for.
func (h *heldAnswer) fresh(now time.Time, byName bool) bool {
	return now.Before(h.FreshUntil) && h.byName == byName
}

func (h *heldAnswer) valid(now time.Time) bool { return now.Before(h.NextUpdate) }

// answerCache holds answers, and the work for those that are being made. Both are under one lock: when a serial number
// changes, what was found out about it before neither stays nor comes.
type answerCache struct {
	mu      sync.RWMutex
	held    *generations[statusKey, *heldAnswer]
	unknown *generations[statusKey, *heldAnswer]
	flights map[statusKey]*flight
}

// flight is an answer that is being made, for everybody who asks meanwhile.
type flight struct {
	done    chan struct{}
	stale   bool // the serial number has changed since: ask again; read it after done
	answer  *heldAnswer
	outcome string
	err     error
}

func newAnswerCache(entries int) *answerCache {
	return &answerCache{
		held:    newGenerations[statusKey, *heldAnswer](max(entries, minAnswers)),
		unknown: newGenerations[statusKey, *heldAnswer](maxUnknown),
		flights: map[statusKey]*flight{},
	}
}

// find returns the answer that is held, or nil.
func (c *answerCache) find(key statusKey) *heldAnswer {
	c.mu.RLock()
	answer, old := c.look(key)
	c.mu.RUnlock()
	if !old {
		return answer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer, old = c.look(key); old {
		c.hold(key, answer)
	}
	return answer
}

func (c *answerCache) look(key statusKey) (answer *heldAnswer, old bool) {
	answer, found, old := c.held.find(key)
	if !found {
		answer, _, old = c.unknown.find(key)
	}
	return answer, old
}

func (c *answerCache) hold(key statusKey, answer *heldAnswer) {
	if answer.unknown {
		c.unknown.put(key, answer)
		return
	}
	c.unknown.remove(key)
	c.held.put(key, answer)
}

// join returns the flight for a key, and whether the caller must fly it. With none in the air a fresh answer that has
// just landed is taken instead. Nothing is returned when too much is in the air.
func (c *answerCache) join(key statusKey, now time.Time, byName bool) (f *flight, mine bool, landed *heldAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f = c.flights[key]; f != nil {
		return f, false, nil
	}
	if answer, _ := c.look(key); answer != nil && answer.fresh(now, byName) {
		return nil, false, answer
	}
	if len(c.flights) >= maxFlights {
		return nil, false, nil
	}
	f = &flight{done: make(chan struct{})}
	c.flights[key] = f
	return f, true, nil
}

// land ends a flight. Its answer is held unless the serial number changed on the way.
func (c *answerCache) land(key statusKey, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[key] == f {
		delete(c.flights, key)
	}
	if f.answer != nil && !f.stale {
		c.hold(key, f.answer)
	}
	close(f.done)
}

func (c *answerCache) drop(caID int64, serials []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, serial := range serials {
		for _, hash := range [...]crypto.Hash{crypto.SHA1, crypto.SHA256} {
			key := statusKey{caID, hash, serial}
			c.held.remove(key)
			c.unknown.remove(key)
			if f := c.flights[key]; f != nil {
				f.stale = true
				delete(c.flights, key)
			}
		}
	}
}

// clear drops every answer, and what is found out about any serial number.
func (c *answerCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held.clear()
	c.unknown.clear()
	for _, f := range c.flights {
		f.stale = true
	}
	clear(c.flights)
}

// generations is a bounded map that forgets what was not used for long: entries are put in the young generation, which
// becomes the old one when it is full, and what is found in the old one is to be put again. It is not safe for concurrent use.
type generations[K comparable, V any] struct {
	young, old map[K]V
	half       int
}

func newGenerations[K comparable, V any](most int) *generations[K, V] {
	return &generations[K, V]{young: map[K]V{}, half: max(1, most/2)}
}

// find does not change anything. old says that the entry is about to be forgotten.
func (g *generations[K, V]) find(key K) (v V, found, old bool) {
	if v, found = g.young[key]; found {
		return v, true, false
	}
	v, found = g.old[key]
	return v, found, found
}

func (g *generations[K, V]) put(key K, v V) {
	if _, found := g.young[key]; !found && len(g.young) >= g.half {
		g.old, g.young = g.young, make(map[K]V, g.half)
	}
	delete(g.old, key)
	g.young[key] = v
}

func (g *generations[K, V]) remove(key K) {
	delete(g.young, key)
	delete(g.old, key)
}

func (g *generations[K, V]) clear() { g.young, g.old = map[K]V{}, nil }
