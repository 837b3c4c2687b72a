package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"signet/api"
	"signet/idempotency"
)

// under sends a JSON body with an Idempotency-Key. It may be called in goroutines.
func (c *caller) under(key, path string, body any) answer {
	c.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		c.t.Error(err)
	}
	return c.do("POST", path, bytes.NewReader(data), http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {key}})
}

// sameAgain checks that a request gets the same answer twice, and says so the second time.
func (c *caller) sameAgain(key, path string, body any) object {
	c.t.Helper()
	first, second := c.under(key, path, body), c.under(`"`+key+`"`, path, body)
	if first.status != http.StatusCreated || second.status != http.StatusCreated || !bytes.Equal(first.body, second.body) {
		c.t.Errorf("POST %s: %d %s, then %d %s", path, first.status, first.body, second.status, second.body)
	}
	if was, is := first.header.Get("Idempotency-Replayed"), second.header.Get("Idempotency-Replayed"); was != "" || is != "true" {
		c.t.Errorf("POST %s: Idempotency-Replayed %q, then %q", path, was, is)
	}
	if first.header.Get("Warning") != second.header.Get("Warning") {
		c.t.Errorf("POST %s: Warning %q, then %q", path, first.header.Get("Warning"), second.header.Get("Warning"))
	}
	return first.object(c.t)
}

func server(name string, more object) object {
	o := object{"common_name": name, "subject_dn": "CN=" + name, "certificate_type": "server", "key_type": "ec"}
	for k, v := range more {
		o[k] = v
	}
	return o
}

func TestEveryRequestThatCreatesIsAnsweredTheSameAgain(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	_, public := newKey(t)
	const issue = "/api/v1/certificates/?ca_id=1"
	root.sameAgain("ca", "/api/v1/cas/", object{"name": "Root", "subject_dn": "CN=Root", "key_type": "ec"})
	if o := root.sameAgain("made", issue, server("a.example.com", nil)); !strings.HasPrefix(fmt.Sprint(o["private_key"]), "-----BEGIN PRIVATE KEY-----") {
		t.Errorf("no private key in %v", o)
	}
	root.sameAgain("discarded", issue, server("b.example.com", object{"include_private_key": false}))
	root.sameAgain("own", issue, server("c.example.com", object{"public_key": public}))
	root.sameAgain("csr", "/api/v1/certificates/sign-csr", object{"ca_id": 1, "certificate_type": "server", "csr": newCSR(t, "d.example.com")})
	root.sameAgain("organization", "/api/v1/organizations/", object{"name": "Org"})
	root.sameAgain("user", "/api/v1/users/", object{"username": "anna", "email": "anna@example.com", "password": password})

	for path, want := range map[string]int{"/api/v1/cas/": 1, "/api/v1/certificates/": 4, "/api/v1/organizations/": 1, "/api/v1/users/": 2} {
		if n := len(root.list(path)); n != want {
			t.Errorf("%s has %d, want %d", path, n, want)
		}
	}
	exports := root.list("/api/v1/audit-logs/?action=cert_export_private_key")
	if len(exports) != 1 {
		t.Errorf("%d exports of a private key are in the audit trail, want 1", len(exports))
	}
}

// Admins do not become members of what they found, and users may create users whom they do not administer: they get the same
// answer again nevertheless, until somebody else changes the record.
func TestWhoMayNotReadWhatTheyCreatedGetsTheAnswerAgain(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	home := root.organization("Home")
	admin := root.user("admin", object{"role": "admin", "organization_id": home})
	organization, user := object{"name": "Founded"}, object{"username": "peter", "email": "peter@example.com", "password": password}
	founded := idOf(admin.sameAgain("organization", "/api/v1/organizations/", organization))
	registered := idOf(admin.sameAgain("user", "/api/v1/users/", user))
	root.call(http.StatusOK, "PUT", path("/organizations/%d", founded), object{"description": "for others"})
	root.call(http.StatusOK, "PATCH", path("/users/%d", registered), object{"email": "other@example.com"})
	for key, path := range map[string]string{"organization": "/api/v1/organizations/", "user": "/api/v1/users/"} {
		body := map[string]object{"organization": organization, "user": user}[key]
		if a := admin.under(key, path, body); a.status != http.StatusForbidden {
			t.Errorf("%s after a change: %d %s", key, a.status, a.body)
		}
	}
}

