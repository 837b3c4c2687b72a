package identity_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"signet/audit"
	"signet/fault"
	"signet/identity"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	long := strings.Repeat("é", 36)
	if _, err := w.Register(w.ctx, ptr(w.caller("superNone")), identity.Registration{
		Username: "long", Email: "long@example.org", Password: long}); err != nil {
		t.Fatal(err)
	}
	inactive := w.cast["userB"]
	if _, err := w.UpdateUser(w.ctx, w.caller("superNone"), inactive.ID, identity.UserPatch{Active: ptr(false)}); err != nil {
		t.Fatal(err)
	}
	keepSecret(long)
	tests := []struct{ name, username, password, want string }{
		{"the right password opens", "userA", password, granted},
		{"a password of 72 octets opens", "long", long, granted},
		{"a wrong password", "userA", newPassword, badLogin},
		{"no password", "userA", "", badLogin},
		{"the password in another case", "userA", strings.ToUpper(password), badLogin},
		{"what bcrypt would cut off counts", "long", long + "x", badLogin},
		{"an unknown user", "stranger", password, badLogin},
		{"the username in another case", "USERA", password, badLogin},
		{"no username", "", "", badLogin},
		{"an inactive user with the right password", "userB", password, badLogin},
		{"a username that no database can store", "userA\x00", password, badLogin},
		{"a username that is not UTF-8", "userA\xff", password, badLogin},
	}
	for _, tt := range tests {
		tokens, err := w.Login(w.ctx, tt.username, tt.password)
		if got := verdict(err); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		if (tokens == identity.Tokens{}) == (err == nil) {
			t.Errorf("%s: tokens %t with error %v", tt.name, tokens != identity.Tokens{}, err)
		}
	}
}

func TestLoginIsAudited(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	u := w.cast["userA"]

	w.login("userA", password)
	e := w.last(audit.LoginSuccess)
	if *e.UserID != u.ID || e.Username != "userA" || *e.OrganizationID != w.a || *e.ResourceID != u.ID || e.ResourceType != audit.ResourceUser {
		t.Errorf("success is recorded as %+v", e)
	}
	if e.RequestID != "request-1" || e.RemoteAddr != "192.0.2.7" {
		t.Errorf("the entry does not say where the login came from: %+v", e)
	}

	_, err := w.Login(w.ctx, "userA", newPassword)
	wantVerdict(t, err, badLogin)
	e = w.last(audit.LoginFailure)
	if *e.UserID != u.ID || e.Username != "userA" || *e.OrganizationID != w.a {
		t.Errorf("failure of a user is recorded as %+v", e)
	}

	if _, err := w.UpdateUser(w.ctx, w.caller("superNone"), w.cast["userB"].ID, identity.UserPatch{Active: ptr(false)}); err != nil {
		t.Fatal(err)
	}
	_, err = w.Login(w.ctx, "userB", password)
	wantVerdict(t, err, badLogin)
	w.last(audit.LoginFailure) // and not a success

	_, err = w.Login(w.ctx, "evil\n"+strings.Repeat("ö", 300)+"\xff", newPassword)
	wantVerdict(t, err, badLogin)
	e = w.last(audit.LoginFailure)
	if e.UserID != nil || e.OrganizationID != nil || e.Username != "evil\uFFFD"+strings.Repeat("ö", 250) {
		t.Errorf("failure of a stranger is recorded as %+v", e)
	}
}

// hangsUp is the context of a client that goes away while its password is being checked.
type hangsUp struct {
	context.Context
	gone atomic.Bool
}

func (c *hangsUp) Err() error {
	if c.gone.Load() {
		return context.Canceled
	}
	return c.Context.Err()
}

func TestLoginFailureIsRecordedWhenTheClientHangsUp(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	client := &hangsUp{Context: w.ctx}
	w.meanwhile("UserByName", func() { client.gone.Store(true) })
	_, err := w.Login(client, "userA", newPassword)
	wantVerdict(t, err, badLogin)
	w.last(audit.LoginFailure)
}

func TestLoginSaysWhenTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	for method, tried := range map[string]string{
		"UserByName": password, "CreateRefreshToken": password, "Session": password, "Record": newPassword,
	} {
		w := populated(t, nil)
		w.away(method)
		if tokens, err := w.Login(w.ctx, "userA", tried); !fault.Is(err, fault.Unavailable) || tokens != (identity.Tokens{}) {
			t.Errorf("without %s: %v", method, err)
		}
	}
}

// Only the order of magnitude is held, so that a busy machine changes nothing: without a hash to compare with, an
// unknown user costs microseconds, a hundredth of the others.
func TestUnknownUsersCostAsMuchTimeAsKnownOnes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *identity.Config) { c.BcryptCost = 7 })
	if _, err := w.Register(w.ctx, nil, identity.Registration{
		Username: "known", Email: "known@example.org", Password: password, Loopback: true}); err != nil {
		t.Fatal(err)
	}
	fastest := func(username, tried string) time.Duration {
		best := time.Hour
		for range 4 {
			start := time.Now()
			_, err := w.Login(w.ctx, username, tried)
			best = min(best, time.Since(start))
			wantVerdict(t, err, badLogin)
		}
		return best
	}
	known := fastest("known", newPassword)
	for name, took := range map[string]time.Duration{
		"unknown":         fastest("unknown", newPassword),
		"unstorable":      fastest("unstorable\x00", newPassword),
		"long password":   fastest("known", strings.Repeat(newPassword, 10)),
		"nobody, no word": fastest("", ""),
	} {
		if took < known/20 {
			t.Errorf("%s takes %v, a known user %v", name, took, known)
		}
	}
}

func TestALoginInFlightDoesNotOutliveAChangeOfTheAccount(t *testing.T) {
	t.Parallel()
	changes := map[string]func(w *world, u identity.User) error{
		"password": func(w *world, u identity.User) error {
			_, err := w.UpdateUser(w.ctx, u.Caller(), u.ID, identity.UserPatch{Password: ptr(newPassword)})
			return err
		},
		"deactivation": func(w *world, u identity.User) error {
			_, err := w.UpdateUser(w.ctx, w.caller("superNone"), u.ID, identity.UserPatch{Active: ptr(false)})
			return err
		},
		"invalidation": func(w *world, u identity.User) error {
			return w.Invalidate(w.ctx, identity.Session{User: u})
		},
		"deactivation in the database": func(w *world, u identity.User) error {
			u.Active = false // and the epoch unchanged
			_, err := w.store.UpdateUser(w.ctx, u, audit.Event{})
			return err
		},
		"deletion": func(w *world, u identity.User) error {
			return w.DeleteUser(w.ctx, w.caller("superNone"), u.ID)
		},
	}
	for name, change := range changes {
		for _, method := range []string{"CreateRefreshToken", "Session"} {
			w := populated(t, nil)
			w.meanwhile(method, func() {
				if err := change(w, w.cast["userA"]); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
			tokens, err := w.Login(w.ctx, "userA", password)
			if got := verdict(err); got != badLogin || tokens != (identity.Tokens{}) {
				t.Errorf("%s before %s: %q", name, method, got)
			}
		}
	}
}

func TestRefreshGivesNewTokensOnce(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	first := w.login("userA", password)
	second := w.refresh(first.Refresh)
	if second.Access == first.Access || second.Refresh == first.Refresh {
		t.Error("the tokens are the old ones")
	}
	e := w.last(audit.TokenRefresh)
	if *e.UserID != w.cast["userA"].ID || *e.OrganizationID != w.a || e.Username != "userA" {
		t.Errorf("recorded as %+v", e)
	}
	_, err := w.Refresh(w.ctx, first.Refresh)
	wantVerdict(t, err, badRefresh)
	w.session(second.Access)
	w.refresh(second.Refresh) // reuse of the first token does not end the session
}

func TestRefreshRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		after func(w *world, tokens identity.Tokens) string // returns the token to refresh with
	}{
		{"no token", func(*world, identity.Tokens) string { return "" }},
		{"an unknown token", func(*world, identity.Tokens) string { return strings.Repeat("A", 43) }},
		{"a token with something appended", func(_ *world, tokens identity.Tokens) string { return tokens.Refresh + "=" }},
		{"an access token", func(_ *world, tokens identity.Tokens) string { return tokens.Access }},
		{"an expired token", func(w *world, tokens identity.Tokens) string {
			w.now = w.now.Add(24 * time.Hour)
			return tokens.Refresh
		}},
		{"after logout", func(w *world, tokens identity.Tokens) string {
			wantVerdict(w, w.Logout(w.ctx, w.session(tokens.Access), tokens.Refresh), granted)
			return tokens.Refresh
		}},
		{"after the sessions were ended", func(w *world, tokens identity.Tokens) string {
			wantVerdict(w, w.Invalidate(w.ctx, w.session(tokens.Access)), granted)
			return tokens.Refresh
		}},
		{"after deactivation", func(w *world, tokens identity.Tokens) string {
			_, err := w.UpdateUser(w.ctx, w.caller("superNone"), w.cast["userA"].ID, identity.UserPatch{Active: ptr(false)})
			wantVerdict(w, err, granted)
			return tokens.Refresh
		}},
		{"after deletion", func(w *world, tokens identity.Tokens) string {
			wantVerdict(w, w.DeleteUser(w.ctx, w.caller("superNone"), w.cast["userA"].ID), granted)
			return tokens.Refresh
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := populated(t, nil)
			_, err := w.Refresh(w.ctx, tt.after(w, w.login("userA", password)))
			wantVerdict(t, err, badRefresh)
		})
	}
}

