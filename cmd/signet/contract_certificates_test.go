package main

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestContractCertificates(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"the user's own document holds, line by line", theUsersDocument},
		{"a certificate object has exactly these fields", certificateFields},
		{"default and explicit SANs follow the certificate type", sanRules},
		{"bad names, DNs, key sizes and validities are 400 or 422 on every door", badCertificates},
		{"with include_private_key false no key is returned or stored, and a Warning says so", noPrivateKey},
		{"public_key certifies a key of the caller's own", ownPublicKey},
		{"the private key is the certificate's own, in PKCS#8, for each key type", privateKeys},
		{"weak keys, unknown curves and a CA's own key are refused", weakKeys},
		{"serials are lower-case hex without leading zeros, positive, at most 20 octets, all different", serials},
		{"extensions are those of the table, by type and key", extensions},
		{"a leaf never outlives its issuer", leavesDieFirst},
		{"certificate_type ca needs create_ca, obeys the path length and gets one of its own", caCertificates},
		{"the common name and the subject's CN agree", commonNamesAgree},
		{"revocation: 200, then 409 Certificate is already revoked", revocation},
		{"of parallel revocations exactly one wins", parallelRevocations},
		{"lists filter by ca_id and are paginated with skip, limit, Link and X-Total-Count", certificateLists},
	})
}

// theUsersDocument sends what the document's curl lines send.
func theUsersDocument(t *testing.T, w *world) {
	organization := w.organization(t)
	admin := w.member(t, "admin", organization, nil)
	name := w.unique("Acme Issuing CA")
	authority := admin.ca(name, object{"subject_dn": "CN=Acme Issuing CA,O=Acme Corp,C=US"}).want(http.StatusCreated).id()
	issue := fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority)

	// Issue a certificate.
	first := admin.ask("POST", issue, `{
    "common_name": "api.example.com",
    "subject_dn": "CN=api.example.com,O=Acme Corp,C=US",
    "certificate_type": "server",
    "key_size": 2048,
    "valid_days": 365,
    "include_private_key": true
  }`).want(http.StatusCreated)
	expect(t, first.object(), object{"common_name": "api.example.com", "subject_dn": "CN=api.example.com,O=Acme Corp,C=US", "certificate_type": "server",
		"key_size": 2048, "valid_days": 365, "status": "valid", "issuer_id": authority, "organization_id": organization, "created_by_user_id": admin.id})
	equalSlices(t, "subject", values(t, first.x509().RawSubject), []string{"api.example.com", "Acme Corp", "US"})
	equalSlices(t, "DNS names", first.x509().DNSNames, []string{"api.example.com"})
	equal(t, "validity", first.x509().NotAfter.Sub(first.x509().NotBefore)+time.Second, 365*24*time.Hour)
	equal(t, "key", rsaBits(first.x509()), 2048)

	// Subject Alternative Names.
	san := admin.ask("POST", issue, `{
    "common_name": "api.example.com",
    "subject_dn": "CN=api.example.com,O=Acme Corp,C=US",
    "certificate_type": "server",
    "san_dns_names": ["api.example.com", "api-v2.example.com"],
    "san_ip_addresses": ["10.0.0.42"]
  }`).want(http.StatusCreated)
	equalSlices(t, "DNS names", san.x509().DNSNames, []string{"api.example.com", "api-v2.example.com"})
	equal(t, "IP addresses", fmt.Sprint(san.x509().IPAddresses), "[10.0.0.42]")
	expect(t, san.object(), object{"key_size": 2048, "valid_days": 365})

	// Client certificate example.
	client := admin.ask("POST", issue, `{
    "common_name": "alice",
    "subject_dn": "CN=alice,O=Acme Corp,C=US",
    "certificate_type": "client"
  }`).want(http.StatusCreated)
	equal(t, "names of a client", len(sanStrings(client.x509())), 0)

	// Sign a certificate signing request, made by the openssl line of the document.
	request := opensslRequest(t, "/CN=api.example.com/O=Acme Corp/C=US")
	signed := admin.ask("POST", "/api/v1/certificates/sign-csr", object{"csr": request, "certificate_type": "server", "ca_name": name}).want(http.StatusCreated)
	if _, there := signed.object()["private_key"]; there {
		t.Error("the answer to a CSR has a private key")
	}
	equalSlices(t, "subject", values(t, signed.x509().RawSubject), []string{"api.example.com", "Acme Corp", "US"})

	documentReadAndRevoke(t, w, admin, issue, first, []int64{first.id(), san.id(), client.id(), signed.id()})
}

