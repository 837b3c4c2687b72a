package keystore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm"
	"signet/softhsm/softhsmtest"
)

func TestAWrongPINIsTriedOnce(t *testing.T) {
	t.Parallel()
	cfg := softhsmtest.Token(t)
	var logins atomic.Int32
	wrong := cfg
	wrong.PIN = "a wrong PIN"
	wrong.Observe = func(op string, _ time.Duration, _ error) {
		if op == "login" {
			logins.Add(1)
		}
	}
	for i := range 3 {
		_, err := keystore.Open(t.Context(), wrong)
		if !errors.Is(err, keystore.ErrPIN) || errors.Is(err, keystore.ErrUnavailable) {
			t.Fatalf("attempt %d: %v", i, err)
		}
		if strings.Contains(err.Error(), wrong.PIN) || strings.Contains(err.Error(), cfg.PIN) {
			t.Errorf("the PIN shows in %q", err)
		}
	}
	if n := logins.Load(); n != 1 {
		t.Errorf("C_Login was called %d times with the wrong PIN", n)
	}
	token := openAs(t, cfg)
	if _, err := keystore.Open(t.Context(), wrong); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("a wrong PIN beside a login that holds: %v", err)
	}
	if err := token.Check(t.Context()); err != nil {
		t.Errorf("the right PIN after the wrong one: %v", err)
	}
}

// A PIN that was changed under way is tried once, too, whatever the number of callers.
func TestAPINThatChangedIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	cfg := softhsmtest.Token(t)
	var refused atomic.Int32
	cfg.Observe = func(op string, _ time.Duration, err error) {
		if op == "login" && err != nil {
			refused.Add(1)
		}
	}
	token := openAs(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		return p.SetPIN(s, cfg.PIN, softhsm.NewPIN())
	}); err != nil {
		t.Fatal(err)
	}
	if err := token.DropSessions(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := signDigest(key); !errors.Is(err, keystore.ErrPIN) {
			t.Errorf("sign after the PIN was changed: %v", err)
		}
	}
	if n := refused.Load(); n != 1 {
		t.Errorf("C_Login was called %d times with the old PIN", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	good := softhsmtest.Token(t)
	notALibrary := filepath.Join(t.TempDir(), "module.so")
	if err := os.WriteFile(notALibrary, []byte("not a library"), 0o700); err != nil {
		t.Fatal(err)
	}
	openAs(t, good) // so that the module is in use
	for _, c := range []struct {
		name   string
		change func(*keystore.Config)
		says   string
	}{
		{"no module", func(c *keystore.Config) { c.Module = "" }, "no PKCS#11 module"},
		{"a module that does not exist", func(c *keystore.Config) { c.Module = "/nowhere/module.so" }, "/nowhere/module.so"},
		{"a file that is no module", func(c *keystore.Config) { c.Module = notALibrary }, "not a PKCS#11 library"},
		{"a label that no token has", func(c *keystore.Config) { c.Token = "nobody" }, `"nobody"`},
		{"a prefix of the label", func(c *keystore.Config) { c.Token = c.Token[:10] }, good.Token},
		{"no label", func(c *keystore.Config) { c.Token = "" }, "no token is labelled"},
		{"other initialization arguments than those in use", func(c *keystore.Config) { c.InitArgs = "configdir=x" }, "initialization arguments"},
	} {
		cfg := good
		c.change(&cfg)
		_, err := keystore.Open(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrPIN) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && strings.Contains(err.Error(), good.PIN) {
			t.Errorf("%s: the PIN shows in %q", c.name, err)
		}
	}
}

func TestInitTokenRefuses(t *testing.T) {
	t.Parallel()
	cfg := softhsmtest.Token(t)
	if err := keystore.InitToken(t.Context(), cfg, softhsm.NewPIN()); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("a label that is taken: %v", err)
	}
	for name, label := range map[string]string{"no label": "", "a label of 33 bytes": strings.Repeat("x", 33)} {
		other := cfg
		other.Token = label
		if err := keystore.InitToken(t.Context(), other, softhsm.NewPIN()); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	openAs(t, cfg)
}

func TestEveryOperationIsObserved(t *testing.T) {
	t.Parallel()
	cfg := softhsmtest.Token(t)
	seen := make(chan string, 1000)
	cfg.Observe = func(op string, took time.Duration, err error) {
		if took <= 0 {
			t.Errorf("%s took %v", op, took)
		}
		seen <- op
	}
	token := openAs(t, cfg)
	key, id := generate(t, token, keystore.EC, 256)
	if err := signDigest(key); err != nil {
		t.Error(err)
	}
	sealed, err := token.Seal(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Unseal(t.Context(), sealed, nil); err != nil {
		t.Error(err)
	}
	if _, err := openAs(t, cfg).Signer(t.Context(), id, mustDER(t, key.Public()), keystore.BarBorn); err != nil {
		t.Error(err)
	}
	got := map[string]bool{}
	for len(seen) > 0 {
		got[<-seen] = true
	}
	for _, op := range []string{"login", "generate", "sign", "seal", "unseal", "find"} {
		if !got[op] {
			t.Errorf("%s was not observed", op)
		}
	}
}

func TestCheckIsARealSignature(t *testing.T) { // not parallel, see elsewhere
	token, cfg := open(t)
	for range 3 {
		if err := token.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	other := openAs(t, cfg)
	if err := other.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	var id []byte
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		if err := p.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "signet-health")}); err != nil {
			return err
		}
		found, _, err := p.FindObjects(s, 10)
		if err = errors.Join(err, p.FindObjectsFinal(s)); err != nil {
			return err
		}
		if len(found) != 1 {
			t.Errorf("%d health keys, want 1", len(found))
		}
		value, err := p.GetAttributeValue(s, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
		if err == nil {
			id = value[0].Value
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := token.Evidence(t.Context(), id); err != nil {
		t.Error(err)
	}
	if _, err := elsewhere(t, cfg, "destroy", id); err != nil {
		t.Fatal(err)
	}
	if err := token.Check(t.Context()); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("check of a token that lost its keys: %v", err)
	}
}

// Not parallel: no other token may hold the module.
func TestAFailedOpenLetsGoOfTheModule(t *testing.T) {
	cfg := softhsmtest.Token(t)
	for name, change := range map[string]func(*keystore.Config){
		"wrong PIN":   func(c *keystore.Config) { c.PIN = "a wrong PIN" },
		"wrong label": func(c *keystore.Config) { c.Token = "nobody" },
	} {
		other := cfg
		change(&other)
		if _, err := keystore.Open(t.Context(), other); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if keystore.Initialized(cfg.Module) {
			t.Errorf("%s: the module stays initialized", name)
		}
	}
}
