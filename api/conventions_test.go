package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"signet/api"
	"signet/api/contract"
)

func TestNothingButThePublicRoutesAnswersWithoutAToken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	doc, err := api.Specification()
	if err != nil {
		t.Fatal(err)
	}
	for route, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Security != nil { // open, or open as well
				continue
			}
			// Malformed in every other way too: authentication comes first.
			target := regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(route, "x") + "?limit=-1"
			for _, row := range []struct {
				authorization []string
				want          string
			}{
				{nil, "Not authenticated"},
				{[]string{"Basic cm9vdDpyb290"}, "Not authenticated"},
				{[]string{"Bearer"}, "Could not validate credentials"},
				{[]string{"Bearer "}, "Could not validate credentials"},
				{[]string{"Bearer nonsense"}, "Could not validate credentials"},
				{[]string{"bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290IiwiaWQiOjF9."}, "Could not validate credentials"},
			} {
				a := s.nobody().do(method, target, strings.NewReader("{"), http.Header{"Authorization": row.authorization})
				if a.status != http.StatusUnauthorized || a.detail(t) != row.want {
					t.Errorf("%s %s with %q: %d %s", method, target, row.authorization, a.status, a.body)
				}
			}
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	nobody := newSite(t).nobody()
	for _, row := range []struct {
		method, path string
		status       int
		header, want string // a header of the answer
	}{
		{"GET", "/nothing", 404, "Content-Type", "application/json"},
		{"GET", "/api/v1", 404, "", ""},
		{"GET", "/api/v1/", 404, "", ""},
		{"GET", "/api/v1/nothing/", 404, "", ""},
		{"GET", "//api/v1/cas/", 404, "", ""},
		{"GET", "//evil.example/", 404, "", ""},
		{"GET", "/api/v1/../v1/cas/", 404, "", ""},
		{"GET", "/ca/x-1", 404, "", ""},
		{"GET", "/crl/a%2Fb-1", 404, "", ""},
		{"GET", "/docs/nothing", 404, "", ""},
		{"PUT", "/api/v1/cas/", 405, "Allow", "GET, HEAD, POST"},
		{"OPTIONS", "/api/v1/cas/1", 405, "Allow", "GET, HEAD, DELETE"},
		{"GET", "/api/v1/auth/token", 405, "Allow", "POST"},
		{"BREW", "/healthz", 405, "Allow", "GET, HEAD"},
		{"GET", "/api/v1/cas", 307, "Location", "/api/v1/cas/"},
		{"POST", "/api/v1/certificates?ca_id=1&x=a+b", 307, "Location", "/api/v1/certificates/?ca_id=1&x=a+b"},
		{"GET", "/api/v1/cas/1/", 307, "Location", "/api/v1/cas/1"},
		{"PATCH", "/api/v1/users/1/", 307, "Location", "/api/v1/users/1"},
		{"GET", "/api/v1/cas/1/private-key/", 307, "Location", "/api/v1/cas/1/private-key"},
		{"GET", "/healthz/", 307, "Location", "/healthz"},
		{"GET", "/docs/", 307, "Location", "/docs"},
		{"GET", "/crl/%0d%0aX-Evil:1/", 307, "Location", "/crl/%0D%0AX-Evil:1"},
	} {
		a := nobody.do(row.method, row.path, nil, http.Header{"X-Forwarded-Host": {"evil.example"}})
		if a.status != row.status || row.header != "" && a.header.Get(row.header) != row.want {
			t.Errorf("%s %s: %d, %s %q; want %d, %q", row.method, row.path, a.status, row.header, a.header.Get(row.header), row.status, row.want)
		}
		if a.status == 404 && a.detail(t) != "Not Found" && row.path[:3] != "/cr" {
			t.Errorf("%s %s: %s", row.method, row.path, a.body)
		}
	}
}

func TestEveryGetAnswersHeadWithoutABody(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	for _, path := range []string{"/", "/healthz", "/readyz", "/docs", "/metrics", "/api/v1/openapi.json", "/crl/root-1", "/ca/root-1.pem", "/api/v1/cas/", "/api/v1/users/me", "/api/v1/export/ca/1/certificate"} {
		if a := root.do("HEAD", path, nil, http.Header{}); a.status != http.StatusOK || len(a.body) != 0 {
			t.Errorf("HEAD %s: %d %s", path, a.status, a.body)
		}
	}
}

