package identity_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"signet/audit"
	"signet/identity"
	"signet/policy"
)

func TestAccessTokenHoldsExactlyTheClaimsOfTheContract(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	access := w.login("adminA", password).Access
	var header, claims map[string]any
	for i, into := range []*map[string]any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(strings.Split(access, ".")[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	if header["alg"] != "HS256" {
		t.Errorf("alg is %v", header["alg"])
	}
	jti, _ := claims["jti"].(string)
	epoch, nonce, _ := strings.Cut(jti, ".")
	if epoch != "0" || len(nonce) != 22 {
		t.Errorf("jti is %q", jti)
	}
	delete(claims, "jti")
	want := map[string]any{
		"sub": "adminA", "id": float64(w.cast["adminA"].ID), "role": "admin",
		"iat": float64(w.now.Unix()), "exp": float64(w.now.Add(15 * time.Minute).Unix()),
	}
	for name, value := range want {
		if claims[name] != value {
			t.Errorf("%s is %v, want %v", name, claims[name], value)
		}
		delete(claims, name)
	}
	if len(claims) != 0 {
		t.Errorf("further claims: %v", claims)
	}
}

func TestAuthenticateReadsEverythingFromTheDatabase(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	access := w.login("userA", password).Access
	if _, err := w.UpdateUser(w.ctx, w.caller("superNone"), w.cast["userA"].ID, identity.UserPatch{
		Role: ptr(policy.RoleAdmin), CreateCA: ptr(true), OrganizationID: &w.b}); err != nil {
		t.Fatal(err)
	}
	s := w.session(access)
	if c := s.User.Caller(); c.Role != policy.RoleAdmin || !c.Capabilities.CreateCA || *c.OrganizationID != w.b {
		t.Errorf("the caller is %+v", c)
	}
	if !s.Expires.Equal(w.now.Add(15*time.Minute)) || s.JTI == "" {
		t.Errorf("the session is %+v", s)
	}
}

// good is the claims of a token that Authenticate accepts.
func good(w *world) jwt.MapClaims {
	u := w.cast["userA"]
	return jwt.MapClaims{
		"sub": "userA", "id": u.ID, "role": "user", "jti": "0.AAAAAAAAAAAAAAAAAAAAAA",
		"iat": w.now.Unix(), "exp": w.now.Add(time.Minute).Unix(),
	}
}

// forge signs claims; the token counts as a secret of the suite.
func forge(t testing.TB, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	keepSecret(token)
	return token
}

func TestAuthenticateRefusesForgedClaims(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	w.session(forge(t, jwt.SigningMethodHS256, secret, good(w))) // the forger knows the secret: all below fails by one claim
	without := func(name string) func(jwt.MapClaims) { return func(c jwt.MapClaims) { delete(c, name) } }
	with := func(name string, value any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = value } }
	tests := []struct {
		name   string
		change func(jwt.MapClaims)
	}{
		{"no sub", without("sub")},
		{"no id", without("id")},
		{"no role", without("role")},
		{"no exp", without("exp")},
		{"no iat", without("iat")},
		{"no jti", without("jti")},
		{"an expired token", with("exp", w.now.Unix())},
		{"a token not valid yet", with("nbf", w.now.Add(time.Minute).Unix())},
		{"an expiry that is no number", with("exp", "never")},
		{"the name of another user", with("sub", "superNone")},
		{"the id of another user", with("id", w.cast["superNone"].ID)},
		{"the id of nobody", with("id", 1<<40)},
		{"a negative id", with("id", -1)},
		{"an id beyond 64 bits", with("id", 1e30)},
		{"an id that is text", with("id", "1")},
		{"a jti without epoch", with("jti", "AAAAAAAAAAAAAAAAAAAAAA")},
		{"a jti of a later epoch", with("jti", "1.AAAAAAAAAAAAAAAAAAAAAA")},
		{"a jti whose epoch is spelled differently", with("jti", "00.AAAAAAAAAAAAAAAAAAAAAA")},
	}
	for _, tt := range tests {
		claims := good(w)
		tt.change(claims)
		_, err := w.Authenticate(w.ctx, forge(t, jwt.SigningMethodHS256, secret, claims))
		if got := verdict(err); got != badCredentials {
			t.Errorf("%s: got %q", tt.name, got)
		}
	}
}

func TestAuthenticateRefusesOtherSignatures(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	valid := forge(t, jwt.SigningMethodHS256, secret, good(w))
	part := strings.Split(valid, ".")
	tests := []struct{ name, token string }{
		{"nothing", ""},
		{"garbage", "garbage"},
		{"alg none", forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good(w))},
		{"alg none with the signature of HS256", strings.TrimSuffix(forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good(w)), ".") + "." + part[2]},
		{"HS384 with our secret", forge(t, jwt.SigningMethodHS384, secret, good(w))},
		{"HS512 with our secret", forge(t, jwt.SigningMethodHS512, secret, good(w))},
		{"RS256", forge(t, jwt.SigningMethodRS256, key, good(w))},
		{"another secret", forge(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), good(w))},
		{"an empty secret", forge(t, jwt.SigningMethodHS256, []byte{}, good(w))},
		{"no signature", part[0] + "." + part[1] + "."},
		{"two parts", part[0] + "." + part[1]},
		{"four parts", valid + ".x"},
		{"five parts, as in JWE", valid + ".x.x"},
		{"the scheme in front", "Bearer " + valid},
		{"a line break in the signature", valid[:len(valid)-3] + "\n" + valid[len(valid)-3:]},
		{"padding", valid + "="},
		{"a space behind", valid + " "},
		{"a token longer than any of ours", valid + strings.Repeat("A", 1<<16)},
	}
	for _, tt := range tests {
		_, err := w.Authenticate(w.ctx, tt.token)
		if got := verdict(err); got != badCredentials {
			t.Errorf("%s: got %q", tt.name, got)
		}
	}
}

