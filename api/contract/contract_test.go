package contract

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// good is an answer that the contract allows.
func good(status int, contentType string) *http.Response {
	header := http.Header{"Content-Type": {contentType}, "X-Request-Id": {"1"}, "Cache-Control": {"no-store"}}
	for name, value := range always {
		if value != "" {
			header.Set(name, value)
		}
	}
	return &http.Response{StatusCode: status, Header: header}
}

func TestWhatTheContractDoesNotKnowIsFound(t *testing.T) {
	t.Parallel()
	const organization = `{"id":1,"name":"A","description":null,"created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T03:04:05Z"`
	for _, row := range []struct {
		name, method, path string
		status             int
		body, want         string // "": nothing is wrong
	}{
		{"good", "GET", "/api/v1/organizations/1", 200, organization + `}`, ""},
		{"good refusal", "GET", "/api/v1/organizations/1", 404, `{"detail":"x"}`, ""},
		{"redirect", "GET", "/api/v1/organizations", 307, ``, ""},
		{"unknown path", "GET", "/nothing", 404, `{"detail":"x"}`, ""},
		{"unknown path that works", "GET", "/nothing", 200, `{}`, "does not know this request"},
		{"unknown status", "GET", "/api/v1/organizations/1", 418, `{"detail":"x"}`, "does not know this status"},
		{"unknown field", "GET", "/api/v1/organizations/1", 200, organization + `,"secret":1}`, "does not know the field body.secret"},
		{"missing field", "GET", "/api/v1/organizations/1", 200, `{"id":1}`, `property "name" is missing`},
		{"null", "GET", "/api/v1/organizations/1", 200, strings.Replace(organization, `"A"`, "null", 1) + `}`, "Value is not nullable"},
		{"other zone", "GET", "/api/v1/organizations/1", 200, strings.Replace(organization, "05Z", "05+00:00", 1) + `}`, "is not in UTC"},
		{"no JSON", "GET", "/api/v1/organizations/1", 200, `<html>`, "not JSON"},
		{"text for a list", "GET", "/api/v1/organizations/1", 422, `{"detail":"x"}`, "array"},
		{"missing header", "GET", "/api/v1/organizations/1", 401, `{"detail":"x"}`, "header WWW-Authenticate is missing"},
		{"body where none should be", "DELETE", "/api/v1/organizations/1", 204, `{}`, "body"},
		{"the key of a certificate in a list", "GET", "/api/v1/certificates/", 200, `[{"private_key":"x"}]`, "does not know the field body[0].private_key"},
	} {
		response := good(row.status, "application/json")
		response.Header.Set("X-Total-Count", "1")
		got, err := violations(httptest.NewRequest(row.method, row.path, nil), response, []byte(row.body))
		if err != nil {
			t.Fatal(err)
		}
		if row.want == "" && len(got) > 0 || row.want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, row.want) }) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestHeadersOfEveryAnswerAreWanted(t *testing.T) {
	t.Parallel()
	for name := range always {
		response := good(http.StatusOK, "application/json")
		response.Header.Del(name)
		got, err := violations(httptest.NewRequest("GET", "/healthz", nil), response, []byte(`{"status":"ok"}`))
		if err != nil || len(got) != 1 || !strings.Contains(got[0], name) {
			t.Errorf("without %s: %q, %v", name, got, err)
		}
	}
	html := good(http.StatusOK, "text/html")
	if got, _ := violations(httptest.NewRequest("GET", "/healthz", nil), html, []byte("ok")); len(got) != 1 {
		t.Errorf("HTML for JSON: %q", got)
	}
}