func TestAKeyStandsForOneRequest(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("One", nil)
	root.authority("Two", nil)
	body := server("a.example.com", nil)
	first := root.under("key", "/api/v1/certificates/?ca_id=1", body).object(t)
	for name, a := range map[string]answer{
		"another query": root.under("key", "/api/v1/certificates/?ca_id=2", body),
		"another body":  root.under("key", "/api/v1/certificates/?ca_id=1", server("b.example.com", nil)),
		"another path":  root.under("key", "/api/v1/organizations/", object{"name": "Org"}),
	} {
		if a.status != http.StatusUnprocessableEntity || strings.Join(a.problems(t), " ") != "idempotency_key_reused header.idempotency-key" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := root.under("key", "/api/v1/certificates/?ca_id=1", body); a.object(t)["id"] != first["id"] {
		t.Errorf("the same request: %d %s", a.status, a.body)
	}
	other := root.user("other", object{"role": "superuser"})
	if a := other.under("key", "/api/v1/certificates/?ca_id=1", body); a.status != http.StatusCreated || a.object(t)["id"] == first["id"] {
		t.Errorf("the key of another user: %d %s", a.status, a.body)
	}
	for _, key := range []string{"", "tab\tbed", `"open`, strings.Repeat("k", 256)} {
		a := root.under(key, "/api/v1/organizations/", object{"name": "Org"})
		if a.status != http.StatusUnprocessableEntity || strings.Join(a.problems(t), " ") != "value_error header.idempotency-key" {
			t.Errorf("key %q: %d %s", key, a.status, a.body)
		}
	}
	if n := len(root.list("/api/v1/organizations/")); n != 0 {
		t.Errorf("%d organizations were made", n)
	}
}

func TestARefusedRequestFreesItsKey(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	if a := root.under("key", "/api/v1/certificates/?ca_id=7", server("a.example.com", nil)); a.status != http.StatusNotFound {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := root.under("key", "/api/v1/certificates/?ca_id=1", server("a.example.com", object{"san_email_addresses": []string{"a@example.com"}})); a.status != http.StatusBadRequest {
		t.Fatalf("%d %s", a.status, a.body)
	}
	root.sameAgain("key", "/api/v1/certificates/?ca_id=1", server("a.example.com", nil))
}

func TestParallelRequestsWithOneKeyCreateOneThing(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	var group sync.WaitGroup
	var mu sync.Mutex
	ids := map[any]int{}
	for range 32 {
		group.Go(func() {
			a := root.under("key", "/api/v1/certificates/?ca_id=1", server("a.example.com", nil))
			mu.Lock()
			defer mu.Unlock()
			switch a.status {
			case http.StatusCreated:
				ids[a.object(t)["id"]]++
			case http.StatusConflict:
				if n, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || n < 1 {
					t.Errorf("409 with Retry-After %q", a.header.Get("Retry-After"))
				}
			default:
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	group.Wait()
	if all := root.list("/api/v1/certificates/"); len(all) != 1 || len(ids) != 1 {
		t.Errorf("%d certificates were made, and answered as %v", len(all), ids)
	}
}

// What is gone, or not for the caller any more, is not shown again.
func TestAnAnswerIsOnlyRepeatedToThoseWhoMayReadIt(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	body := server("a.example.com", nil)
	id := idOf(root.sameAgain("key", "/api/v1/certificates/?ca_id=1", body))
	root.call(http.StatusOK, "POST", path("/certificates/%d/revoke", id), object{"reason": "superseded"})
	if a := root.under("key", "/api/v1/certificates/?ca_id=1", body); a.status != http.StatusCreated || a.object(t)["status"] != "revoked" {
		t.Errorf("a revoked certificate: %d %s", a.status, a.body)
	}
	root.call(http.StatusNoContent, "DELETE", "/api/v1/cas/1", nil)
	if a := root.under("key", "/api/v1/certificates/?ca_id=1", body); a.status != http.StatusNotFound {
		t.Errorf("a certificate of a deleted CA: %d %s", a.status, a.body)
	}
	thief := &caller{site: root.site}
	if a := thief.under("key", "/api/v1/certificates/?ca_id=1", body); a.status != http.StatusUnauthorized {
		t.Errorf("nobody: %d %s", a.status, a.body)
	}
}

// A stranger's key is nobody's: what keeps the request from being done twice is the name.
func TestAStrangersKeyHasNoEffect(t *testing.T) {
	t.Parallel()
	nobody := newSite(t).nobody()
	first := object{"username": "root", "email": "root@example.com", "password": rootPassword, "role": "superuser"}
	if a := nobody.under("key", "/api/v1/users/", first); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := nobody.under("key", "/api/v1/users/", first); a.status != http.StatusForbidden {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := nobody.under("tab\tbed", "/api/v1/users/", first); a.status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// recorder notes the claims that are made.
type recorder struct {
	api.Claims
	claims []idempotency.Claim
}

func (r *recorder) ClaimRequest(ctx context.Context, c idempotency.Claim) (int64, error) {
	r.claims = append(r.claims, c)
	return r.Claims.ClaimRequest(ctx, c)
}

// A request holds a password that somebody could guess, if the claim were a plain hash of it.
func TestWhatWasRequestedCannotBeGuessedFromItsClaim(t *testing.T) {
	t.Parallel()
	var claims []idempotency.Claim
	for _, secret := range []string{"one secret", "another secret", "one secret"} {
		r := &recorder{}
		root := withRoot(t, func(c *api.Config) {
			r.Claims = c.Claims
			c.Claims, c.ClaimSecret = r, []byte(secret)
		})
		body := object{"username": "anna", "email": "anna@example.com", "password": password}
		root.sameAgain("key", "/api/v1/users/", body)
		if len(r.claims) != 2 || r.claims[0].Request != r.claims[1].Request || r.claims[0].Attempt == r.claims[1].Attempt {
			t.Fatalf("claims %v", r.claims)
		}
		claims = append(claims, r.claims[0])
	}
	if claims[0].Request == claims[1].Request || claims[0].Request != claims[2].Request {
		t.Errorf("with the same secret, and with another one: %x %x %x", claims[0].Request, claims[2].Request, claims[1].Request)
	}
}

func newCSR(t *testing.T, name string) string {
	t.Helper()
	key, _ := newKey(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}
