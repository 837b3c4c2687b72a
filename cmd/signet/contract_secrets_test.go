package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/softhsm"
)

// secret is something that must not be found, and the one file in the data folder that may hold it.
type secret struct {
	what string
	data []byte
	home string // "" for none
}

// forms are the byte strings under which data hides: itself, in hexadecimal, and in base64 whatever its offset.
func forms(data []byte) [][]byte {
	lower := hex.EncodeToString(data)
	all := [][]byte{data, []byte(lower), []byte(strings.ToUpper(lower))}
	for offset := range 3 {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			whole := (len(data) - offset) / 3 * 3 // the last group depends on what follows
			all = append(all, []byte(e.EncodeToString(data[offset:offset+whole])))
		}
	}
	return all
}

// found names the secrets that are in a place. Line ends are also looked over, as PEM and JSON have them.
func found(secrets []secret, file string, content []byte) []string {
	flat := bytes.ReplaceAll(bytes.ReplaceAll(content, []byte("\n"), nil), []byte(`\n`), nil)
	var all []string
	for _, s := range secrets {
		if s.home != "" && s.home == file {
			continue
		}
		if slices.ContainsFunc(forms(s.data), func(form []byte) bool { return bytes.Contains(content, form) || bytes.Contains(flat, form) }) {
			all = append(all, s.what)
		}
	}
	return all
}

// keySecrets are the parts of a PKCS#8 private key that disclose it.
func keySecrets(t *testing.T, name, text string) []secret {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("%s: no private key", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	all := []secret{{what: name + ", PKCS#8", data: block.Bytes}}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		all = append(all, secret{what: name + ", d", data: k.D.Bytes()}, secret{what: name + ", p", data: k.Primes[0].Bytes()}, secret{what: name + ", q", data: k.Primes[1].Bytes()})
	case *ecdsa.PrivateKey:
		all = append(all, secret{what: name + ", scalar", data: k.D.Bytes()})
	case ed25519.PrivateKey:
		all = append(all, secret{what: name + ", seed", data: k.Seed()})
	default:
		t.Fatalf("%s: a %T", name, key)
	}
	return all
}

func TestContractTheSearchForSecretsFindsThem(t *testing.T) {
	t.Parallel()
	needle := []byte("0123456789abcdefghijklmnopqrstuv")
	secrets := []secret{{what: "needle", data: needle, home: "home"}}
	for name, place := range map[string][]byte{
		"as it is": needle, "in hexadecimal": []byte(hex.EncodeToString(needle)), "in base64": []byte(base64.StdEncoding.EncodeToString(needle)),
		"in base64, one later": []byte(base64.StdEncoding.EncodeToString(append([]byte("x"), needle...))),
		"in base64, two later": []byte(base64.URLEncoding.EncodeToString(append([]byte("xy"), needle...))),
		"in PEM":               pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: slices.Concat([]byte("12345678901234567890"), needle, needle)}),
	} {
		equal(t, name, len(found(secrets, "file", place)), 1)
	}
	equal(t, "at home", len(found(secrets, "home", needle)), 0)
	equal(t, "elsewhere", len(found(secrets, "file", []byte("nothing"))), 0)
}

func TestContractNoSecretIsInTheDataFolderTheDatabaseTheLogOrTheArguments(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, database, "--log-level", "debug")
			secrets, known := secretWorkload(t, w)
			dir := w.site.args[slices.Index(w.site.args, "--data-dir")+1]
			for _, file := range []string{"secret.key", "softhsm/pin", "softhsm/so-pin"} {
				info, err := os.Stat(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				equal(t, file+" mode", info.Mode().Perm(), 0o600)
				data, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				data = bytes.TrimSpace(data)
				secrets = append(secrets, secret{what: file, data: data, home: file})
				if raw, err := hex.DecodeString(string(data)); err == nil && len(raw) >= 16 {
					secrets = append(secrets, secret{what: file + ", decoded", data: raw, home: file})
				}
			}
			for _, name := range []string{"cmdline", "environ"} {
				data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.server.cmd.Process.Pid, name))
				if err != nil {
					t.Fatal(err)
				}
				report(t, secrets, "/proc/PID/"+name, data)
			}
			if seen := searchFolder(t, secrets, dir); database == "sqlite" && !seen(known) {
				t.Errorf("the search is blind: %q is not in the data folder", known)
			}
			if database == "postgres" {
				dump, err := exec.Command("pg_dump", w.site.url).Output()
				if err != nil || !bytes.Contains(dump, known) {
					t.Fatalf("pg_dump: %v, and %q is in it: %t", err, known, bytes.Contains(dump, known))
				}
				report(t, secrets, "dump", dump)
			}
			w.server.stop(syscall.SIGTERM)
			report(t, secrets, "standard error", []byte(w.server.stderr.String()))
			report(t, secrets, "standard output", []byte(w.server.stdout.String()))
			searchFolder(t, secrets, dir)
			if !bytes.Contains([]byte(w.server.stderr.String()), []byte("/api/v1/certificates/")) {
				t.Error("the search is blind: the log has no request")
			}
		})
	}
}

