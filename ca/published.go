package ca

import (
	"bytes"
	"compress/gzip"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"signet/fault"
)

const (
	// maxListBytes bounds the lists that are held in memory.
	maxListBytes = 256 << 20
	// listTimeout bounds how long a list is read from the store.
	listTimeout = 30 * time.Second
	// heldWait is how long a reader waits for the store when there is a list that is still valid.
	heldWait = 2 * time.Second
	// lapsedFor is how long a list that has ended is given before another one is looked for.
	lapsedFor = time.Second
)

// PublicList returns a list of a CA for relying parties. Deleted CAs have theirs too. It reads, and never reaches the token. A
// change that was made on this replica a moment ago is waited for, at most two seconds. NotFound when there is no such CA, shard or
// delta; Unavailable when it is not published yet.
func (a *Authority) PublicList(ctx context.Context, slug string, shard int, delta bool) (*PublishedList, error) {
	id, err := a.publicID(ctx, slug)
	if err != nil {
		return nil, err
	}
	s := ListScope{CAID: id, Shard: shard, Delta: delta}
	if delta {
		p, err := a.policyOf(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("find revocation policy of CA %d: %w", id, err)
		}
		if !p.Delta {
			return nil, errNoList
		}
	}
	a.publisher.await(ctx, id, shard)
	a.followed.await(ctx, id, shard)
	if l := a.lists.fresh(s); l != nil && a.running.Load() { // otherwise nobody says when it is replaced
		return l, nil
	}
	held := a.lists.held(s)
	if held != nil && !a.cfg.Now().Before(held.NextUpdate) {
		held = nil
	}
	if held != nil {
		limited, cancel := context.WithTimeout(ctx, heldWait)
		defer cancel()
		ctx = limited
	}
	l, err := a.lists.load(ctx, s, func(ctx context.Context) (*PublishedList, error) { return a.readList(ctx, s) })
	if err != nil && held != nil && !fault.Is(err, fault.NotFound) {
		return held, nil // the store does not answer
	}
	return l, err
}

var errNoList = fault.New(fault.NotFound, "CRL not found")

// readList reads a list from the store.
func (a *Authority) readList(ctx context.Context, s ListScope) (*PublishedList, error) {
	now := a.cfg.Now()
	l, until, err := a.cfg.Store.CurrentList(ctx, s, now)
	switch {
	case err == nil:
		return published(l, until), nil
	case !fault.Is(err, fault.NotFound):
		return nil, fmt.Errorf("read list of CA %d: %w", s.CAID, err)
	}
	all, err := a.shardStates(ctx, now, s.CAID)
	if err != nil {
		return nil, err
	}
	if _, ok := all[s.CAID][s.Shard]; ok {
		return nil, &fault.Error{Code: fault.Unavailable, Message: "The CRL is not published yet", RetryAfter: time.Second}
	}
	return nil, errNoList
}

// published makes of a list what relying parties get; until is the thisUpdate of its successor, zero without.
func published(l List, until time.Time) *PublishedList {
	if until.IsZero() || until.After(l.NextUpdate) {
		until = l.NextUpdate
	}
	if l.SHA256 == nil {
		sum := sha256.Sum256(l.DER)
		l.SHA256 = sum[:]
	}
	return &PublishedList{
		List: l, FreshUntil: until, ETag: `"` + hex.EncodeToString(l.SHA256[:16]) + `"`,
		gzip: sync.OnceValue(func() []byte { return compress(l.DER) }),
	}
}

// sampled is how many octets of a list tell how well all of it compresses: its entries are alike.
const sampled = 1 << 20

// compress returns nil when it is not worth it: serial numbers are random. It takes as much memory as the result and little more.
func compress(der []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b) // to a buffer: no errors
	first := der[:min(len(der), sampled)]
	w.Write(first)
	if rest := der[len(first):]; len(rest) > 0 {
		w.Flush()
		if !worthwhile(b.Len(), sampled) {
			return nil
		}
		perSample := b.Len() + b.Len()/32
		b.Grow(len(rest)/sampled*perSample + perSample)
		w.Write(rest)
	}
	w.Close()
	if !worthwhile(b.Len(), len(der)) {
		return nil
	}
	return b.Bytes()
}

func worthwhile(compressed, size int) bool { return compressed*100 <= size*95 }

// publicID finds a CA by its slug, which never changes.
func (a *Authority) publicID(ctx context.Context, slug string) (int64, error) {
	if id, ok := a.slugs.Load(slug); ok {
		return id.(int64), nil
	}
	c, err := a.PublicCA(ctx, slug)
	if err != nil {
		return 0, err
	}
	a.slugs.Store(slug, c.ID)
	return c.ID, nil
}

