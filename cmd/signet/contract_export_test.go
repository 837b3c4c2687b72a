package main

import (
	"bytes"
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

func TestContractExportAndPublicFiles(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"exports are PEM attachments named after the object", exports},
		{"a refused key export is audited, and so is a granted one", keyExports},
		{"the public files have their content types and the same content in DER and PEM", publicFiles},
		{"both parts of a slug must match, else 404 CA not found", slugs},
		{"a CRL has a number, an AKI and the issuer's signature", crlForm},
		{"a revocation is in the CRL within a second, and CRL numbers only grow", crlFollows},
		{"reason codes come from the reason text", reasonCodes},
		{"public files answer conditional requests", conditionalRequests},
		{"HEAD answers like GET without the body", headRequests},
	})
}

// pemBlocks are the certificates in a PEM file that has nothing else.
func pemBlocks(t *testing.T, data []byte) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for len(bytes.TrimSpace(data)) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil || block.Type != "CERTIFICATE" {
			t.Fatalf("not only certificates: %s", data)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func exports(t *testing.T, w *world) {
	root := w.root(t)
	top := root.ca(w.unique("export"), nil).want(http.StatusCreated)
	issuing := root.ca(w.unique("export"), object{"parent_ca_id": top.id()}).want(http.StatusCreated)
	leaf := root.issue(issuing.id(), "export.example", "server", nil).want(http.StatusCreated)
	for _, c := range []struct {
		path, file string
		want       []answer
	}{
		{fmt.Sprintf("/api/v1/export/ca/%d/certificate", top.id()), fmt.Sprintf("ca_%d_certificate.pem", top.id()), []answer{top}},
		{fmt.Sprintf("/api/v1/export/certificate/%d", leaf.id()), fmt.Sprintf("certificate_%d.pem", leaf.id()), []answer{leaf}},
		{fmt.Sprintf("/api/v1/export/certificate/%d/chain", leaf.id()), fmt.Sprintf("certificate_%d_chain.pem", leaf.id()), []answer{leaf, issuing, top}},
	} {
		a := root.ask("GET", c.path, nil).want(http.StatusOK)
		attachment(t, a, c.file)
		blocks := pemBlocks(t, a.body)
		if len(blocks) != len(c.want) {
			t.Fatalf("%s: %d certificates, want %d", c.path, len(blocks), len(c.want))
		}
		for i, want := range c.want {
			equal(t, fmt.Sprintf("%s, certificate %d", c.path, i), bytes.Equal(blocks[i].Raw, want.x509().Raw), true)
		}
	}
	a := root.ask("GET", fmt.Sprintf("/api/v1/export/certificate/%d/private-key", leaf.id()), nil).want(http.StatusOK)
	attachment(t, a, fmt.Sprintf("certificate_%d_private_key.pem", leaf.id()))
	equal(t, "private key", strings.TrimSpace(string(a.body)), strings.TrimSpace(leaf.object()["private_key"].(string)))
	signed := root.sign(issuing.id(), csr(t, "export.example"), "server", nil).want(http.StatusCreated)
	root.ask("GET", fmt.Sprintf("/api/v1/export/certificate/%d/private-key", signed.id()), nil).refused(http.StatusNotFound, "")
}

var fileName = regexp.MustCompile(`^attachment; filename="?([^"]+)"?$`)

// attachment holds the headers of a download. Only ca_1_certificate.pem is named in the contract; the others must
// name the object too.
func attachment(t *testing.T, a answer, file string) {
	t.Helper()
	match := fileName.FindStringSubmatch(a.header.Get("Content-Disposition"))
	if match == nil {
		t.Errorf("%s: Content-Disposition %q", a.request, a.header.Get("Content-Disposition"))
	} else if strings.HasPrefix(file, "ca_") && match[1] != file {
		t.Errorf("%s: file name %q, want %q", a.request, match[1], file)
	} else if prefix := file[:strings.LastIndexAny(file, "0123456789")+1]; !strings.HasPrefix(match[1], prefix) || !strings.HasSuffix(match[1], ".pem") {
		t.Errorf("%s: file name %q, want one like %q", a.request, match[1], file)
	}
	equal(t, a.request+" Content-Type", a.header.Get("Content-Type"), "application/x-pem-file")
}

func keyExports(t *testing.T, w *world) {
	organization := w.organization(t)
	admin, reader := w.member(t, "admin", organization, nil), w.member(t, "user", organization, nil)
	authority := admin.ca(w.unique("audited"), nil).want(http.StatusCreated)
	leaf := admin.issue(authority.id(), "audited.example", "server", nil).want(http.StatusCreated).id()
	entries := 0
	for _, path := range []string{"/api/v1/certificates/%d/private-key", "/api/v1/export/certificate/%d/private-key"} {
		for _, p := range []party{admin, reader} {
			a := p.ask("GET", fmt.Sprintf(path, leaf), nil)
			if p.id == reader.id {
				a.refused(http.StatusForbidden, "Insufficient permissions")
			} else {
				a.want(http.StatusOK)
			}
			found := w.root(t).audit("action=cert_export_private_key&resource_id=%d", leaf)
			if entries++; len(found) != entries {
				t.Fatalf("%s by %s: %d entries, want %d", path, p.name, len(found), entries)
			}
			expect(t, found[0], object{"user_id": p.id, "username": p.name, "organization_id": organization, "resource_type": "certificate"})
			if refused := strings.Contains(fmt.Sprint(found[0]["detail"]), "refused"); refused != (p.id == reader.id) {
				t.Errorf("the entry does not tell a refusal from an export: %v", found[0]["detail"])
			}
		}
	}
}

func publicFiles(t *testing.T, w *world) {
	nobody := w.nobody(t)
	authority := w.root(t).ca(w.unique("public"), nil).want(http.StatusCreated)
	slug := slugOf(authority)
	crl := nobody.ask("GET", "/crl/"+slug, nil).want(http.StatusOK)
	equal(t, "type of the CRL", crl.header.Get("Content-Type"), "application/pkix-crl")
	parseCRL(t, crl.body, authority.x509())
	certificate := nobody.ask("GET", "/ca/"+slug+".crt", nil).want(http.StatusOK)
	equal(t, "type of the certificate", certificate.header.Get("Content-Type"), "application/pkix-cert")
	equal(t, "certificate", bytes.Equal(certificate.body, authority.x509().Raw), true)
	for path, want := range map[string]pem.Block{"/crl/" + slug + ".pem": {Type: "X509 CRL", Bytes: crl.body}, "/ca/" + slug + ".pem": {Type: "CERTIFICATE", Bytes: certificate.body}} {
		a := nobody.ask("GET", path, nil).want(http.StatusOK)
		block, rest := pem.Decode(a.body)
		if block == nil || block.Type != want.Type || !bytes.Equal(block.Bytes, want.Bytes) || len(bytes.TrimSpace(rest)) > 0 {
			t.Errorf("%s is not the %s in PEM: %s", path, want.Type, a.body)
		}
	}
}

func slugs(t *testing.T, w *world) {
	root := w.root(t)
	first, second := root.ca(w.unique("slug"), nil).want(http.StatusCreated), root.ca(w.unique("slug"), nil).want(http.StatusCreated)
	right := slugOf(first)
	name := strings.TrimSuffix(right, fmt.Sprintf("-%d", first.id()))
	for _, slug := range []string{
		fmt.Sprintf("%s-%d", name, second.id()), fmt.Sprint(first.id()), name, "x-" + right, fmt.Sprintf("%s-0%d", name, first.id()), fmt.Sprintf("%s-+%d", name, first.id()),
		strings.ToUpper(right), fmt.Sprintf("-%d", first.id()), fmt.Sprintf("other-%d", first.id()), name + "-99999999999999999999", right + "-1", right + "%00", "%2e%2e", "nothing-999999", right + "%20",
	} {
		for _, path := range []string{"/crl/%s", "/crl/%s.pem", "/ca/%s.crt", "/ca/%s.pem"} {
			w.nobody(t).ask("GET", fmt.Sprintf(path, slug), nil).refused(http.StatusNotFound, "CA not found")
		}
	}
}

func crlForm(t *testing.T, w *world) {
	authority := w.root(t).ca(w.unique("form"), nil).want(http.StatusCreated)
	list := w.root(t).published(authority)
	if list.Number == nil || list.Number.Sign() <= 0 {
		t.Errorf("CRL number %v", list.Number)
	}
	equal(t, "AKI", bytes.Equal(list.AuthorityKeyId, authority.x509().SubjectKeyId), true)
	equal(t, "issuer", bytes.Equal(list.RawIssuer, authority.x509().RawSubject), true)
	equal(t, "entries", len(list.RevokedCertificateEntries), 0)
	if now := time.Now(); list.ThisUpdate.After(now) || list.NextUpdate.Before(now.Add(time.Hour)) {
		t.Errorf("the CRL is for %s to %s", list.ThisUpdate, list.NextUpdate)
	}
}

func crlFollows(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("follow"), nil).want(http.StatusCreated)
	number := root.published(authority).Number
	var want []string
	soon := 0
	for i := range 5 {
		leaf := root.sign(authority.id(), csr(t, "follow.example"), "server", nil).want(http.StatusCreated)
		want = append(want, leaf.object()["serial_number"].(string))
		slices.Sort(want)
		start := time.Now()
		root.revoke(leaf.id(), "").want(http.StatusOK)
		list := root.publishedWith(authority, i+1)
		if time.Since(start) <= time.Second {
			soon++
		}
		equalSlices(t, "serials", revokedSerials(list), want)
		if list.Number.Cmp(number) <= 0 {
			t.Errorf("CRL number %s after %s", list.Number, number)
		}
		number = list.Number
	}
	if soon == 0 { // the machine may be busy now and then, but not always
		t.Errorf("none of 5 revocations was in the CRL within a second")
	}
}

