package main

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"signet/evidence"
	"signet/keystore/tokentest"
)

// keyKind is a type of CA key as the API names it.
type keyKind struct {
	keyType string
	size    int
}

func (k keyKind) String() string { return fmt.Sprintf("%s-%d", k.keyType, k.size) }

// ca is the request for a root CA with such a key.
func (k keyKind) ca() object {
	return object{"name": k.String(), "subject_dn": "CN=" + k.String() + ",O=Example", "key_type": k.keyType, "key_size": k.size}
}

// interop is what a server answers who wants a CA with a key in a token. What the tokens do below the server is in
// keystore/tokentest.
var interop = map[string]struct {
	grade   string // of every key that it makes: what the drill leaves of what the attributes say
	makes   []keyKind
	refuses []keyKind
}{
	"SoftHSM2": {"drilled", []keyKind{{"rsa", 2048}, {"ec", 256}, {"ec", 384}, {"ec", 521}, {"ed25519", 256}}, nil},
	"p11-kit":  {"drilled", []keyKind{{"rsa", 2048}, {"ec", 256}, {"ec", 384}}, []keyKind{{"ed25519", 256}}},
	// Its attributes are its own notes, which it lets anybody change.
	"TPM2": {"asserted", []keyKind{{"rsa", 2048}, {"rsa", 3072}, {"ec", 256}, {"ec", 384}}, []keyKind{{"rsa", 4096}, {"ec", 521}, {"ed25519", 256}}},
	// It makes public copies of private keys.
	"OpenCryptoki": {"asserted", []keyKind{{"rsa", 2048}, {"rsa", 3072}}, []keyKind{{"ec", 256}, {"ed25519", 256}}},
	// It does not tell where a key was made, and wraps what it calls not extractable.
	"NSS": {"imported", []keyKind{{"rsa", 2048}, {"ec", 256}, {"ec", 384}, {"ec", 521}}, []keyKind{{"ed25519", 256}}},
}

func TestInteropACALivesInEveryToken(t *testing.T) {
	t.Parallel()
	for name, start := range tokentest.Makes(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			serve := serveBeside(t, start(t))
			r := serve()
			r.firstUser()
			made := map[string]int64{}
			for _, kind := range interop[name].makes {
				made[kind.String()] = r.createGraded(kind, interop[name].grade)
			}
			for _, kind := range interop[name].refuses {
				r.must(http.StatusBadRequest, "POST", "/api/v1/cas/", kind.ca())
			}
			for name, authority := range made {
				r.useCA(name, authority)
			}
			if code := r.stop(syscall.SIGTERM); code != 0 {
				t.Fatalf("SIGTERM: exit code %d, want 0:\n%s", code, r.stderr)
			}
			r = serve()
			r.login(rootName, rootPassword)
			for name, authority := range made {
				r.useCA(name, authority)
			}
			noSecretLeaked(t, r)
		})
	}
}

// createGraded makes a CA whose key has this grade. A lower grade than drilled must be accepted, or there is no CA.
func (r *running) createGraded(kind keyKind, grade string) int64 {
	r.t.Helper()
	request := kind.ca()
	if grade != "drilled" {
		r.must(http.StatusConflict, "POST", "/api/v1/cas/", request)
		request["accept_key_grade"] = grade
	}
	made := r.must(http.StatusCreated, "POST", "/api/v1/cas/", request)
	if made["key_grade"] != grade {
		r.t.Errorf("%v: the grade is %v, want %s", kind, made["key_grade"], grade)
	}
	r.auditGrade(id(made), kind, grade)
	return id(made)
}

// auditGrade checks the evidence of the CA offline, and logs what the drill achieved.
func (r *running) auditGrade(authority int64, kind keyKind, grade string) {
	r.t.Helper()
	report, err := evidence.Verify(r.keyEvidence(authority, "nonce=interop"), evidence.Options{
		Nonce: "interop", Now: time.Now(), MaxAge: time.Minute, CACertificate: r.caCertificate(authority).Raw,
	})
	if err != nil || string(report.Grade) != grade {
		r.t.Errorf("%v: evidence of grade %s, %v, want %s", kind, report.Grade, err, grade)
	}
	counts := map[any]int{}
	var yields []any
	for _, attack := range r.list(fmt.Sprintf("/api/v1/cas/%d/key-drills", authority))[0]["attacks"].([]any) {
		counts[attack.(object)["outcome"]]++
		if attack.(object)["outcome"] == "yielded" {
			yields = append(yields, attack.(object)["name"])
		}
	}
	r.t.Logf("%v: grade %s; %v; yielded: %v", kind, grade, counts, yields)
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
