package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

var asciiURL = regexp.MustCompile(`^http://[!-~]+/(crl|ca)/[a-z0-9-]+(\.crt)?$`)

// publicURLs are the CRL and issuer URLs of a certificate.
func publicURLs(t *testing.T, c *x509.Certificate) (crl, issuer string) {
	t.Helper()
	if len(c.CRLDistributionPoints) != 1 || len(c.IssuingCertificateURL) != 1 {
		t.Fatalf("distribution points %q, issuer URLs %q: want one of each", c.CRLDistributionPoints, c.IssuingCertificateURL)
	}
	return c.CRLDistributionPoints[0], c.IssuingCertificateURL[0]
}

func asciiURLs(t *testing.T, w *world) {
	for _, name := range []string{"Zürich", "東京", "Ça va? #1 / ../../etc", "a b\u00a0c", "😀", "-", "ΑΒΓ CA 2", "x%00y", "İstanbul ẞ"} {
		authority := w.root(t).ca(name, object{"subject_dn": "CN=Names"}).want(http.StatusCreated)
		expect(t, authority.object(), object{"name": name})
		crl, issuer := publicURLs(t, w.root(t).issue(authority.id(), "names.example", "server", nil).want(http.StatusCreated).x509())
		for _, url := range []string{crl, issuer} {
			if !asciiURL.MatchString(url) || !strings.Contains(url, fmt.Sprintf("-%d", authority.id())) {
				t.Errorf("CA %q has the URL %q", name, url)
			}
		}
		// The URLs in the certificate are those under which the files are.
		list := w.nobody(t).ask("GET", strings.TrimPrefix(crl, w.server.url), nil).want(http.StatusOK)
		parseCRL(t, list.body, authority.x509())
		file := w.nobody(t).ask("GET", strings.TrimPrefix(issuer, w.server.url), nil).want(http.StatusOK)
		equal(t, issuer, bytes.Equal(file.body, authority.x509().Raw), true)
		w.root(t).sign(0, csr(t, "names.example"), "server", object{"ca_id": nil, "ca_name": name}).want(http.StatusCreated)
	}
}

func hostHeader(t *testing.T, w *world) {
	evil := []func(*http.Request){header("Host", "evil.example"), header("X-Forwarded-Host", "evil.example"), header("Forwarded", "host=evil.example"),
		header("X-Forwarded-Proto", "gopher"), header("Origin", "http://evil.example"), header("X-Original-URL", "/evil.example")}
	root := w.root(t)
	authority := root.ask("POST", "/api/v1/cas/", object{"name": w.unique("host"), "subject_dn": "CN=Host", "key_type": "ec"}, evil...).want(http.StatusCreated)
	child := root.ask("POST", "/api/v1/cas/", object{"name": w.unique("host"), "subject_dn": "CN=Host child", "key_type": "ec", "parent_ca_id": authority.id()}, evil...).want(http.StatusCreated)
	leaf := root.ask("POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", child.id()), object{"common_name": "host.example", "subject_dn": "CN=host.example",
		"certificate_type": "server", "key_type": "ec"}, evil...).want(http.StatusCreated)
	for _, a := range []answer{authority, child, leaf} {
		if bytes.Contains(a.x509().Raw, []byte("evil")) || strings.Contains(string(a.body), "evil") {
			t.Errorf("%s: the Host header is in the answer", a.request)
		}
	}
	crl, _ := publicURLs(t, leaf.x509())
	if !strings.HasPrefix(crl, w.server.url+"/crl/") {
		t.Errorf("distribution point %q, want one below %s", crl, w.server.url)
	}
}

func crlBaseURL(t *testing.T, w *world) {
	for given, base := range map[string]string{"http://pki.example": "http://pki.example", "https://pki.example/some/path/": "https://pki.example/some/path"} {
		authority := w.root(t).ca(w.unique("base"), object{"crl_base_url": given}).want(http.StatusCreated)
		crl, issuer := publicURLs(t, w.root(t).issue(authority.id(), "base.example", "server", nil).want(http.StatusCreated).x509())
		equal(t, "CRL", crl, base+"/crl/"+slugOf(authority))
		equal(t, "issuer", issuer, base+"/ca/"+slugOf(authority)+".crt")
		child := w.root(t).ca(w.unique("base-child"), object{"parent_ca_id": authority.id()}).want(http.StatusCreated)
		crl, _ = publicURLs(t, child.x509())
		equal(t, "CRL of the child", crl, base+"/crl/"+slugOf(authority))
	}
}