// documentReadAndRevoke is the second half of the document: list, filter, view, view with private key, revoke.
func documentReadAndRevoke(t *testing.T, w *world, admin party, issue string, first answer, want []int64) {
	t.Helper()
	equalSlices(t, "list", ids(admin.ask("GET", "/api/v1/certificates/", nil).list()), want)
	equalSlices(t, "list of the CA", ids(admin.ask("GET", issue, nil).list()), want)
	path := fmt.Sprintf("/api/v1/certificates/%d", first.id())
	expect(t, admin.ask("GET", path, nil).want(http.StatusOK).object(), object{"id": first.id(), "certificate": first.object()["certificate"]})
	expect(t, admin.ask("GET", path+"/private-key", nil).want(http.StatusOK).object(), object{"private_key": first.object()["private_key"]})
	equal(t, "audit of the key", len(w.root(t).audit("action=cert_export_private_key&resource_id=%d", first.id())), 1)

	// Revoke.
	revoked := admin.ask("POST", path+"/revoke", `{
    "reason": "Key compromise"
  }`).want(http.StatusOK)
	expect(t, revoked.object(), object{"id": first.id(), "status": "revoked"})
	admin.ask("POST", path+"/revoke", `{"reason": "Key compromise"}`).refused(http.StatusConflict, "Certificate is already revoked")
	equal(t, "audit of the revocation", len(w.root(t).audit("action=cert_revoke&resource_id=%d", first.id())), 1)
}

