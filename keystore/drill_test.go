package keystore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// drill attacks a key and returns the attempts by name.
func drill(t *testing.T, token *keystore.Token, id []byte) map[string]keystore.Attempt {
	t.Helper()
	all, err := token.Drill(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]keystore.Attempt{}
	for _, a := range all {
		if _, twice := byName[a.Name]; twice {
			t.Errorf("%s is reported twice", a.Name)
		}
		byName[a.Name] = a
	}
	return byName
}

// with lists the names of the attempts with this outcome, in order.
func with(attempts map[string]keystore.Attempt, outcome string) []string {
	var names []string
	for name, a := range attempts {
		if a.Outcome == outcome {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// canaries counts the objects that are labelled as canaries.
func canaries(t *testing.T, token *keystore.Token) int {
	t.Helper()
	n := 0
	err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		if err := p.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "signet-canary")}); err != nil {
			return err
		}
		found, _, err := p.FindObjects(s, 100)
		if err != nil {
			return err
		}
		n = len(found)
		return p.FindObjectsFinal(s)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAGeneratedKeyResistsTheDrill(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	for _, k := range kinds[:5] {
		key, id := generate(t, token, k.kind, k.size)
		attempts := drill(t, token, id)
		for name, a := range attempts {
			if a.Outcome != "refused" && a.Outcome != "not-applicable" || a.Call == "" || a.Result == "" {
				t.Errorf("%s %d: %s: %+v", k.kind, k.size, name, a)
			}
		}
		expected := []string{"wrap-CKM_AES_KEY_WRAP", "wrap-CKM_RSA_PKCS_OAEP", "set-CKA_EXTRACTABLE", "copy-CKA_SENSITIVE", "wrap-again-CKM_AES_KEY_WRAP_PAD"}
		if k.kind != keystore.RSA {
			expected = append(expected, "read-CKA_VALUE", "read-again-CKA_VALUE")
		} else if got := attempts["read-CKA_VALUE"]; got.Outcome != "not-applicable" { // an RSA key has none to refuse
			t.Errorf("%s %d: %+v", k.kind, k.size, got)
		}
		switch k.kind {
		case keystore.RSA:
			expected = append(expected, "read-CKA_PRIME_1", "decrypt-CKM_RSA_PKCS", "unwrap-CKM_RSA_PKCS_OAEP")
		case keystore.EC:
			expected = append(expected, "derive-CKM_ECDH1_DERIVE")
		}
		for _, name := range expected {
			if got := attempts[name].Outcome; got != "refused" {
				t.Errorf("%s %d: %s: %q", k.kind, k.size, name, got)
			}
		}
		if got := attempts["set-CKA_EXTRACTABLE"]; got.Target != "canary" || got.Result != "CKR_ACTION_PROHIBITED" {
			t.Errorf("%s %d: %+v", k.kind, k.size, got)
		}
		signsX509(t, key)
		if err := token.Evidence(t.Context(), id); err != nil {
			t.Errorf("%s %d after the drill: %v", k.kind, k.size, err)
		}
	}
	if n := canaries(t, token); n != 0 {
		t.Errorf("%d canaries are left", n)
	}
}

// importKey brings a software key into the token with SoftHSM2's own tool. The PIN is on its command line; there is no
// other way, and the token lives as long as the test.
func importKey(t *testing.T, cfg keystore.Config, key any, id []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "softhsm2-util", "--import", file, "--token", cfg.Token, "--pin", cfg.PIN, "--label", "imported", "--id", fmt.Sprintf("%x", id))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util: %v: %s", err, out)
	}
}

// generateExtractable makes a P-256 key that may leave the token, and be read there unless it is sensitive.
func generateExtractable(id []byte, sensitive bool) func(*pkcs11.Ctx, pkcs11.SessionHandle) error {
	return func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		p256 := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
		_, _, err := p.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
			[]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
				pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
			},
			[]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, sensitive), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
			})
		return err
	}
}