func reasonCodes(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("reasons"), nil).want(http.StatusCreated)
	want := map[string]int{}
	for reason, code := range map[string]int{"Key compromise": 1, "keyCompromise": 1, "key_compromise": 1, "The server was replaced": 0, "": 0, "superseded": 4,
		"Affiliation changed": 3, "cessationOfOperation": 5, "privilege withdrawn": 9, "Zürich 😀": 0} {
		leaf := root.sign(authority.id(), csr(t, "reason.example"), "server", nil).want(http.StatusCreated)
		root.revoke(leaf.id(), reason).want(http.StatusOK)
		want[leaf.object()["serial_number"].(string)] = code
		if reason != "" { // free text is kept
			if detail := fmt.Sprint(root.audit("action=cert_revoke&resource_id=%d", leaf.id())[0]["detail"]); !strings.Contains(detail, reason) {
				t.Errorf("the audit trail does not keep the reason %q: %s", reason, detail)
			}
		}
	}
	for _, e := range root.publishedWith(authority, len(want)).RevokedCertificateEntries {
		equal(t, "reason code", e.ReasonCode, want[e.SerialNumber.Text(16)])
		if e.ReasonCode == 0 && len(e.Extensions) > 0 { // RFC 5280, section 5.3.1: unspecified should be left out
			t.Errorf("an entry without reason has extensions")
		}
		if time.Since(e.RevocationTime).Abs() > time.Minute {
			t.Errorf("revoked at %s", e.RevocationTime)
		}
	}
}

