package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"signet/fault"
)

// answering runs one handler as if it were a route, and returns what it answered and what it logged.
func answering(t *testing.T, r *http.Request, h handler) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var log bytes.Buffer
	s := &server{log: slog.New(slog.NewTextHandler(&log, nil))}
	w := httptest.NewRecorder()
	s.observe(s.serve("/test", operation{}, h)).ServeHTTP(w, r)
	return w, log.String()
}

func TestEveryKindOfFailureHasItsStatus(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err    error
		status int
		header string
		body   string
		level  string
	}{
		{fault.New(fault.Invalid, "no"), 400, "", `{"detail":"no"}`, "INFO"},
		{fault.New(fault.Unauthenticated, "who"), 401, "WWW-Authenticate: Bearer", `{"detail":"who"}`, "INFO"},
		{fault.New(fault.Forbidden, "no"), 403, "", `{"detail":"no"}`, "INFO"},
		{fmt.Errorf("find CA: %w", fault.New(fault.NotFound, "CA not found")), 404, "", `{"detail":"CA not found"}`, "INFO"},
		{fault.New(fault.Conflict, "twice"), 409, "", `{"detail":"twice"}`, "INFO"},
		{fault.New(fault.Unprocessable, "odd"), 422, "", `{"detail":[{"type":"value_error","loc":["body"],"msg":"odd","input":null}]}`, "INFO"},
		{&fault.Error{Code: fault.RateLimited, Message: "slow", RetryAfter: 1500 * time.Millisecond}, 429, "Retry-After: 2", `{"detail":"slow"}`, "INFO"},
		{&fault.Error{Code: fault.RateLimited, Message: "slow"}, 429, "Retry-After: 1", `{"detail":"slow"}`, "INFO"},
		{fault.Wrap(fault.Unavailable, "away", errors.New("dial tcp")), 503, "Retry-After: 1", `{"detail":"away"}`, "WARN"},
		{context.DeadlineExceeded, 503, "Retry-After: 1", `{"detail":"The server took too long"}`, "WARN"},
		{fault.Wrap(fault.Internal, "table users", errors.New("SQL")), 500, "", `{"detail":"Internal Server Error"}`, "ERROR"},
		{fault.New("unheard of", "detail"), 500, "", `{"detail":"Internal Server Error"}`, "ERROR"},
		{errors.New("SQL: constraint"), 500, "", `{"detail":"Internal Server Error"}`, "ERROR"},
		{fmt.Errorf("read: %w", &http.MaxBytesError{}), 413, "", `{"detail":"Request body too large"}`, "INFO"},
	} {
		w, log := answering(t, httptest.NewRequest("GET", "/test", nil), func(http.ResponseWriter, *request) error { return row.err })
		if w.Code != row.status || strings.TrimSpace(w.Body.String()) != row.body {
			t.Errorf("%v: answered %d %s", row.err, w.Code, w.Body)
		}
		if name, value, ok := strings.Cut(row.header, ": "); ok && w.Header().Get(name) != value {
			t.Errorf("%v: header %s is %q", row.err, name, w.Header().Get(name))
		}
		if !strings.Contains(log, "level="+row.level) || !strings.Contains(log, strings.Split(row.err.Error(), ":")[0]) {
			t.Errorf("%v: logged %s", row.err, log)
		}
	}
}

func TestAPanicIsAnInternalErrorAndIsLogged(t *testing.T) {
	t.Parallel()
	w, log := answering(t, httptest.NewRequest("GET", "/test", nil), func(http.ResponseWriter, *request) error { panic("secret state") })
	if w.Code != 500 || strings.TrimSpace(w.Body.String()) != `{"detail":"Internal Server Error"}` || w.Header().Get("X-Frame-Options") != "DENY" {
		t.Errorf("answered %d %s %v", w.Code, w.Body, w.Header())
	}
	if !strings.Contains(log, "secret state") || !strings.Contains(log, "observe_test.go") || !strings.Contains(log, "level=ERROR") {
		t.Errorf("logged %s", log)
	}
}

func TestAPanicInTheMiddleOfAnAnswerCutsItOff(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("half an answer looks like a whole one")
		}
	}()
	answering(t, httptest.NewRequest("GET", "/test", nil), func(w http.ResponseWriter, _ *request) error {
		_, _ = w.Write([]byte("half"))
		panic("now")
	})
}

