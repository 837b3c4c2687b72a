package api_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"signet/api"
	"signet/api/contract"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	a := root.nobody().login("root", rootPassword)
	o := a.object(t)
	if o["token_type"] != "bearer" || o["access_token"] == "" || o["refresh_token"] == "" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("answered %v %v", o, a.header)
	}
	for _, row := range [][2]string{{"root", "wrong"}, {"nobody", rootPassword}, {"ROOT", rootPassword}, {"root\x00", rootPassword + "\x00"}} {
		if a := root.nobody().login(row[0], row[1]); a.status != http.StatusUnauthorized && a.status != 422 || a.status == 401 && a.detail(t) != "Incorrect username or password" {
			t.Errorf("%q: %d %s", row, a.status, a.body)
		}
	}
	form := func(kind, body string) answer {
		return root.nobody().do("POST", "/api/v1/auth/token?username=root&password=x", strings.NewReader(body), http.Header{"Content-Type": {kind}})
	}
	const urlencoded = "application/x-www-form-urlencoded"
	for _, row := range []struct {
		kind, body string
		want       []string
	}{
		{urlencoded, "", []string{"missing body.password", "missing body.username"}},
		{urlencoded, "username=root&password=", []string{"missing body.password"}},
		{urlencoded, "username=%zz", []string{"missing body.password", "missing body.username"}},
		{"application/json", `{"username":"root","password":"x"}`, []string{"missing body.password", "missing body.username"}},
		{"multipart/form-data; boundary=x", "no parts", []string{"missing body.password", "missing body.username"}},
	} {
		a := form(row.kind, row.body)
		if a.status != http.StatusUnprocessableEntity || !slices.Equal(a.problems(t), row.want) {
			t.Errorf("%s %q: %d %s", row.kind, row.body, a.status, a.body)
		}
	}
	if a := form("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\nroot\r\n--x\r\n"+
		"Content-Disposition: form-data; name=\"password\"\r\n\r\n"+rootPassword+"\r\n--x--\r\n"); a.status != http.StatusOK {
		t.Errorf("multipart: %d %s", a.status, a.body)
	}
	if strings.Contains(root.log.String(), rootPassword) || strings.Contains(root.log.String(), root.token) {
		t.Error("the log holds a secret")
	}
}

