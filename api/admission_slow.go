package api

import (
	"bytes"
	"container/list"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// maxSlow is how many bodies are on their way at once, and how many long answers: so many slow clients may there be.
	maxSlow = 1024
	// longAnswer is from how many octets on an answer counts as held for its client. A shorter one fits into the buffers
	// of the kernel.
	longAnswer = 64 << 10
	// firstRead is the first piece of memory for a body. A request to sign fits.
	firstRead = 4 << 10
)

// hoard bounds what is held in memory for clients that are slow. Who is new wins: when there is too much, those who
// have taken longest are cut off.
type hoard struct {
	max     int64
	maxSlow int

	mu    sync.Mutex
	total int64
	slow  *list.List // of *holding, longest first: those that a client's slowness keeps
}

// holding is what is held for one request. nil holds nothing.
type holding struct {
	hoard *hoard
	cut   func() // ends the wait for the client; called with the hoard locked
	bytes int64
	place *list.Element // in slow; nil when it is not the client that is waited for
	gone  bool          // cut off
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

func newHoard(max int64) *hoard { return &hoard{max: max, maxSlow: maxSlow, slow: list.New()} }

// enter begins to hold for a client that may be slow.
func (h *hoard) enter(cut func()) *holding {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.slow.Len() >= h.maxSlow {
		h.cutFirst()
	}
	held := &holding{hoard: h, cut: cut}
	held.place = h.slow.PushBack(held)
	return held
}

// cutFirst cuts off who has taken longest. The hoard is locked.
func (h *hoard) cutFirst() {
	held := h.slow.Remove(h.slow.Front()).(*holding)
	h.total -= held.bytes
	held.place, held.bytes, held.gone = nil, 0, true
	held.cut()
}

// grow holds n octets more. When that is too much and nobody else is slow, it cuts off its own client.
func (held *holding) grow(n int) {
	h := held.hoard
	h.mu.Lock()
	defer h.mu.Unlock()
	if held.gone {
		return
	}
	held.bytes += int64(n)
	h.total += int64(n)
	for h.total > h.max && held.place != nil {
		h.cutFirst()
	}
}

// settle says that the client is not waited for any more.
func (held *holding) settle() {
	held.hoard.mu.Lock()
	defer held.hoard.mu.Unlock()
	if held.place != nil {
		held.hoard.slow.Remove(held.place)
		held.place = nil
	}
}

// wasCut reports whether the client was cut off.
func (held *holding) wasCut() bool {
	if held == nil {
		return false
	}
	held.hoard.mu.Lock()
	defer held.hoard.mu.Unlock()
	return held.gone
}

// leave ends the holding.
func (held *holding) leave() {
	if held == nil {
		return
	}
	held.settle()
	held.hoard.mu.Lock()
	defer held.hoard.mu.Unlock()
	held.hoard.total -= held.bytes
	held.bytes = 0
}

// receive reads the body of a request into memory.
func (h *hoard) receive(w http.ResponseWriter, r *http.Request) (*holding, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	controller := http.NewResponseController(w)
	held := h.enter(func() { _ = controller.SetReadDeadline(past) }) // of a connection that has ended
	defer held.settle()
	body := http.MaxBytesReader(w, r.Body, maxBody)
	size := int64(firstRead)
	if r.ContentLength >= 0 {
		size = min(r.ContentLength+1, firstRead) // 1: the end of the body is read too
	}
	held.grow(int(size))
	data := make([]byte, 0, size)
	for {
		if len(data) == cap(data) {
			held.grow(cap(data))
			data = append(make([]byte, 0, 2*cap(data)), data...)
		}
		n, err := body.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			r.Body = io.NopCloser(bytes.NewReader(data)) // the server closes the one that it has made
			return held, nil
		}
		if err != nil {
			return held, unreadable(r, err)
		}
	}
}

// answer gives the place of a request back before its answer is written: handlers write when everything else is done.
type answer struct {
	http.ResponseWriter
	lane  *lane // nil: the place was given back
	begun time.Time
	hoard *hoard // nil: the answer takes no memory of its own
}

func (a *answer) release() {
	if a.lane != nil {
		a.lane.leave(time.Since(a.begun))
		a.lane = nil
	}
}

func (a *answer) WriteHeader(status int) {
	a.release()
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	a.release()
	if a.hoard != nil && len(b) >= longAnswer {
		controller := http.NewResponseController(a.ResponseWriter)
		held := a.hoard.enter(func() { _ = controller.SetWriteDeadline(past) }) // of a connection that has ended
		defer held.leave()
		held.grow(len(b))
	}
	return a.ResponseWriter.Write(b)
}

// hold counts what an answer in pieces keeps in memory until its client has read it, from its first piece on; leave follows.
func hold(w http.ResponseWriter, octets int) (leave func()) {
	for {
		switch outer := w.(type) {
		case *answer:
			controller := http.NewResponseController(outer.ResponseWriter)
			held := outer.hoard.enter(func() { _ = controller.SetWriteDeadline(past) }) // of a connection that has ended
			held.grow(octets)
			return held.leave
		case interface{ Unwrap() http.ResponseWriter }:
			w = outer.Unwrap()
		default:
			return func() {}
		}
	}
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
