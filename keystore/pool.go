package keystore

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// regrow is how long a pool stays shrunk after the token said CKR_SESSION_COUNT.
const regrow = 30 * time.Second

// session is one PKCS#11 session. One goroutine uses it at a time: a permit of the pool goes with it.
type session struct {
	*pkcs11.Ctx
	handle pkcs11.SessionHandle
	epoch  uint64 // of the module when it was opened
}

// pool bounds the sessions of a token. It hands out permits, to those who wait in their order; whoever has one may take
// an idle session or open a new one. The permit of an abandoned call goes to somebody else, so that one lost answer does
// not cost a session for ever; but no more than max calls are abandoned at once, so that neither sessions nor threads
// outgrow twice the bound.
type pool struct {
	mu      sync.Mutex
	max     int // permits when all is well
	limit   int // permits now
	shrunk  time.Time
	used    int
	stuck   int // abandoned calls that the module has not answered and that hold no permit any more
	open    int
	idle    []*session
	waiters []*waiter
	closed  bool
	drained chan struct{} // once closed: closed when no call is out
}

// waiter is a caller in the queue.
type waiter struct {
	turn    chan struct{} // closed when the waiting is over
	granted bool          // with a permit; else the pool is closed
}

func newPool(max int) *pool { return &pool{max: max, limit: max} }

// permit is the right to have one call in flight.
type permit struct {
	pool        *pool
	ended, lent bool // guarded by pool.mu; lent: given to somebody else while the call is still out
}

// acquire waits for a permit; end must follow. It fails with [ErrUnavailable] when the pool is closed, or with why ctx
// ended.
func (p *pool) acquire(ctx context.Context) (*permit, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	if p.limit < p.max && time.Since(p.shrunk) > regrow {
		p.limit = p.max
	}
	w := &waiter{turn: make(chan struct{})}
	p.waiters = append(p.waiters, w)
	p.grant()
	p.mu.Unlock()
	err := wait(ctx, w.turn)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil && w.granted:
		return &permit{pool: p}, nil
	case err == nil:
		return nil, errClosed
	case w.granted: // at the same moment
		p.used--
		p.grant()
	default:
		p.waiters = slices.DeleteFunc(p.waiters, func(other *waiter) bool { return other == w })
	}
	return nil, err
}

// grant gives free permits to the first in line. p is locked.
func (p *pool) grant() {
	for len(p.waiters) > 0 && p.used < p.limit {
		w := p.waiters[0]
		p.waiters = p.waiters[1:]
		w.granted = true
		p.used++
		close(w.turn)
	}
	if p.drained != nil && p.used+p.stuck == 0 {
		close(p.drained)
		p.drained = nil
	}
}

// end gives the permit back when the call has returned.
func (t *permit) end() {
	p := t.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	t.ended = true
	if t.lent {
		p.stuck--
	} else {
		p.used--
	}
	p.grant()
}

// abandon lends the permit of a call that nobody waits for any more to the next in line.
func (t *permit) abandon() {
	p := t.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.ended || p.stuck == p.max {
		return
	}
	t.lent = true
	p.used--
	p.stuck++
	p.grant()
}

// take returns an idle session of this epoch, the one used last, or nil. Those of an earlier one ended with it.
func (p *pool) take(epoch uint64) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		s := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if s.epoch == epoch {
			return s
		}
		p.open--
	}
	return nil
}

// put makes a healthy session available again.
func (p *pool) put(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, s)
}

// count follows C_OpenSession (1) and C_CloseSession (-1).
func (p *pool) count(change int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open += change
}

// size is the number of sessions that are open.
func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// shrink learns that the token gives no session beyond those that are open, and reports whether another session of
// ours can be waited for.
func (p *pool) shrink() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit, p.shrunk = max(1, min(p.limit, p.open)), time.Now()
	return p.open > 0
}

// close refuses new callers, waits until every call has returned, and returns the idle sessions.
func (p *pool) close(ctx context.Context) ([]*session, error) {
	p.mu.Lock()
	p.closed = true
	for _, w := range p.waiters {
		close(w.turn)
	}
	p.waiters = nil
	drained := make(chan struct{})
	p.drained = drained
	p.grant()
	p.mu.Unlock()
	if err := wait(ctx, drained); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := p.idle
	p.idle = nil
	return idle, nil
}