func TestLoginAttemptsAreLimited(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *api.Config) { c.LoginRate = api.Rate{Attempts: 2, Per: time.Hour} })
	for want := range 3 {
		a := s.nobody().login("nobody", "wrong-password")
		if limited := a.status == http.StatusTooManyRequests; limited != (want == 2) {
			t.Fatalf("attempt %d: %d %s", want+1, a.status, a.body)
		}
		if want == 2 && (a.header.Get("Retry-After") == "" || a.header.Get("Retry-After") == "0") {
			t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
		}
	}
	r := httptest.NewRequest("POST", "/api/v1/auth/token", strings.NewReader("username=nobody&password=wrong-password"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Forwarded-For", "127.0.0.1")
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r) // from 192.0.2.1: another client, whatever it says
	contract.Check(t, r, w.Result())
	if w.Code != http.StatusUnauthorized {
		t.Errorf("another client: %d", w.Code)
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	alice := root.user("alice", nil)
	renewed := alice.create(http.StatusOK, "/api/v1/auth/refresh", object{"refresh_token": alice.refresh})
	if a := alice.call(http.StatusUnauthorized, "POST", "/api/v1/auth/refresh", object{"refresh_token": alice.refresh}); a.detail(t) != "Invalid or expired refresh token" {
		t.Errorf("used twice: %s", a.body)
	}
	again := &caller{site: root.site, token: renewed["access_token"].(string), refresh: renewed["refresh_token"].(string)}
	again.get("/api/v1/users/me")
	root.call(http.StatusForbidden, "POST", "/api/v1/auth/logout", object{"refresh_token": again.refresh})
	if a := again.call(http.StatusNoContent, "POST", "/api/v1/auth/logout", object{"refresh_token": again.refresh}); len(a.body) != 0 {
		t.Errorf("logout answered %q", a.body)
	}
	again.call(http.StatusUnauthorized, "GET", "/api/v1/users/me", nil)
	again.call(http.StatusUnauthorized, "POST", "/api/v1/auth/refresh", object{"refresh_token": again.refresh})

	first, second := root.as("alice", password), root.as("alice", password)
	first.call(http.StatusNoContent, "POST", "/api/v1/auth/invalidate", nil)
	for _, c := range []*caller{first, second, alice} {
		if a := c.call(http.StatusUnauthorized, "GET", "/api/v1/users/me", nil); a.detail(t) != "Could not validate credentials" {
			t.Errorf("after invalidation: %s", a.body)
		}
	}
}

func TestTheFirstUserComesFromThisMachineOrKnowsTheToken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	body := `{"username":"root","email":"root@example.com","password":"correct horse battery","role":"superuser"}`
	from := func(remote string, header http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "http://localhost:8000/api/v1/users/", strings.NewReader(body))
		r.RemoteAddr = remote
		for name, values := range header {
			r.Header[name] = values
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		contract.Check(t, r, w.Result())
		return w
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"a stranger":                 from("192.0.2.1:4000", nil),
		"a stranger with a token":    from("192.0.2.1:4000", http.Header{"X-Bootstrap-Token": {"guess"}}),
		"a stranger behind a proxy":  from("127.0.0.1:4000", http.Header{"X-Forwarded-For": {"192.0.2.1"}}),
		"a page in a browser here":   from("127.0.0.1:4000", http.Header{"Origin": {"https://evil.example"}}),
		"somebody who forges a peer": from("192.0.2.1:4000", http.Header{"X-Real-Ip": {"127.0.0.1"}}),
	} {
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := from("127.0.0.1:4000", http.Header{"Authorization": {"Bearer nonsense"}}); w.Code != http.StatusUnauthorized {
		t.Errorf("a bad token: %d %s", w.Code, w.Body)
	}
	if w := from("[::1]:4000", nil); w.Code != http.StatusCreated {
		t.Fatalf("somebody here: %d %s", w.Code, w.Body)
	}
	if w := from("[::1]:4000", nil); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "Not enough permissions") {
		t.Errorf("a second superuser: %d %s", w.Code, w.Body)
	}
	if a := s.nobody().call(http.StatusForbidden, "POST", "/api/v1/users/", object{"username": "a", "email": "a@example.com", "password": password}); a.detail(t) != "Unauthenticated registration is disabled" {
		t.Errorf("a stranger: %s", a.body)
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	acme := root.organization("Acme")
	created := root.create(http.StatusCreated, "/api/v1/users/", object{
		"username": "alice", "email": "alice@example.com", "password": password, "organization_id": acme, "can_create_cert": "yes"})
	if created["role"] != "user" || created["can_create_cert"] != true || created["can_create_ca"] != false || created["is_active"] != true || created["organization_id"] != float64(acme) {
		t.Errorf("created %v", created)
	}
	for _, row := range []struct {
		more object
		want string
	}{
		{object{"username": "alice", "email": "other@example.com"}, "Username already registered"},
		{object{"username": "other", "email": "alice@example.com"}, "Email already registered"},
	} {
		row.more["password"] = password
		if a := root.call(http.StatusBadRequest, "POST", "/api/v1/users/", row.more); a.detail(t) != row.want {
			t.Errorf("%v: %s", row.more, a.body)
		}
	}
	a := root.call(http.StatusUnprocessableEntity, "POST", "/api/v1/users/", object{"email": 7, "password": "short", "role": "king"})
	if got := a.problems(t); !slices.Equal(got, []string{"string_type body.email", "string_too_short body.password", "enum body.role", "missing body.username"}) || strings.Contains(string(a.body), `"short"`) {
		t.Errorf("malformed: %s", a.body)
	}
	root.call(http.StatusUnprocessableEntity, "POST", "/api/v1/users/", object{"username": "b", "email": "no address", "password": password})

	alice := root.as("alice", password)
	aliceID := idOf(created)
	alice.call(http.StatusForbidden, "GET", "/api/v1/users/", nil)
	alice.call(http.StatusForbidden, "GET", "/api/v1/users/1", nil)
	alice.call(http.StatusNotFound, "GET", "/api/v1/users/4711", nil)
	alice.call(http.StatusForbidden, "PATCH", path("/users/%d", aliceID), object{"role": "superuser"})
	alice.call(http.StatusForbidden, "DELETE", path("/users/%d", aliceID), nil)
	if got := alice.call(http.StatusUnprocessableEntity, "PATCH", "/api/v1/users/me", object{}).problems(t); !slices.Equal(got, []string{"int_parsing path.user_id"}) {
		t.Errorf("PATCH me: %q", got)
	}
	root.call(http.StatusOK, "PATCH", path("/users/%d", aliceID), object{"email": "alice@acme.example"})
	if o := alice.get("/api/v1/users/me"); o["email"] != "alice@acme.example" || o["organization_id"] != float64(acme) {
		t.Errorf("after the patch: %v", o)
	}
	whole := alice.get("/api/v1/users/me")
	whole["organization_id"], whole["email"] = nil, "alice@example.org"
	if o := root.call(http.StatusOK, "PATCH", path("/users/%d", aliceID), whole).object(t); o["organization_id"] != float64(acme) || o["email"] != "alice@example.org" {
		t.Errorf("null moved her: %v", o)
	}
	root.call(http.StatusBadRequest, "DELETE", "/api/v1/users/1", nil)
	root.call(http.StatusNoContent, "DELETE", path("/users/%d", aliceID), nil)
	alice.call(http.StatusUnauthorized, "GET", "/api/v1/users/me", nil)
	if users := root.list("/api/v1/users/"); len(users) != 1 {
		t.Errorf("%d users are left", len(users))
	}
}

func TestOrganizations(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	acme, rival := root.organization("Acme"), root.organization("Rival")
	if a := root.call(http.StatusBadRequest, "POST", "/api/v1/organizations/", object{"name": "Acme"}); a.detail(t) != "Organization with this name already exists" {
		t.Errorf("twice: %s", a.body)
	}
	root.call(http.StatusUnprocessableEntity, "POST", "/api/v1/organizations/", object{"name": ""})
	alice := root.user("alice", object{"organization_id": acme})
	aliceID := idOf(alice.get("/api/v1/users/me"))
	alice.call(http.StatusForbidden, "POST", "/api/v1/organizations/", object{"name": "Mine"})
	alice.call(http.StatusForbidden, "GET", path("/organizations/%d", rival), nil)
	alice.call(http.StatusForbidden, "PUT", path("/organizations/%d", acme), object{"name": "Mine"})
	if all := alice.list("/api/v1/organizations/"); len(all) != 1 || all[0]["name"] != "Acme" {
		t.Errorf("alice sees %v", all)
	}
	if all := alice.list(path("/organizations/%d/users", acme)); len(all) != 1 || all[0]["username"] != "alice" {
		t.Errorf("members %v", all)
	}
	if o := root.call(http.StatusOK, "PUT", path("/organizations/%d", acme), object{"description": "d"}).object(t); o["name"] != "Acme" || o["description"] != "d" {
		t.Errorf("updated %v", o)
	}
	root.call(http.StatusBadRequest, "DELETE", path("/organizations/%d", acme), nil)
	if o := root.call(http.StatusOK, "POST", path("/organizations/%d/users/%d", rival, aliceID), nil).object(t); o["organization_id"] != float64(rival) {
		t.Errorf("moved %v", o)
	}
	root.call(http.StatusNotFound, "DELETE", path("/organizations/%d/users/%d", acme, aliceID), nil)
	root.call(http.StatusOK, "DELETE", path("/organizations/%d/users/%d", rival, aliceID), nil)
	root.call(http.StatusNoContent, "DELETE", path("/organizations/%d", acme), nil)
	root.call(http.StatusNotFound, "GET", path("/organizations/%d", acme), nil)
	if all := alice.list("/api/v1/organizations/"); all == nil || len(all) != 0 {
		t.Errorf("alice sees %v", all)
	}
}
