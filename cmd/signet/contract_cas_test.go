package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestContractCertificateAuthorities(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"a CA has defaults: rsa 4096, 3650 days, no parent, leaf certificates allowed", caDefaults},
		{"key_type rsa, ec and ed25519 with their sizes", caKeyTypes},
		{"the answer is all of the request and more, and private_key is null", caFields},
		{"bad names, DNs, key sizes and validities are 400 or 422", badCAs},
		{"subject_dn is RFC 4514, and unknown attributes are 400", caSubjects},
		{"a child takes path_length parent-1 unless given; more, or below 0, is 400", pathLengths},
		{"creating a child sets the parent's allow_leaf_certs to false", childrenEndLeaves},
		{"chain lists this CA first and the root last; children lists the children", chainAndChildren},
		{"a CA never outlives its parent", childrenDieFirst},
		{"delete is 409 while it has children", deleteParents},
		{"a deleted CA is gone from every authenticated call, and its public files stay", deletedCAs},
		{"a deleted CA's id is never reused", deletedIDs},
		{"parent_ca_id needs create_ca permission on the parent", permissionOnTheParent},
		{"a CA's private key is 404 if unknown, else 403 for everybody, and audited", caKeysNeverLeave},
		{"a CA named Zürich issues, and its URLs are ASCII", asciiURLs},
		{"an intermediate CA can be revoked: it stops issuing and is in its parent's CRL", revokeCA},
		{"of parallel revocations of a CA exactly one wins", parallelCARevocations},
		{"the Host header never reaches a certificate", hostHeader},
		{"crl_base_url is the base of the URLs in what the CA issues", crlBaseURL},
	})
}

func caDefaults(t *testing.T, w *world) {
	name := w.unique("Default CA")
	made := w.root(t).ask("POST", "/api/v1/cas/", object{"name": name, "subject_dn": "CN=Default,O=Example,C=CH"}).want(http.StatusCreated)
	expect(t, made.object(), object{"name": name, "subject_dn": "CN=Default,O=Example,C=CH", "description": nil, "key_type": "rsa", "key_size": 4096, "valid_days": 3650,
		"parent_ca_id": nil, "path_length": nil, "allow_leaf_certs": true, "crl_base_url": nil, "is_root": true, "private_key": nil,
		"organization_id": nil, "created_by_user_id": 1})
	c := made.x509()
	equal(t, "bits", c.PublicKey.(*rsa.PublicKey).N.BitLen(), 4096)
	equal(t, "days", c.NotAfter.Sub(c.NotBefore)+time.Second, 3650*24*time.Hour)
	equal(t, "BasicConstraints", c.IsCA && c.BasicConstraintsValid && c.MaxPathLen == -1, true)
	equal(t, "keyUsage", c.KeyUsage, x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	if err := c.CheckSignatureFrom(c); err != nil {
		t.Errorf("the root did not sign itself: %v", err)
	}
	w.root(t).ask("POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", made.id()), object{
		"common_name": "default.example", "subject_dn": "CN=default.example", "certificate_type": "server"}).want(http.StatusCreated)
}

func caKeyTypes(t *testing.T, w *world) {
	for _, c := range []struct {
		kind       string
		size, want any
		bits       func(*x509.Certificate) int
	}{
		{"rsa", 2048, 2048, rsaBits}, {"rsa", 3072, 3072, rsaBits},
		{"ec", 256, 256, ecBits}, {"ec", 384, 384, ecBits}, {"ec", 521, 521, ecBits}, {"ec", nil, 256, ecBits},
		{"ed25519", nil, 256, ed25519Bits}, {"ed25519", 256, 256, ed25519Bits},
	} {
		made := w.root(t).ca(w.unique(c.kind), object{"key_type": c.kind, "key_size": c.size}).want(http.StatusCreated)
		expect(t, made.object(), object{"key_type": c.kind, "key_size": c.want})
		certificate := made.x509()
		equal(t, made.request, fmt.Sprint(c.bits(certificate)), fmt.Sprint(c.want))
		leaf := w.root(t).issue(made.id(), "leaf.example", "server", nil).want(http.StatusCreated).x509()
		if err := leaf.CheckSignatureFrom(certificate); err != nil {
			t.Errorf("%s %v: leaf: %v", c.kind, c.size, err)
		}
		w.root(t).published(made)
	}
}