// opensslRequest makes a CSR as the user's document does.
func opensslRequest(t *testing.T, subject string) string {
	t.Helper()
	dir := t.TempDir()
	tool(t, dir, "openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "csr", "-subj", subject)
	data, err := os.ReadFile(dir + "/csr")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tool runs a program in a folder, which must succeed, and returns what it prints.
func tool(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sanStrings are the alternative names, each with its kind.
func sanStrings(c *x509.Certificate) []string {
	all := []string{}
	for _, n := range c.DNSNames {
		all = append(all, "dns:"+n)
	}
	for _, n := range c.IPAddresses {
		all = append(all, "ip:"+n.String())
	}
	for _, n := range c.EmailAddresses {
		all = append(all, "email:"+n)
	}
	for _, n := range c.URIs {
		all = append(all, "uri:"+n.String())
	}
	return all
}

var certificateFieldNames = []string{"certificate", "certificate_type", "common_name", "created_at", "created_by_user_id", "id", "invalidity_date", "issuer_id", "key_size",
	"not_after", "not_before", "organization_id", "revocation_reason", "revocation_text", "revoked_at", "serial_number", "status", "subject_dn", "updated_at", "valid_days"}

func certificateFields(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("fields"), nil).want(http.StatusCreated).id()
	made := root.issue(authority, "fields.example", "server", nil).want(http.StatusCreated)
	path := fmt.Sprintf("/api/v1/certificates/%d", made.id())
	withKey := slices.Sorted(slices.Values(append(slices.Clone(certificateFieldNames), "private_key")))
	equalSlices(t, "POST", fields(made.object()), withKey)
	equalSlices(t, "private-key", fields(root.ask("GET", path+"/private-key", nil).object()), withKey)
	equalSlices(t, "GET", fields(root.ask("GET", path, nil).object()), certificateFieldNames)
	equalSlices(t, "sign-csr", fields(root.sign(authority, csr(t, "x.example"), "server", nil).object()), certificateFieldNames)
	equalSlices(t, "list", fields(root.ask("GET", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority), nil).list()[0]), certificateFieldNames)
	equalSlices(t, "revoke", fields(root.revoke(made.id(), "").object()), certificateFieldNames)
	c := made.x509()
	expect(t, made.object(), object{"serial_number": c.SerialNumber.Text(16), "not_before": c.NotBefore.Format(time.RFC3339), "not_after": c.NotAfter.Format(time.RFC3339), "revoked_at": nil})
}

func sanRules(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("sans"), nil).want(http.StatusCreated).id()
	for _, c := range []struct {
		kind, cn string
		given    object
		want     []string // nil: refused with 400
	}{
		{"server", "www.example.com", nil, []string{"dns:www.example.com"}},
		{"server", "www.example.com", object{"san_dns_names": []string{}}, []string{"dns:www.example.com"}},
		{"server", "www.example.com", object{"san_dns_names": nil}, []string{"dns:www.example.com"}},
		{"server", "www.example.com", object{"san_dns_names": []string{"other.example.com"}}, []string{"dns:other.example.com"}},
		{"server", "www.example.com", object{"san_ip_addresses": []string{"10.0.0.1", "2001:db8::1"}}, []string{"dns:www.example.com", "ip:10.0.0.1", "ip:2001:db8::1"}},
		{"server", "*.example.com", nil, []string{"dns:*.example.com"}},
		{"server", "192.0.2.7", nil, []string{"ip:192.0.2.7"}},
		{"server", "2001:db8::7", nil, []string{"ip:2001:db8::7"}},
		{"server", "www.example.com", object{"san_email_addresses": []string{}}, []string{"dns:www.example.com"}},
		{"server", "www.example.com", object{"san_email_addresses": []string{"a@example.com"}}, nil},
		{"server", "www.*.com", nil, nil},
		{"server", "*", nil, nil},
		{"server", "Not a host name", nil, nil},
		{"server", "Not a host name", object{"san_dns_names": []string{"www.example.com"}}, []string{"dns:www.example.com"}},
		{"dual_purpose", "www.example.com", nil, []string{"dns:www.example.com"}},
		{"dual_purpose", "www.example.com", object{"san_email_addresses": []string{"a@example.com"}}, []string{"dns:www.example.com", "email:a@example.com"}},
		{"dual_purpose", "192.0.2.7", nil, []string{"ip:192.0.2.7"}},
		{"client", "alice", nil, []string{}},
		{"client", "alice@example.com", nil, []string{"email:alice@example.com"}},
		{"client", "alice@example.com", object{"san_email_addresses": []string{"bob@example.com"}}, []string{"email:bob@example.com"}},
		{"client", "alice", object{"san_email_addresses": []string{"bob@example.com"}}, []string{"email:bob@example.com"}},
		{"client", "www.example.com", nil, []string{}},
		{"client", "alice", object{"san_dns_names": []string{"www.example.com"}}, nil},
		{"client", "alice", object{"san_ip_addresses": []string{"10.0.0.1"}}, nil},
		{"client", "alice", object{"san_dns_names": []string{}, "san_ip_addresses": []string{}}, []string{}},
	} {
		made := root.issue(authority, c.cn, c.kind, c.given)
		signed := root.sign(authority, csr(t, c.cn), c.kind, nonNil(c.given))
		for _, a := range []answer{made, signed} {
			if c.want == nil {
				a.refused(http.StatusBadRequest, "")
				continue
			}
			if a.status != http.StatusCreated {
				t.Errorf("%s %s %v: status %d: %s", c.kind, c.cn, c.given, a.status, a.body)
				continue
			}
			equalSlices(t, fmt.Sprint(c.kind, " ", c.cn, " ", c.given), sanStrings(a.x509()), c.want)
		}
	}
}

// nonNil leaves out the nulls, which stand for "delete" in sign.
func nonNil(o object) object {
	kept := maps.Clone(o)
	maps.DeleteFunc(kept, func(_ string, v any) bool { return v == nil })
	return kept
}