func TestImportedExtractableAndGeneratedKeysLookDifferent(t *testing.T) { // not parallel, see elsewhere
	cfg := softhsmtest.Token(t)
	software, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	softwareEC, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	imported, importedEC, extractable := []byte("imported"), []byte("imported-ec"), []byte("extractable")
	importKey(t, cfg, software, imported)
	importKey(t, cfg, softwareEC, importedEC)
	token := openAs(t, cfg)
	if err := token.Raw(t.Context(), generateExtractable(extractable, true)); err != nil {
		t.Fatal(err)
	}
	_, generated := generate(t, token, keystore.EC, 256)

	for _, tt := range []struct {
		name                                                string
		id                                                  []byte
		local, alwaysSensitive, extractable, neverExtracted bool
		yields                                              []string // at least
		resists                                             []string
	}{
		{
			name: "imported RSA: cannot leave now, decrypts", id: imported,
			yields:  []string{"decrypt-CKM_RSA_PKCS", "decrypt-CKM_RSA_PKCS_OAEP", "unwrap-CKM_RSA_PKCS"},
			resists: []string{"read-CKA_PRIVATE_EXPONENT", "wrap-CKM_AES_KEY_WRAP", "set-CKA_EXTRACTABLE", "set-CKA_SENSITIVE", "copy-CKA_EXTRACTABLE", "wrap-again-CKM_AES_KEY_WRAP"},
		},
		{
			name: "imported EC: cannot leave now", id: importedEC,
			yields:  []string{"set-CKA_UNWRAP"},
			resists: []string{"read-CKA_VALUE", "wrap-CKM_AES_KEY_WRAP_PAD", "set-CKA_EXTRACTABLE", "set-CKA_SENSITIVE"},
		},
		{
			name: "generated extractable: is wrapped", id: extractable, local: true, alwaysSensitive: true, extractable: true,
			yields:  []string{"wrap-CKM_AES_KEY_WRAP_PAD", "wrap-again-CKM_AES_KEY_WRAP_PAD"},
			resists: []string{"read-CKA_VALUE", "set-CKA_SENSITIVE", "copy-CKA_SENSITIVE"},
		},
		{
			name: "generated by us: resists everything", id: generated, local: true, alwaysSensitive: true, neverExtracted: true,
			resists: []string{"read-CKA_VALUE", "wrap-CKM_AES_KEY_WRAP_PAD", "set-CKA_UNWRAP", "copy-CKA_EXTRACTABLE"},
		},
	} {
		in, err := token.Inspect(t.Context(), tt.id)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		want := map[string]any{
			"CKA_LOCAL": tt.local, "CKA_ALWAYS_SENSITIVE": tt.alwaysSensitive, "CKA_SENSITIVE": true,
			"CKA_EXTRACTABLE": tt.extractable, "CKA_NEVER_EXTRACTABLE": tt.neverExtracted,
		}
		for name, v := range want {
			if in.Attributes[name] != v {
				t.Errorf("%s: %s is %v", tt.name, name, in.Attributes[name])
			}
		}
		attempts := drill(t, token, tt.id)
		for _, name := range tt.yields {
			if a := attempts[name]; a.Outcome != "yielded" {
				t.Errorf("%s: %s does not yield: %+v", tt.name, name, a)
			}
		}
		for _, name := range tt.resists {
			if a := attempts[name]; a.Outcome != "refused" {
				t.Errorf("%s: %s is not refused: %+v", tt.name, name, a)
			}
		}
		if yields := with(attempts, "yielded"); len(tt.yields) == 0 && len(yields) > 0 || len(with(attempts, "inconclusive")) > 0 {
			t.Errorf("%s: yields to %v, cannot tell %v", tt.name, yields, with(attempts, "inconclusive"))
		}
	}
	if n := canaries(t, token); n != 0 {
		t.Errorf("%d canaries are left", n)
	}
}

