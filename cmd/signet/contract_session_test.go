package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestContractAuthentication(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"POST /auth/token answers access_token, refresh_token and token_type bearer", tokenAnswer},
		{"access tokens are HS256 with the claims sub id role exp iat jti", accessTokenClaims},
		{"a wrong name or password is 401 Incorrect username or password", wrongPasswords},
		{"role and activity are read from the database, not from the token", roleFromDatabase},
		{"a refresh token works once", refreshOnce},
		{"of 8 parallel refreshes exactly one wins", parallelRefreshes},
		{"a bad refresh token is 401 Invalid or expired refresh token", badRefreshTokens},
		{"logout revokes the refresh token and the access token", logoutEndsTheSession},
		{"logout with another user's refresh token is 403, and ends nothing", foreignLogout},
		{"invalidate ends every session", invalidateEndsAll},
		{"a password change ends every session", passwordChangeEndsAll},
		{"deactivation ends every session and forbids the login", deactivationEndsAll},
		{"deletion ends every session", deletionEndsAll},
	})
}

func tokenAnswer(t *testing.T, w *world) {
	a := w.nobody(t).ask("POST", "/api/v1/auth/token", url.Values{
		"username": {rootName}, "password": {rootPassword}, "grant_type": {"password"}, "scope": {""}}).want(http.StatusOK)
	equalSlices(t, "fields", fields(a.object()), []string{"access_token", "refresh_token", "token_type"})
	equal(t, "token_type", a.object()["token_type"], any("bearer"))
}

// claims are the header and the claims of a token.
func claims(t *testing.T, token string) (head, body object) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token has %d parts", len(parts))
	}
	for i, into := range []*object{&head, &body} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatalf("part %d of the token: %v", i, err)
		}
	}
	return head, body
}

func accessTokenClaims(t *testing.T, w *world) {
	p := w.member(t, "admin", w.organization(t), nil)
	head, body := claims(t, p.access)
	expect(t, head, object{"alg": "HS256"})
	expect(t, body, object{"sub": p.name, "id": p.id, "role": "admin"})
	for _, name := range []string{"exp", "iat", "jti"} {
		if body[name] == nil {
			t.Errorf("the claim %s is missing from %v", name, body)
		}
	}
	_, again := claims(t, p.logIn(p.name, p.password).access)
	if again["jti"] == body["jti"] {
		t.Error("two tokens have one jti")
	}
	if strings.Contains(p.refresh, ".") || len(p.refresh) < 32 {
		t.Errorf("the refresh token is not opaque: %d characters", len(p.refresh))
	}
}

func wrongPasswords(t *testing.T, w *world) {
	for _, form := range []url.Values{
		{"username": {rootName}, "password": {"wrong"}},
		{"username": {"nobody"}, "password": {rootPassword}},
		{"username": {"ROOT"}, "password": {rootPassword}},
		{"username": {rootName + " "}, "password": {rootPassword}},
		{"username": {"\xff\xfe"}, "password": {"\xff"}},
		{"username": {rootName}, "password": {strings.Repeat("x", 5000)}},
		{"username": {strings.Repeat("x", 5000)}, "password": {"x"}},
	} {
		a := w.nobody(t).ask("POST", "/api/v1/auth/token", form).refused(http.StatusUnauthorized, "Incorrect username or password")
		equal(t, "WWW-Authenticate", a.header.Get("WWW-Authenticate"), "Bearer")
	}
	nul := url.Values{"username": {rootName + "\x00"}, "password": {rootPassword}}
	w.nobody(t).ask("POST", "/api/v1/auth/token", nul).want(http.StatusUnauthorized, http.StatusUnprocessableEntity)
}

func roleFromDatabase(t *testing.T, w *world) {
	root, p := w.root(t), w.member(t, "superuser", 0, nil)
	p.ask("GET", "/api/v1/users/", nil).want(http.StatusOK)
	root.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", p.id), object{"role": "user"}).want(http.StatusOK)
	if a := p.ask("GET", "/api/v1/users/", nil); a.status == http.StatusOK {
		t.Errorf("a token from before the demotion still is a superuser's")
	}
	me := p.ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
	expect(t, me.object(), object{"role": "user"})
}

// sessionEnded holds that neither half of a session works any longer.
func sessionEnded(t *testing.T, p party) {
	t.Helper()
	p.ask("GET", "/api/v1/users/me", nil).refused(http.StatusUnauthorized, "Could not validate credentials")
	p.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": p.refresh}).refused(http.StatusUnauthorized, "Invalid or expired refresh token")
}

func refreshOnce(t *testing.T, w *world) {
	p := w.member(t, "user", 0, nil)
	a := p.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": p.refresh}).want(http.StatusOK)
	equalSlices(t, "fields", fields(a.object()), []string{"access_token", "refresh_token", "token_type"})
	p.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": p.refresh}).refused(http.StatusUnauthorized, "Invalid or expired refresh token")
	renewed := p
	renewed.access, renewed.refresh = a.object()["access_token"].(string), a.object()["refresh_token"].(string)
	renewed.ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
	renewed.access = "" // a refresh needs no access token
	renewed.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": renewed.refresh}).want(http.StatusOK)
}

