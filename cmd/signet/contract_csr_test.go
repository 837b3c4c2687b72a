package main

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestContractSignCSR(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"one of ca_id and ca_name is required, an unknown name is 404 CA 'x' not found", csrIssuers},
		{"ca_name is looked up in the caller's organization, by a superuser anywhere; ambiguous is 409", csrNames},
		{"subject, names and key of the CSR carry over, and there is no private key in the answer", csrCarriesOver},
		{"explicit fields override those of the CSR", csrOverrides},
		{"400 CSR signature verification failed, Invalid CSR, No common name", badCSRs},
		{"a CSR's DN is carried over attribute by attribute, never through a string", csrInjection},
		{"extensions that a CSR asks for do not carry over", csrExtensions},
		{"weak keys are refused", csrWeakKeys},
		{"the CSR's real key type and size are recorded", csrKeySizes},
	})
}

func csrIssuers(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("issuers"), nil).want(http.StatusCreated)
	name := authority.object()["name"].(string)
	request := csr(t, "issuers.example")
	send := func(fields object) answer {
		body := object{"csr": request, "certificate_type": "server"}
		maps.Copy(body, fields)
		return root.ask("POST", "/api/v1/certificates/sign-csr", body)
	}
	send(nil).refused(http.StatusBadRequest, "Either ca_id or ca_name must be provided")
	send(object{"ca_id": nil, "ca_name": nil}).refused(http.StatusBadRequest, "Either ca_id or ca_name must be provided")
	send(object{"ca_name": "no such"}).refused(http.StatusNotFound, "CA 'no such' not found")
	send(object{"ca_name": strings.ToUpper(name)}).refused(http.StatusNotFound, "CA '"+strings.ToUpper(name)+"' not found")
	send(object{"ca_name": "' OR 1=1 --"}).refused(http.StatusNotFound, "CA '' OR 1=1 --' not found")
	send(object{"ca_name": "%"}).refused(http.StatusNotFound, "CA '%' not found")
	send(object{"ca_name": "a\x00b"}).want(http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusBadRequest)
	send(object{"ca_id": 999999}).refused(http.StatusNotFound, "")
	for _, fields := range []object{{"ca_id": authority.id()}, {"ca_name": name}, {"ca_id": authority.id(), "ca_name": name}} {
		expect(t, send(fields).want(http.StatusCreated).object(), object{"issuer_id": authority.id()})
	}
}

func csrNames(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	admin, stranger := w.member(t, "admin", own, nil), w.member(t, "admin", other, nil)
	name := w.unique("Shared name")
	request := csr(t, "names.example")
	send := func(p party) answer {
		return p.ask("POST", "/api/v1/certificates/sign-csr", object{"csr": request, "certificate_type": "server", "ca_name": name})
	}
	mine := admin.ca(name, nil).want(http.StatusCreated)
	send(stranger).refused(http.StatusNotFound, "CA '"+name+"' not found")
	expect(t, send(w.root(t)).want(http.StatusCreated).object(), object{"issuer_id": mine.id()})
	theirs := stranger.ca(name, nil).want(http.StatusCreated)
	expect(t, send(admin).want(http.StatusCreated).object(), object{"issuer_id": mine.id()})
	expect(t, send(stranger).want(http.StatusCreated).object(), object{"issuer_id": theirs.id()})
	send(w.root(t)).refused(http.StatusConflict, "")
	send(w.member(t, "user", own, nil)).refused(http.StatusForbidden, "Insufficient permissions")
	admin.ca(name, nil).want(http.StatusCreated)
	send(admin).refused(http.StatusConflict, "")
}

// requestFor makes a CSR from a template.
func requestFor(t *testing.T, template x509.CertificateRequest, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE REQUEST", der)
}

// richSubject has two OUs in RDNs of their own, as openssl writes them.
var richSubject = pkix.RDNSequence{
	{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "US"}}, {{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Acme Corp"}},
	{{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "One"}}, {{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "Two"}},
	{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "rich.example"}},
}