func rsaBits(c *x509.Certificate) int     { return c.PublicKey.(*rsa.PublicKey).N.BitLen() }
func ecBits(c *x509.Certificate) int      { return c.PublicKey.(*ecdsa.PublicKey).Curve.Params().BitSize }
func ed25519Bits(c *x509.Certificate) int { return 8 * len(c.PublicKey.(ed25519.PublicKey)) }

// The fields that the contract names; there may be more.
var caFieldNames = []string{"allow_leaf_certs", "certificate", "created_at", "created_by_user_id", "crl_base_url", "description", "id", "is_root", "key_size",
	"key_type", "name", "organization_id", "parent_ca_id", "path_length", "subject_dn", "updated_at", "valid_days"}

func caFields(t *testing.T, w *world) {
	root := w.root(t)
	wish := object{"name": w.unique("fields"), "subject_dn": "CN=Fields,O=Example", "description": "for \"tests\"", "key_type": "ec", "key_size": 384,
		"valid_days": 100, "path_length": 2, "allow_leaf_certs": false, "crl_base_url": "http://pki.example"}
	made := root.ask("POST", "/api/v1/cas/", wish).want(http.StatusCreated)
	expect(t, made.object(), wish)
	if value, there := made.object()["private_key"]; !there || value != nil {
		t.Errorf("private_key is %v (there: %t), want null", value, there)
	}
	path := fmt.Sprintf("/api/v1/cas/%d", made.id())
	for _, o := range []object{made.object(), root.ask("GET", path, nil).object(), root.ask("GET", path+"/chain", nil).list()[0]} {
		for _, name := range caFieldNames {
			if _, there := o[name]; !there {
				t.Errorf("the field %s is missing", name)
			}
		}
		expect(t, o, wish)
	}
	root.issue(made.id(), "x.example", "server", nil).refused(http.StatusBadRequest, fmt.Sprintf("CA %d does not allow leaf certificate issuance", made.id()))
}

func badCAs(t *testing.T, w *world) {
	root := w.root(t)
	for _, wish := range []object{
		{"name": ""}, {"name": "  "}, {"name": strings.Repeat("x", 256)}, {"name": "a\x00b"}, {"name": "a\nb"},
		{"subject_dn": ""}, {"subject_dn": "nonsense"}, {"subject_dn": "CN=x,,O=y"}, {"subject_dn": "CN=\x00"}, {"subject_dn": "CN=" + strings.Repeat("x", 65)},
		{"subject_dn": "NOSUCH=x"}, {"subject_dn": "CN=x,C=Switzerland"}, {"subject_dn": "CN=x\\"}, {"subject_dn": `CN="x`},
		{"key_type": "dsa"}, {"key_type": ""}, {"key_type": "rsa", "key_size": 1024}, {"key_type": "rsa", "key_size": 2047}, {"key_type": "rsa", "key_size": 1 << 30},
		{"key_type": "ec", "key_size": 224}, {"key_type": "ec", "key_size": 2048}, {"key_type": "ed25519", "key_size": 448}, {"key_size": -1}, {"key_type": "rsa", "key_size": 0},
		{"valid_days": 0}, {"valid_days": -1}, {"valid_days": 1 << 40}, {"valid_days": 36501},
		{"path_length": -1}, {"path_length": 1 << 40},
		{"crl_base_url": "no url"}, {"crl_base_url": "ftp://x.example"}, {"crl_base_url": "http://zürich.example"}, {"crl_base_url": "http://x.example/?q"},
		{"crl_base_url": "javascript:alert(1)"}, {"crl_base_url": "http://user:password@x.example"}, {"crl_base_url": "http://"},
		{"description": strings.Repeat("x", 5000)},
	} {
		root.ca(w.unique("bad"), wish).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	}
	root.ca(w.unique("bad"), object{"parent_ca_id": 999999}).refused(http.StatusNotFound, "")
}