func TestARefreshInFlightDoesNotOutliveTheSessions(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"RotateRefreshToken", "Session"} {
		w := populated(t, nil)
		tokens := w.login("userA", password)
		w.meanwhile(method, func() {
			wantVerdict(t, w.Invalidate(w.ctx, identity.Session{User: w.cast["userA"]}), granted)
		})
		_, err := w.Refresh(w.ctx, tokens.Refresh)
		wantVerdict(t, err, badRefresh)
	}
}

func TestOfParallelRefreshesExactlyOneWinsAndItsTokensLive(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	tokens := w.login("userA", password)
	var wg sync.WaitGroup
	won := make(chan identity.Tokens, 8)
	for range cap(won) {
		wg.Go(func() {
			next, err := w.Refresh(w.ctx, tokens.Refresh)
			if err == nil {
				won <- next
				return
			}
			wantVerdict(t, err, badRefresh)
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d refreshes won", len(won))
	}
	next := <-won
	w.session(next.Access)
	w.refresh(next.Refresh)
}

func TestLogoutEndsOneSession(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	here, there := w.login("userA", password), w.login("userA", password)
	wantVerdict(t, w.Logout(w.ctx, w.session(here.Access), here.Refresh), granted)
	if e := w.last(audit.Logout); *e.UserID != w.cast["userA"].ID || *e.OrganizationID != w.a {
		t.Errorf("recorded as %+v", e)
	}
	_, err := w.Authenticate(w.ctx, here.Access)
	wantVerdict(t, err, badCredentials)
	w.session(there.Access)
	w.refresh(there.Refresh)
}

func TestLogoutWithAnothersRefreshTokenEndsNothing(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	mine, theirs := w.login("userA", password), w.login("userB", password)
	wantVerdict(t, w.Logout(w.ctx, w.session(mine.Access), theirs.Refresh), insufficient)
	w.session(mine.Access)
	w.session(theirs.Access)
	w.refresh(theirs.Refresh)
	w.refresh(mine.Refresh)
}

func TestLogoutWithAnUnknownRefreshTokenEndsTheAccessToken(t *testing.T) {
	t.Parallel()
	for _, unknown := range []string{"", "unknown", strings.Repeat("A", 43), strings.Repeat("A", 1<<16)} {
		w := populated(t, nil)
		tokens := w.login("userA", password)
		wantVerdict(t, w.Logout(w.ctx, w.session(tokens.Access), unknown), granted)
		_, err := w.Authenticate(w.ctx, tokens.Access)
		wantVerdict(t, err, badCredentials)
	}
}

func TestInvalidateEndsEverySessionOfTheCallerOnly(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	first, second, other := w.login("userA", password), w.login("userA", password), w.login("userB", password)
	wantVerdict(t, w.Invalidate(w.ctx, w.session(first.Access)), granted)
	w.last(audit.SessionsInvalidate)
	for _, tokens := range []identity.Tokens{first, second} {
		_, err := w.Authenticate(w.ctx, tokens.Access)
		wantVerdict(t, err, badCredentials)
		_, err = w.Refresh(w.ctx, tokens.Refresh)
		wantVerdict(t, err, badRefresh)
	}
	w.session(other.Access)
	w.session(w.login("userA", password).Access)
}

func TestParallelInvalidationsAllSucceed(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	session := w.session(w.login("userA", password).Access)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { wantVerdict(t, w.Invalidate(w.ctx, session), granted) })
	}
	wg.Wait()
	if got := w.user("userA").TokenEpoch; got != 8 {
		t.Errorf("epoch %d after 8 invalidations", got)
	}
}

func TestSessionsSayWhenTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"RefreshTokenOwner", "User", "RotateRefreshToken", "Logout", "UpdateUser", "Session"} {
		w := populated(t, func(c *identity.Config) { c.SessionAge = 0 })
		tokens := w.login("userA", password)
		session := w.session(tokens.Access)
		w.away(method)
		calls := map[string]func() error{
			"RefreshTokenOwner":  func() error { return w.Logout(w.ctx, session, tokens.Refresh) },
			"User":               func() error { _, err := w.Refresh(w.ctx, tokens.Refresh); return err },
			"RotateRefreshToken": func() error { _, err := w.Refresh(w.ctx, tokens.Refresh); return err },
			"Logout":             func() error { return w.Logout(w.ctx, session, tokens.Refresh) },
			"UpdateUser":         func() error { return w.Invalidate(w.ctx, session) },
			"Session":            func() error { _, err := w.Authenticate(w.ctx, tokens.Access); return err },
		}
		if err := calls[method](); !fault.Is(err, fault.Unavailable) {
			t.Errorf("without %s: %v", method, err)
		}
	}
}

func TestPruneRemovesWhatHasExpired(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	tokens := w.login("userA", password)
	w.now = w.now.Add(24*time.Hour + time.Second)
	wantVerdict(t, w.Prune(w.ctx), granted)
	w.now = w.now.Add(-24 * time.Hour)
	_, err := w.Refresh(w.ctx, tokens.Refresh)
	wantVerdict(t, err, badRefresh)
}

func FuzzLogin(f *testing.F) {
	for _, s := range []string{"userA", "", "userA\x00", "\xff\xfe", strings.Repeat("x", 300), "a\u202eb", "' OR 1=1 --"} {
		f.Add(s, "password-of-a-stranger")
	}
	f.Fuzz(func(t *testing.T, username, tried string) {
		tried += "\x00" // whatever the fuzzer finds, it is not the right password
		w := newWorld(t, nil)
		w.join("userNone")
		_, err := w.Login(w.ctx, username, tried)
		wantVerdict(t, err, badLogin)
		e := w.last(audit.LoginFailure)
		if !utf8.ValidString(e.Username) || utf8.RuneCountInString(e.Username) > 255 || strings.ContainsRune(e.Username, 0) {
			t.Errorf("recorded as %q", e.Username)
		}
	})
}
