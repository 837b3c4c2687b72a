package main

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"signet/keystore/tokentest"
)

// keyKind is a type of CA key as the API names it.
type keyKind struct {
	keyType string
	size    int
}

func (k keyKind) String() string { return fmt.Sprintf("%s-%d", k.keyType, k.size) }

// interop is what a server answers who wants a CA with a key of this kind, by token: 201 or the refusal. What the tokens
// do below the server is in keystore/tokentest.
var interop = map[string]map[keyKind]int{
	"SoftHSM2":     {{"rsa", 2048}: http.StatusCreated, {"ec", 256}: http.StatusCreated, {"ec", 384}: http.StatusCreated, {"ec", 521}: http.StatusCreated, {"ed25519", 256}: http.StatusCreated},
	"p11-kit":      {{"rsa", 2048}: http.StatusCreated, {"ec", 256}: http.StatusCreated, {"ec", 384}: http.StatusCreated, {"ed25519", 256}: http.StatusBadRequest},
	"TPM2":         {{"rsa", 2048}: http.StatusCreated, {"rsa", 3072}: http.StatusCreated, {"rsa", 4096}: http.StatusBadRequest, {"ec", 256}: http.StatusCreated, {"ec", 384}: http.StatusCreated, {"ec", 521}: http.StatusBadRequest, {"ed25519", 256}: http.StatusBadRequest},
	"OpenCryptoki": {{"rsa", 2048}: http.StatusCreated, {"rsa", 3072}: http.StatusCreated, {"ec", 256}: http.StatusBadRequest, {"ed25519", 256}: http.StatusBadRequest},
	// NSS does not tell where a key was made, and a CA asks for one that was born in the token.
	"NSS": {{"rsa", 2048}: http.StatusInternalServerError, {"ec", 256}: http.StatusInternalServerError, {"ed25519", 256}: http.StatusBadRequest},
}

func TestInteropACALivesInEveryToken(t *testing.T) {
	t.Parallel()
	for name, start := range tokentest.Makes(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			serve := serveBeside(t, start(t))
			r := serve()
			r.firstUser()
			made := map[keyKind]int64{}
			for kind, want := range interop[name] {
				authority := r.must(want, "POST", "/api/v1/cas/", object{"name": kind.String(), "subject_dn": "CN=" + kind.String() + ",O=Example",
					"key_type": kind.keyType, "key_size": kind.size})
				if want == http.StatusCreated {
					made[kind] = id(authority)
				}
			}
			for kind, authority := range made {
				r.useCA(kind.String(), authority)
			}
			if code := r.stop(syscall.SIGTERM); code != 0 {
				t.Fatalf("SIGTERM: exit code %d, want 0:\n%s", code, r.stderr)
			}
			r = serve()
			r.login(rootName, rootPassword)
			for kind, authority := range made {
				r.useCA(kind.String(), authority)
			}
			noSecretLeaked(t, r)
		})
	}
}

// serveBeside returns what starts a server on the token, each time with the same database.
func serveBeside(t *testing.T, token *tokentest.Token) func() *running {
	s := newSite(t, "sqlite", "--pkcs11-module", token.Module, "--pkcs11-token", token.Label, "--pkcs11-pin-file", token.PINFile)
	if token.InitArgs != "" {
		s.args = append(s.args, "--pkcs11-init-args", token.InitArgs)
	}
	program := "signet"
	if line := token.Command("signet", append([]string{"serve"}, s.args...)...).Args; line[0] != program { // in namespaces
		program, s.args = line[0], line[1:]
	}
	return func() *running {
		t.Helper()
		return s.start(program, token.Env...)
	}
}

// useCA has the CA issue in both ways and revoke, and verifies everything that it signed. The private key that was made
// for the first certificate is opened again.
func (r *running) useCA(name string, authority int64) {
	r.t.Helper()
	root := r.caCertificate(authority)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	issued := r.must(http.StatusCreated, "POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority), object{
		"common_name": "www.example.com", "subject_dn": "CN=www.example.com,O=Example", "certificate_type": "server"})
	signed := r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": authority, "certificate_type": "server", "csr": csr(r.t, "www.example.com")})
	for _, certificate := range []object{issued, signed} {
		if _, err := parseCertificate(r.t, certificate["certificate"]).Verify(x509.VerifyOptions{Roots: roots, DNSName: "www.example.com"}); err != nil {
			r.t.Errorf("%s: %v", name, err)
		}
	}
	key := r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", id(issued)), nil)
	if key["private_key"] != issued["private_key"] {
		r.t.Errorf("%s: the private key is not the one that was handed out", name)
	}
	r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(signed)), object{"reason": "superseded"})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // the list follows
		for _, entry := range r.crl(name, authority, root).RevokedCertificateEntries {
			if fmt.Sprintf("%x", entry.SerialNumber) == signed["serial_number"] {
				return
			}
		}
	}
	r.t.Errorf("%s: the CRL does not have %v", name, signed["serial_number"])
}
