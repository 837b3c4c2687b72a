package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet/api"
)

// send opens a connection to a server and writes to it.
func send(t *testing.T, server *httptest.Server, format string, a ...any) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, format, a...); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// statusOf reads the next answer.
func statusOf(t *testing.T, in *bufio.Reader) int {
	t.Helper()
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}

// served is a server of its own for the handler of a site.
func served(t *testing.T, root *caller) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(root.handler)
	t.Cleanup(server.Close)
	return server
}

func TestABodyOnItsWayTakesNobodysPlace(t *testing.T) {
	t.Parallel()
	root := withRoot(t, func(c *api.Config) { c.MaxIssuing = 1 })
	authority := idOf(root.authority("Root", nil))
	server := served(t, root)
	body := `{"common_name": "a.example.com", "subject_dn": "CN=a.example.com", "certificate_type": "server", "key_type": "ec"}`
	var slow []net.Conn
	var answers []*bufio.Reader
	for range 20 {
		conn, in := send(t, server, "POST /api/v1/certificates/?ca_id=%d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
			authority, root.token, len(body), body[:10])
		slow, answers = append(slow, conn), append(answers, in)
	}
	for range 3 {
		root.certificate(authority, "b.example.com", nil)
	}
	for i, conn := range slow[:3] {
		if _, err := io.WriteString(conn, body[10:]); err != nil {
			t.Fatal(err)
		}
		if got := statusOf(t, answers[i]); got != http.StatusCreated {
			t.Errorf("a body that came slowly: status %d", got)
		}
	}
}

func TestABodyThatIsTooLargeIsRefusedUnread(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	server := served(t, root)
	for _, path := range []string{"/api/v1/auth/token", "/api/v1/certificates/sign-csr", "/api/v1/cas/"} {
		_, in := send(t, server, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path, 1<<20+1)
		if got := statusOf(t, in); got != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: status %d before the body, want 413", path, got)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("%s: the connection stays open for a body that nobody reads: %v", path, err)
		}
	}
	// Without a length it is read as far as it may go.
	conn, in := send(t, server, "POST /api/v1/cas/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n", root.token)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<16, strings.Repeat(" ", 1<<16))
	go func() {
		for range 17 {
			if _, err := io.WriteString(conn, chunk); err != nil {
				return // the server has hung up, as it should
			}
		}
	}()
	if got := statusOf(t, in); got != http.StatusRequestEntityTooLarge {
		t.Errorf("in chunks: status %d, want 413", got)
	}
}

func TestLoginsHaveACapacityOfTheirOwn(t *testing.T) {
	t.Parallel()
	root := withRoot(t, func(c *api.Config) { c.MaxIssuing = 1 })
	authority := idOf(root.authority("Root", nil))
	server := served(t, root)
	form := "username=root&password=wrong"
	refused, denied := 0, 0
	answers := make(chan *http.Response, 400)
	for range cap(answers) {
		go func() {
			r, err := http.Post(server.URL+"/api/v1/auth/token", "application/x-www-form-urlencoded", strings.NewReader(form))
			if err != nil {
				t.Error(err)
			}
			answers <- r
		}()
	}
	root.certificate(authority, "b.example.com", nil)
	for range cap(answers) {
		r := <-answers
		if r == nil {
			continue
		}
		r.Body.Close()
		switch seconds, _ := strconv.Atoi(r.Header.Get("Retry-After")); r.StatusCode {
		case http.StatusUnauthorized:
			denied++
		case http.StatusServiceUnavailable:
			refused++
			if seconds < 1 || seconds > 3 || r.Header.Get("X-Request-ID") == "" || r.Header.Get("X-Frame-Options") != "DENY" {
				t.Errorf("headers of a refusal: %v", r.Header)
			}
		default:
			t.Errorf("status %d", r.StatusCode)
		}
	}
	if denied == 0 {
		t.Error("nobody was heard")
	}
	t.Logf("%d heard, %d refused", denied, refused)
}