// badNames is what no certificate may have, whatever door it is asked at.
var badNames = []object{
	{"subject_dn": "nonsense"}, {"subject_dn": "CN=x.example,NOSUCH=y"}, {"subject_dn": "CN=x.example,C=Switzerland"}, {"subject_dn": "CN=x.example,,"},
	{"subject_dn": "CN=x.example,O=a\x00b"}, {"subject_dn": "CN=x.example,O=" + strings.Repeat("x", 65)},
	{"common_name": strings.Repeat("x", 65), "subject_dn": "O=x", "san_dns_names": []string{"x.example"}}, {"common_name": "a\x00b", "subject_dn": "O=x"},
	{"san_dns_names": []string{"a b.example"}}, {"san_dns_names": []string{""}}, {"san_dns_names": []string{"a..b"}}, {"san_dns_names": []string{"-a.example"}},
	{"san_dns_names": []string{"w*.example"}}, {"san_dns_names": []string{"a.*.example"}}, {"san_dns_names": []string{"*"}}, {"san_dns_names": []string{"*."}},
	{"san_dns_names": []string{strings.Repeat("a", 64) + ".example"}}, {"san_dns_names": []string{strings.Repeat("a.", 130) + "example"}},
	{"san_dns_names": []string{"http://x.example"}}, {"san_dns_names": []string{"x.example:443"}}, {"san_dns_names": []string{"x.example\x00.evil"}},
	{"san_dns_names": []string{"10.0.0.1"}}, {"san_dns_names": "x.example"}, {"san_dns_names": []any{5}},
	{"san_ip_addresses": []string{"10.0.0"}}, {"san_ip_addresses": []string{"10.0.0.256"}}, {"san_ip_addresses": []string{"x.example"}},
	{"san_ip_addresses": []string{"10.0.0.0/8"}}, {"san_ip_addresses": []string{"fe80::1%eth0"}}, {"san_ip_addresses": []string{""}},
	{"valid_days": 0}, {"valid_days": -1}, {"valid_days": 1 << 50}, {"certificate_type": "god"}, {"certificate_type": ""},
}

func badCertificates(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("bad"), nil).want(http.StatusCreated).id()
	request := csr(t, "x.example")
	for _, wish := range badNames {
		root.issue(authority, "x.example", "server", wish).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
		root.sign(authority, request, "server", wish).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	}
	for _, email := range []string{"", "nobody", "a@", "@b", "a b@c.example", "a@b@c", "a@b\x00.example", "a@-b.example"} {
		wish := object{"san_email_addresses": []string{email}}
		root.issue(authority, "alice", "client", wish).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
		root.sign(authority, request, "client", object{"common_name": "alice", "san_email_addresses": []string{email}}).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	}
	for _, wish := range []object{{"key_size": 1024}, {"key_type": "rsa", "key_size": 1024}, {"key_type": "rsa", "key_size": 0}, {"key_type": "rsa", "key_size": -2048},
		{"key_type": "rsa", "key_size": 1 << 24}, {"key_type": "ec", "key_size": 224}, {"key_type": "dsa"}, {"key_type": "ed25519", "key_size": 512},
		{"public_key": "nonsense"}, {"common_name": "", "subject_dn": "O=x"}} {
		root.issue(authority, "x.example", "server", wish).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	}
	for _, path := range []string{"999999", "9223372036854775807"} {
		root.ask("POST", "/api/v1/certificates/?ca_id="+path, object{"common_name": "x", "subject_dn": "CN=x", "certificate_type": "server"}).refused(http.StatusNotFound, "")
	}
}

var serialFormat = regexp.MustCompile(`^[1-9a-f][0-9a-f]{0,39}$`)

func serials(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("serials"), nil).want(http.StatusCreated)
	seen, longest := map[string]bool{}, 0
	for range 40 {
		made := root.sign(authority.id(), csr(t, "serial.example"), "server", nil).want(http.StatusCreated)
		serial := made.object()["serial_number"].(string)
		if !serialFormat.MatchString(serial) || seen[serial] || made.x509().SerialNumber.Sign() <= 0 || len(made.x509().SerialNumber.Bytes()) > 20 {
			t.Errorf("serial %q (seen before: %t)", serial, seen[serial])
		}
		longest = max(longest, made.x509().SerialNumber.BitLen())
		seen[serial] = true
	}
	if longest < 64 {
		t.Errorf("none of %d serials has 64 bits", len(seen))
	}
}

