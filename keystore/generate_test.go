package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"math/big"
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
)

// verify checks a signature with the standard library.
func verify(public crypto.PublicKey, digest, signature []byte, hash crypto.Hash) error {
	ok := false
	switch k := public.(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(k, hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, digest, signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, digest, signature)
	}
	if !ok {
		return fmt.Errorf("signature of %T does not verify", public)
	}
	return nil
}

// kinds are the key types of the contract. RSA above 2048 bits is slow to make, so all tests of all kinds share one
// set of keys.
var kinds = []struct {
	kind keystore.KeyType
	size int
}{
	{keystore.EC, 256}, {keystore.EC, 384}, {keystore.EC, 521}, {keystore.Ed25519, 256},
	{keystore.RSA, 2048}, {keystore.RSA, 3072}, {keystore.RSA, 4096},
}

func TestEveryKindOfKeySignsAndIsFoundAgain(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	type made struct {
		id  []byte
		key crypto.Signer
	}
	keys := map[string]made{}
	for _, k := range kinds {
		key, id := generate(t, token, k.kind, k.size)
		keys[fmt.Sprint(k.kind, k.size)] = made{id, key}
		signsX509(t, key)
		showsEveryAttribute(t, token, id)
	}
	signsPSS(t, keys["rsa2048"].key)
	for _, name := range []string{"rsa2048", "ec384"} {
		public, err := elsewhere(t, cfg, "crypto11", keys[name].id)
		if err != nil {
			t.Errorf("crypto11 in another process, %s: %v", name, err)
		} else if !bytes.Equal(public, mustDER(t, keys[name].key.Public())) {
			t.Errorf("crypto11 reads another public key of %s", name)
		}
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}

	token = openAs(t, cfg)
	for name, m := range keys {
		again, err := token.Signer(t.Context(), m.id, mustDER(t, m.key.Public()), keystore.BarBorn)
		if err != nil {
			t.Errorf("%s is not found again: %v", name, err)
			continue
		}
		signsX509(t, again)
	}
}

// signsX509 signs a certificate and a CRL; crypto/x509 verifies both.
func signsX509(t *testing.T, key crypto.Signer) {
	t.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatalf("certificate by %T: %v", key.Public(), err)
	}
	issuer, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := issuer.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
	der, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), NextUpdate: time.Now().Add(time.Hour)}, issuer, key)
	if err != nil {
		t.Fatalf("CRL by %T: %v", key.Public(), err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
}

func signsPSS(t *testing.T, key crypto.Signer) {
	t.Helper()
	digest := sha256.Sum256([]byte("message"))
	for _, salt := range []int{rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthAuto, 20} {
		opts := &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		signature, err := key.Sign(nil, digest[:], opts)
		if err != nil {
			t.Errorf("PSS, salt %d: %v", salt, err)
			continue
		}
		if err := rsa.VerifyPSS(key.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], signature, opts); err != nil {
			t.Errorf("PSS, salt %d: %v", salt, err)
		}
	}
}

func showsEveryAttribute(t *testing.T, token *keystore.Token, id []byte) {
	t.Helper()
	found, err := token.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	got := found.Attributes
	want := map[string]any{
		"CKA_CLASS": "CKO_PRIVATE_KEY", "CKA_LABEL": t.Name(), "CKA_ID": fmt.Sprintf("%x", id),
		"CKA_TOKEN": true, "CKA_PRIVATE": true, "CKA_SENSITIVE": true, "CKA_ALWAYS_SENSITIVE": true,
		"CKA_EXTRACTABLE": false, "CKA_NEVER_EXTRACTABLE": true, "CKA_LOCAL": true, "CKA_WRAP_WITH_TRUSTED": true,
		"CKA_MODIFIABLE": false, "CKA_COPYABLE": false, "CKA_DESTROYABLE": true, "CKA_ALWAYS_AUTHENTICATE": false,
		"CKA_SIGN": true, "CKA_SIGN_RECOVER": false, "CKA_DECRYPT": false, "CKA_UNWRAP": false, "CKA_DERIVE": false,
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s = %v, want %v", name, got[name], value)
		}
	}
	for _, name := range []string{"CKA_KEY_TYPE", "CKA_KEY_GEN_MECHANISM"} {
		if s, _ := got[name].(string); !strings.HasPrefix(s, "CK") {
			t.Errorf("%s = %v is no PKCS#11 name", name, got[name])
		}
	}
	allowed, _ := got["CKA_ALLOWED_MECHANISMS"].([]string)
	for _, name := range allowed {
		if !slices.Contains([]string{"CKM_EDDSA", "CKM_ECDSA", "CKM_RSA_PKCS", "CKM_RSA_PKCS_PSS"}, name) && !strings.HasPrefix(name, "CKM_SHA") && !strings.HasPrefix(name, "CKM_ECDSA_SHA") {
			t.Errorf("%s is allowed and no signing mechanism", name)
		}
	}
	if len(allowed) == 0 || len(got) != len(want)+3 {
		t.Errorf("attributes read: %v", slices.Sorted(maps.Keys(got)))
	}
}