func caSubjects(t *testing.T, w *world) {
	for dn, want := range map[string][]string{ // attribute values in the order of the DER
		"CN=Plain,O=Example,C=CH":                   {"Plain", "Example", "CH"},
		`CN=Comma\, Inc.,O="Quoted, Inc.",C=CH`:     {"Comma, Inc.", "Quoted, Inc.", "CH"},
		"C=CH,O=Example,OU=One,OU=Two,CN=Order":     {"CH", "Example", "One", "Two", "Order"},
		"CN=Mail,emailAddress=ca@example.com":       {"Mail", "ca@example.com"},
		"CN=Domain,DC=example,DC=com":               {"Domain", "example", "com"},
		"CN=Zürich,O=M\\C3\\BCller":                 {"Zürich", "Müller"},
		"2.5.4.3=By OID,2.5.4.10=Example":           {"By OID", "Example"},
		"CN=Multi+OU=Valued,O=Example":              {"Multi", "Valued", "Example"},
		"cn=Lower case,o=Example":                   {"Lower case", "Example"},
		`CN=Slash/OU=not,O=Example`:                 {"Slash/OU=not", "Example"},
		`CN=Equals\=sign\+plus,O=\#hash`:            {"Equals=sign+plus", "#hash"},
		"CN=Place,L=Zürich,ST=ZH,STREET=Weg 1,C=CH": {"Place", "Zürich", "ZH", "Weg 1", "CH"},
	} {
		a := w.root(t).ca(w.unique("subject"), object{"subject_dn": dn})
		if a.status != http.StatusCreated {
			t.Errorf("%s: status %d: %s", dn, a.status, a.body)
			continue
		}
		equalSlices(t, dn, values(t, a.x509().RawSubject), want)
	}
}

// values are the attribute values of a DER distinguished name, in its order.
func values(t *testing.T, der []byte) []string {
	t.Helper()
	var rdns []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &rdns); err != nil {
		t.Fatalf("parse name: %v", err)
	}
	var all []string
	for _, rdn := range rdns {
		for rest := rdn.Bytes; len(rest) > 0; {
			var attribute struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			var err error
			if rest, err = asn1.Unmarshal(rest, &attribute); err != nil {
				t.Fatalf("parse attribute: %v", err)
			}
			all = append(all, string(attribute.Value.Bytes))
		}
	}
	return all
}

func pathLengths(t *testing.T, w *world) {
	root := w.root(t)
	for _, c := range []struct {
		parent, given any
		want          any // nil: 400
	}{
		{2, nil, 1}, {2, 1, 1}, {2, 0, 0}, {2, 2, nil}, {2, 3, nil}, {1, nil, 0}, {1, 1, nil}, {0, nil, nil}, {0, 0, nil},
		{nil, 5, 5}, {nil, 0, 0}, {2, -1, nil},
	} {
		parent := root.ca(w.unique("parent"), object{"path_length": c.parent}).want(http.StatusCreated)
		wish := object{"parent_ca_id": parent.id()}
		if c.given != nil {
			wish["path_length"] = c.given
		}
		child := root.ca(w.unique("child"), wish)
		if c.want == nil {
			child.want(http.StatusBadRequest, http.StatusUnprocessableEntity)
			continue
		}
		child.want(http.StatusCreated)
		expect(t, child.object(), object{"path_length": c.want, "parent_ca_id": parent.id(), "is_root": false})
		equal(t, "pathLenConstraint", fmt.Sprint(child.x509().MaxPathLen), fmt.Sprint(c.want))
		if err := child.x509().CheckSignatureFrom(parent.x509()); err != nil {
			t.Errorf("the parent did not sign the child: %v", err)
		}
	}
	unlimited := root.ca(w.unique("unlimited"), object{"parent_ca_id": root.ca(w.unique("parent"), nil).id()}).want(http.StatusCreated)
	expect(t, unlimited.object(), object{"path_length": nil})
}