func TestTheDrillYieldsWhereTheTemplateIsWeak(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	for _, tt := range []struct {
		name   string
		weaken []int // boolean attributes that are true instead of false
		yields string
	}{
		{name: "the template", yields: "[]"},
		{name: "modifiable", weaken: []int{pkcs11.CKA_MODIFIABLE}, yields: "[set-CKA_DECRYPT set-CKA_DERIVE set-CKA_SIGN_RECOVER set-CKA_UNWRAP]"},
		{name: "copyable", weaken: []int{pkcs11.CKA_COPYABLE}, yields: "[]"},
		{name: "copyable and modifiable", weaken: []int{pkcs11.CKA_COPYABLE, pkcs11.CKA_MODIFIABLE}, yields: "[set-CKA_DECRYPT set-CKA_DERIVE set-CKA_SIGN_RECOVER set-CKA_UNWRAP]"},
	} {
		id := []byte(tt.name)
		if err := token.GenerateWith(t.Context(), id, func(set crypto11.AttributeSet) {
			for _, attribute := range tt.weaken {
				set[uint(attribute)] = pkcs11.NewAttribute(uint(attribute), true)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if yields := with(drill(t, token, id), "yielded"); fmt.Sprint(yields) != tt.yields {
			t.Errorf("%s: yields to %v, want %s", tt.name, yields, tt.yields)
		}
	}
}

// A key that may unwrap and derive shows so itself; its canary is not asked to take on what it has.
func TestTheDrillYieldsWhereTheKeyIsUseful(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	id := []byte("useful")
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		_, _, err := p.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)},
			[]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
				pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, 2048), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
			},
			[]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
				pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true), pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, true),
			})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	attempts := drill(t, token, id)
	for name, want := range map[string]string{
		"unwrap-CKM_RSA_PKCS": "yielded", "unwrap-CKM_RSA_PKCS_OAEP": "yielded", "set-CKA_DECRYPT": "yielded",
		"decrypt-CKM_RSA_PKCS": "refused", "set-CKA_UNWRAP": "not-applicable", "wrap-CKM_AES_KEY_WRAP": "refused",
	} {
		if got := attempts[name]; got.Outcome != want {
			t.Errorf("%s: %+v, want %s", name, got, want)
		}
	}
	if got := attempts["set-CKA_UNWRAP"].Result; got != "CKA_UNWRAP is true already" {
		t.Errorf("set-CKA_UNWRAP: %s", got)
	}
}

