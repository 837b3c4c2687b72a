package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"slices"
	"testing"

	"signet/ca"
	"signet/fault"
	"signet/policy"
)

func makeCSR(t testing.TB, key crypto.Signer, template x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSignCSR(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	key := ecKey(t)
	web := x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "web.example.com", Organization: []string{"Acme"}},
		DNSNames: []string{"web.example.com", "www.example.com"}, IPAddresses: []net.IP{net.ParseIP("2001:db8::1")},
	}
	sign := func(t *testing.T, csr x509.CertificateRequest, change func(*ca.CSRRequest)) (ca.Certificate, error) {
		r := ca.CSRRequest{CSR: makeCSR(t, key, csr), IssuerID: &root.ID, Type: policy.Server, ValidDays: 30}
		if change != nil {
			change(&r)
		}
		return w.SignCSR(t.Context(), acmeAdmin, r)
	}

	t.Run("subject, names and key carry over", func(t *testing.T) {
		got, err := sign(t, web, nil)
		if err != nil {
			t.Fatal(err)
		}
		cert := parse(t, got.DER)
		if !key.PublicKey.Equal(cert.PublicKey) || !slices.Equal(cert.DNSNames, web.DNSNames) || len(cert.IPAddresses) != 1 ||
			cert.Subject.CommonName != "web.example.com" || got.CommonName != "web.example.com" || got.KeyType != policy.EC || got.KeySize != 256 {
			t.Fatalf("%+v", got)
		}
	})
	t.Run("the CA is found by name", func(t *testing.T) {
		got, err := sign(t, web, func(r *ca.CSRRequest) { r.IssuerID, r.IssuerName = nil, ptr("Acme Root") })
		if err != nil || got.IssuerID != root.ID {
			t.Fatalf("%v, %v", got.IssuerID, err)
		}
	})
	t.Run("explicit fields override", func(t *testing.T) {
		got, err := sign(t, web, func(r *ca.CSRRequest) {
			r.CommonName, r.DNS, r.IPs = "new.example.com", []string{"new.example.com"}, []string{"10.0.0.1"}
		})
		if err != nil {
			t.Fatal(err)
		}
		cert := parse(t, got.DER)
		if cert.Subject.CommonName != "new.example.com" || cert.Subject.Organization[0] != "Acme" || !slices.Equal(cert.DNSNames, []string{"new.example.com"}) {
			t.Fatalf("subject %v, DNS %q", cert.Subject, cert.DNSNames)
		}
	})
	t.Run("an explicit subject replaces the CSR's", func(t *testing.T) {
		got, err := sign(t, web, func(r *ca.CSRRequest) { r.SubjectDN = "CN=other.example.com,C=DE" })
		if err != nil || got.CommonName != "other.example.com" || len(parse(t, got.DER).Subject.Organization) != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
	})
	t.Run("a comma in an attribute stays in that attribute", func(t *testing.T) {
		csr := web
		csr.Subject.Organization = []string{"x,CN=evil.example"}
		got, err := sign(t, csr, nil)
		if err != nil {
			t.Fatal(err)
		}
		cert := parse(t, got.DER)
		if cert.Subject.CommonName != "web.example.com" || cert.Subject.Organization[0] != "x,CN=evil.example" || len(cert.Subject.Names) != 2 {
			t.Fatalf("subject %v", cert.Subject.Names)
		}
	})
	t.Run("several OUs in one RDN, as Go writes them, carry over", func(t *testing.T) {
		csr := web
		csr.Subject.OrganizationalUnit = []string{"Two", "One"}
		got, err := sign(t, csr, nil)
		if err != nil {
			t.Fatal(err)
		}
		if units := parse(t, got.DER).Subject.OrganizationalUnit; !slices.Equal(slices.Sorted(slices.Values(units)), []string{"One", "Two"}) {
			t.Fatalf("OUs %q", units)
		}
	})
	t.Run("a CSR that asks to be a CA gets a leaf", func(t *testing.T) {
		csr := web
		csr.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		got, err := sign(t, csr, nil)
		if err != nil || parse(t, got.DER).IsCA {
			t.Fatalf("a CSR made a CA: %v", err)
		}
	})
	t.Run("the real key is recorded", func(t *testing.T) {
		rsaKey, _ := rsa.GenerateKey(rand.Reader, 3072)
		got, err := sign(t, web, func(r *ca.CSRRequest) { r.CSR = makeCSR(t, rsaKey, web) })
		if err != nil || got.KeyType != policy.RSA || got.KeySize != 3072 {
			t.Fatalf("%s-%d, %v", got.KeyType, got.KeySize, err)
		}
	})
}

func TestSignCSRRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	for range 2 {
		w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name = "Twin" })
	}
	w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name = "Superuser's" })
	key := ecKey(t)
	good := makeCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "web.example.com"}})
	block, _ := pem.Decode(good)
	tampered := bytes.Clone(block.Bytes)
	tampered[len(tampered)-1] ^= 1
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	asPEM := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}

	tests := []struct {
		name    string
		caller  policy.Caller
		change  func(*ca.CSRRequest)
		code    fault.Code
		message string
	}{
		{"neither id nor name", acmeAdmin, func(r *ca.CSRRequest) { r.IssuerID = nil }, fault.Invalid, "Either ca_id or ca_name must be provided"},
		{"an unknown name", acmeAdmin, func(r *ca.CSRRequest) { r.IssuerID, r.IssuerName = nil, ptr("x") }, fault.NotFound, "CA 'x' not found"},
		{"a name outside the caller's organization", acmeAdmin, func(r *ca.CSRRequest) { r.IssuerID, r.IssuerName = nil, ptr("Superuser's") }, fault.NotFound, "CA 'Superuser's' not found"},
		{"an ambiguous name", acmeAdmin, func(r *ca.CSRRequest) { r.IssuerID, r.IssuerName = nil, ptr("Twin") }, fault.Conflict, "ambiguous"},
		{"id and name that disagree", acmeAdmin, func(r *ca.CSRRequest) { r.IssuerName = ptr("Twin") }, fault.Invalid, "different CAs"},
		{"an unknown id", acmeAdmin, func(r *ca.CSRRequest) { r.IssuerID = ptr(int64(99)) }, fault.NotFound, "CA not found"},
		{"a foreign admin", rivalUser, nil, fault.Forbidden, "Insufficient permissions"},
		{"a member without capability", acmeUser, nil, fault.Forbidden, "Insufficient permissions"},
		{"no PEM", acmeAdmin, func(r *ca.CSRRequest) { r.CSR = []byte("hello") }, fault.Invalid, "Invalid CSR: "},
		{"a certificate instead of a CSR", acmeAdmin, func(r *ca.CSRRequest) { r.CSR = asPEM("CERTIFICATE", root.Certificate) }, fault.Invalid, "Invalid CSR: "},
		{"garbage in PEM", acmeAdmin, func(r *ca.CSRRequest) { r.CSR = asPEM("CERTIFICATE REQUEST", []byte{1, 2, 3}) }, fault.Invalid, "Invalid CSR: "},
		{"two CSRs", acmeAdmin, func(r *ca.CSRRequest) { r.CSR = append(bytes.Clone(good), good...) }, fault.Invalid, "Invalid CSR: "},
		{"a broken signature", acmeAdmin, func(r *ca.CSRRequest) { r.CSR = asPEM("CERTIFICATE REQUEST", tampered) }, fault.Invalid, "CSR signature verification failed"},
		{"a weak key", acmeAdmin, func(r *ca.CSRRequest) {
			r.CSR = makeCSR(t, weak, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example"}})
		}, fault.Invalid, "1024"},
		{"two common names", acmeAdmin, func(r *ca.CSRRequest) {
			r.CSR = makeCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example", ExtraNames: []pkix.AttributeTypeAndValue{
				{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "a.example"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "evil.example"}}}})
		}, fault.Invalid, "2 common names"},
		{"no common name anywhere", acmeAdmin, func(r *ca.CSRRequest) {
			r.CSR = makeCSR(t, key, x509.CertificateRequest{DNSNames: []string{"a.example"}})
		}, fault.Invalid, "No common name in CSR or request"},
		{"an e-mail name for a server", acmeAdmin, func(r *ca.CSRRequest) {
			r.CSR = makeCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example"}, EmailAddresses: []string{"a@a.example"}})
		}, fault.Invalid, ""},
		{"a DNS name for a client", acmeAdmin, func(r *ca.CSRRequest) {
			r.Type, r.CSR = policy.Client, makeCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice"}, DNSNames: []string{"a.example"}})
		}, fault.Invalid, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := ca.CSRRequest{CSR: good, IssuerID: &root.ID, Type: policy.Server, ValidDays: 30}
			if tt.change != nil {
				tt.change(&r)
			}
			_, err := w.SignCSR(t.Context(), tt.caller, r)
			wantFault(t, err, tt.code, tt.message)
		})
	}
	if _, n, _ := w.Certificates(t.Context(), superuser, ca.CertificateFilter{}, ca.Page{Limit: 1}); n.N != 0 {
		t.Errorf("refused requests left %d certificates", n.N)
	}
}

func FuzzSignCSR(f *testing.F) {
	w := newWorld(f)
	root := w.createCA(f, superuser, nil)
	key := ecKey(f)
	for _, template := range []x509.CertificateRequest{
		{Subject: pkix.Name{CommonName: "web.example.com"}},
		{Subject: pkix.Name{CommonName: "x", Organization: []string{"x,CN=evil"}}, DNSNames: []string{"*.example.com"}},
		{IPAddresses: []net.IP{net.IPv4(1, 2, 3, 4)}, EmailAddresses: []string{"a@b.example"}},
	} {
		block, _ := pem.Decode(makeCSR(f, key, template))
		f.Add(block.Bytes)
	}
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		got, err := w.SignCSR(t.Context(), superuser, ca.CSRRequest{CSR: csr, IssuerID: &root.ID, Type: policy.DualPurpose, ValidDays: 1})
		if err != nil {
			if fault.CodeOf(err) != fault.Invalid {
				t.Fatalf("a stranger's CSR caused a %s fault: %v", fault.CodeOf(err), err)
			}
			return
		}
		if cert := parse(t, got.DER); cert.IsCA || cert.Subject.CommonName != got.CommonName {
			t.Fatalf("issued %v", cert.Subject)
		}
	})
}
