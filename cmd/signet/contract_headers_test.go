package main

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func unknownRoutes(t *testing.T, w *world) {
	for _, p := range []party{w.nobody(t), w.root(t)} {
		for _, path := range []string{"/nothing", "/api", "/api/v1", "/api/v2/cas/", "/api/v1/nothing", "/api/v1/cas/1/nothing", "/crl", "/favicon.ico"} {
			a := p.ask("GET", path, nil).refused(http.StatusNotFound, "Not Found")
			equal(t, path, strings.TrimSpace(string(a.body)), `{"detail":"Not Found"}`)
		}
	}
}

func wrongMethods(t *testing.T, w *world) {
	for _, c := range []struct {
		method, path string
		allow        []string
	}{
		{"DELETE", "/api/v1/cas/", []string{"GET", "POST"}},
		{"PUT", "/api/v1/cas/1", []string{"DELETE", "GET"}},
		{"GET", "/api/v1/auth/refresh", []string{"POST"}},
		{"PATCH", "/api/v1/certificates/1/revoke", []string{"POST"}},
		{"POST", "/api/v1/users/1", []string{"DELETE", "GET", "PATCH"}},
		{"GET", "/api/v1/auth/token", []string{"POST"}},
		{"POST", "/healthz", []string{"GET"}},
		{"POST", "/crl/x-1", []string{"GET"}},
	} {
		a := w.root(t).ask(c.method, c.path, nil).refused(http.StatusMethodNotAllowed, "Method Not Allowed")
		var allowed []string
		for method := range strings.SplitSeq(a.header.Get("Allow"), ",") {
			if method = strings.TrimSpace(method); method != "HEAD" && method != "OPTIONS" {
				allowed = append(allowed, method)
			}
		}
		slices.Sort(allowed)
		equalSlices(t, a.request+" Allow", allowed, c.allow)
	}
}

func redirects(t *testing.T, w *world) {
	for _, c := range []struct{ method, from, to string }{
		{"GET", "/api/v1/cas?skip=1&limit=2", "/api/v1/cas/?skip=1&limit=2"},
		{"POST", "/api/v1/cas", "/api/v1/cas/"},
		{"POST", "/api/v1/certificates?ca_id=7", "/api/v1/certificates/?ca_id=7"},
		{"POST", "/api/v1/users", "/api/v1/users/"},
		{"GET", "/api/v1/organizations", "/api/v1/organizations/"},
		{"GET", "/api/v1/audit-logs?action=ca_create", "/api/v1/audit-logs/?action=ca_create"},
		{"GET", "/api/v1/cas/1/", "/api/v1/cas/1"},
		{"GET", "/api/v1/certificates/1/?x=y", "/api/v1/certificates/1?x=y"},
		{"GET", "/api/v1/users/me/", "/api/v1/users/me"},
		{"POST", "/api/v1/certificates/sign-csr/", "/api/v1/certificates/sign-csr"},
		{"POST", "/api/v1/auth/token/", "/api/v1/auth/token"},
	} {
		a := w.root(t).ask(c.method, c.from, nil).want(http.StatusTemporaryRedirect)
		location, err := url.Parse(a.header.Get("Location"))
		if err != nil {
			t.Errorf("%s: Location: %v", a.request, err)
			continue
		}
		equal(t, a.request, location.RequestURI(), c.to)
	}
	evil := w.root(t).ask("GET", "/api/v1/cas", nil, header("Host", "evil.example"))
	if location := evil.header.Get("Location"); strings.HasPrefix(location, "//") {
		t.Errorf("the redirect leads to another host: %q", location)
	}
	w.root(t).ask("GET", "//evil.example/api/v1/cas", nil).want(http.StatusNotFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect, http.StatusMovedPermanently)
}