func childrenEndLeaves(t *testing.T, w *world) {
	root := w.root(t)
	parent := root.ca(w.unique("parent"), nil).want(http.StatusCreated)
	before := root.issue(parent.id(), "before.example", "server", nil).want(http.StatusCreated)
	root.ca(w.unique("refused"), object{"parent_ca_id": parent.id(), "subject_dn": "nonsense"}).want(http.StatusBadRequest)
	expect(t, root.ask("GET", fmt.Sprintf("/api/v1/cas/%d", parent.id()), nil).object(), object{"allow_leaf_certs": true})
	child := root.ca(w.unique("child"), object{"parent_ca_id": parent.id()}).want(http.StatusCreated)
	expect(t, root.ask("GET", fmt.Sprintf("/api/v1/cas/%d", parent.id()), nil).object(), object{"allow_leaf_certs": false})
	refusal := fmt.Sprintf("CA %d does not allow leaf certificate issuance", parent.id())
	root.issue(parent.id(), "after.example", "server", nil).refused(http.StatusBadRequest, refusal)
	root.sign(parent.id(), csr(t, "after.example"), "server", nil).refused(http.StatusBadRequest, refusal)
	root.issue(child.id(), "after.example", "server", nil).want(http.StatusCreated)
	root.revoke(before.id(), "").want(http.StatusOK)
	root.ca(w.unique("sibling"), object{"parent_ca_id": parent.id()}).want(http.StatusCreated)
}

func chainAndChildren(t *testing.T, w *world) {
	root := w.root(t)
	top := root.ca(w.unique("top"), nil).want(http.StatusCreated)
	middle := root.ca(w.unique("middle"), object{"parent_ca_id": top.id()}).want(http.StatusCreated)
	bottom := root.ca(w.unique("bottom"), object{"parent_ca_id": middle.id()}).want(http.StatusCreated)
	second := root.ca(w.unique("second"), object{"parent_ca_id": top.id()}).want(http.StatusCreated)
	for a, chain := range map[int64][]int64{bottom.id(): {bottom.id(), middle.id(), top.id()}, middle.id(): {middle.id(), top.id()}, top.id(): {top.id()}} {
		equalSlices(t, "chain", ids(root.ask("GET", fmt.Sprintf("/api/v1/cas/%d/chain", a), nil).list()), chain)
	}
	for a, children := range map[int64][]int64{top.id(): {middle.id(), second.id()}, middle.id(): {bottom.id()}, bottom.id(): nil} {
		list := root.ask("GET", fmt.Sprintf("/api/v1/cas/%d/children", a), nil)
		equalSlices(t, "children", ids(list.list()), children)
		if children == nil && strings.TrimSpace(string(list.body)) != "[]" {
			t.Errorf("no children is %s, want []", list.body)
		}
	}
}

func childrenDieFirst(t *testing.T, w *world) {
	root := w.root(t)
	parent := root.ca(w.unique("short"), object{"valid_days": 10}).want(http.StatusCreated)
	child := root.ca(w.unique("long"), object{"parent_ca_id": parent.id(), "valid_days": 3650})
	if child.status != http.StatusCreated {
		child.want(http.StatusBadRequest)
		return
	}
	if child.x509().NotAfter.After(parent.x509().NotAfter) || child.x509().NotBefore.Before(parent.x509().NotBefore) {
		t.Errorf("the child lives from %s to %s, its parent from %s to %s", child.x509().NotBefore, child.x509().NotAfter, parent.x509().NotBefore, parent.x509().NotAfter)
	}
	equal(t, "valid_days of the child", child.object()["valid_days"], any(10.0))
}

func deleteParents(t *testing.T, w *world) {
	root := w.root(t)
	parent := root.ca(w.unique("parent"), nil).want(http.StatusCreated)
	child := root.ca(w.unique("child"), object{"parent_ca_id": parent.id()}).want(http.StatusCreated)
	path := fmt.Sprintf("/api/v1/cas/%d", parent.id())
	root.ask("DELETE", path, nil).refused(http.StatusConflict, "")
	root.ask("GET", path, nil).want(http.StatusOK)
	root.ask("DELETE", fmt.Sprintf("/api/v1/cas/%d", child.id()), nil).want(http.StatusNoContent)
	root.ask("DELETE", path, nil).want(http.StatusNoContent)
	root.ask("DELETE", path, nil).refused(http.StatusNotFound, "")
}

