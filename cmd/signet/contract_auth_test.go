package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestContractConventions(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"every call without a bearer token is 401 Not authenticated", everyCallNeedsABearer},
		{"a bad, foreign or malformed token is 401 Could not validate credentials", badTokensAreRefused},
		{"authentication is checked before validation", authenticationBeforeValidation},
		{"validation is checked before existence and permission", validationBeforeExistence},
		{"object existence (404) comes before permission (403 Insufficient permissions)", existenceBeforePermission},
		{"a missing field is 422 missing, Field required", missingFields},
		{"a path id that is no integer is 422 int_parsing, at path", pathIDs},
		{"a query that is no integer is 422 int_parsing, at query", queryNumbers},
		{"ids beyond 64 bits are 422 or 404", idsBeyond64Bits},
		{"malformed JSON is 422 and never 500", malformedJSON},
		{"a validation error never repeats a password", validationHidesSecrets},
		{"unknown fields are ignored", unknownFieldsAreIgnored},
		{"numeric strings are accepted as integers", numericStrings},
		{"an unknown route is 404 Not Found", unknownRoutes},
		{"a wrong method is 405 with Allow", wrongMethods},
		{"a collection without its slash, or an item with one, redirects 307 and keeps the query", redirects},
		{"the security headers are on every answer", securityHeaders},
		{"timestamps are RFC 3339 UTC with Z", timestampsEndInZ},
		{"health, readiness, metrics, OpenAPI and the docs page need no authentication", openPages},
	})
}

// calls is one request for every authenticated route, with path ids that do not exist.
var calls = []struct{ method, path string }{
	{"POST", "/api/v1/auth/logout"}, {"POST", "/api/v1/auth/invalidate"},
	{"GET", "/api/v1/users/"}, {"GET", "/api/v1/users/me"}, {"GET", "/api/v1/users/999999"},
	{"PATCH", "/api/v1/users/999999"}, {"DELETE", "/api/v1/users/999999"},
	{"GET", "/api/v1/organizations/"}, {"POST", "/api/v1/organizations/"}, {"GET", "/api/v1/organizations/999999"},
	{"PUT", "/api/v1/organizations/999999"}, {"DELETE", "/api/v1/organizations/999999"},
	{"GET", "/api/v1/organizations/999999/users"}, {"POST", "/api/v1/organizations/999999/users/999999"},
	{"DELETE", "/api/v1/organizations/999999/users/999999"},
	{"GET", "/api/v1/cas/"}, {"POST", "/api/v1/cas/"}, {"GET", "/api/v1/cas/999999"}, {"DELETE", "/api/v1/cas/999999"},
	{"GET", "/api/v1/cas/999999/chain"}, {"GET", "/api/v1/cas/999999/children"}, {"GET", "/api/v1/cas/999999/private-key"},
	{"POST", "/api/v1/cas/999999/revoke"},
	{"GET", "/api/v1/certificates/"}, {"POST", "/api/v1/certificates/?ca_id=999999"}, {"POST", "/api/v1/certificates/sign-csr"},
	{"GET", "/api/v1/certificates/999999"}, {"GET", "/api/v1/certificates/999999/private-key"},
	{"POST", "/api/v1/certificates/999999/revoke"},
	{"GET", "/api/v1/export/ca/999999/certificate"}, {"GET", "/api/v1/export/ca/999999/private-key"},
	{"GET", "/api/v1/export/certificate/999999"}, {"GET", "/api/v1/export/certificate/999999/private-key"},
	{"GET", "/api/v1/export/certificate/999999/chain"}, {"GET", "/api/v1/audit-logs/"},
}

func everyCallNeedsABearer(t *testing.T, w *world) {
	for _, c := range calls {
		for _, scheme := range []string{"", "Basic cm9vdDpyb290", "Token x"} {
			a := w.nobody(t).ask(c.method, c.path, nil, header("Authorization", scheme)).refused(http.StatusUnauthorized, "Not authenticated")
			equal(t, "WWW-Authenticate", a.header.Get("WWW-Authenticate"), "Bearer")
		}
	}
}