func securityHeaders(t *testing.T, w *world) {
	root, nobody := w.root(t), w.nobody(t)
	authority := root.ca(w.unique("headers"), nil).want(http.StatusCreated)
	leaf := root.issue(authority.id(), "headers.example", "server", nil)
	for _, a := range []answer{
		authority, leaf, root.ask("GET", "/api/v1/cas/", nil), root.ask("GET", "/api/v1/cas", nil),
		nobody.ask("GET", "/api/v1/cas/", nil), root.ask("GET", "/api/v1/cas/999999", nil), root.ask("GET", "/api/v1/cas/x", nil),
		nobody.ask("GET", "/nothing", nil), root.ask("DELETE", "/api/v1/cas/", nil), nobody.ask("GET", "/", nil),
		nobody.ask("GET", "/healthz", nil), nobody.ask("GET", "/readyz", nil), nobody.ask("GET", "/metrics", nil),
		nobody.ask("GET", "/docs", nil), nobody.ask("GET", "/api/v1/openapi.json", nil), nobody.ask("GET", "/crl/nothing-1", nil),
		root.ask("GET", fmt.Sprintf("/api/v1/export/certificate/%d", leaf.id()), nil),
		root.ask("GET", fmt.Sprintf("/api/v1/export/certificate/%d/private-key", leaf.id()), nil),
		nobody.ask("POST", "/api/v1/auth/token", url.Values{"username": {rootName}, "password": {rootPassword}}),
		nobody.ask("POST", "/api/v1/auth/token", url.Values{"username": {rootName}, "password": {"wrong"}}),
	} {
		commonHeaders(t, a)
		equal(t, a.request+" Cache-Control", a.header.Get("Cache-Control"), "no-store")
	}
	for _, path := range []string{"/crl/" + slugOf(authority), "/crl/" + slugOf(authority) + ".pem", "/ca/" + slugOf(authority) + ".crt", "/ca/" + slugOf(authority) + ".pem"} {
		a := nobody.ask("GET", path, nil).want(http.StatusOK)
		commonHeaders(t, a)
		if control := a.header.Get("Cache-Control"); strings.Contains(control, "no-store") || !strings.Contains(control, "max-age=") {
			t.Errorf("%s: Cache-Control %q is not cacheable", a.request, control)
		}
	}
}

func commonHeaders(t *testing.T, a answer) {
	t.Helper()
	for name, value := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "", "Strict-Transport-Security": "",
	} {
		if got := a.header.Get(name); got == "" || value != "" && got != value {
			t.Errorf("%s: %s is %q, want %q", a.request, name, got, value)
		}
	}
}

var timestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`)

func timestampsEndInZ(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("time"), nil).want(http.StatusCreated)
	leaf := root.issue(authority.id(), "time.example", "server", nil).want(http.StatusCreated)
	revoked := root.revoke(leaf.id(), "").want(http.StatusOK)
	for _, a := range []answer{authority, leaf, revoked, root.ask("GET", "/api/v1/users/me", nil),
		root.ask("GET", fmt.Sprintf("/api/v1/organizations/%d", w.organization(t)), nil)} {
		found := 0
		for name, value := range a.object() {
			if !strings.HasSuffix(name, "_at") && !strings.HasPrefix(name, "not_") || value == nil {
				continue
			}
			found++
			if text, _ := value.(string); !timestamp.MatchString(text) {
				t.Errorf("%s: %s is %v", a.request, name, value)
			}
		}
		if found < 2 {
			t.Errorf("%s: only %d timestamps in %s", a.request, found, a.body)
		}
	}
	at, err := time.Parse(time.RFC3339, revoked.object()["revoked_at"].(string))
	if err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("revoked_at is %v (%v), which is not now", at, err)
	}
}

func openPages(t *testing.T, w *world) {
	nobody := w.nobody(t)
	for path, kind := range map[string]string{
		"/": "application/json", "/healthz": "application/json", "/readyz": "application/json", "/metrics": "text/plain",
		"/api/v1/openapi.json": "application/json", "/docs": "text/html",
	} {
		a := nobody.ask("GET", path, nil).want(http.StatusOK)
		if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, kind) {
			t.Errorf("%s: Content-Type %q, want %s", path, got, kind)
		}
	}
	if page := string(nobody.ask("GET", "/docs", nil).body); regexp.MustCompile(`(src|href)="(https?:)?//`).MatchString(page) {
		t.Error("the docs page loads assets from elsewhere")
	}
	description := nobody.ask("GET", "/api/v1/openapi.json", nil).object()["paths"].(map[string]any)
	for _, c := range calls {
		path := strings.ReplaceAll(strings.Split(c.path, "?")[0], "999999", "{id}")
		if !slices.ContainsFunc(fields(description), func(p string) bool { return regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(p, "{id}") == path }) {
			t.Errorf("the OpenAPI document does not describe %s", path)
		}
	}
	metrics := string(nobody.ask("GET", "/metrics", nil).body)
	for _, name := range []string{"signet_certificates_issued_total", "signet_token_operations_total", "signet_token_operation_seconds", "signet_database_seconds"} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	if n, err := strconv.Atoi(nobody.ask("GET", "/healthz", nil).header.Get("Content-Length")); err != nil || n == 0 {
		t.Errorf("Content-Length of /healthz: %d, %v", n, err)
	}
}