// report fails for every secret in a place.
func report(t *testing.T, secrets []secret, place string, content []byte) {
	t.Helper()
	for _, what := range found(secrets, place, content) {
		t.Errorf("%s is in %s", what, place)
	}
	if bytes.Contains(content, []byte("PRIVATE KEY-----")) {
		t.Errorf("a private key is in %s", place)
	}
}

// searchFolder searches every file, and returns whether any of them had some other content.
func searchFolder(t *testing.T, secrets []secret, dir string) (seen func([]byte) bool) {
	t.Helper()
	var all [][]byte
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // a database removes its own files
			return nil
		}
		file, relErr := filepath.Rel(dir, path)
		report(t, secrets, file, data)
		all = append(all, data)
		return errors.Join(err, relErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 4 {
		t.Errorf("only %d files in %s", len(all), dir)
	}
	return func(content []byte) bool {
		return slices.ContainsFunc(all, func(file []byte) bool { return bytes.Contains(file, content) })
	}
}

// secretWorkload lets every kind of secret pass through the server. known is something that it stores in the clear.
func secretWorkload(t *testing.T, w *world) (secrets []secret, known []byte) {
	t.Helper()
	add := func(what, text string) { secrets = append(secrets, secret{what: what, data: []byte(text)}) }
	root, organization := w.root(t), w.organization(t)
	add("the superuser's password", rootPassword)
	add("the superuser's access token", root.access)
	p := w.member(t, "admin", organization, nil)
	add("a password", p.password)
	add("an access token", p.access)
	add("a refresh token", p.refresh)
	renewed := p.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": p.refresh}).want(http.StatusOK).object()
	add("a renewed access token", renewed["access_token"].(string))
	add("a renewed refresh token", renewed["refresh_token"].(string))

	// Secrets in requests that fail are secrets too.
	form := url.Values{"username": {p.name}, "password": {"a mistyped password"}}
	p.ask("POST", "/api/v1/auth/token", form).want(http.StatusUnauthorized)
	p.ask("POST", "/api/v1/auth/token?password=the+password+in+the+query", form).want(http.StatusUnauthorized)
	p.ask("POST", "/api/v1/users/", object{"username": 5, "email": 5, "password": "a password in a bad body"}).want(http.StatusUnprocessableEntity)
	p.ask("POST", "/api/v1/users/", `{"username": "x", "password": "a password in a broken body"`).want(http.StatusUnprocessableEntity)
	p.ask("POST", "/api/v1/auth/refresh", object{"refresh_token": "a-refresh-token-that-nobody-has"}).want(http.StatusUnauthorized)
	p.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", p.id), object{"password": "a changed password"}).want(http.StatusOK)
	for _, text := range []string{"a mistyped password", "a password in a bad body", "a password in a broken body", "a-refresh-token-that-nobody-has", "a changed password", "the+password+in+the+query"} {
		add(text, text)
	}

	authority := root.ca(w.unique("secrets"), nil).want(http.StatusCreated).id()
	for kind, size := range map[string]any{"rsa": 2048, "ec": 256, "ed25519": nil} {
		for _, keep := range []bool{true, false} {
			made := root.issue(authority, "secrets.example", "server", object{"key_type": kind, "key_size": size, "include_private_key": keep}).want(http.StatusCreated)
			if !keep {
				continue
			}
			text := made.object()["private_key"].(string)
			secrets = append(secrets, keySecrets(t, kind+" leaf key", text)...)
			for _, path := range []string{"/api/v1/certificates/%d/private-key", "/api/v1/export/certificate/%d/private-key"} {
				root.ask("GET", fmt.Sprintf(path, made.id()), nil).want(http.StatusOK)
			}
			root.revoke(made.id(), "").want(http.StatusOK)
		}
	}
	mistake := opensslPrivate(t)
	root.issue(authority, "mistake.example", "server", object{"public_key": mistake}).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	root.sign(authority, mistake, "server", nil).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	return append(secrets, keySecrets(t, "a key that was sent by mistake", mistake)...), []byte(p.name + "@example.com")
}

