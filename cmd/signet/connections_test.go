package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// bounded is a server with the limits of signet serve, and a bound of connections.
type bounded struct {
	t        *testing.T
	address  string
	listener *connections
	release  chan struct{} // ends the requests to /busy
	begun    chan struct{} // one for each of them
}

// newBounded serves /healthz, /busy, /long (more than the kernel buffers) and anything else until its client hangs up.
func newBounded(t *testing.T, connections int, change func(*http.Server)) *bounded {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bounded{t: t, address: l.Addr().String(), listener: boundConnections(l, connections),
		release: make(chan struct{}), begun: make(chan struct{}, 1000)}
	server := newHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			b.begun <- struct{}{}
			<-b.release
		case "/long":
			_, _ = w.Write(make([]byte, 64<<20)) // a client that hangs up is expected
		}
	}), slog.New(slog.DiscardHandler))
	if change != nil {
		change(server)
	}
	serving := net.Listener(b.listener)
	if server.TLSConfig != nil {
		serving = tls.NewListener(serving, server.TLSConfig)
	}
	go func() { _ = server.Serve(serving) }() // until it is closed
	t.Cleanup(func() { server.Close() })
	return b
}

// send opens a connection, and writes to it.
func (b *bounded) send(text string) net.Conn {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		b.t.Fatal(err)
	}
	return conn
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

// status reads one answer; 0 when the connection is closed instead.
func status(conn net.Conn) int {
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	return answer.StatusCode
}

func TestAHealthCheckGetsThroughAFloodOfConnections(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, first string }{
		{"that say nothing", ""},
		{"that send the head of a request, slowly", "POST / HTTP/1.1\r\nHost: x\r\nX-"},
		{"that do not read their answer", get("/long")},
		{"that wait between two requests", get("/healthz")},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := newBounded(t, 8, nil)
			busy := b.send(get("/busy"))
			<-b.begun
			for range 100 {
				conn := b.send(row.first)
				if row.first == get("/healthz") && status(conn) != http.StatusOK {
					t.Fatal("a request got no answer")
				}
			}
			if got := status(b.send(get("/healthz"))); got != http.StatusOK {
				t.Errorf("health check: status %d", got)
			}
			if n := b.listener.count(); n > 8 {
				t.Errorf("%d connections are open, want 8 at most", n)
			}
			close(b.release)
			if got := status(busy); got != http.StatusOK {
				t.Errorf("the request that was worked on: status %d", got)
			}
		})
	}
}

func TestWhereAllAreWorkedForANewConnectionIsClosed(t *testing.T) {
	t.Parallel()
	b := newBounded(t, 3, nil)
	var busy []net.Conn
	for range 3 {
		busy = append(busy, b.send(get("/busy")))
		<-b.begun
	}
	if got := status(b.send(get("/healthz"))); got != 0 {
		t.Errorf("the fourth of three: status %d", got)
	}
	if b.listener.closed.Load() != 1 {
		t.Errorf("%d connections counted, want 1", b.listener.closed.Load())
	}
	close(b.release)
	for _, conn := range busy {
		if got := status(conn); got != http.StatusOK {
			t.Errorf("status %d", got)
		}
		conn.Close()
	}
	eventually(t, 10*time.Second, "their room is free", func() bool { return b.listener.count() == 0 })
	if got := status(b.send(get("/healthz"))); got != http.StatusOK {
		t.Errorf("afterwards: status %d", got)
	}
}

func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	b := newBounded(t, 8, func(s *http.Server) { s.ReadHeaderTimeout = 100 * time.Millisecond })
	many := strings.Repeat("X-A: b\r\n", 10_000)
	for name, head := range map[string]string{"many": many, "long": "X-A: " + strings.Repeat("b", 80_000) + "\r\n"} {
		if got := status(b.send("GET /healthz HTTP/1.1\r\nHost: x\r\n" + head + "\r\n")); got != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: status %d, want 431", name, got)
		}
	}
	start := time.Now()
	if got := status(b.send("GET /healthz HTTP/1.1\r\nHost: x\r\nX-")); got == http.StatusOK || time.Since(start) > 20*time.Second {
		t.Errorf("half a head: status %d after %s", got, time.Since(start))
	}
}

// h2 is an HTTP/2 connection of a client that does what clients do not.
type h2 struct {
	*http2.Framer
	conn    net.Conn
	headers []byte // of a GET
}

func (b *bounded) h2(path string, settings *tls.Config) *h2 {
	b.t.Helper()
	settings = settings.Clone()
	settings.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", b.address, settings)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", path}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			b.t.Fatal(err)
		}
		encoder.SetMaxDynamicTableSize(0) // each request is the same octets
	}
	c := &h2{http2.NewFramer(conn, conn), conn, block.Bytes()}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		b.t.Fatal(err)
	}
	if err := c.WriteSettings(); err != nil {
		b.t.Fatal(err)
	}
	return c
}

// open sends the request of a stream.
func (c *h2) open(stream uint32) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.headers, EndHeaders: true, EndStream: true})
}

func TestTheStreamsOfAConnectionAreBounded(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := serverCertificate(t)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	b := newBounded(t, 8, func(s *http.Server) {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	})
	client := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}

	// 1. One connection, more requests at once than it may have: those beyond are refused.
	c := b.h2("/busy", client)
	for i := range uint32(maxStreams + 1) {
		if err := c.open(2*i + 1); err != nil {
			t.Fatal(err)
		}
	}
	refused := 0
	for refused == 0 {
		frame, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.ErrCode == http2.ErrCodeRefusedStream {
			refused++
		}
		if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() {
			if n, _ := settings.Value(http2.SettingMaxConcurrentStreams); n != maxStreams {
				t.Errorf("the server announces %d streams, want %d", n, maxStreams)
			}
		}
	}
	for range maxStreams {
		<-b.begun
	}

	// 2. Streams that are reset as soon as they are opened: the server hangs up, with no more handlers running.
	c = b.h2("/busy", client)
	gone := make(chan error, 1)
	go func() {
		for {
			frame, err := c.ReadFrame()
			if _, away := frame.(*http2.GoAwayFrame); away || err != nil {
				gone <- err
				return
			}
		}
	}()
	for i := range uint32(100 * maxStreams) {
		if err := errors.Join(c.open(2*i+1), c.WriteRSTStream(2*i+1, http2.ErrCodeCancel)); err != nil {
			break // as it should
		}
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("a client may open and reset streams without end")
	}
	if n := len(b.begun); n > maxStreams {
		t.Errorf("%d handlers were started, want %d at most", n, maxStreams)
	}

	// 3. Meanwhile others are answered.
	over := &http.Client{Transport: &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: true}, Timeout: 30 * time.Second}
	response, err := over.Get(fmt.Sprintf("https://%s/healthz", b.address))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		t.Errorf("%s %s", response.Proto, response.Status)
	}
	close(b.release)
}
