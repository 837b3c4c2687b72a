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

// laneBounds are how many requests of a class are worked on at once, at least and at most, how many may wait in a burst
// and when the queue stands, and how long one waits.
type laneBounds struct {
	least, most, burst, standing int
	patience                     time.Duration
}

// lane is the capacity of one class: places, and a queue in front of them.
type lane struct {
	laneBounds

	mu      sync.Mutex
	pace    *pace
	taken   int
	queue   *list.List // of chan bool, which tell whether there is a place; longest wait first
	emptied time.Time  // when the queue was last empty; of no use while it is
}

var errFull = errors.New("too many requests")

func newLane(b laneBounds) *lane {
	return &lane{laneBounds: b, pace: newPace(b.least, b.most, processorWait()), queue: list.New()}
}

// full reports whether a request would be refused now.
func (l *lane) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken >= l.pace.limit && l.queue.Len() >= l.room(time.Now())
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
	if l.taken < l.pace.limit {
		l.taken++
		l.pace.full = l.pace.full || l.taken == l.pace.limit
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
	turn := make(chan bool, 1)
	waiting := l.queue.PushBack(turn)
	l.mu.Unlock()

	patience := time.NewTimer(l.patience)
	defer patience.Stop()
	var err error
	select {
	case placed := <-turn:
		return refusal(placed)
	case <-patience.C:
		err = errFull
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case placed := <-turn: // at the same moment
		if placed {
			l.next()
		}
	default:
		l.queue.Remove(waiting)
	}
	return err
}

func refusal(placed bool) error {
	if placed {
		return nil
	}
	return errFull
}

// leave ends a request that was worked on for so long, and gives its place to the next in line.
func (l *lane) leave(worked time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pace.end(time.Now(), worked)
	l.next()
}

// next gives free places to those who wait longest, and refuses those at the end of a queue that stands. The lane is
// locked, and one of its places has become free.
func (l *lane) next() {
	l.taken--
	for l.taken < l.pace.limit && l.queue.Len() > 0 {
		l.taken++
		l.pace.full = true
		l.queue.Remove(l.queue.Front()).(chan bool) <- true
	}
	for room := l.room(time.Now()); l.queue.Len() > room; {
		l.queue.Remove(l.queue.Back()).(chan bool) <- false
	}
}

// load is how many requests are worked on, how many may be, and how many wait.
func (l *lane) load() (running, limit, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken, l.pace.limit, l.queue.Len()
}