// listCache holds lists as relying parties get them. A list that may have been replaced is read again before it is given, and
// kept for the time that the store does not answer.
type listCache struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[ListScope]*list.Element // of *heldList
	recent  list.List                   // last used first
	bytes   int
	reads   map[ListScope]*listRead
}

type heldList struct {
	*PublishedList
	replaced bool      // or it may have been
	lookAt   time.Time // for another one
}

// size counts the compressed form too, whether it is made or not.
func (h *heldList) size() int { return 2 * len(h.DER) }

// listRead is a read from the store that everybody waits for who asks meanwhile.
type listRead struct {
	done chan struct{}
	list *PublishedList
	err  error
}

func newListCache(now func() time.Time) *listCache {
	return &listCache{now: now, entries: map[ListScope]*list.Element{}, reads: map[ListScope]*listRead{}}
}

// fresh returns a list that is known to be the current one; nil otherwise.
func (c *listCache) fresh(s ListScope) *PublishedList {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[s]
	if e == nil {
		return nil
	}
	h := e.Value.(*heldList)
	if h.replaced || !c.now().Before(h.lookAt) {
		return nil
	}
	c.recent.MoveToFront(e)
	return h.PublishedList
}

// held returns whatever list there is; nil: none.
func (c *listCache) held(s ListScope) *PublishedList {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[s]; e != nil {
		return e.Value.(*heldList).PublishedList
	}
	return nil
}

// load reads a list, once for all who ask at the same time.
func (c *listCache) load(ctx context.Context, s ListScope, read func(context.Context) (*PublishedList, error)) (*PublishedList, error) {
	c.mu.Lock()
	r := c.reads[s]
	if r == nil {
		r = &listRead{done: make(chan struct{})}
		c.reads[s] = r
		go func() {
			ctx, cancel := finish(ctx, listTimeout) // others wait for it too
			defer cancel()
			r.list, r.err = read(ctx)
			c.loaded(s, r)
			close(r.done)
		}()
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.list, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// loaded keeps what was read, unless the list was replaced meanwhile.
func (c *listCache) loaded(s ListScope, r *listRead) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reads[s] != r {
		return
	}
	delete(c.reads, s)
	switch {
	case r.err == nil:
		if e := c.entries[s]; e != nil {
			if h := e.Value.(*heldList); h.Number == r.list.Number {
				r.list.gzip = h.gzip // the same octets
			}
		}
		c.put(r.list)
	case fault.Is(r.err, fault.NotFound):
		c.remove(s)
	}
}

func (c *listCache) put(l *PublishedList) {
	c.remove(l.ListScope)
	h := &heldList{PublishedList: l, lookAt: l.FreshUntil}
	if now := c.now(); !h.lookAt.After(now) {
		h.lookAt = now.Add(lapsedFor)
	}
	c.entries[l.ListScope] = c.recent.PushFront(h)
	c.bytes += h.size()
	for c.bytes > maxListBytes && c.recent.Len() > 1 {
		c.remove(c.recent.Back().Value.(*heldList).ListScope)
	}
}

func (c *listCache) remove(s ListScope) {
	if e := c.entries[s]; e != nil {
		c.bytes -= c.recent.Remove(e).(*heldList).size()
		delete(c.entries, s)
	}
}

// drop says that a list may have been replaced. Whoever asks from now on does not get what is being read.
func (c *listCache) drop(s ListScope) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reads, s)
	if e := c.entries[s]; e != nil {
		e.Value.(*heldList).replaced = true
	}
}

// replace puts a new list in the place of one that was asked for before.
func (c *listCache) replace(l List) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reads, l.ListScope)
	if c.entries[l.ListScope] != nil {
		c.put(published(l, time.Time{}))
	}
}

// of returns the numbers of the lists of some CAs that are held.
func (c *listCache) of(caIDs map[int64]bool) map[ListScope]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	numbers := map[ListScope]int64{}
	for s, e := range c.entries {
		if caIDs[s.CAID] {
			numbers[s] = e.Value.(*heldList).Number
		}
	}
	for s := range c.reads {
		if caIDs[s.CAID] {
			numbers[s] = 0 // of no list: whatever is read may be too old
		}
	}
	return numbers
}

// dropReplaced drops the lists of these CAs that are not the current ones any more, or have a successor that they did not have.
func (a *Authority) dropReplaced(ctx context.Context, caIDs []int64) error {
	wanted := map[int64]bool{}
	for _, id := range caIDs {
		wanted[id] = true
	}
	numbers := a.lists.of(wanted)
	if len(numbers) == 0 {
		return nil
	}
	scopes, err := a.cfg.Store.ListScopes(ctx, a.cfg.Now(), caIDs...)
	for _, s := range scopes {
		if s.Current != nil && s.Current.Number == numbers[s.ListScope] && s.Last.Number == s.Current.Number {
			delete(numbers, s.ListScope)
		}
	}
	for s := range numbers {
		a.lists.drop(s)
	}
	return err
}