func TestAClientThatHungUpIsNoServerError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest("GET", "/test", nil).WithContext(ctx)
	w, log := answering(t, r, func(_ http.ResponseWriter, r *request) error {
		return fault.Wrap(fault.Unavailable, "the database does not answer", r.Context().Err())
	})
	if w.Code != 499 || !strings.Contains(log, "status=499") || !strings.Contains(log, "level=INFO") {
		t.Errorf("logged %s", log)
	}
}

func TestTheLogHoldsTheRouteAndNoSecret(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/test?token=hunter1", strings.NewReader("hunter2"))
	r.Header.Set("Authorization", "Bearer hunter3")
	r.Header.Set("X-Request-ID", "id-7")
	w, log := answering(t, r, func(w http.ResponseWriter, _ *request) error { return noContent(w) })
	if strings.Contains(log, "hunter") || !strings.Contains(log, "route=/test ") || !strings.Contains(log, "request_id=id-7") {
		t.Errorf("logged %s", log)
	}
	if w.Header().Get("X-Request-ID") != "id-7" {
		t.Errorf("request id %q", w.Header().Get("X-Request-ID"))
	}
}

func TestOddRequestIDsAreReplaced(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "a b", "a\nb", "ü", strings.Repeat("a", 65), `"`} {
		r := httptest.NewRequest("GET", "/test", nil)
		r.Header["X-Request-Id"] = []string{id}
		w, _ := answering(t, r, func(w http.ResponseWriter, _ *request) error { return noContent(w) })
		if got := w.Header().Get("X-Request-ID"); got == id || len(got) != 32 {
			t.Errorf("request id %q becomes %q", id, got)
		}
	}
}

func TestOnlySomebodyOnThisMachineIsLocal(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, remote, host string
		header             http.Header
		want               bool
	}{
		{"curl on this machine", "127.0.0.1:5000", "localhost:8000", nil, true},
		{"by number", "127.0.0.1:5000", "127.0.0.1:8000", nil, true},
		{"IPv6", "[::1]:5000", "[::1]:8000", nil, true},
		{"mapped", "[::ffff:127.0.0.1]:5000", "localhost", nil, true},
		{"the API pages", "127.0.0.1:5000", "localhost:8000", http.Header{"Origin": {"http://localhost:8000"}, "Sec-Fetch-Site": {"same-origin"}}, true},
		{"somebody else", "192.0.2.1:5000", "localhost:8000", nil, false},
		{"no address", "", "localhost:8000", nil, false},
		{"a proxy on this machine", "127.0.0.1:5000", "localhost:8000", http.Header{"X-Forwarded-For": {"192.0.2.1"}}, false},
		{"a proxy that says so otherwise", "127.0.0.1:5000", "localhost:8000", http.Header{"Forwarded": {"for=127.0.0.1"}}, false},
		{"a proxy that says nothing in a header", "127.0.0.1:5000", "localhost:8000", http.Header{"X-Real-Ip": {""}}, false},
		{"a proxy that keeps the host", "127.0.0.1:5000", "pki.example", nil, false},
		{"a page of another site", "127.0.0.1:5000", "localhost:8000", http.Header{"Origin": {"https://evil.example"}}, false},
		{"a sandboxed page", "127.0.0.1:5000", "localhost:8000", http.Header{"Origin": {"null"}}, false},
		{"a cross-site request", "127.0.0.1:5000", "localhost:8000", http.Header{"Sec-Fetch-Site": {"cross-site"}}, false},
		{"another server on this machine", "127.0.0.1:5000", "localhost:8000", http.Header{"Origin": {"http://localhost:3000"}}, false},
		{"a name that was made to resolve here", "127.0.0.1:5000", "evil.example:8000", http.Header{"Origin": {"http://evil.example:8000"}}, false},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.RemoteAddr, r.Host = row.remote, row.host
		if row.header != nil {
			r.Header = row.header
		}
		if got := isLocal(r); got != row.want {
			t.Errorf("%s: isLocal is %t", row.name, got)
		}
	}
}

func TestReadinessAsksOnceASecond(t *testing.T) {
	t.Parallel()
	asked := 0
	r := newReadiness(func(context.Context) error { asked++; return errors.New("dial tcp") })
	for range 5 {
		var f *fault.Error
		if err := r.check(t.Context()); !errors.As(err, &f) || f.Code != fault.Unavailable || f.Message != "The server is not ready" {
			t.Fatalf("verdict %v", err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	r.at = time.Now().Add(-2 * readyFor)
	if _ = r.check(t.Context()); asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}