func TestTheDrillReadsAKeyThatIsNotSensitive(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	id := []byte("open")
	if err := token.Raw(t.Context(), generateExtractable(id, false)); err != nil {
		t.Fatal(err)
	}
	attempts := drill(t, token, id)
	for _, name := range []string{"read-CKA_VALUE", "read-again-CKA_VALUE"} {
		if a := attempts[name]; a.Outcome != "yielded" || a.Result != "CKR_OK, 32 octets" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestTheDrillClearsUpAfterOthers(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	_, id := generate(t, token, keystore.EC, 256)
	born := func(at time.Time) []byte {
		s := at.Unix()
		return append([]byte("canary"), byte(s>>24), byte(s>>16), byte(s>>8), byte(s), 1, 2, 3, 4, 5, 6)
	}
	old, fresh, stranger := born(time.Now().Add(-time.Hour)), born(time.Now()), []byte("a key of somebody else")
	for _, id := range [][]byte{old, fresh, stranger} {
		if err := token.GenerateWith(t.Context(), id, func(set crypto11.AttributeSet) {
			set[pkcs11.CKA_LABEL] = pkcs11.NewAttribute(pkcs11.CKA_LABEL, "signet-canary")
		}); err != nil {
			t.Fatal(err)
		}
	}
	drill(t, token, id)
	for _, tt := range []struct {
		name string
		id   []byte
		want bool
	}{{"a leftover", old, false}, {"the canary of another process", fresh, true}, {"a key with the label of a canary", stranger, true}} {
		if there := token.Evidence(t.Context(), tt.id) == nil; there != tt.want {
			t.Errorf("%s: there is %t, want %t", tt.name, there, tt.want)
		}
	}
}

func TestNoCanaryOutlivesItsDrill(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	for _, patience := range []time.Duration{0, 2, 5, 10, 15, 20, 30, 50, 80} {
		ctx, cancel := context.WithTimeout(t.Context(), patience*time.Millisecond)
		if attempts, err := token.Drill(ctx, id); err != nil && attempts != nil {
			t.Errorf("after %d ms: %d attempts and %v", patience, len(attempts), err)
		}
		cancel()
		if n := canaries(t, token); n != 0 {
			t.Errorf("after %d ms: %d canaries are left", patience, n)
		}
	}
	if err := signDigest(key); err != nil {
		t.Error(err)
	}
}

// SoftHSM2 under load may refuse the whole template with CKR_GENERAL_ERROR and take a smaller one.
func TestTheDrillMakesAnotherCanaryWhenOneIsNotLikeTheKey(t *testing.T) {
	t.Parallel()
	cfg, faults := softhsmtest.Faulty(t)
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	_, id := generate(t, token, keystore.EC, 256)
	faults.FailNext("C_GenerateKeyPair", pkcs11.CKR_GENERAL_ERROR, 3)
	if left := with(drill(t, token, id), "inconclusive"); len(left) > 0 {
		t.Errorf("inconclusive: %v", left)
	}
}

func TestTheDrillSurvivesTheLossOfItsSessions(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	_, id := generate(t, token, keystore.EC, 256)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			if err := token.DropSessions(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for range 5 {
		attempts := drill(t, token, id)
		if bad := append(with(attempts, "yielded"), with(attempts, "inconclusive")...); len(bad) > 0 {
			t.Errorf("neither refused nor not applicable: %v", bad)
		}
	}
	<-done
	if n := canaries(t, token); n != 0 {
		t.Errorf("%d canaries are left", n)
	}
}

func TestTheDrillNeedsAKey(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	if attempts, err := token.Drill(t.Context(), []byte("nothing")); err == nil || attempts != nil || !strings.Contains(err.Error(), "no such key") {
		t.Errorf("%v, %v", attempts, err)
	}
}

// TestTheDrillOnAPoorToken runs in a process of its own: SoftHSM2 reads once which mechanisms it shall have.
func TestTheDrillOnAPoorToken(t *testing.T) {
	if os.Getenv("KEYSTORE_TEST_POOR") == "" {
		dir := t.TempDir()
		conf := filepath.Join(dir, "softhsm2.conf")
		text := "directories.tokendir = " + dir + "\nslots.mechanisms = CKM_RSA_PKCS_KEY_PAIR_GEN,CKM_RSA_PKCS,CKM_SHA256_RSA_PKCS,CKM_AES_KEY_GEN\n"
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTheDrillOnAPoorToken$")
		cmd.Env = append(os.Environ(), "KEYSTORE_TEST_POOR="+softhsmtest.Token(t).Module, "SOFTHSM2_CONF="+conf)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	cfg := keystore.Config{Module: os.Getenv("KEYSTORE_TEST_POOR"), Token: "poor", PIN: "123456", Timeout: time.Minute}
	if err := keystore.InitToken(t.Context(), cfg, "12345678"); err != nil {
		t.Fatal(err)
	}
	token := openAs(t, cfg)
	_, id := generate(t, token, keystore.RSA, 2048)
	attempts := drill(t, token, id)
	for name, want := range map[string]string{
		"wrap-CKM_AES_KEY_WRAP": "not-applicable", "wrap-CKM_AES_KEY_WRAP_PAD": "not-applicable", "wrap-CKM_AES_CBC": "not-applicable",
		"wrap-CKM_RSA_PKCS": "refused", "read-CKA_PRIME_1": "refused", "set-CKA_EXTRACTABLE": "refused",
	} {
		if got := attempts[name]; got.Outcome != want {
			t.Errorf("%s: %+v, want %s", name, got, want)
		}
	}
}