func TestBodiesBeyondAMebibyteAreRefused(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	big := `{"name":"` + strings.Repeat("a", 1<<20) + `"}`
	for _, path := range []string{"/api/v1/cas/", "/api/v1/users/", "/api/v1/auth/refresh"} {
		if a := root.do("POST", path, strings.NewReader(big), http.Header{"Content-Type": {"application/json"}}); a.status != http.StatusRequestEntityTooLarge {
			t.Errorf("POST %s: %d %.100s", path, a.status, a.body)
		}
	}
	form := "username=a&password=" + strings.Repeat("a", 1<<20)
	if a := root.do("POST", "/api/v1/auth/token", strings.NewReader(form), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("login: %d %.100s", a.status, a.body)
	}
}

func TestTheHostHeaderReachesNoAnswer(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("A", nil)
	root.authority("B", nil)
	for _, path := range []string{"/", "/docs", "/api/v1/cas", "/api/v1/cas/?limit=1", "/api/v1/cas/1", "/nothing"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "evil.example"
		r.Header.Set("Authorization", "Bearer "+root.token)
		w := httptest.NewRecorder()
		root.handler.ServeHTTP(w, r)
		contract.Check(t, r, w.Result())
		if strings.Contains(fmt.Sprint(w.Header(), w.Body), "evil.example") {
			t.Errorf("GET %s: %v %s", path, w.Header(), w.Body)
		}
	}
}

func TestTheAPIPagesNeedNobodyElse(t *testing.T) {
	t.Parallel()
	nobody := newSite(t).nobody()
	page := nobody.call(http.StatusOK, "GET", "/docs", nil)
	if policy := page.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") {
		t.Errorf("policy %q", policy)
	}
	if strings.Contains(string(page.body), "//") {
		t.Errorf("the page names another host: %s", page.body)
	}
	assets := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllSubmatch(page.body, -1)
	if len(assets) != 4 {
		t.Errorf("the page loads %q", assets)
	}
	types := []string{}
	for _, asset := range assets {
		a := nobody.call(http.StatusOK, "GET", string(asset[1]), nil)
		kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
		types = append(types, kind)
		if len(a.body) < 50 {
			t.Errorf("%s has %d octets", asset[1], len(a.body))
		}
	}
	if !slices.Equal(types, []string{"image/png", "text/css", "application/javascript", "text/javascript"}) {
		t.Errorf("the assets are %q", types)
	}
	if script := nobody.call(http.StatusOK, "GET", "/docs/docs.js", nil); !strings.Contains(string(script.body), `"/api/v1/openapi.json"`) {
		t.Errorf("the page shows %s", script.body)
	}
	if o := nobody.get("/api/v1/openapi.json"); o["openapi"] != "3.0.3" {
		t.Errorf("openapi %v", o["openapi"])
	}
}

func TestMetricsCountRoutesAndNotPaths(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.call(http.StatusNotFound, "GET", "/api/v1/cas/4711", nil)
	root.call(http.StatusNotFound, "GET", "/secret/4712", nil)
	text := string(root.call(http.StatusOK, "GET", "/metrics", nil).body)
	for _, want := range []string{
		`signet_http_requests_total{code="404",method="GET",route="/api/v1/cas/{ca_id}"} 1`,
		`signet_http_requests_total{code="404",method="GET",route="unmatched"} 1`,
		`signet_http_request_duration_seconds_count{method="POST",route="/api/v1/auth/token"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("the metrics hold a path")
	}
}

func TestMetricsCanBeElsewhere(t *testing.T) {
	t.Parallel()
	newSite(t, func(c *api.Config) { c.HideMetrics = true }).nobody().call(http.StatusNotFound, "GET", "/metrics", nil)
}

func TestReadinessAndHealth(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if o := s.nobody().get("/readyz"); o["status"] != "ok" {
		t.Errorf("ready: %v", o)
	}
	s.store.Close()
	time.Sleep(1100 * time.Millisecond) // the verdict is remembered for a second
	if a := s.nobody().do("GET", "/readyz", nil, nil); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || a.detail(t) == "" {
		t.Errorf("without a database: %d %s", a.status, a.body)
	}
	if o := s.nobody().get("/healthz"); o["status"] != "ok" {
		t.Errorf("healthy: %v", o)
	}
}

// A client of a raw socket sends what http.Client would not.
func TestAbsoluteAndOddRequestLinesAreHarmless(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, line := range []string{"GET http://evil.example/api/v1/cas HTTP/1.1", "GET /api/v1/cas%2f HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /\x01 HTTP/1.1"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%s\r\nHost: evil.example\r\nConnection: close\r\n\r\n", line)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode >= 500 || strings.Contains(fmt.Sprint(response.Header, string(body)), "evil.example") {
			t.Errorf("%q: %d %v %s", line, response.StatusCode, response.Header, body)
		}
		conn.Close()
	}
}