func leavesDieFirst(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("short"), object{"valid_days": 10}).want(http.StatusCreated)
	for _, a := range []answer{
		root.issue(authority.id(), "long.example", "server", object{"valid_days": 365}),
		root.sign(authority.id(), csr(t, "long.example"), "client", object{"valid_days": 365}),
		root.issue(authority.id(), "Long CA", "ca", object{"valid_days": 3650}),
	} {
		if a.status != http.StatusCreated {
			a.refused(http.StatusBadRequest, "")
			continue
		}
		if a.x509().NotAfter.After(authority.x509().NotAfter) {
			t.Errorf("%s: ends %s, its issuer %s", a.request, a.x509().NotAfter, authority.x509().NotAfter)
		}
		expect(t, a.object(), object{"valid_days": 10})
	}
}

func caCertificates(t *testing.T, w *world) {
	root, organization := w.root(t), w.organization(t)
	admin := w.member(t, "admin", organization, nil)
	authority := admin.ca(w.unique("sub"), object{"path_length": 2}).want(http.StatusCreated)
	last := admin.ca(w.unique("last"), object{"path_length": 0}).want(http.StatusCreated)
	made := admin.issue(authority.id(), "Sub CA", "ca", nil).want(http.StatusCreated)
	c := made.x509()
	equal(t, "isCA and path length", fmt.Sprint(c.IsCA, c.MaxPathLen, c.MaxPathLenZero), "true 1 false")
	equal(t, "keyUsage", c.KeyUsage, x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	equal(t, "extKeyUsage", len(c.ExtKeyUsage), 0)
	equal(t, "names", len(sanStrings(c)), 0)
	signed := admin.sign(authority.id(), csr(t, "Sub CA"), "ca", nil).want(http.StatusCreated).x509()
	equal(t, "path length from a CSR", signed.MaxPathLen, 1)
	unlimited := root.ca(w.unique("unlimited"), nil).want(http.StatusCreated)
	equal(t, "has a path length of its own", root.issue(unlimited.id(), "Sub CA", "ca", nil).want(http.StatusCreated).x509().MaxPathLen >= 0, true)
	admin.issue(last.id(), "Sub CA", "ca", nil).refused(http.StatusBadRequest, "")
	admin.sign(last.id(), csr(t, "Sub CA"), "ca", nil).refused(http.StatusBadRequest, "")
	user := w.member(t, "user", organization, object{"can_create_cert": true, "can_revoke_cert": true})
	user.issue(authority.id(), "Sub CA", "ca", nil).refused(http.StatusForbidden, "Insufficient permissions")
	user.sign(authority.id(), csr(t, "Sub CA"), "ca", nil).refused(http.StatusForbidden, "Insufficient permissions")
	user.issue(authority.id(), "leaf.example", "server", nil).want(http.StatusCreated)
	w.member(t, "user", organization, object{"can_create_ca": true}).issue(authority.id(), "Sub CA", "ca", nil).want(http.StatusCreated)
}

func commonNamesAgree(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("agree"), nil).want(http.StatusCreated).id()
	differing := root.issue(authority, "a.example", "server", object{"subject_dn": "CN=b.example,O=x"})
	if differing.status == http.StatusCreated {
		equal(t, "CN", differing.x509().Subject.CommonName, differing.object()["common_name"].(string))
	} else {
		differing.refused(http.StatusBadRequest, "")
	}
	added := root.issue(authority, "a.example", "server", object{"subject_dn": "O=Example,C=CH"}).want(http.StatusCreated)
	equal(t, "CN that was added", added.x509().Subject.CommonName, "a.example")
	for _, over := range []object{{"common_name": "override.example"}, {"subject_dn": "CN=override.example,O=New"}, {"common_name": "override.example", "subject_dn": "CN=override.example"}} {
		made := root.sign(authority, csr(t, "in-the-csr.example"), "server", over).want(http.StatusCreated)
		equal(t, "common_name", made.object()["common_name"], any("override.example"))
		equal(t, "CN", made.x509().Subject.CommonName, "override.example")
		equalSlices(t, "SAN", sanStrings(made.x509()), []string{"dns:override.example"})
	}
}