func TestAuthenticateRefusesEveryTamperedCharacter(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	valid := w.login("userA", password).Access
	for i := range valid {
		others := "AQgw_."
		if i == len(valid)-1 { // its last two bits mean nothing: they must not make a second spelling
			others = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		}
		for _, c := range []byte(others) {
			if valid[i] == c {
				continue
			}
			_, err := w.Authenticate(w.ctx, valid[:i]+string(c)+valid[i+1:])
			if got := verdict(err); got != badCredentials {
				t.Fatalf("character %d as %c: got %q", i, c, got)
			}
		}
	}
	w.session(valid)
}

func TestAccessTokenExpires(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	access := w.login("userA", password).Access
	w.now = w.now.Add(15*time.Minute - time.Second)
	w.session(access)
	w.now = w.now.Add(time.Second)
	_, err := w.Authenticate(w.ctx, access)
	wantVerdict(t, err, badCredentials)
}

func TestAnAccessTokenEndsWithWhatItStandsFor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		end  func(w *world, u identity.User) error
	}{
		{"the user is deleted", func(w *world, u identity.User) error {
			return w.DeleteUser(w.ctx, w.caller("superNone"), u.ID)
		}},
		{"the user is deactivated", func(w *world, u identity.User) error {
			_, err := w.UpdateUser(w.ctx, w.caller("superNone"), u.ID, identity.UserPatch{Active: ptr(false)})
			return err
		}},
		{"the user was deactivated for a while", func(w *world, u identity.User) error {
			_, err := w.UpdateUser(w.ctx, w.caller("superNone"), u.ID, identity.UserPatch{Active: ptr(false)})
			if err == nil {
				_, err = w.UpdateUser(w.ctx, w.caller("superNone"), u.ID, identity.UserPatch{Active: ptr(true)})
			}
			return err
		}},
		{"the user chose a new password", func(w *world, u identity.User) error {
			_, err := w.UpdateUser(w.ctx, u.Caller(), u.ID, identity.UserPatch{Password: ptr(newPassword)})
			return err
		}},
		{"an admin set a new password", func(w *world, u identity.User) error {
			_, err := w.UpdateUser(w.ctx, w.caller("adminA"), u.ID, identity.UserPatch{Password: ptr(newPassword)})
			return err
		}},
		{"the same password is set again", func(w *world, u identity.User) error {
			_, err := w.UpdateUser(w.ctx, u.Caller(), u.ID, identity.UserPatch{Password: ptr(password)})
			return err
		}},
		{"the user is inactive in the database", func(w *world, u identity.User) error {
			u.Active = false // and the epoch unchanged
			_, err := w.store.UpdateUser(w.ctx, u, audit.Event{})
			return err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := populated(t, nil)
			access := w.login("userA", password).Access
			if err := tt.end(w, w.cast["userA"]); err != nil {
				t.Fatal(err)
			}
			_, err := w.Authenticate(w.ctx, access)
			wantVerdict(t, err, badCredentials)
		})
	}
}

func TestAnAccessTokenOutlivesWhatItDoesNotStandFor(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	access := w.login("userA", password).Access
	for _, p := range []identity.UserPatch{
		{Email: ptr("new@example.org")}, {Role: ptr(policy.RoleAdmin)}, {CreateCert: ptr(true)}, {OrganizationID: &w.b},
	} {
		if _, err := w.UpdateUser(w.ctx, w.caller("superNone"), w.cast["userA"].ID, p); err != nil {
			t.Fatal(err)
		}
		w.session(access)
	}
}

func TestNoTokenIsStoredInTheClear(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	tokens := w.login("userA", password)
	if _, err := w.store.RefreshTokenOwner(w.ctx, []byte(tokens.Refresh)); verdict(err) != "not_found: Refresh token not found" {
		t.Errorf("the store knows the refresh token itself: %v", err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(tokens.Refresh)
	if err != nil || len(raw) != 32 {
		t.Errorf("the refresh token holds %d octets: %v", len(raw), err)
	}
}

func FuzzAuthenticate(f *testing.F) {
	valid := "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + base64.RawURLEncoding.EncodeToString([]byte(
		`{"sub":"userNone","id":1,"role":"user","iat":1,"exp":9999999999,"jti":"0.x"}`))
	signature, err := jwt.SigningMethodHS256.Sign(valid, secret)
	if err != nil {
		f.Fatal(err)
	}
	valid += "." + base64.RawURLEncoding.EncodeToString(signature)
	keepSecret(valid)
	for _, s := range []string{valid, "", "..", "a.b.c", valid + "\n", valid[:len(valid)-1], "eyJhbGciOiJub25lIn0.e30.", "e30.e30.e30"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		w := newWorld(t, nil)
		w.join("userNone")
		_, err := w.Authenticate(w.ctx, token)
		if token == valid {
			wantVerdict(t, err, granted)
			return
		}
		wantVerdict(t, err, badCredentials)
	})
}
