package api_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/api"
)

// BenchmarkFleet compares what relying parties ask all the time with a static file of the same size from the same server, at
// 32 clients on loopback that cost as little as they can. The log is on, as in production.
func BenchmarkFleet(b *testing.B) {
	log, err := os.Create(b.TempDir() + "/log")
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	root := withRoot(b, func(c *api.Config) { c.Logger = slog.New(slog.NewJSONHandler(log, nil)) })
	authority := root.authority("Root", nil)
	s := root.status(authority, "a.example.com")
	ctx, stop := context.WithCancel(b.Context())
	var background sync.WaitGroup
	background.Go(func() { root.ca.Run(ctx) })
	defer background.Wait()
	defer stop()
	list := fmt.Sprintf("/crl/root-%d", idOf(authority))
	answer := root.ask(s).body
	crl := root.nobody().call(http.StatusOK, "GET", list, nil).body

	modified := time.Now()
	static := func(data []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "static.der", modified, bytes.NewReader(data))
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/", root.handler)
	mux.Handle("/static/answer", static(answer))
	mux.Handle("/static/crl", static(crl))
	server := httptest.NewServer(mux)
	defer server.Close()
	address := server.Listener.Addr().String()
	post := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: pki.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s",
		s.path, len(s.request), s.request)
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: pki.example\r\n\r\n" }
	for _, row := range []struct{ name, request string }{
		{"static answer", get("/static/answer")},
		{"OCSP GET", get(s.get())},
		{"OCSP POST", post},
		{"static CRL", get("/static/crl")},
		{"CRL", get(list)},
	} {
		b.Run(row.name, func(b *testing.B) { load(b, address, row.request, 32) })
	}
}

// load sends b.N requests over so many connections.
func load(b *testing.B, address, request string, clients int) {
	var left atomic.Int64
	left.Store(int64(b.N))
	failed := make(chan error, clients)
	b.ResetTimer()
	for range clients {
		go func() {
			failed <- func() error {
				c, err := net.Dial("tcp", address)
				if err != nil {
					return err
				}
				defer c.Close()
				r := bufio.NewReader(c)
				for left.Add(-1) >= 0 {
					if _, err := io.WriteString(c, request); err != nil {
						return err
					}
					if err := skip(r); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range clients {
		if err := <-failed; err != nil {
			b.Error(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// skip reads an answer with status 200 and a Content-Length.
func skip(r *bufio.Reader) error {
	length := -1
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if n == 0 && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("answered %q", line)
		}
		if len(line) == 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if _, err := fmt.Sscanf(string(value), "%d", &length); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("no Content-Length")
	}
	_, err := r.Discard(length)
	return err
}