func TestGenerateRefuses(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	_, taken := generate(t, token, keystore.EC, 256)
	for _, c := range []struct {
		name string
		spec keystore.Spec
		want error
	}{
		{"an id that names a key", keystore.Spec{ID: taken, Type: keystore.EC, Size: 256}, keystore.ErrExists},
		{"an id that names a key of another type", keystore.Spec{ID: taken, Type: keystore.Ed25519, Size: 256}, keystore.ErrExists},
		{"RSA of 1024 bits", keystore.Spec{ID: []byte{1}, Type: keystore.RSA, Size: 1024}, keystore.ErrUnsupported},
		{"RSA of 2047 bits", keystore.Spec{ID: []byte{1}, Type: keystore.RSA, Size: 2047}, keystore.ErrUnsupported},
		{"P-224", keystore.Spec{ID: []byte{1}, Type: keystore.EC, Size: 224}, keystore.ErrUnsupported},
		{"an unknown type", keystore.Spec{ID: []byte{1}, Type: "dsa", Size: 2048}, keystore.ErrUnsupported},
		{"the zero spec", keystore.Spec{}, keystore.ErrUnsupported},
	} {
		if _, err := token.Generate(t.Context(), c.spec); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := token.Generate(t.Context(), keystore.Spec{Type: keystore.EC, Size: 256}); err == nil {
		t.Error("an empty CKA_ID is accepted")
	}
	if n := count(t, token, taken); n != 2 {
		t.Errorf("%d objects have the taken id, want the 2 of the first pair", n)
	}
}

// count is the number of key objects with this CKA_ID.
func count(t *testing.T, token *keystore.Token, id []byte) (n int) {
	t.Helper()
	err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		n = 0
		for _, class := range []int{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
			objects, err := find(p, s, class, id)
			if err != nil {
				return err
			}
			n += len(objects)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAKeyWithoutEvidenceIsDestroyed(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	for _, c := range []struct {
		name    string
		change  func(crypto11.AttributeSet)
		missing []string
	}{
		{"extractable", func(a crypto11.AttributeSet) {
			a[pkcs11.CKA_EXTRACTABLE] = pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true)
		}, []string{"CKA_EXTRACTABLE is not false", "CKA_NEVER_EXTRACTABLE is not true"}},
		{"not sensitive", func(a crypto11.AttributeSet) {
			a[pkcs11.CKA_SENSITIVE] = pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false)
		}, []string{"CKA_SENSITIVE is not true", "CKA_ALWAYS_SENSITIVE is not true"}},
		{"decrypts, unwraps and derives", func(a crypto11.AttributeSet) {
			for _, use := range []crypto11.AttributeType{pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE} {
				a[use] = pkcs11.NewAttribute(use, true)
			}
		}, []string{"CKA_DECRYPT is not false", "CKA_UNWRAP is not false", "CKA_DERIVE is not false"}},
		{"left to the token", func(a crypto11.AttributeSet) { a.Unset(pkcs11.CKA_SENSITIVE) }, []string{"CKA_SENSITIVE is not true"}},
	} {
		id := []byte(c.name)
		err := token.GenerateWith(t.Context(), id, c.change)
		if !errors.Is(err, keystore.ErrEvidence) || errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, m := range c.missing {
			if !strings.Contains(err.Error(), m) {
				t.Errorf("%s: %q does not say that %s", c.name, err, m)
			}
		}
		if n := count(t, token, id); n != 0 {
			t.Errorf("%s: %d objects are left", c.name, n)
		}
	}
	if err := token.GenerateWith(t.Context(), []byte("control"), func(crypto11.AttributeSet) {}); err != nil {
		t.Errorf("the full template: %v", err)
	}
}

func TestAnImportedKeyHasNoEvidence(t *testing.T) { // not parallel, see elsewhere
	token, cfg := open(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.der")
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "pkcs11-tool", "--module", cfg.Module, "--token-label", cfg.Token, "--login", "--pin", "env:KEYSTORE_TEST_PIN",
		"--write-object", file, "--type", "privkey", "--id", "aa", "--label", "imported")
	cmd.Env = append(os.Environ(), "KEYSTORE_TEST_PIN="+cfg.PIN)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err = token.Evidence(t.Context(), []byte{0xaa})
	if !errors.Is(err, keystore.ErrEvidence) {
		t.Fatalf("evidence of an imported key: %v; pkcs11-tool said %s; again: %v", err, out, token.Evidence(t.Context(), []byte{0xaa}))
	}
	for _, missing := range []string{"CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE"} {
		if !strings.Contains(err.Error(), missing) {
			t.Errorf("%q does not name %s", err, missing)
		}
	}
}
