package main

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
)

// connections bounds the connections of a listener, so that a flood leaves file descriptors and memory to the rest of the
// server. Who is new wins: when there are too many, or no file descriptor is left, the one is closed whose client has
// been waited for longest, for a request or to read its answer. A connection whose request is worked on is never closed, so a health check gets
// through any number of connections that only stand there.
type connections struct {
	net.Listener
	max    int
	closed atomic.Int64 // for want of room: those that were waited for, and new ones when there were none

	mu      sync.Mutex
	open    int
	waiting *list.List // of *connection, longest first
}

// connection is one connection of a bounded listener.
type connection struct {
	net.Conn
	owner *connections

	// guarded by owner.mu
	requests int           // that are worked on; several only with HTTP/2
	writes   int           // that wait for the client
	place    *list.Element // in owner.waiting
	gone     bool
}

func boundConnections(l net.Listener, max int) *connections {
	return &connections{Listener: l, max: max, waiting: list.New()}
}

// Accept returns the next connection for which there is room.
func (l *connections) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)) && l.makeRoom() {
			continue // with the file descriptor of the one that was closed
		}
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: conn, owner: l}
		if l.admit(c) {
			return c, nil
		}
		l.closed.Add(1)
		_ = conn.Close() // a stranger's
	}
}

// admit counts a connection, and makes room for it; false when all others are worked for.
func (l *connections) admit(c *connection) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.max && !l.closeLongest() {
		return false
	}
	l.open++
	c.sort()
	return true
}

// makeRoom closes a connection though there are fewer than the bound; false when all are worked for.
func (l *connections) makeRoom() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closeLongest()
}

// closeLongest closes the connection whose client has been waited for longest; false when there is none. l is locked.
func (l *connections) closeLongest() bool {
	longest := l.waiting.Front()
	if longest == nil {
		return false
	}
	victim := longest.Value.(*connection)
	victim.forget()
	l.closed.Add(1)
	_ = victim.Conn.Close() // a stranger's
	return true
}

// count is the number of connections that are open.
func (l *connections) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// forget takes the connection out of the count. The owner is locked.
func (c *connection) forget() {
	if c.gone {
		return
	}
	c.gone = true
	c.owner.open--
	c.sort()
}

// sort puts the connection at the end of those that wait for their client, or out of them. The owner is locked.
func (c *connection) sort() {
	waits := !c.gone && (c.requests == 0 || c.writes > 0)
	switch {
	case waits && c.place == nil:
		c.place = c.owner.waiting.PushBack(c)
	case !waits && c.place != nil:
		c.owner.waiting.Remove(c.place)
		c.place = nil
	}
}

// change counts requests and writes.
func (c *connection) change(requests, writes int) {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	c.requests += requests
	c.writes += writes
	c.sort()
}

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	c.change(0, 1)
	defer c.change(0, -1)
	return c.Conn.Write(b)
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.owner.mu.Lock()
	c.forget()
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

type connectionKey struct{}

// bind lets requests find their connection, for a http.Server.
func bind(ctx context.Context, c net.Conn) context.Context {
	if secured, ok := c.(*tls.Conn); ok {
		c = secured.NetConn()
	}
	if known, ok := c.(*connection); ok {
		return context.WithValue(ctx, connectionKey{}, known)
	}
	return ctx
}

// working marks the connection of each request as worked for.
func working(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
			c.change(1, 0)
			defer c.change(-1, 0)
		}
		next.ServeHTTP(w, r)
	})
}