// rich is a CSR that asks for names of every kind.
func rich(t *testing.T) x509.CertificateRequest {
	t.Helper()
	subject, err := asn1.Marshal(richSubject)
	if err != nil {
		t.Fatal(err)
	}
	uri := &url.URL{Scheme: "spiffe", Host: "x.example", Path: "/y"}
	return x509.CertificateRequest{
		RawSubject: subject,
		DNSNames:   []string{"rich.example", "www.rich.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 42), net.ParseIP("2001:db8::1")},
		EmailAddresses: []string{"rich@example.com"}, URIs: []*url.URL{uri},
	}
}

func csrCarriesOver(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("carry"), nil).want(http.StatusCreated).id()
	key := ecKey(t, elliptic.P256())
	request := requestFor(t, rich(t), key)
	made := root.sign(authority, request, "dual_purpose", nil).want(http.StatusCreated)
	if bytes.Contains(made.body, []byte("private_key")) {
		t.Errorf("the answer speaks of a private key: %s", made.body)
	}
	block, _ := pem.Decode([]byte(request))
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	equalSlices(t, "subject", values(t, made.x509().RawSubject), values(t, parsed.RawSubject))
	equalSlices(t, "names", sanStrings(made.x509()), []string{"dns:rich.example", "dns:www.rich.example", "ip:10.0.0.42", "ip:2001:db8::1", "email:rich@example.com"})
	equal(t, "public key", bytes.Equal(made.x509().RawSubjectPublicKeyInfo, parsed.RawSubjectPublicKeyInfo), true)
	expect(t, made.object(), object{"common_name": "rich.example", "certificate_type": "dual_purpose", "key_size": 256, "valid_days": 365})
	expect(t, root.ask("GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", made.id()), nil).object(), object{"private_key": nil})
	// A server takes no e-mail address, a client no DNS name or IP address, wherever they come from.
	root.sign(authority, request, "server", nil).refused(http.StatusBadRequest, "")
	root.sign(authority, request, "client", nil).refused(http.StatusBadRequest, "")
	crlf := strings.ReplaceAll(request, "\n", "\r\n")
	root.sign(authority, crlf, "dual_purpose", nil).want(http.StatusCreated)
	root.sign(authority, "\n\n  \n"+request+"\n\n", "dual_purpose", nil).want(http.StatusCreated)
	root.sign(authority, strings.ReplaceAll(request, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"), "dual_purpose", nil).want(http.StatusCreated)
}

func csrOverrides(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("override"), nil).want(http.StatusCreated).id()
	request := requestFor(t, rich(t), ecKey(t, elliptic.P256()))
	for _, c := range []struct {
		over    object
		subject []string
		names   []string
	}{
		{object{"common_name": "new.example"}, []string{"US", "Acme Corp", "One", "Two", "new.example"}, nil},
		{object{"subject_dn": "CN=new.example,O=New"}, []string{"new.example", "New"}, nil},
		{object{"common_name": "new.example", "subject_dn": "O=New,CN=new.example"}, []string{"New", "new.example"}, nil},
		{object{"san_dns_names": []string{"other.example"}}, nil, []string{"dns:other.example", "ip:10.0.0.42", "ip:2001:db8::1", "email:rich@example.com"}},
		{object{"san_dns_names": []string{}}, nil, []string{"dns:rich.example", "dns:www.rich.example", "ip:10.0.0.42", "ip:2001:db8::1", "email:rich@example.com"}},
		{object{"san_ip_addresses": []string{"192.0.2.9"}, "san_email_addresses": []string{"a@example.com"}}, nil,
			[]string{"dns:rich.example", "dns:www.rich.example", "ip:192.0.2.9", "email:a@example.com"}},
	} {
		made := root.sign(authority, request, "dual_purpose", c.over).want(http.StatusCreated)
		if c.subject != nil {
			equalSlices(t, fmt.Sprint(c.over), values(t, made.x509().RawSubject), c.subject)
		}
		if c.names != nil {
			equalSlices(t, fmt.Sprint(c.over), sanStrings(made.x509()), c.names)
		}
	}
	expect(t, root.sign(authority, request, "dual_purpose", object{"valid_days": 7}).want(http.StatusCreated).object(), object{"valid_days": 7})
	nameless := requestFor(t, x509.CertificateRequest{DNSNames: []string{"nameless.example"}}, ecKey(t, elliptic.P256()))
	made := root.sign(authority, nameless, "server", object{"common_name": "given.example"}).want(http.StatusCreated)
	equal(t, "CN", made.x509().Subject.CommonName, "given.example")
	equalSlices(t, "names", sanStrings(made.x509()), []string{"dns:nameless.example"})
}