func parallelRefreshes(t *testing.T, w *world) {
	for range 3 {
		p := w.member(t, "user", 0, nil)
		statuses := p.atOnce(8, "POST", "/api/v1/auth/refresh", func(int) any { return object{"refresh_token": p.refresh} })
		equalSlices(t, "statuses", statuses, one(8, http.StatusOK, http.StatusUnauthorized))
	}
}

func badRefreshTokens(t *testing.T, w *world) {
	p := w.member(t, "user", 0, nil)
	for _, token := range []string{"", "x", p.access, p.refresh + "x", strings.ToUpper(p.refresh), strings.Repeat("A", len(p.refresh)), strings.Repeat("x", 100000)} {
		a := p.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": token}).refused(http.StatusUnauthorized, "Invalid or expired refresh token")
		equal(t, "WWW-Authenticate", a.header.Get("WWW-Authenticate"), "Bearer")
	}
	p.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": p.refresh + "\x00"}).want(http.StatusUnauthorized, http.StatusUnprocessableEntity)
	p.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": p.refresh}).want(http.StatusOK)
}

func logoutEndsTheSession(t *testing.T, w *world) {
	p := w.member(t, "user", 0, nil)
	other := p.logIn(p.name, p.password)
	a := p.ask("POST", "/api/v1/auth/logout", object{"refresh_token": p.refresh}).want(http.StatusNoContent)
	equal(t, "body", len(a.body), 0)
	sessionEnded(t, p)
	other.ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
	other.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": other.refresh}).want(http.StatusOK)
}

func foreignLogout(t *testing.T, w *world) {
	p, victim := w.member(t, "user", 0, nil), w.member(t, "user", 0, nil)
	p.ask("POST", "/api/v1/auth/logout", object{"refresh_token": victim.refresh}).refused(http.StatusForbidden, "")
	p.ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
	victim.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": victim.refresh}).want(http.StatusOK)
}

func invalidateEndsAll(t *testing.T, w *world) {
	p, bystander := w.member(t, "user", 0, nil), w.member(t, "user", 0, nil)
	second := p.logIn(p.name, p.password)
	p.ask("POST", "/api/v1/auth/invalidate", nil).want(http.StatusNoContent)
	sessionEnded(t, p)
	sessionEnded(t, second)
	p.logIn(p.name, p.password).ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
	bystander.ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
}

func passwordChangeEndsAll(t *testing.T, w *world) {
	for _, changer := range []string{"self", "superuser"} {
		p := w.member(t, "user", 0, nil)
		second := p.logIn(p.name, p.password)
		who := p
		if changer == "superuser" {
			who = w.root(t)
		}
		who.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", p.id), object{"password": "another password"}).want(http.StatusOK)
		sessionEnded(t, p)
		sessionEnded(t, second)
		p.ask("POST", "/api/v1/auth/token", url.Values{"username": {p.name}, "password": {p.password}}).
			refused(http.StatusUnauthorized, "Incorrect username or password")
		p.logIn(p.name, "another password").ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
	}
}

func deactivationEndsAll(t *testing.T, w *world) {
	root, p := w.root(t), w.member(t, "user", 0, nil)
	path := fmt.Sprintf("/api/v1/users/%d", p.id)
	root.ask("PATCH", path, object{"is_active": false}).want(http.StatusOK)
	sessionEnded(t, p)
	p.ask("POST", "/api/v1/auth/token", url.Values{"username": {p.name}, "password": {p.password}}).want(http.StatusUnauthorized)
	root.ask("PATCH", path, object{"is_active": true}).want(http.StatusOK)
	sessionEnded(t, p)
	p.logIn(p.name, p.password).ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
}

func deletionEndsAll(t *testing.T, w *world) {
	p := w.member(t, "user", 0, nil)
	w.root(t).ask("DELETE", fmt.Sprintf("/api/v1/users/%d", p.id), nil).want(http.StatusNoContent)
	sessionEnded(t, p)
	p.ask("POST", "/api/v1/auth/token", url.Values{"username": {p.name}, "password": {p.password}}).want(http.StatusUnauthorized)
}

func TestContractLoginAttemptsBeyondTheDefaultRateAre429WithRetryAfter(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, database, "--login-rate", "5/minute") // its own login is the first attempt
			nobody := w.nobody(t)
			var statuses []int
			for i := range 8 {
				form := url.Values{"username": {rootName}, "password": {"wrong"}}
				// Neither another name nor a header that anybody can write makes a new client.
				if i%2 == 1 {
					form.Set("username", "nobody")
				}
				a := nobody.ask("POST", "/api/v1/auth/token", form, header("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i)))
				statuses = append(statuses, a.status)
				if a.status == http.StatusTooManyRequests {
					seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
					if err != nil || seconds < 1 || seconds > 60 {
						t.Errorf("Retry-After %q, want 1 to 60 seconds", a.header.Get("Retry-After"))
					}
					a.refused(http.StatusTooManyRequests, "")
				}
			}
			equalSlices(t, "statuses", statuses, slices.Concat(slices.Repeat([]int{401}, 4), slices.Repeat([]int{429}, 4)))
			// The right password does not help; what is no login is not limited.
			nobody.ask("POST", "/api/v1/auth/token", url.Values{"username": {rootName}, "password": {rootPassword}}).want(http.StatusTooManyRequests)
			w.root(t).ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
		})
	}
}
