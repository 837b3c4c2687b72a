package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// wire is a TCP connection to PostgreSQL that can be cut: then it takes what it is sent and passes nothing on, like a network
// that swallows packets.
type wire struct {
	listener net.Listener
	socket   string // of PostgreSQL
	cut      atomic.Bool
	mu       sync.Mutex
	open     []net.Conn
}

// wireTo returns a wire to a database and its URL through the wire.
func wireTo(t testing.TB, database string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener, socket: u.Query().Get("host") + "/.s.PGSQL.5432"}
	t.Cleanup(w.close)
	go w.accept()
	u.Host, u.RawQuery = listener.Addr().String(), "sslmode=disable"
	return w, u.String()
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", w.socket)
		if err != nil {
			near.Close()
			continue
		}
		w.mu.Lock()
		w.open = append(w.open, near, far)
		w.mu.Unlock()
		go w.pass(near, far)
		go w.pass(far, near)
	}
}

func (w *wire) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if w.cut.Load() {
			_, _ = io.Copy(io.Discard, from) // until somebody hangs up
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// heal ends the connections of the time of the cut; new ones work.
func (w *wire) heal() {
	w.cut.Store(false)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		c.Close()
	}
	w.open = nil
}

func (w *wire) close() {
	w.listener.Close()
	w.heal()
}

// balancer is a reverse proxy that asks replicas in turn, and the next one when nobody listens.
type balancer struct {
	url      string
	replicas []*atomic.Pointer[url.URL]
	turn     atomic.Int64
}

func balance(t testing.TB, all []*running) *balancer {
	t.Helper()
	b := &balancer{}
	for _, r := range all {
		b.replicas = append(b.replicas, &atomic.Pointer[url.URL]{})
		b.point(len(b.replicas)-1, r)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // a client of the test says who it is
		},
		Transport:    b,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// point tells where a replica is now.
func (b *balancer) point(i int, r *running) {
	u, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	b.replicas[i].Store(u)
}

// RoundTrip implements [http.RoundTripper]. What may have reached a replica is not sent to another one.
func (b *balancer) RoundTrip(r *http.Request) (response *http.Response, err error) {
	var body []byte
	if r.Body != nil {
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	for range b.replicas {
		u := b.replicas[b.turn.Add(1)%int64(len(b.replicas))].Load()
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.Host = u.Scheme, u.Host, ""
		out.Body = io.NopCloser(bytes.NewReader(body))
		response, err = http.DefaultTransport.RoundTrip(out)
		var refused *net.OpError
		if err == nil || !errors.As(err, &refused) || refused.Op != "dial" {
			break
		}
	}
	return response, err
}

// visitor is a client with an address and tokens of its own, behind the balancer or in front of a replica.
type visitor struct {
	url, address    string
	access, refresh string
}

var visits = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// ask returns status 0 when there was no whole answer. A body that is url.Values is a form, others are JSON.
func (v *visitor) ask(method, path string, body any) (status int, answer object, header http.Header) {
	kind, data := "application/json", []byte(nil)
	switch body := body.(type) {
	case nil:
	case url.Values:
		kind, data = "application/x-www-form-urlencoded", []byte(body.Encode())
	default:
		data, _ = json.Marshal(body)
	}
	request, err := http.NewRequest(method, v.url+path, bytes.NewReader(data))
	if err != nil {
		return 0, nil, nil
	}
	request.Header.Set("Content-Type", kind)
	request.Header.Set("X-Forwarded-For", v.address)
	if v.access != "" {
		request.Header.Set("Authorization", "Bearer "+v.access)
	}
	response, err := visits.Do(request)
	if err != nil {
		return 0, nil, nil
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || len(text) > 0 && text[0] == '{' && json.Unmarshal(text, &answer) != nil {
		return 0, nil, nil
	}
	return response.StatusCode, answer, response.Header
}

func (v *visitor) login(username, password string) int {
	status, tokens, _ := (&visitor{url: v.url, address: v.address}).ask("POST", "/api/v1/auth/token",
		url.Values{"username": {username}, "password": {password}})
	return v.take(status, tokens)
}

// renew uses the refresh token up.
func (v *visitor) renew() int {
	status, tokens, _ := (&visitor{url: v.url, address: v.address}).ask("POST", "/api/v1/auth/refresh", object{"refresh_token": v.refresh})
	return v.take(status, tokens)
}

func (v *visitor) take(status int, tokens object) int {
	if status == http.StatusOK {
		v.access, v.refresh = tokens["access_token"].(string), tokens["refresh_token"].(string)
	}
	return status
}