func conditionalRequests(t *testing.T, w *world) {
	root, nobody := w.root(t), w.nobody(t)
	authority := root.ca(w.unique("conditional"), nil).want(http.StatusCreated)
	for _, path := range []string{"/crl/" + slugOf(authority), "/crl/" + slugOf(authority) + ".pem", "/ca/" + slugOf(authority) + ".crt", "/ca/" + slugOf(authority) + ".pem"} {
		a := nobody.ask("GET", path, nil).want(http.StatusOK)
		tag, modified := a.header.Get("ETag"), a.header.Get("Last-Modified")
		if tag == "" || modified == "" {
			t.Fatalf("%s: ETag %q, Last-Modified %q", path, tag, modified)
		}
		equal(t, "body of a 304", len(nobody.ask("GET", path, nil, header("If-None-Match", tag)).want(http.StatusNotModified).body), 0)
		nobody.ask("GET", path, nil, header("If-None-Match", `"other", `+tag)).want(http.StatusNotModified)
		nobody.ask("GET", path, nil, header("If-Modified-Since", modified)).want(http.StatusNotModified)
		nobody.ask("GET", path, nil, header("If-None-Match", `"other"`)).want(http.StatusOK)
	}
	before := nobody.ask("GET", "/crl/"+slugOf(authority), nil)
	leaf := root.sign(authority.id(), csr(t, "conditional.example"), "server", nil).want(http.StatusCreated)
	root.revoke(leaf.id(), "").want(http.StatusOK)
	root.publishedWith(authority, 1)
	nobody.ask("GET", "/crl/"+slugOf(authority), nil, header("If-None-Match", before.header.Get("ETag"))).want(http.StatusOK)
}

