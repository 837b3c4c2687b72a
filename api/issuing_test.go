package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"signet/api"
)

func newKey(t testing.TB) (key *ecdsa.PrivateKey, public string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestACertificateShowsAllOfItself(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	c := root.create(http.StatusCreated, "/api/v1/certificates/?ca_id=1", object{
		"common_name": "api.example.com", "subject_dn": "CN=api.example.com,O=Acme Corp,C=US", "certificate_type": "server", "san_ip_addresses": []string{"10.0.0.42"}})
	cert := parsed(t, c["certificate"])
	for field, want := range map[string]any{
		"id": 1.0, "common_name": "api.example.com", "subject_dn": "CN=api.example.com,O=Acme Corp,C=US", "certificate_type": "server", "key_size": 2048.0,
		"valid_days": 365.0, "status": "valid", "serial_number": cert.SerialNumber.Text(16), "revoked_at": nil, "issuer_id": 1.0, "organization_id": nil,
		"created_by_user_id": 1.0, "not_before": cert.NotBefore.Format(time.RFC3339), "not_after": cert.NotAfter.Format(time.RFC3339),
	} {
		if got, ok := c[field]; !ok || got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if _, err := tls.X509KeyPair([]byte(c["certificate"].(string)), []byte(c["private_key"].(string))); err != nil {
		t.Error(err)
	}
	if kept := root.get("/api/v1/certificates/1/private-key"); kept["private_key"] != c["private_key"] {
		t.Error("another key is kept")
	}
	if _, ok := root.get("/api/v1/certificates/1")["private_key"]; ok {
		t.Error("GET shows a private_key field")
	}
	if _, ok := root.list("/api/v1/certificates/?ca_id=1")[0]["private_key"]; ok {
		t.Error("a list shows a private_key field")
	}
}

func TestWhoseKeyItIs(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	body := func(more object) object {
		o := object{"common_name": "a.example.com", "subject_dn": "CN=a.example.com", "certificate_type": "server", "key_type": "ec"}
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	const target = "/api/v1/certificates/?ca_id=1"
	key, public := newKey(t)

	a := root.call(http.StatusCreated, "POST", target, body(object{"include_private_key": false}))
	if o := a.object(t); o["private_key"] != nil || !strings.HasPrefix(a.header.Get("Warning"), "299 signet ") {
		t.Errorf("a discarded key: %v, %q", o["private_key"], a.header.Get("Warning"))
	}
	root.call(http.StatusNotFound, "GET", path("/export/certificate/%d/private-key", idOf(a.object(t))), nil)
	if o := root.get(path("/certificates/%d/private-key", idOf(a.object(t)))); o["private_key"] != nil {
		t.Errorf("a discarded key is kept")
	}
	for _, more := range []object{{"public_key": public}, {"public_key": public, "include_private_key": false}, {"public_key": public, "include_private_key": nil}} {
		a := root.call(http.StatusCreated, "POST", target, body(more))
		o := a.object(t)
		if o["private_key"] != nil || a.header.Get("Warning") != "" || !key.PublicKey.Equal(parsed(t, o["certificate"]).PublicKey) {
			t.Errorf("an own key: %v, %q", o["private_key"], a.header.Get("Warning"))
		}
	}
	caKey, err := x509.MarshalPKIXPublicKey(parsed(t, root.get("/api/v1/cas/1")["certificate"]).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]object{
		"both":             {"public_key": public, "include_private_key": true},
		"no PEM":           {"public_key": "MFkw"},
		"empty":            {"public_key": ""},
		"a private key":    {"public_key": strings.ReplaceAll(public, "PUBLIC", "PRIVATE")},
		"more than a key":  {"public_key": public + public},
		"a broken key":     {"public_key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{0x30, 0}}))},
		"the key of a CA":  {"public_key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: caKey}))},
		"a size too small": {"key_type": "rsa", "key_size": 1024},
	} {
		if a := root.call(http.StatusBadRequest, "POST", target, body(more)); a.detail(t) == "" {
			t.Errorf("%s: %s", name, a.body)
		}
	}
}

func TestABadRequestForACertificateIsTheClientsFault(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	good := object{"common_name": "a.example.com", "subject_dn": "CN=a.example.com", "certificate_type": "server", "key_type": "ec"}
	for _, row := range []struct {
		query  string
		more   object
		status int
		want   []string
	}{
		{"", nil, 422, []string{"missing query.ca_id"}},
		{"?ca_id=", nil, 422, []string{"int_parsing query.ca_id"}},
		{"?ca_id=one", object{"common_name": nil, "valid_days": "x"}, 422, []string{"int_parsing query.ca_id", "string_type body.common_name", "int_parsing body.valid_days"}},
		{"?ca_id=1", object{"certificate_type": "code_signing"}, 422, []string{"enum body.certificate_type"}},
		{"?ca_id=1", object{"san_dns_names": "a.example.com"}, 422, []string{"list_type body.san_dns_names"}},
		{"?ca_id=4711", nil, 404, nil},
		{"?ca_id=-1", nil, 404, nil},
		{"?ca_id=1", object{"san_email_addresses": []string{"a@example.com"}}, 400, nil},
		{"?ca_id=1", object{"san_ip_addresses": []string{"10.0.0.256"}}, 400, nil},
		{"?ca_id=1", object{"san_dns_names": []string{"a b"}}, 400, nil},
		{"?ca_id=1", object{"subject_dn": "nonsense"}, 400, nil},
		{"?ca_id=1", object{"subject_dn": "CN=b.example.com"}, 400, nil},
	} {
		body := object{}
		for k, v := range good {
			body[k] = v
		}
		for k, v := range row.more {
			body[k] = v
		}
		a := root.call(row.status, "POST", "/api/v1/certificates/"+row.query, body)
		if row.want != nil && !slices.Equal(a.problems(t), row.want) {
			t.Errorf("%s %v: %s", row.query, row.more, a.body)
		}
	}
}

func TestSigningRequests(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Acme", nil)
	key, _ := newKey(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}, DNSNames: []string{"b.example.com"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	const target = "/api/v1/certificates/sign-csr"
	for _, ca := range []object{{"ca_id": 1}, {"ca_id": "1"}, {"ca_name": "Acme"}, {"ca_name": "Acme", "ca_id": nil}} {
		ca["csr"], ca["certificate_type"] = csr, "server"
		o := root.create(http.StatusCreated, target, ca)
		if _, ok := o["private_key"]; ok || o["common_name"] != "a.example.com" || !slices.Equal(parsed(t, o["certificate"]).DNSNames, []string{"b.example.com"}) {
			t.Errorf("%v: %v", ca, o)
		}
	}
	for _, row := range []struct {
		body   object
		status int
		want   string
	}{
		{object{"csr": csr}, 400, "Either ca_id or ca_name must be provided"},
		{object{"csr": csr, "ca_name": "Nobody"}, 404, "CA 'Nobody' not found"},
		{object{"csr": csr, "ca_id": 4711}, 404, "CA not found"},
		{object{"csr": "nonsense", "ca_id": 1}, 400, "Invalid CSR: "},
		{object{"csr": csr, "ca_id": 1, "san_ip_addresses": []string{"x"}}, 400, ""},
	} {
		row.body["certificate_type"] = "server"
		if a := root.call(row.status, "POST", target, row.body); !strings.HasPrefix(a.detail(t), row.want) {
			t.Errorf("%v: %s", row.body, a.body)
		}
	}
	if a := root.call(422, "POST", target, object{"ca_id": 1.5}); !slices.Equal(a.problems(t), []string{"int_from_float body.ca_id", "missing body.certificate_type", "missing body.csr"}) {
		t.Errorf("malformed: %s", a.body)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	root.certificate(1, "a.example.com", nil)
	root.call(http.StatusUnprocessableEntity, "POST", "/api/v1/certificates/1/revoke", object{"reason": 1})
	root.call(http.StatusUnprocessableEntity, "POST", "/api/v1/certificates/1/revoke", object{"reason": strings.Repeat("x", 1025)})
	if o := root.call(http.StatusOK, "POST", "/api/v1/certificates/1/revoke", object{"reason": "Key compromise"}).object(t); o["status"] != "revoked" || o["revoked_at"] == nil {
		t.Errorf("revoked %v", o)
	}
	if a := root.call(http.StatusConflict, "POST", "/api/v1/certificates/1/revoke", nil); a.detail(t) != "Certificate is already revoked" {
		t.Errorf("twice: %s", a.body)
	}
	list, err := x509.ParseRevocationList(root.nobody().call(http.StatusOK, "GET", "/crl/root-1", nil).body)
	if err != nil || len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].ReasonCode != 1 {
		t.Errorf("CRL %+v, %v", list, err)
	}
}

func TestExports(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	top := root.authority("Top", nil)
	issuing := root.authority("Issuing", object{"parent_ca_id": 1})
	c := root.certificate(2, "a.example.com", nil)
	for _, row := range []struct{ path, name, want string }{
		{"/export/ca/2/certificate", "ca_2_certificate.pem", issuing["certificate"].(string)},
		{"/export/certificate/1", "certificate_1.pem", c["certificate"].(string)},
		{"/export/certificate/1/private-key", "certificate_1_private_key.pem", c["private_key"].(string)},
		{"/export/certificate/1/chain", "certificate_1_chain.pem", c["certificate"].(string) + issuing["certificate"].(string) + top["certificate"].(string)},
	} {
		a := root.call(http.StatusOK, "GET", "/api/v1"+row.path, nil)
		if string(a.body) != row.want || a.header.Get("Content-Type") != "application/x-pem-file" || a.header.Get("Content-Disposition") != "attachment; filename="+row.name {
			t.Errorf("%s: %v\n%s", row.path, a.header, a.body)
		}
		root.call(http.StatusNotFound, "GET", "/api/v1"+strings.NewReplacer("/1", "/4711", "/2", "/4711").Replace(row.path), nil)
	}
	stranger := root.user("stranger", nil)
	for _, path := range []string{"/export/ca/2/certificate", "/export/certificate/1", "/export/certificate/1/private-key", "/export/certificate/1/chain", "/cas/1", "/certificates/1/private-key"} {
		if a := stranger.call(http.StatusForbidden, "GET", "/api/v1"+path, nil); a.detail(t) != "Insufficient permissions" {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	if all := stranger.list("/api/v1/certificates/"); all == nil || len(all) != 0 {
		t.Errorf("a stranger sees %v", all)
	}
}

func TestListsComeInPages(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	root.authority("Root", nil)
	for i := range 5 {
		root.certificate(1, fmt.Sprintf("n%d.example.com", i), nil)
	}
	var seen []string
	next := "/api/v1/certificates/?ca_id=1&limit=2"
	for pages := 0; next != ""; pages++ {
		a := root.call(http.StatusOK, "GET", next, nil)
		if a.header.Get("X-Total-Count") != "5" || pages > 2 {
			t.Fatalf("page %d: %v", pages, a.header)
		}
		for _, o := range root.list(next) {
			seen = append(seen, o["common_name"].(string)[:2])
		}
		link := a.header.Get("Link")
		next = ""
		if link != "" {
			var ok bool
			if next, ok = strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`); !ok || !strings.HasPrefix(next, "/api/v1/certificates/?ca_id=1&") {
				t.Fatalf("link %q", link)
			}
		}
	}
	if !slices.Equal(seen, []string{"n0", "n1", "n2", "n3", "n4"}) {
		t.Errorf("seen %q", seen)
	}
	for query, want := range map[string]int{"": 5, "?skip=3": 2, "?skip=9": 0, "?limit=10000": 5, "?skip=1&limit=3": 3, "?ca_id=4711": 0} {
		a := root.call(http.StatusOK, "GET", "/api/v1/certificates/"+query, nil)
		if got := len(root.list("/api/v1/certificates/" + query)); got != want || (a.header.Get("Link") != "") != (query == "?skip=1&limit=3") {
			t.Errorf("%q: %d certificates, %v", query, got, a.header)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=10001", "?skip=-1", "?cursor=x", "?limit=1e1", "?ca_id=x"} {
		root.call(http.StatusUnprocessableEntity, "GET", "/api/v1/certificates/"+query, nil)
	}
	for _, list := range []string{"/api/v1/users/", "/api/v1/cas/", "/api/v1/organizations/", "/api/v1/audit-logs/"} {
		if a := root.call(http.StatusOK, "GET", list, nil); a.header.Get("X-Total-Count") == "" {
			t.Errorf("%s: %v", list, a.header)
		}
	}
}

func TestTheAuditTrail(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	acme := root.organization("Acme")
	admin := root.user("admin", object{"organization_id": acme, "role": "admin"})
	user := root.user("user", object{"organization_id": acme})
	header := http.Header{"X-Request-Id": {"my-request"}, "Content-Type": {"application/json"}}
	if a := admin.do("POST", "/api/v1/cas/", strings.NewReader(`{"name":"A","subject_dn":"CN=A","key_type":"ec"}`), header); a.status != http.StatusCreated {
		t.Fatalf("create CA: %s", a.body)
	}
	entries := admin.list("/api/v1/audit-logs/?action=ca_create")
	if len(entries) != 1 || entries[0]["request_id"] != "my-request" || entries[0]["username"] != "admin" || entries[0]["remote_addr"] != "127.0.0.1" ||
		entries[0]["resource_type"] != "ca" || entries[0]["resource_id"] != 1.0 || entries[0]["organization_id"] != float64(acme) {
		t.Errorf("entries %v", entries)
	}
	user.call(http.StatusForbidden, "GET", "/api/v1/audit-logs/", nil)
	if own, all := len(admin.list("/api/v1/audit-logs/")), len(root.list("/api/v1/audit-logs/")); own == 0 || own >= all {
		t.Errorf("the admin reads %d entries of %d", own, all)
	}
	tomorrow := time.Now().Add(24 * time.Hour).UTC().Format(time.DateOnly)
	for query, want := range map[string]bool{
		"since=2020-01-01": true, "since=" + tomorrow: false, "until=" + tomorrow + "T00:00:00Z": true, "until=2020-01-01": false,
		"user_id=1": true, "user_id=4711": false, "resource_type=ca&resource_id=1": true, "resource_type=certificate&resource_id=1": false, "resource_type=x": false,
		"action=login_success&since=2020-01-01T00:00:00&limit=1": true,
	} {
		if got := root.list("/api/v1/audit-logs/?" + query); (len(got) > 0) != want {
			t.Errorf("%s: %d entries", query, len(got))
		}
	}
	page := root.call(http.StatusOK, "GET", "/api/v1/audit-logs/?limit=2", nil)
	next, _, _ := strings.Cut(strings.TrimPrefix(page.header.Get("Link"), "<"), ">")
	first, second := root.list("/api/v1/audit-logs/?limit=2"), root.list(next)
	if len(first) != 2 || len(second) != 2 || idOf(first[0]) <= idOf(first[1]) || idOf(first[1]) <= idOf(second[0]) {
		t.Errorf("pages %v and %v", first, second)
	}
}

func TestTheExamplesOfTheContractWork(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	doc, err := api.Specification()
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("{organization_id}", "1", "{user_id}", "2", "{ca_id}", "2", "{cert_id}", "1")
	for _, step := range []string{ // in an order in which each finds what it needs
		"POST /api/v1/users/", "PATCH /api/v1/users/{user_id}", "POST /api/v1/organizations/", "PUT /api/v1/organizations/{organization_id}",
		"POST /api/v1/cas/", "POST /api/v1/certificates/?ca_id=1", "POST /api/v1/certificates/sign-csr", "POST /api/v1/certificates/{cert_id}/revoke",
		"POST /api/v1/cas/{ca_id}/revoke",
	} {
		method, target, _ := strings.Cut(step, " ")
		route, _, _ := strings.Cut(target, "?")
		example := doc.Paths.Value(route).GetOperation(method).RequestBody.Value.Content["application/json"].Example
		if step == "POST /api/v1/cas/{ca_id}/revoke" {
			root.authority("Issuing", object{"parent_ca_id": 1})
		}
		a := root.call(0, method, fill.Replace(target), example)
		if a.status >= 300 {
			t.Errorf("%s: %d %s", step, a.status, a.body)
		}
	}
}