func deletedCAs(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("deleted"), nil).want(http.StatusCreated)
	leaf := root.issue(authority.id(), "deleted.example", "server", nil).want(http.StatusCreated)
	revoked := root.issue(authority.id(), "revoked.example", "server", nil).want(http.StatusCreated)
	root.revoke(revoked.id(), "").want(http.StatusOK)
	root.ask("DELETE", fmt.Sprintf("/api/v1/cas/%d", authority.id()), nil).want(http.StatusNoContent)
	for _, path := range []string{"/api/v1/cas/%d", "/api/v1/cas/%d/chain", "/api/v1/cas/%d/children", "/api/v1/cas/%d/private-key", "/api/v1/export/ca/%d/certificate", "/api/v1/export/ca/%d/private-key"} {
		root.ask("GET", fmt.Sprintf(path, authority.id()), nil).refused(http.StatusNotFound, "")
	}
	for _, path := range []string{"/api/v1/certificates/%d", "/api/v1/certificates/%d/private-key", "/api/v1/export/certificate/%d", "/api/v1/export/certificate/%d/chain", "/api/v1/export/certificate/%d/private-key"} {
		root.ask("GET", fmt.Sprintf(path, leaf.id()), nil).refused(http.StatusNotFound, "")
	}
	root.revoke(leaf.id(), "").refused(http.StatusNotFound, "")
	root.issue(authority.id(), "more.example", "server", nil).refused(http.StatusNotFound, "")
	root.sign(authority.id(), csr(t, "more.example"), "server", nil).refused(http.StatusNotFound, "")
	name := authority.object()["name"].(string)
	root.sign(0, csr(t, "more.example"), "server", object{"ca_id": nil, "ca_name": name}).refused(http.StatusNotFound, "CA '"+name+"' not found")
	root.ca(w.unique("orphan"), object{"parent_ca_id": authority.id()}).refused(http.StatusNotFound, "")
	equal(t, "certificates in the list", len(root.ask("GET", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority.id()), nil).list()), 0)
	for _, o := range root.ask("GET", "/api/v1/cas/?limit=10000", nil).list() {
		if id(o) == authority.id() {
			t.Error("the list has a deleted CA")
		}
	}
	equalSlices(t, "CRL", revokedSerials(root.publishedWith(authority, 1)), []string{revoked.object()["serial_number"].(string)})
	file := w.nobody(t).ask("GET", "/ca/"+slugOf(authority)+".crt", nil).want(http.StatusOK)
	equal(t, "public certificate", bytes.Equal(file.body, authority.x509().Raw), true)
	for _, action := range []string{"ca_create", "ca_delete"} {
		equal(t, action, len(root.audit("action=%s&resource_id=%d", action, authority.id())), 1)
	}
}

func deletedIDs(t *testing.T, w *world) {
	root := w.root(t)
	var last int64
	for range 3 {
		made := root.ca(w.unique("again"), nil).want(http.StatusCreated)
		if made.id() <= last {
			t.Fatalf("id %d after %d was deleted", made.id(), last)
		}
		last = made.id()
		root.ask("DELETE", fmt.Sprintf("/api/v1/cas/%d", last), nil).want(http.StatusNoContent)
	}
}

func permissionOnTheParent(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	parent := w.member(t, "admin", own, nil).ca(w.unique("parent"), nil).want(http.StatusCreated).id()
	lonely := w.root(t).ca(w.unique("lonely"), nil).want(http.StatusCreated).id()
	wish := object{"parent_ca_id": parent}
	for _, p := range []party{w.member(t, "admin", other, nil), w.member(t, "user", other, object{"can_create_ca": true}), w.member(t, "user", 0, object{"can_create_ca": true}),
		w.member(t, "admin", 0, nil), w.member(t, "user", own, object{"can_create_cert": true, "can_delete_ca": true})} {
		p.ca(w.unique("child"), wish).refused(http.StatusForbidden, "Insufficient permissions")
		p.ca(w.unique("child"), object{"parent_ca_id": lonely}).refused(http.StatusForbidden, "Insufficient permissions")
	}
	for _, p := range []party{w.member(t, "admin", own, nil), w.member(t, "user", own, object{"can_create_ca": true}), w.root(t)} {
		expect(t, p.ca(w.unique("child"), wish).want(http.StatusCreated).object(), object{"organization_id": own, "created_by_user_id": p.id})
	}
}