func badTokensAreRefused(t *testing.T, w *world) {
	p := w.member(t, "user", 0, nil)
	parts := strings.Split(p.access, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	other, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	forged := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(other), `"user"`, `"superuser"`, 1)))
	for name, token := range map[string]string{
		"garbage":                        "garbage",
		"a refresh token":                p.refresh,
		"no signature":                   parts[0] + "." + parts[1] + ".",
		"algorithm none":                 none + "." + parts[1] + ".",
		"algorithm none, old signature":  none + "." + parts[1] + "." + parts[2],
		"claims that were changed":       parts[0] + "." + forged + "." + parts[2],
		"a token with a byte cut off":    p.access[:len(p.access)-1],
		"a token with something behind":  p.access + "x",
		"an empty token of three pieces": "..",
		"a token with a space in it":     p.access + " " + p.access,
	} {
		t.Run(name, func(t *testing.T) {
			nobody := w.nobody(t)
			nobody.access = token
			for _, path := range []string{"/api/v1/users/me", "/api/v1/cas/", "/api/v1/certificates/1"} {
				a := nobody.ask("GET", path, nil).refused(http.StatusUnauthorized, "Could not validate credentials")
				equal(t, "WWW-Authenticate", a.header.Get("WWW-Authenticate"), "Bearer")
			}
		})
	}
}

func authenticationBeforeValidation(t *testing.T, w *world) {
	nobody := w.nobody(t)
	nobody.ask("POST", "/api/v1/cas/", "{").refused(http.StatusUnauthorized, "Not authenticated")
	nobody.ask("POST", "/api/v1/certificates/?ca_id=x", object{}).refused(http.StatusUnauthorized, "Not authenticated")
	nobody.ask("GET", "/api/v1/cas/x", nil).refused(http.StatusUnauthorized, "Not authenticated")
	nobody.ask("GET", "/api/v1/audit-logs/?limit=x", nil).refused(http.StatusUnauthorized, "Not authenticated")
}

func validationBeforeExistence(t *testing.T, w *world) {
	p := w.member(t, "user", 0, nil)
	p.ask("POST", "/api/v1/certificates/?ca_id=999999", object{"common_name": "x", "certificate_type": "server"}).malformed("missing body.subject_dn")
	p.ask("PATCH", "/api/v1/users/1", object{"password": "short"}).malformed("string_too_short body.password")
	p.ask("PUT", "/api/v1/organizations/999999", object{"name": ""}).malformed("string_too_short body.name")
}

func existenceBeforePermission(t *testing.T, w *world) {
	root, p := w.root(t), w.member(t, "user", 0, nil)
	authority := root.ca(w.unique("order"), nil).want(http.StatusCreated).id()
	certificate := root.issue(authority, "order.example", "server", nil).want(http.StatusCreated).id()
	organization := w.organization(t)
	for _, c := range []struct {
		method, path string
		id           int64
		body         any
	}{
		{"GET", "/api/v1/cas/%d", authority, nil},
		{"DELETE", "/api/v1/cas/%d", authority, nil},
		{"GET", "/api/v1/cas/%d/chain", authority, nil},
		{"GET", "/api/v1/cas/%d/children", authority, nil},
		{"POST", "/api/v1/cas/%d/revoke", authority, object{}},
		{"GET", "/api/v1/certificates/%d", certificate, nil},
		{"GET", "/api/v1/certificates/%d/private-key", certificate, nil},
		{"POST", "/api/v1/certificates/%d/revoke", certificate, object{}},
		{"GET", "/api/v1/export/ca/%d/certificate", authority, nil},
		{"GET", "/api/v1/export/certificate/%d", certificate, nil},
		{"GET", "/api/v1/export/certificate/%d/private-key", certificate, nil},
		{"GET", "/api/v1/export/certificate/%d/chain", certificate, nil},
		{"GET", "/api/v1/users/%d", 1, nil},
		{"PATCH", "/api/v1/users/%d", 1, object{"email": "x@example.com"}},
		{"DELETE", "/api/v1/users/%d", 1, nil},
		{"GET", "/api/v1/organizations/%d", organization, nil},
		{"PUT", "/api/v1/organizations/%d", organization, object{"name": w.unique("x")}},
		{"DELETE", "/api/v1/organizations/%d", organization, nil},
		{"GET", "/api/v1/organizations/%d/users", organization, nil},
		{"POST", "/api/v1/certificates/?ca_id=%d", authority, object{"common_name": "x.example", "subject_dn": "CN=x.example", "certificate_type": "server"}},
	} {
		p.ask(c.method, fmt.Sprintf(c.path, 999999), c.body).refused(http.StatusNotFound, "")
		p.ask(c.method, fmt.Sprintf(c.path, c.id), c.body).refused(http.StatusForbidden, "Insufficient permissions")
	}
}