// Not parallel: this process becomes a second user of the server's token, and SoftHSM2 finds its token by an
// environment variable.
func TestContractTheTokenGivesItsOwnerNoCAKey(t *testing.T) {
	w := newWorld(t, "sqlite")
	for _, kind := range []string{"rsa", "ec", "ed25519"} {
		made := w.root(t).ca(w.unique(kind), object{"key_type": kind, "key_size": map[string]any{"rsa": 2048}[kind]}).want(http.StatusCreated)
		eventually(t, 30*time.Second, "the responder has its key", func() bool {
			return w.root(t).ask("GET", fmt.Sprintf("/api/v1/cas/%d/ocsp", made.id()), nil).status == http.StatusOK
		})
	}
	dir := w.site.args[slices.Index(w.site.args, "--data-dir")+1] + "/softhsm"
	t.Setenv("SOFTHSM2_CONF", "") // is put back after the test
	path, err := softhsm.Use(dir)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := os.ReadFile(dir + "/pin")
	if err != nil {
		t.Fatal(err)
	}
	module, session := openToken(t, path, strings.TrimSpace(string(pin)))

	if err := module.FindObjectsInit(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}); err != nil {
		t.Fatal(err)
	}
	keys, _, err := module.FindObjects(session, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := module.FindObjectsFinal(session); err != nil {
		t.Fatal(err)
	}
	equal(t, "private keys: three of CAs, three of their OCSP responders, and that of the health check", len(keys), 7)
	for _, key := range keys {
		for name, attribute := range map[string]uint{"CKA_VALUE": pkcs11.CKA_VALUE, "CKA_PRIVATE_EXPONENT": pkcs11.CKA_PRIVATE_EXPONENT, "CKA_PRIME_1": pkcs11.CKA_PRIME_1} {
			got, err := module.GetAttributeValue(session, key, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
			if !errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_SENSITIVE)) && !errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)) {
				t.Errorf("%s can be read: %d attributes, %v", name, len(got), err)
			}
		}
		for name, want := range map[uint]bool{
			pkcs11.CKA_SENSITIVE: true, pkcs11.CKA_ALWAYS_SENSITIVE: true, pkcs11.CKA_EXTRACTABLE: false, pkcs11.CKA_NEVER_EXTRACTABLE: true,
			pkcs11.CKA_LOCAL: true, pkcs11.CKA_PRIVATE: true, pkcs11.CKA_TOKEN: true, pkcs11.CKA_WRAP_WITH_TRUSTED: true, pkcs11.CKA_SIGN: true,
			pkcs11.CKA_DECRYPT: false, pkcs11.CKA_UNWRAP: false, pkcs11.CKA_DERIVE: false, pkcs11.CKA_MODIFIABLE: false, pkcs11.CKA_COPYABLE: false, pkcs11.CKA_DESTROYABLE: true,
		} {
			got, err := module.GetAttributeValue(session, key, []*pkcs11.Attribute{pkcs11.NewAttribute(name, nil)})
			if err != nil || len(got) != 1 || bytes.Equal(got[0].Value, []byte{1}) != want {
				t.Errorf("attribute %#x is %v (%v), want %t", name, got, err, want)
			}
		}
		for name, value := range map[uint]bool{pkcs11.CKA_EXTRACTABLE: true, pkcs11.CKA_SENSITIVE: false} {
			wish := []*pkcs11.Attribute{pkcs11.NewAttribute(name, value)}
			if err := module.SetAttributeValue(session, key, wish); err == nil {
				t.Errorf("attribute %#x can be set to %t", name, value)
			}
			if _, err := module.CopyObject(session, key, wish); err == nil {
				t.Errorf("the key can be copied with attribute %#x as %t", name, value)
			}
		}
		wrapWithEveryKey(t, module, session, key)
	}
}

// openToken logs in as the owner of the PIN.
func openToken(t *testing.T, path, pin string) (*pkcs11.Ctx, pkcs11.SessionHandle) {
	t.Helper()
	module := pkcs11.New(path)
	if module == nil {
		t.Fatalf("load %s", path)
	}
	t.Cleanup(module.Destroy)
	if err := module.Initialize(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = module.Finalize() }) // the process has no other use of it
	slots, err := module.GetSlotList(true)
	if err != nil || len(slots) == 0 {
		t.Fatalf("slots %v: %v", slots, err)
	}
	session, err := module.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	if err := module.Login(session, pkcs11.CKU_USER, pin); err != nil {
		t.Fatal(err)
	}
	return module, session
}

// wrapWithEveryKey tries to take a CA key out under an AES key of the attacker's own.
func wrapWithEveryKey(t *testing.T, module *pkcs11.Ctx, session pkcs11.SessionHandle, key pkcs11.ObjectHandle) {
	t.Helper()
	own, err := module.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
	if err != nil {
		t.Fatal(err)
	}
	for _, mechanism := range []uint{pkcs11.CKM_AES_KEY_WRAP, pkcs11.CKM_AES_KEY_WRAP_PAD, pkcs11.CKM_AES_CBC_PAD} {
		var parameter []byte
		if mechanism == pkcs11.CKM_AES_CBC_PAD {
			parameter = make([]byte, 16)
		}
		if wrapped, err := module.WrapKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, parameter)}, own, key); err == nil {
			t.Errorf("mechanism %#x wraps the key into %d bytes", mechanism, len(wrapped))
		}
	}
}
