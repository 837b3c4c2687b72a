package ca

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// publishWait is how long a relying party waits for a list with a change that was made here a moment ago: longer than the
	// default interval between two lists.
	publishWait = 2 * time.Second
	// busyCAs is how many CAs publish at once: issuance has the rest of the token.
	busyCAs = 2
	// minPublishPause and maxPublishPause bound the pause after a publication that failed; it doubles.
	minPublishPause = time.Second
	maxPublishPause = 30 * time.Second
	// busyShards is how many lists of a CA are made in one turn: a change must not wait for hundreds that are due by the schedule.
	busyShards = 32
)

// publisher queues publications. A CA has one at a time, as its lists share one sequence of numbers. A shard that changes all
// the time is published once per interval, its first change at once.
type publisher struct {
	publish  func(ctx context.Context, caID int64, shards []int) error
	interval time.Duration
	slots    chan struct{}

	mu       sync.Mutex
	queues   map[int64]*publishQueue
	flushing bool
}

// publishQueue is what a CA is to publish.
type publishQueue struct {
	wanted  map[int]*publication // by shard, as all of these
	running map[int]*publication
	started map[int]time.Time // the last time
	pause   time.Duration     // after a failure; 0 when the last publication succeeded
	resume  time.Time
	wake    chan struct{} // a request arrived
	idle    chan struct{} // closed when nothing is left to do; nil before the first request
}

// publication is one that was asked for.
type publication struct {
	start   time.Time // not before
	changed bool      // because something was revoked, held, released or set
	done    chan struct{}
}

func newPublisher(interval time.Duration, publish func(context.Context, int64, []int) error) *publisher {
	return &publisher{publish: publish, interval: interval, slots: make(chan struct{}, busyCAs), queues: map[int64]*publishQueue{}}
}

// request asks for lists of shards with everything that is recorded by now.
func (p *publisher) request(caID int64, changed bool, shards ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[caID]
	if q == nil {
		q = &publishQueue{wanted: map[int]*publication{}, started: map[int]time.Time{}, wake: make(chan struct{}, 1)}
		p.queues[caID] = q
	}
	for _, shard := range shards {
		w := q.wanted[shard]
		if w == nil {
			w = &publication{start: q.started[shard].Add(p.interval), done: make(chan struct{})}
			q.wanted[shard] = w
		}
		w.changed = w.changed || changed
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
		go p.serve(caID, q)
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// await waits for a publication of a shard that was requested because of a change, if one is running or about to.
func (p *publisher) await(ctx context.Context, caID int64, shard int) {
	done := p.changing(caID, shard)
	if done == nil {
		return
	}
	timeout := time.NewTimer(publishWait)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	case <-ctx.Done():
	}
}

func (p *publisher) changing(caID int64, shard int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[caID]
	if q == nil {
		return nil
	}
	if w := q.wanted[shard]; w != nil && w.changed && time.Until(q.startOf(w)) < publishWait {
		return w.done
	}
	if r := q.running[shard]; r != nil && r.changed {
		return r.done
	}
	return nil
}

// startOf is when a publication may start.
func (q *publishQueue) startOf(w *publication) time.Time {
	if q.resume.After(w.start) {
		return q.resume
	}
	return w.start
}

func (p *publisher) serve(caID int64, q *publishQueue) {
	for {
		shards, wait := p.next(q)
		switch {
		case len(shards) > 0:
			p.slots <- struct{}{}
			err := p.publish(context.Background(), caID, shards) // reports its own failure; the schedule asks again
			<-p.slots
			p.end(q, err)
		case wait < 0:
			return
		default:
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-q.wake:
			}
			timer.Stop()
		}
	}
}

// next starts what may start now, changes before the rest, and returns its shards. Without any it returns how long the next one has
// to wait, or less than nothing when there is none and the queue is idle.
func (p *publisher) next(q *publishQueue) (shards []int, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	wait = -1
	q.running = map[int]*publication{}
	changesFirst := func(one, two int) int {
		if c := q.wanted[one].changed; c != q.wanted[two].changed {
			if c {
				return -1
			}
			return 1
		}
		return cmp.Compare(one, two)
	}
	for _, shard := range slices.SortedFunc(maps.Keys(q.wanted), changesFirst) {
		w := q.wanted[shard]
		left := q.startOf(w).Sub(now)
		if p.flushing && left > 0 {
			left = 0
		}
		if p.flushing && (!w.changed || q.resume.After(now)) { // another replica does it by the schedule, or it would fail again
			delete(q.wanted, shard)
			close(w.done)
			continue
		}
		switch {
		case left <= 0 && len(shards) == busyShards: // the next turn
		case left <= 0:
			delete(q.wanted, shard)
			q.running[shard], q.started[shard] = w, now
			shards = append(shards, shard)
		case wait < 0 || left < wait:
			wait = left
		}
	}
	if len(shards) == 0 && wait < 0 {
		close(q.idle)
		q.idle = nil
	}
	return shards, wait
}

// end tells whoever waits for what ran, and pauses after a failure.
func (p *publisher) end(q *publishQueue, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range q.running {
		close(r.done)
	}
	q.running = nil
	if err == nil {
		q.pause, q.resume = 0, time.Time{}
		return
	}
	q.pause = min(max(2*q.pause, minPublishPause), maxPublishPause)
	q.resume = time.Now().Add(q.pause)
}

// interrupts reports whether a CA has something better to do than to sign ahead: to publish, or to end.
func (p *publisher) interrupts(caID int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flushing {
		return true
	}
	q := p.queues[caID]
	if q == nil {
		return false
	}
	for _, w := range q.wanted {
		if !q.startOf(w).After(time.Now()) {
			return true
		}
	}
	return false
}

// flush publishes at once the changes that wait, and returns when nothing is left. What is due by the schedule, and what failed a
// moment ago, is left to another replica.
func (p *publisher) flush() {
	p.mu.Lock()
	p.flushing = true
	var idle []<-chan struct{}
	for _, q := range p.queues {
		if q.idle == nil {
			continue
		}
		idle = append(idle, q.idle)
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	p.mu.Unlock()
	for _, ended := range idle {
		<-ended
	}
	p.mu.Lock()
	p.flushing = false
	p.mu.Unlock()
}
