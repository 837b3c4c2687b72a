package api

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// standingAfter is how long a queue may be without having been empty before it counts as standing. A queue takes up a
// burst, and helps; one that stands makes everybody wait and nothing faster (RFC 8289, section 3).
const standingAfter = 250 * time.Millisecond

// laneBounds are how many requests of a class are worked on at once, how many may wait in a burst and when the queue
// stands, and how long one waits at most.
type laneBounds struct {
	running, burst, standing int
	patience                 time.Duration
}

// lane is the capacity of one class: places, and a queue in front of them.
type lane struct {
	laneBounds

	mu      sync.Mutex
	taken   int
	queue   *list.List // of chan struct{}, closed when the place is given; longest wait first
	emptied time.Time  // when the queue was last empty; of no use while it is
}

var errFull = errors.New("too many requests")

func newLane(b laneBounds) *lane { return &lane{laneBounds: b, queue: list.New()} }

// full reports whether a request would be refused now.
func (l *lane) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken >= l.running && l.queue.Len() >= l.room(time.Now())
}

// room is how many may wait. The lane is locked.
func (l *lane) room(now time.Time) int {
	if l.queue.Len() > 0 && now.Sub(l.emptied) > standingAfter {
		return l.standing
	}
	return l.burst
}

// enter takes a place; leave must follow. It fails at once with errFull when too many wait, later when the wait was too
// long, and with why ctx ended.
func (l *lane) enter(ctx context.Context) error {
	l.mu.Lock()
	if l.taken < l.running {
		l.taken++
		l.mu.Unlock()
		return nil
	}
	now := time.Now()
	if l.queue.Len() >= l.room(now) {
		l.mu.Unlock()
		return errFull
	}
	if l.queue.Len() == 0 {
		l.emptied = now
	}
	turn := make(chan struct{})
	waiting := l.queue.PushBack(turn)
	l.mu.Unlock()

	patience := time.NewTimer(l.patience)
	defer patience.Stop()
	var err error
	select {
	case <-turn:
		return nil
	case <-patience.C:
		err = errFull
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-turn: // at the same moment
		l.next()
	default:
		l.queue.Remove(waiting)
	}
	return err
}

// leave gives the place to the next in line.
func (l *lane) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next()
}

// next passes a place on. The lane is locked.
func (l *lane) next() {
	first := l.queue.Front()
	if first == nil {
		l.taken--
		return
	}
	close(l.queue.Remove(first).(chan struct{}))
}

// load is how many requests are worked on, and how many wait.
func (l *lane) load() (running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken, l.queue.Len()
}
