package api_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func parsed(t testing.TB, text any) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(fmt.Sprint(text)))
	if block == nil {
		t.Fatalf("not PEM: %v", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestANewCAShowsAllOfItselfButNoKey(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	acme := root.organization("Acme")
	admin := root.user("admin", object{"organization_id": acme, "role": "admin"})
	c := admin.create(http.StatusCreated, "/api/v1/cas/", object{
		"name": "Root", "subject_dn": "CN=Root,O=Acme", "description": "the root", "key_size": "2048", "valid_days": 30, "path_length": 2,
		"crl_base_url": "http://pki.acme.example/x/"})
	for field, want := range map[string]any{
		"id": 1.0, "name": "Root", "subject_dn": "CN=Root,O=Acme", "description": "the root", "key_type": "rsa", "key_size": 2048.0,
		"valid_days": 30.0, "parent_ca_id": nil, "path_length": 2.0, "allow_leaf_certs": true, "crl_base_url": "http://pki.acme.example/x",
		"organization_id": float64(acme), "created_by_user_id": 2.0, "is_root": true, "status": "valid", "revoked_at": nil, "private_key": nil,
	} {
		if got, ok := c[field]; !ok || got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if _, ok := admin.get("/api/v1/cas/1")["private_key"]; ok {
		t.Error("GET shows a private_key field")
	}
	if cert := parsed(t, c["certificate"]); cert.MaxPathLen != 2 || cert.Subject.String() != "CN=Root,O=Acme" {
		t.Errorf("certificate %v, path length %d", cert.Subject, cert.MaxPathLen)
	}
	leaf := parsed(t, admin.certificate(1, "a.example.com", nil)["certificate"])
	if leaf.CRLDistributionPoints[0] != "http://pki.acme.example/x/crl/root-1" || leaf.IssuingCertificateURL[0] != "http://pki.acme.example/x/ca/root-1.crt" {
		t.Errorf("URLs %v %v", leaf.CRLDistributionPoints, leaf.IssuingCertificateURL)
	}
}

func TestTheDefaultsOfACA(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	if c := root.authority("Elliptic", nil); c["key_size"] != 256.0 || c["valid_days"] != 3650.0 || c["crl_base_url"] != nil || c["organization_id"] != nil {
		t.Errorf("ec: %v", c)
	}
	if c := root.authority("Edwards", object{"key_type": "ed25519", "key_size": nil}); c["key_type"] != "ed25519" {
		t.Errorf("ed25519: %v", c)
	}
}

func TestABadRequestForACAIsTheClientsFault(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	parent := idOf(root.authority("Root", object{"path_length": 0}))
	for _, row := range []struct {
		name   string
		more   object
		status int
	}{
		{"unknown attribute", object{"subject_dn": "XX=1"}, 400},
		{"no name", object{"name": " "}, 400},
		{"control characters", object{"name": "a\tb"}, 400},
		{"NUL", object{"description": "a\x00b"}, 422},
		{"size", object{"key_type": "rsa", "key_size": 1024}, 400},
		{"huge size", object{"key_type": "rsa", "key_size": 1 << 40}, 400},
		{"curve", object{"key_size": 224}, 400},
		{"key type", object{"key_type": "dsa"}, 422},
		{"no days", object{"valid_days": 0}, 422},
		{"ages", object{"valid_days": 36501}, 422},
		{"huge path length", object{"path_length": 1 << 40}, 422},
		{"relative base", object{"crl_base_url": "/crl"}, 422},
		{"base with query", object{"crl_base_url": "http://pki.example/?x"}, 422},
		{"base beyond ASCII", object{"crl_base_url": "http://zürich.example"}, 422},
		{"unknown parent", object{"parent_ca_id": 4711}, 404},
		{"parent beyond 64 bits", object{"parent_ca_id": "99999999999999999999"}, 422},
		{"path length 0", object{"parent_ca_id": parent}, 400},
	} {
		body := object{"name": "A", "subject_dn": "CN=A", "key_type": "ec"}
		for k, v := range row.more {
			body[k] = v
		}
		if a := root.call(row.status, "POST", "/api/v1/cas/", body); row.status == 422 && len(a.problems(t)) != 1 {
			t.Errorf("%s: %s", row.name, a.body)
		}
	}
	if got := root.call(422, "POST", "/api/v1/cas/", object{"crl_base_url": "/"}).problems(t); !slices.Equal(got, []string{
		"missing body.name", "missing body.subject_dn"}) {
		t.Errorf("problems %q", got)
	}
}

func TestChainsChildrenRevocationAndDeletion(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	top := root.authority("Top", object{"path_length": 3})
	middle := root.authority("Middle", object{"parent_ca_id": idOf(top)})
	bottom := root.authority("Bottom", object{"parent_ca_id": fmt.Sprint(idOf(middle))})
	if bottom["path_length"] != 1.0 || bottom["is_root"] != false || bottom["parent_ca_id"] != middle["id"] {
		t.Errorf("bottom %v", bottom)
	}
	names := func(all []object) (out []string) {
		for _, o := range all {
			out = append(out, o["name"].(string))
		}
		return out
	}
	if got := names(root.list(path("/cas/%d/chain", idOf(bottom)))); !slices.Equal(got, []string{"Bottom", "Middle", "Top"}) {
		t.Errorf("chain %q", got)
	}
	if got := names(root.list(path("/cas/%d/children", idOf(top)))); !slices.Equal(got, []string{"Middle"}) {
		t.Errorf("children %q", got)
	}
	if got := root.list(path("/cas/%d/children", idOf(bottom))); got == nil || len(got) != 0 {
		t.Errorf("children of a leaf CA %v", got)
	}
	if o := root.get(path("/cas/%d", idOf(top))); o["allow_leaf_certs"] != false {
		t.Errorf("a parent %v", o)
	}
	root.call(http.StatusConflict, "DELETE", path("/cas/%d", idOf(middle)), nil)
	root.call(http.StatusBadRequest, "POST", path("/cas/%d/revoke", idOf(top)), nil)
	if o := root.call(http.StatusOK, "POST", path("/cas/%d/revoke", idOf(bottom)), nil).object(t); o["status"] != "revoked" || o["revoked_at"] == nil {
		t.Errorf("revoked %v", o)
	}
	root.call(http.StatusConflict, "POST", path("/cas/%d/revoke", idOf(bottom)), object{"reason": "again"})
	root.call(http.StatusNoContent, "DELETE", path("/cas/%d", idOf(bottom)), nil)
	root.call(http.StatusNotFound, "GET", path("/cas/%d", idOf(bottom)), nil)
	root.nobody().call(http.StatusOK, "GET", fmt.Sprintf("/ca/bottom-%d.crt", idOf(bottom)), nil)
}

func TestNoDoorLeadsToACAKey(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	id := idOf(root.authority("Root", nil))
	for _, format := range []string{"/cas/%d/private-key", "/export/ca/%d/private-key"} {
		if a := root.call(http.StatusForbidden, "GET", path(format, id), nil); !strings.Contains(a.detail(t), "non-exportable") {
			t.Errorf("refused with %s", a.body)
		}
		root.call(http.StatusNotFound, "GET", path(format, 4711), nil)
		root.call(http.StatusUnprocessableEntity, "GET", "/api/v1"+strings.Replace(format, "%d", "x", 1), nil)
	}
	if entries := root.list("/api/v1/audit-logs/?action=ca_export_private_key"); len(entries) != 2 || entries[0]["username"] != "root" {
		t.Errorf("audited %v", entries)
	}
}

var strongTag = regexp.MustCompile(`^"[0-9a-z-]+"$`)

func TestPublicFiles(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	c := root.authority("Zürich & Söhne", nil)
	nobody := root.nobody()
	for _, row := range []struct{ path, kind, block string }{
		{"/crl/zurich-sohne-1", "application/pkix-crl", ""},
		{"/crl/zurich-sohne-1.pem", "application/x-pem-file", "X509 CRL"},
		{"/ca/zurich-sohne-1.crt", "application/pkix-cert", ""},
		{"/ca/zurich-sohne-1.pem", "application/x-pem-file", "CERTIFICATE"},
	} {
		a := nobody.call(http.StatusOK, "GET", row.path, nil)
		cache := a.header.Get("Cache-Control")
		if a.header.Get("Content-Type") != row.kind || !strings.HasPrefix(cache, "public, max-age=") || cache == "public, max-age=0" ||
			!strongTag.MatchString(a.header.Get("ETag")) || a.header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
			t.Errorf("%s: %v", row.path, a.header)
		}
		if block, rest := pem.Decode(a.body); row.block != "" && (block == nil || block.Type != row.block || len(rest) > 0) {
			t.Errorf("%s: %s", row.path, a.body)
		}
		if modified, err := http.ParseTime(a.header.Get("Last-Modified")); err != nil || time.Since(modified) > time.Hour {
			t.Errorf("%s: Last-Modified %q", row.path, a.header.Get("Last-Modified"))
		}
		if until, err := http.ParseTime(a.header.Get("Expires")); err != nil || time.Until(until) < 24*time.Hour {
			t.Errorf("%s: Expires %q", row.path, a.header.Get("Expires"))
		}
		if head := nobody.do("HEAD", row.path, nil, nil); head.status != http.StatusOK || head.header.Get("ETag") != a.header.Get("ETag") ||
			head.header.Get("Content-Length") != strconv.Itoa(len(a.body)) || len(head.body) > 0 {
			t.Errorf("%s: HEAD: %d %v", row.path, head.status, head.header)
		}
		if posted := nobody.do("POST", row.path, nil, nil); posted.status != http.StatusMethodNotAllowed || posted.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: POST: %d %v", row.path, posted.status, posted.header)
		}
		if again := nobody.do("GET", row.path, nil, http.Header{"If-None-Match": {a.header.Get("ETag")}}); again.status != http.StatusNotModified {
			t.Errorf("%s: unchanged: %d", row.path, again.status)
		}
	}
	if a := nobody.call(http.StatusOK, "GET", "/ca/zurich-sohne-1.pem", nil); string(a.body) != c["certificate"] {
		t.Errorf("the public file is\n%s\nthe API says\n%s", a.body, c["certificate"])
	}
	for _, path := range []string{
		"/crl/zurich-sohne-2", "/crl/zurich-1", "/crl/1", "/crl/-1", "/crl/zurich-sohne-01", "/crl/zurich-sohne-1.txt", "/ca/zurich-sohne-2.pem",
		"/ca/ZURICH-SOHNE-1.crt", "/crl/zurich-sohne-99999999999999999999", "/crl/zurich-sohne-+1", "/crl/%00-1.pem", "/crl/zurich-sohne-1'--",
	} {
		if a := nobody.call(http.StatusNotFound, "GET", path, nil); a.detail(t) != "CA not found" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s %v", path, a.body, a.header)
		}
	}
}