func badCSRs(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("bad"), nil).want(http.StatusCreated)
	good := csr(t, "bad.example")
	block, _ := pem.Decode([]byte(good))
	tampered := slices.Clone(block.Bytes)
	at := bytes.Index(tampered, []byte("bad.example"))
	tampered[at] = 'd'
	signature := slices.Clone(block.Bytes)
	signature[len(signature)-1] ^= 1
	sign := func(request string) answer { return root.sign(authority.id(), request, "server", nil) }
	sign(pemOf("CERTIFICATE REQUEST", tampered)).refused(http.StatusBadRequest, "CSR signature verification failed")
	sign(pemOf("CERTIFICATE REQUEST", signature)).refused(http.StatusBadRequest, "CSR signature verification failed")
	for name, request := range map[string]string{
		"nothing": "", "text": "nonsense", "a certificate": authority.object()["certificate"].(string), "DER in the wrong label": pemOf("CERTIFICATE", block.Bytes),
		"cut off": pemOf("CERTIFICATE REQUEST", block.Bytes[:len(block.Bytes)-10]), "followed by more": pemOf("CERTIFICATE REQUEST", append(slices.Clone(block.Bytes), 0)),
		"empty": pemOf("CERTIFICATE REQUEST", nil), "two requests": good + good, "an unfinished block": good[:len(good)/2], "base64 garbage": strings.Replace(good, "\n", "\n!!", 1),
	} {
		a := sign(request)
		if a.status != http.StatusBadRequest || !strings.HasPrefix(a.detail(), "Invalid CSR: ") {
			t.Errorf("%s: status %d: %s", name, a.status, a.body)
		}
	}
	nameless := requestFor(t, x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"x"}}, DNSNames: []string{"x.example"}}, ecKey(t, elliptic.P256()))
	sign(nameless).refused(http.StatusBadRequest, "No common name in CSR or request")
	sign(requestFor(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "x.example"}, DNSNames: []string{"bad name.example"}}, ecKey(t, elliptic.P256()))).refused(http.StatusBadRequest, "")
	equal(t, "certificates issued", len(root.ask("GET", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority.id()), nil).list()), 0)
}

