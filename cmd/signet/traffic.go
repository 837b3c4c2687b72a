package main

import (
	"net/http"
	"sync"
	"time"
)

// quietAfter is how long after the last request the server counts as idle.
const quietAfter = 100 * time.Millisecond

// traffic knows whether there are requests. The zero value has seen none.
type traffic struct {
	mu       sync.Mutex
	inFlight int
	last     time.Time // when one ended
}

func (t *traffic) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.count(1)
		defer t.count(-1)
		next.ServeHTTP(w, r)
	})
}

func (t *traffic) count(change int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight += change
	t.last = time.Now()
}

// quiet reports whether no request is being answered, and none was a moment ago.
func (t *traffic) quiet() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inFlight == 0 && time.Since(t.last) > quietAfter
}