func caKeysNeverLeave(t *testing.T, w *world) {
	own := w.organization(t)
	creator := w.member(t, "admin", own, nil)
	authority := creator.ca(w.unique("sealed"), nil).want(http.StatusCreated).id()
	grants := object{}
	for _, name := range capabilities {
		grants[name] = true
	}
	askers := []party{w.root(t), creator, w.member(t, "user", own, grants), w.member(t, "user", own, nil), w.member(t, "admin", w.organization(t), nil), w.member(t, "user", 0, nil)}
	for i, p := range askers {
		for _, path := range []string{"/api/v1/cas/%d/private-key", "/api/v1/export/ca/%d/private-key"} {
			p.ask("GET", fmt.Sprintf(path, 999999), nil).refused(http.StatusNotFound, "")
			a := p.ask("GET", fmt.Sprintf(path, authority), nil).refused(http.StatusForbidden, "")
			if !strings.Contains(a.detail(), "non-exportable") || strings.Contains(string(a.body), "PRIVATE KEY") {
				t.Errorf("the answer does not say that the key is non-exportable: %s", a.body)
			}
		}
		entries := w.root(t).audit("action=ca_export_private_key&resource_type=ca&resource_id=%d", authority)
		equal(t, "entries of the refusals", len(entries), 2*(i+1))
		expect(t, entries[0], object{"user_id": p.id, "username": p.name, "resource_id": authority, "organization_id": own})
	}
	w.nobody(t).ask("GET", fmt.Sprintf("/api/v1/cas/%d/private-key", authority), nil).want(http.StatusUnauthorized)
}

func revokeCA(t *testing.T, w *world) {
	root := w.root(t)
	parent := root.ca(w.unique("revoker"), nil).want(http.StatusCreated)
	child := root.ca(w.unique("revoked"), object{"parent_ca_id": parent.id()}).want(http.StatusCreated)
	leaf := root.issue(child.id(), "leaf.example", "server", nil).want(http.StatusCreated)
	path := func(a answer) string { return fmt.Sprintf("/api/v1/cas/%d/revoke", a.id()) }
	root.ask("POST", path(parent), object{"reason": "keyCompromise"}).refused(http.StatusBadRequest, "")
	done := root.ask("POST", path(child), object{"reason": "CA compromise, seen today"}).want(http.StatusOK)
	equal(t, "id", done.id(), child.id())
	root.ask("POST", path(child), object{}).refused(http.StatusConflict, "")
	list := root.publishedWith(parent, 1)
	equalSlices(t, "CRL of the parent", revokedSerials(list), []string{child.x509().SerialNumber.Text(16)})
	equal(t, "reason code", list.RevokedCertificateEntries[0].ReasonCode, 2)
	root.issue(child.id(), "after.example", "server", nil).refused(http.StatusBadRequest, "")
	root.sign(child.id(), csr(t, "after.example"), "server", nil).refused(http.StatusBadRequest, "")
	root.ca(w.unique("grandchild"), object{"parent_ca_id": child.id()}).refused(http.StatusBadRequest, "")
	// What it issued is still revocable, and its own CRL still follows.
	root.revoke(leaf.id(), "superseded").want(http.StatusOK)
	equalSlices(t, "CRL of the revoked CA", revokedSerials(root.publishedWith(child, 1)), []string{leaf.object()["serial_number"].(string)})
	equal(t, "audit", len(root.audit("action=ca_revoke&resource_id=%d", child.id())), 1)
}

func parallelCARevocations(t *testing.T, w *world) {
	root := w.root(t)
	parent := root.ca(w.unique("parent"), nil).want(http.StatusCreated)
	child := root.ca(w.unique("child"), object{"parent_ca_id": parent.id()}).want(http.StatusCreated)
	statuses := root.atOnce(8, "POST", fmt.Sprintf("/api/v1/cas/%d/revoke", child.id()), func(int) any { return object{} })
	equalSlices(t, "statuses", statuses, one(8, http.StatusOK, http.StatusConflict))
}