func csrInjection(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("inject"), nil).want(http.StatusCreated).id()
	for _, evil := range []string{"x,CN=evil.example", `x\,CN=evil.example`, "x/CN=evil.example", `"x",CN=evil.example`, "x+CN=evil.example", "x;CN=evil.example", "#0403", " leading", `trailing\`, "a=b", "x,2.5.4.3=evil.example"} {
		request := requestFor(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "good.example", Organization: []string{evil}}}, ecKey(t, elliptic.P256()))
		a := root.sign(authority, request, "server", nil)
		if a.status != http.StatusCreated {
			t.Errorf("O=%q: status %d: %s", evil, a.status, a.body)
			continue
		}
		equalSlices(t, evil, values(t, a.x509().RawSubject), []string{evil, "good.example"})
		equal(t, "common_name", a.object()["common_name"], any("good.example"))
		// Overriding the common name leaves the others as they are.
		renamed := root.sign(authority, request, "server", object{"common_name": "new.example"}).want(http.StatusCreated)
		equalSlices(t, evil, values(t, renamed.x509().RawSubject), []string{evil, "new.example"})
	}
}

func csrExtensions(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("ext"), nil).want(http.StatusCreated).id()
	isCA, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	usage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x06}, BitLength: 7}) // keyCertSign, cRLSign
	if err != nil {
		t.Fatal(err)
	}
	request := requestFor(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "ext.example"}, ExtraExtensions: []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: isCA}, {Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: usage},
		{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}}}}, ecKey(t, elliptic.P256()))
	c := root.sign(authority, request, "server", nil).want(http.StatusCreated).x509()
	equal(t, "isCA", c.IsCA, false)
	equal(t, "keyUsage", c.KeyUsage, x509.KeyUsageDigitalSignature)
	if slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(asn1.ObjectIdentifier{1, 2, 3, 4}) }) {
		t.Error("an unknown extension of the CSR is in the certificate")
	}
}

func csrWeakKeys(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("weak"), nil).want(http.StatusCreated).id()
	dir := t.TempDir()
	for name, args := range map[string][]string{"RSA-1024": {"rsa:1024"}, "exponent 3": {"rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"}, "secp256k1": {"ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"},
		"P-224": {"ec", "-pkeyopt", "ec_paramgen_curve:P-224"}} {
		request := tool(t, dir, "openssl", append([]string{"req", "-new", "-nodes", "-keyout", "key", "-subj", "/CN=weak.example", "-newkey"}, args...)...)
		a := root.sign(authority, request[strings.Index(request, "-----BEGIN"):], "server", nil)
		if a.status != http.StatusBadRequest {
			t.Errorf("%s: status %d: %s", name, a.status, a.body)
		}
	}
}

func csrKeySizes(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("sizes"), nil).want(http.StatusCreated).id()
	for _, c := range []struct {
		key  crypto.Signer
		size int
	}{{rsaKey(t, 2048), 2048}, {rsaKey(t, 3072), 3072}, {ecKey(t, elliptic.P256()), 256}, {ecKey(t, elliptic.P384()), 384}, {ecKey(t, elliptic.P521()), 521}, {edKey(t), 256}} {
		made := root.sign(authority, csrFor(t, "sizes.example", c.key), "server", nil).want(http.StatusCreated)
		expect(t, made.object(), object{"key_size": c.size})
	}
}

// An extension of a certificate: its OID and whether it is critical.
var (
	keyUsage         = "2.5.29.15 critical"
	basicConstraints = "2.5.29.19 critical"
	extKeyUsage      = "2.5.29.37"
	subjectAltName   = "2.5.29.17"
	subjectKeyID     = "2.5.29.14"
	authorityKeyID   = "2.5.29.35"
	crlPoints        = "2.5.29.31"
	authorityInfo    = "1.3.6.1.5.5.7.1.1"
)

// extensions holds the contract's table: which extensions, how critical, and what is in them.
func extensions(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("ext"), object{"path_length": 1}).want(http.StatusCreated)
	leaf := []string{authorityInfo, subjectKeyID, keyUsage, subjectAltName, basicConstraints, crlPoints, authorityKeyID, extKeyUsage}
	signature, encipherment := x509.KeyUsageDigitalSignature, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for _, c := range []struct {
		kind, key string
		usage     x509.KeyUsage
		extended  []x509.ExtKeyUsage
		want      []string
	}{
		{"server", "rsa", encipherment, []x509.ExtKeyUsage{server}, leaf},
		{"server", "ec", signature, []x509.ExtKeyUsage{server}, leaf},
		{"server", "ed25519", signature, []x509.ExtKeyUsage{server}, leaf},
		{"client", "ec", signature, []x509.ExtKeyUsage{client}, leaf},
		{"dual_purpose", "rsa", encipherment, []x509.ExtKeyUsage{server, client}, leaf},
		{"dual_purpose", "ec", signature, []x509.ExtKeyUsage{server, client}, leaf},
		{"ca", "ec", x509.KeyUsageCertSign | x509.KeyUsageCRLSign, nil, []string{authorityInfo, subjectKeyID, keyUsage, basicConstraints, crlPoints, authorityKeyID}},
	} {
		name := "ext@example.com"
		if c.kind != "client" {
			name = "ext.example"
		}
		made := root.issue(authority.id(), name, c.kind, object{"key_type": c.key, "key_size": nil}).want(http.StatusCreated).x509()
		what := c.kind + " " + c.key
		equalSlices(t, what, extensionList(made), slices.Sorted(slices.Values(c.want)))
		// The client's RSA key may or may not encipher; nobody else's does.
		equal(t, what+" keyUsage", made.KeyUsage, c.usage)
		equalSlices(t, what+" extKeyUsage", slices.Sorted(slices.Values(made.ExtKeyUsage)), c.extended)
		equal(t, what+" basicConstraints", made.BasicConstraintsValid && made.IsCA == (c.kind == "ca"), true)
		equal(t, what+" AKI", bytes.Equal(made.AuthorityKeyId, authority.x509().SubjectKeyId) && len(made.AuthorityKeyId) > 0, true)
		equal(t, what+" SKI", len(made.SubjectKeyId) > 0, true)
		crl, issuer := publicURLs(t, made)
		equal(t, what+" CRL", crl, w.server.url+"/crl/"+slugOf(authority))
		equal(t, what+" AIA", issuer, w.server.url+"/ca/"+slugOf(authority)+".crt")
		equal(t, what+" version", made.Version, 3)
		if _, known := made.PublicKey.(*rsa.PublicKey); known != (c.key == "rsa") {
			t.Errorf("%s: the key is a %T", what, made.PublicKey)
		}
	}
	// A root has no issuer whose files it could name.
	equalSlices(t, "root", withoutAKI(extensionList(authority.x509())), []string{subjectKeyID, keyUsage, basicConstraints})
	child := root.ca(w.unique("ext-child"), object{"parent_ca_id": authority.id()}).want(http.StatusCreated).x509()
	equalSlices(t, "intermediate", extensionList(child), slices.Sorted(slices.Values([]string{authorityInfo, subjectKeyID, keyUsage, basicConstraints, crlPoints, authorityKeyID})))
}

func extensionList(c *x509.Certificate) []string {
	var all []string
	for _, e := range c.Extensions {
		name := e.Id.String()
		if e.Critical {
			name += " critical"
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// withoutAKI leaves out the extension that a self-signed certificate may omit (RFC 5280, section 4.2.1.1).
func withoutAKI(list []string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == authorityKeyID })
}