func revocation(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("revoke"), nil).want(http.StatusCreated)
	for _, body := range []any{object{"reason": "Key compromise"}, object{}, object{"reason": nil}, nil} {
		made := root.issue(authority.id(), "revoke.example", "server", nil).want(http.StatusCreated)
		path := fmt.Sprintf("/api/v1/certificates/%d", made.id())
		revoked := root.ask("POST", path+"/revoke", body).want(http.StatusOK)
		if revoked.object()["status"] != "revoked" || revoked.object()["revoked_at"] == nil {
			t.Errorf("after the revocation: %s", revoked.body)
		}
		expect(t, root.ask("GET", path, nil).object(), object{"status": "revoked", "revoked_at": revoked.object()["revoked_at"]})
		root.ask("POST", path+"/revoke", body).refused(http.StatusConflict, "Certificate is already revoked")
	}
	root.revoke(999999, "").refused(http.StatusNotFound, "")
	made := root.issue(authority.id(), "revoke.example", "server", nil).want(http.StatusCreated)
	root.revoke(made.id(), strings.Repeat("x", 5000)).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	root.publishedWith(authority, 4)
}

func parallelRevocations(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("race"), nil).want(http.StatusCreated)
	for range 3 {
		made := root.issue(authority.id(), "race.example", "server", nil).want(http.StatusCreated)
		statuses := root.atOnce(8, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", made.id()), func(int) any { return object{} })
		equalSlices(t, "statuses", statuses, one(8, http.StatusOK, http.StatusConflict))
		equal(t, "audit", len(root.audit("action=cert_revoke&resource_id=%d", made.id())), 1)
	}
	root.publishedWith(authority, 3)
}

var nextPage = regexp.MustCompile(`^<([^>]+)>; rel="next"$`)

func certificateLists(t *testing.T, w *world) {
	root := w.root(t)
	authority, other := root.ca(w.unique("list"), nil).want(http.StatusCreated).id(), root.ca(w.unique("list"), nil).want(http.StatusCreated).id()
	var all []int64
	for range 7 {
		all = append(all, root.sign(authority, csr(t, "list.example"), "server", nil).want(http.StatusCreated).id())
		root.sign(other, csr(t, "list.example"), "server", nil).want(http.StatusCreated)
	}
	path := fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority)
	for query, want := range map[string][]int64{
		"": all, "&skip=0": all, "&skip=2": all[2:], "&limit=3": all[:3], "&skip=2&limit=3": all[2:5], "&skip=7": nil, "&limit=10000": all, "&skip=6&limit=5": all[6:],
	} {
		a := root.ask("GET", path+query, nil)
		equalSlices(t, a.request, ids(a.list()), want)
		equal(t, a.request+" X-Total-Count", a.header.Get("X-Total-Count"), "7")
	}
	// Following Link rel="next" visits everything once, and keeps the filter.
	var seen []int64
	pages := 0
	for next := path + "&limit=3"; next != ""; pages++ {
		a := root.ask("GET", next, nil)
		seen = append(seen, ids(a.list())...)
		if pages == 1 { // what is added meanwhile moves nothing
			all = append(all, root.sign(authority, csr(t, "list.example"), "server", nil).want(http.StatusCreated).id())
		}
		link := a.header.Get("Link")
		if next = ""; link == "" {
			continue
		}
		match := nextPage.FindStringSubmatch(link)
		if match == nil || pages > 5 {
			t.Fatalf("Link: %q on page %d", link, pages)
		}
		u, err := url.Parse(match[1])
		if err != nil {
			t.Fatal(err)
		}
		next = u.RequestURI()
	}
	equalSlices(t, "all pages", seen, all)
	root.ask("GET", path+"&cursor=nonsense", nil).want(http.StatusUnprocessableEntity, http.StatusBadRequest)
	if empty := root.ask("GET", "/api/v1/certificates/?ca_id=999999", nil); strings.TrimSpace(string(empty.body)) != "[]" {
		t.Errorf("an empty list is %s, want []", empty.body)
	}
}