func headRequests(t *testing.T, w *world) {
	authority := w.root(t).ca(w.unique("head"), nil).want(http.StatusCreated)
	for _, path := range []string{"/crl/" + slugOf(authority), "/ca/" + slugOf(authority) + ".crt", "/healthz"} {
		get, head := w.nobody(t).ask("GET", path, nil), w.nobody(t).ask("HEAD", path, nil).want(http.StatusOK)
		equal(t, path+" body", len(head.body), 0)
		equal(t, path+" length", head.header.Get("Content-Length"), strconv.Itoa(len(get.body)))
	}
}

var tokenOperations = regexp.MustCompile(`(?m)^signet_token_operations_total\{[^}]*\} ([0-9.e+]+)$`)

// tokenUse is how many operations the token has done.
func tokenUse(t *testing.T, p party) int {
	t.Helper()
	total := 0
	for _, match := range tokenOperations.FindAllStringSubmatch(string(p.ask("GET", "/metrics", nil).want(http.StatusOK).body), -1) {
		n, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		total += int(n)
	}
	return total
}

func TestContractAnonymousRequestsNeverReachTheToken(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, database) // a quiet one
			nobody := w.nobody(t)
			authority := w.root(t).ca(w.unique("quiet"), nil).want(http.StatusCreated)
			slug := slugOf(authority)
			before := tokenUse(t, nobody)
			if before == 0 {
				t.Fatal("the metrics count no operation of the token, though a CA was made")
			}
			number := w.root(t).published(authority).Number
			start := time.Now()
			for i := range 100 {
				for _, path := range []string{"/crl/" + slug, "/crl/" + slug + ".pem", "/ca/" + slug + ".crt", "/readyz", fmt.Sprintf("/crl/nothing-%d", i)} {
					nobody.ask("GET", path, nil, header("Cache-Control", "no-cache"))
				}
			}
			// The health check has a schedule of its own; 100 requests would show beside it.
			checks := 4 * (2 + int(time.Since(start)/(2*time.Second)))
			if used := tokenUse(t, nobody) - before; used > checks {
				t.Errorf("500 anonymous requests came with %d operations of the token, more than the %d of the health check", used, checks)
			}
			equal(t, "CRL number", w.root(t).published(authority).Number.Cmp(number), 0)
		})
	}
}