func missingFields(t *testing.T, w *world) {
	root := w.root(t)
	for _, c := range []struct {
		path  string
		body  any
		wants []string
	}{
		{"/api/v1/cas/", object{}, []string{"missing body.name", "missing body.subject_dn"}},
		{"/api/v1/certificates/?ca_id=1", object{}, []string{"missing body.certificate_type", "missing body.common_name", "missing body.subject_dn"}},
		{"/api/v1/certificates/", object{"common_name": "x", "subject_dn": "CN=x", "certificate_type": "server"}, []string{"missing query.ca_id"}},
		{"/api/v1/certificates/sign-csr", object{}, []string{"missing body.certificate_type", "missing body.csr"}},
		{"/api/v1/users/", object{}, []string{"missing body.email", "missing body.password", "missing body.username"}},
		{"/api/v1/organizations/", object{}, []string{"missing body.name"}},
		{"/api/v1/auth/refresh", object{}, []string{"missing body.refresh_token"}},
		{"/api/v1/auth/logout", object{}, []string{"missing body.refresh_token"}},
		{"/api/v1/auth/token", url.Values{}, []string{"missing body.password", "missing body.username"}},
		{"/api/v1/auth/token", url.Values{"username": {"x"}}, []string{"missing body.password"}},
	} {
		a := root.ask("POST", c.path, c.body).want(http.StatusUnprocessableEntity)
		problems := a.problems()
		slices.Sort(problems)
		equalSlices(t, a.request, problems, c.wants)
		if !strings.Contains(string(a.body), `"msg":"Field required"`) {
			t.Errorf("%s: the message is not Field required: %s", a.request, a.body)
		}
	}
}

func pathIDs(t *testing.T, w *world) {
	root := w.root(t)
	for path, name := range map[string]string{
		"/api/v1/cas/x": "ca_id", "/api/v1/cas/x/chain": "ca_id", "/api/v1/cas/x/private-key": "ca_id", "/api/v1/certificates/x": "cert_id",
		"/api/v1/users/x": "user_id", "/api/v1/organizations/x": "organization_id", "/api/v1/export/certificate/x": "cert_id",
		"/api/v1/export/ca/1.5/certificate": "ca_id",
	} {
		root.ask("GET", path, nil).malformed("int_parsing path." + name)
	}
}

func queryNumbers(t *testing.T, w *world) {
	root := w.root(t)
	for _, c := range []struct{ path, problem string }{
		{"/api/v1/certificates/?ca_id=x", "int_parsing query.ca_id"},
		{"/api/v1/certificates/?skip=x", "int_parsing query.skip"},
		{"/api/v1/cas/?limit=x", "int_parsing query.limit"},
		{"/api/v1/users/?limit=", "int_parsing query.limit"},
		{"/api/v1/audit-logs/?user_id=x", "int_parsing query.user_id"},
	} {
		root.ask("GET", c.path, nil).malformed(c.problem)
	}
	for _, path := range []string{
		"/api/v1/cas/?skip=-1", "/api/v1/cas/?limit=0", "/api/v1/certificates/?limit=-1", "/api/v1/certificates/?limit=10001",
		"/api/v1/audit-logs/?limit=0", "/api/v1/audit-logs/?limit=1001", "/api/v1/audit-logs/?since=yesterday",
		"/api/v1/audit-logs/?action=nonsense", "/api/v1/users/?limit=0",
	} {
		root.ask("GET", path, nil).want(http.StatusUnprocessableEntity).problems()
	}
}

