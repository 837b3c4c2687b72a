package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"signet/api"
)

// once sends a request with an Idempotency-Key and wants this status.
func (c *caller) once(want int, key, path string, body any) answer {
	c.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	a := c.do("POST", path, bytes.NewReader(data), http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {key}})
	if a.status != want {
		c.t.Fatalf("POST %s with key %s: status %d, want %d: %s", path, key, a.status, want, a.body)
	}
	return a
}

func TestARepeatedRequestCreatesNothingAndIsAnsweredTheSame(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	authority := idOf(root.authority("Root", nil))
	issue := fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority)
	for _, c := range []struct {
		name, path, list string
		body             object
	}{
		{"user", "/api/v1/users/", "/api/v1/users/", object{"username": "alice", "email": "alice@example.com", "password": password}},
		{"organization", "/api/v1/organizations/", "/api/v1/organizations/", object{"name": "Engineering"}},
		{"CA", "/api/v1/cas/", "/api/v1/cas/", object{"name": "Other", "subject_dn": "CN=Other", "key_type": "ec"}},
		{"certificate with a kept key", issue, "/api/v1/certificates/", object{
			"common_name": "a.example.com", "subject_dn": "CN=a.example.com", "certificate_type": "server", "key_type": "ec"}},
		{"certificate without a key", issue, "/api/v1/certificates/", object{
			"common_name": "b.example.com", "subject_dn": "CN=b.example.com", "certificate_type": "server", "key_type": "ec", "include_private_key": false}},
		{"CSR", "/api/v1/certificates/sign-csr", "/api/v1/certificates/", object{
			"ca_id": authority, "certificate_type": "server", "csr": requestFor(t, "c.example.com")}},
	} {
		before := len(root.list(c.list))
		first := root.once(http.StatusCreated, "key of "+c.name, c.path, c.body)
		if replayed := first.header.Get("Idempotency-Replayed"); replayed != "" {
			t.Errorf("%s: the first answer says that it is repeated: %q", c.name, replayed)
		}
		for _, key := range []string{"key of " + c.name, `"key of ` + c.name + `"`} { // as it is, and as a structured field
			again := root.once(http.StatusCreated, key, c.path, c.body)
			if !bytes.Equal(again.body, first.body) || again.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("%s: repeated %q\n%s\n, first\n%s", c.name, again.header.Get("Idempotency-Replayed"), again.body, first.body)
			}
		}
		if got := len(root.list(c.list)); got != before+1 {
			t.Errorf("%s: %d were created", c.name, got-before)
		}
	}
}

func TestAKeyBelongsToOneRequest(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	organization := object{"name": "One"}
	root.once(http.StatusCreated, "key", "/api/v1/organizations/", organization)
	for what, a := range map[string]answer{
		"another body":  root.once(http.StatusUnprocessableEntity, "key", "/api/v1/organizations/", object{"name": "Two"}),
		"another path":  root.once(http.StatusUnprocessableEntity, "key", "/api/v1/cas/", organization),
		"another query": root.once(http.StatusUnprocessableEntity, "key", "/api/v1/organizations/?x=1", organization),
	} {
		if !strings.Contains(string(a.body), "Idempotency-Key") || !strings.Contains(string(a.body), "choose a new one") {
			t.Errorf("%s: %s", what, a.body)
		}
	}
	root.once(http.StatusCreated, "another key", "/api/v1/organizations/", object{"name": "Two"})
	if n := len(root.list("/api/v1/organizations/")); n != 2 {
		t.Errorf("%d organizations, want 2", n)
	}
}

func TestKeysOfUsersAreTheirOwn(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	other := root.user("other", object{"role": "superuser"})
	a := root.once(http.StatusCreated, "key", "/api/v1/organizations/", object{"name": "One"}).object(t)
	b := other.once(http.StatusCreated, "key", "/api/v1/organizations/", object{"name": "Two"}).object(t)
	if idOf(a) == idOf(b) {
		t.Errorf("two users got organization %d for one key", idOf(a))
	}
}

func TestAFailedRequestLeavesItsKeyFree(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.create(http.StatusCreated, "/api/v1/organizations/", object{"name": "Taken"})
	root.once(http.StatusBadRequest, "key", "/api/v1/organizations/", object{"name": "Taken"})
	root.once(http.StatusUnprocessableEntity, "key", "/api/v1/organizations/", object{"name": 7})
	root.once(http.StatusCreated, "key", "/api/v1/organizations/", object{"name": "Free"})
}

func TestAKeyLastsForADay(t *testing.T) {
	t.Parallel()
	var ahead time.Duration
	root := withRoot(t, func(c *api.Config) { c.Now = func() time.Time { return time.Now().Add(ahead) } })
	body := object{"ca_id": idOf(root.authority("Root", nil)), "certificate_type": "server", "csr": requestFor(t, "a.example.com")}
	first := idOf(root.once(http.StatusCreated, "key", "/api/v1/certificates/sign-csr", body).object(t))
	ahead = 24*time.Hour - time.Minute
	if again := idOf(root.once(http.StatusCreated, "key", "/api/v1/certificates/sign-csr", body).object(t)); again != first {
		t.Errorf("within a day: certificate %d after %d", again, first)
	}
	ahead = 24*time.Hour + time.Minute
	if again := idOf(root.once(http.StatusCreated, "key", "/api/v1/certificates/sign-csr", body).object(t)); again == first {
		t.Errorf("after a day: still certificate %d", again)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	for _, key := range []string{"", strings.Repeat("x", 256), "caf\u00e9", "a\tb"} {
		a := root.once(http.StatusUnprocessableEntity, key, "/api/v1/organizations/", object{"name": "One"})
		if !strings.Contains(string(a.body), "printable ASCII") {
			t.Errorf("%q: %s", key, a.body)
		}
	}
	root.once(http.StatusCreated, strings.Repeat("x", 255), "/api/v1/organizations/", object{"name": "One"})
}

func TestNobodysRequestsHaveNoKeys(t *testing.T) {
	t.Parallel()
	nobody := newSite(t).nobody()
	body := object{"username": "root", "email": "root@example.com", "password": rootPassword, "role": "superuser"}
	nobody.once(http.StatusCreated, "key", "/api/v1/users/", body)
	nobody.once(http.StatusForbidden, "key", "/api/v1/users/", body)
}

// requestFor is a CSR for a new key.
func requestFor(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}
