package main

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// entry is a further token as the setting tokens has it.
func entry(t *testing.T, name string, cfg keystore.Config, worker bool) string {
	t.Helper()
	return fmt.Sprintf("  %s: {module: %s, token: %s, pin-file: %s, worker: %t}\n", name, cfg.Module, cfg.Token, secretFile(t, cfg.PIN, 0o600), worker)
}

func TestTokensAreReadFromTheFileTheFlagAndAFileOfTheirOwn(t *testing.T) {
	t.Parallel()
	one := "vault: {module: /lib/hsm.so, token: ca, pin-file: /etc/pin, max-sessions: 4, timeout: 5s, worker: true}"
	want := furtherToken{Module: "/lib/hsm.so", Token: "ca", PINFile: "/etc/pin", MaxSessions: 4, Timeout: 5 * time.Second, Worker: true}
	for name, args := range map[string][]string{
		"a mapping in the settings file": {"--config", file(t, "tokens:\n  "+one+"\n")},
		"text":                           {"--tokens", one},
		"a file":                         {"--tokens", "@" + file(t, one)},
	} {
		if c, err := settings(args...); err != nil || c.Tokens.byName["vault"] != want {
			t.Errorf("%s: %+v, %v", name, c.Tokens, err)
		}
	}
	for _, c := range []struct{ name, text, part string }{
		{"the name of the default token", "default: {module: a, token: b, pin-file: c}", "another name"},
		{"a name with other characters", "Vault_A: {module: a, token: b, pin-file: c}", "lower-case"},
		{"no PIN file", "vault: {module: a, token: b}", "pin-file"},
		{"a PIN", "vault: {module: a, token: b, pin-file: c, pin: 1234}", "pin"},
		{"a label too long", "vault: {module: a, token: 123456789012345678901234567890123, pin-file: c}", "32 bytes"},
		{"no mapping", "[vault]", ""},
		{"a file that is not there", "@/nonexistent", "no such file"},
	} {
		if _, err := settings("--tokens", c.text); err == nil || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.part)
		}
	}
}

func TestACAIsMadeOnTheTokenThatIsAskedFor(t *testing.T) {
	t.Parallel()
	inBoth(t, testSecondToken)
}

func testSecondToken(t *testing.T, flags ...string) {
	cfg, second := softhsmtest.Faulty(t)
	s := newSite(t, "sqlite", append(flags, "--tokens", entry(t, "vault", cfg, len(flags) > 0))...)
	r := s.start("signet")
	r.firstUser()
	request := object{"name": "Vault", "subject_dn": "CN=Vault", "key_type": "ec", "key_size": 256, "token": "vault"}
	made := r.must(http.StatusCreated, "POST", "/api/v1/cas/", request)
	home := r.must(http.StatusCreated, "POST", "/api/v1/cas/", object{"name": "Home", "subject_dn": "CN=Home", "key_type": "ec"})
	if made["token"] != "vault" || home["token"] != "default" {
		t.Errorf("the CAs are on %v and %v", made["token"], home["token"])
	}
	if n := second.Counts().Calls["C_GenerateKeyPair"]; n == 0 {
		t.Error("nothing was made on the token that was asked for")
	}
	request["token"] = "attic"
	if answer := r.must(http.StatusBadRequest, "POST", "/api/v1/cas/", request); !strings.Contains(fmt.Sprint(answer["detail"]), "vault") {
		t.Errorf("the refusal does not name the tokens: %v", answer["detail"])
	}

	// One token is away: what is on the other goes on, and the server is ready.
	sign := func(ca object) int {
		status, _, _ := r.do("POST", "/api/v1/certificates/sign-csr", object{"ca_id": id(ca), "certificate_type": "server", "csr": csr(t, "www.example.com")})
		return status
	}
	second.Remove()
	if status := sign(made); status != http.StatusServiceUnavailable {
		t.Errorf("sign on a token that is away: %d", status)
	}
	if status := sign(home); status != http.StatusCreated {
		t.Errorf("sign on the other one: %d", status)
	}
	r.raw(http.StatusOK, "GET", "/readyz", nil)

	// And it starts so, too.
	r.stop(syscall.SIGTERM)
	r = s.start("signet")
	r.login(rootName, rootPassword)
	if status := sign(home); status != http.StatusCreated {
		t.Errorf("after a start without one token, sign on the other: %d", status)
	}
	second.Restore()
	for start := time.Now(); sign(made) != http.StatusCreated; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("the token is not connected when it is there")
		}
	}
}

func TestAClonedTokenTakesOverAndGivesBack(t *testing.T) {
	t.Parallel()
	inBoth(t, testTwins)
}

// testTwins has the twin in the server's process, wherever its home token is.
func testTwins(t *testing.T, flags ...string) {
	_, home := softhsmtest.Faulty(t)
	s := newSite(t, "sqlite", flags...)
	r := s.start("signet", home.Env()...)
	r.firstUser()
	authority := r.createCA("Cloned")
	issued := r.must(http.StatusCreated, "POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority), object{
		"common_name": "www.example.com", "subject_dn": "CN=www.example.com", "certificate_type": "server"})
	r.stop(syscall.SIGTERM)

	cfg, twin := home.Clone(t)
	s.args = append(s.args, "--pkcs11-timeout", "4s", "--tokens", entry(t, "twin", cfg, false))
	r = s.start("signet", home.Env()...)
	r.login(rootName, rootPassword)
	l := r.startLoad(authority, csr(t, "www.example.com"))
	l.others = 1 // the one that was issued before
	l.more(20, 20*time.Second)
	signatures := func(f *softhsmtest.Faults) int { return f.Counts().Calls["C_Sign"] }

	home.Remove()
	l.more(100, 20*time.Second)
	before := signatures(twin)
	l.more(50, 10*time.Second)
	if n := signatures(twin) - before; n < 30 {
		t.Errorf("%d of 50 certificates were signed on the twin", n)
	}
	r.raw(http.StatusOK, "GET", "/readyz", nil)
	key := r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", id(issued)), nil)
	if key["private_key"] != issued["private_key"] {
		t.Error("the twin does not open the leaf key that was sealed at home")
	}
	home.Restore()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		before := signatures(home)
		l.more(20, 10*time.Second)
		if signatures(home)-before >= 10 {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the home token does not sign again")
		}
	}
	l.verify(t)
	if l.refused > 0 {
		t.Errorf("%d requests were refused", l.refused)
	}

	// A twin that yields is a way out for the key, whatever its home token refuses.
	yields(twin)
	result := r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/cas/%d/key-drill", authority), nil)
	if result["grade"] != "asserted" || !strings.Contains(fmt.Sprint(result["reasons"]), "@twin") {
		t.Errorf("grade %v, because %v", result["grade"], result["reasons"])
	}
	r.must(http.StatusConflict, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": authority, "certificate_type": "server", "csr": csr(t, "www.example.com")})
}