func idsBeyond64Bits(t *testing.T, w *world) {
	root := w.root(t)
	for _, huge := range []string{"9223372036854775808", "-9223372036854775809", "99999999999999999999999999", "9223372036854775807", "-1", "0"} {
		for _, c := range calls {
			if strings.Contains(c.path, "999999") {
				root.ask(c.method, strings.ReplaceAll(c.path, "999999", huge), object{}).want(http.StatusUnprocessableEntity, http.StatusNotFound)
			}
		}
		number := json.Number(huge)
		root.ca(w.unique("huge"), object{"parent_ca_id": number}).want(http.StatusUnprocessableEntity, http.StatusNotFound)
		root.sign(1, csr(t, "x.example"), "server", object{"ca_id": number}).want(http.StatusUnprocessableEntity, http.StatusNotFound)
		root.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", w.member(t, "user", 0, nil).id), object{"organization_id": number}).
			want(http.StatusUnprocessableEntity, http.StatusNotFound)
		if list := root.ask("GET", "/api/v1/certificates/?ca_id="+huge, nil).want(http.StatusUnprocessableEntity, http.StatusNotFound, http.StatusOK); list.status == http.StatusOK {
			equal(t, "certificates of CA "+huge, len(list.list()), 0)
		}
	}
}

func malformedJSON(t *testing.T, w *world) {
	root := w.root(t)
	for _, body := range []string{"", "{", "[]", "null", `"x"`, "42", `{"name": }`, "{}{}", "\xff\xfe", `{"name": "\ud800"`, strings.Repeat("[", 10000)} {
		for _, path := range []string{"/api/v1/cas/", "/api/v1/certificates/?ca_id=1", "/api/v1/certificates/sign-csr", "/api/v1/users/", "/api/v1/organizations/", "/api/v1/auth/refresh"} {
			root.ask("POST", path, body).want(http.StatusUnprocessableEntity).problems()
		}
	}
	for _, body := range []object{
		{"name": 5, "subject_dn": "CN=x"}, {"name": "x", "subject_dn": []string{"CN=x"}}, {"name": "x", "subject_dn": "CN=x", "key_size": "big"},
		{"name": "x", "subject_dn": "CN=x", "allow_leaf_certs": "perhaps"}, {"name": "x", "subject_dn": "CN=x", "key_size": 1.5},
		{"name": nil, "subject_dn": "CN=x"},
	} {
		root.ask("POST", "/api/v1/cas/", body).want(http.StatusUnprocessableEntity).problems()
	}
	root.ask("POST", "/api/v1/cas/", object{"name": strings.Repeat("x", 2<<20), "subject_dn": "CN=x"}).refused(http.StatusRequestEntityTooLarge, "")
}

func validationHidesSecrets(t *testing.T, w *world) {
	a := w.root(t).ask("POST", "/api/v1/users/", object{"username": "x", "email": 5, "password": "hunter2"}).want(http.StatusUnprocessableEntity)
	if strings.Contains(string(a.body), "hunter2") {
		t.Errorf("the answer repeats the password: %s", a.body)
	}
}

func unknownFieldsAreIgnored(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("unknown"), object{"colour": "red", "id": 4711, "organization_id": 4711}).want(http.StatusCreated)
	if authority.id() == 4711 || authority.object()["organization_id"] != nil {
		t.Errorf("an unknown field had an effect: %s", authority.body)
	}
	root.issue(authority.id(), "unknown.example", "server", object{"serial_number": "1", "status": "revoked", "x": object{"y": 1}}).want(http.StatusCreated)
	root.ask("GET", "/api/v1/certificates/?colour=red", nil).want(http.StatusOK)
}

func numericStrings(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("strings"), object{"key_size": "256", "valid_days": "30", "path_length": "1"}).want(http.StatusCreated)
	expect(t, authority.object(), object{"key_size": 256, "valid_days": 30, "path_length": 1})
	leaf := root.issue(authority.id(), "strings.example", "server", object{"valid_days": "7"}).want(http.StatusCreated)
	expect(t, leaf.object(), object{"valid_days": 7})
}
