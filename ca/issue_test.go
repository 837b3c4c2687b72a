package ca_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

func TestIssue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	verify := func(t *testing.T, der []byte, usage x509.ExtKeyUsage) *x509.Certificate {
		t.Helper()
		cert, roots := parse(t, der), x509.NewCertPool()
		roots.AddCert(parse(t, root.Certificate))
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: w.clock.Now()}); err != nil {
			t.Fatal(err)
		}
		return cert
	}

	t.Run("a server certificate gets its common name as DNS name and a private key that fits", func(t *testing.T) {
		got := w.issue(t, acmeAdmin, root.ID)
		cert := verify(t, got.DER, x509.ExtKeyUsageServerAuth)
		if !slices.Equal(cert.DNSNames, []string{"api.example.com"}) {
			t.Fatalf("DNS names %q", cert.DNSNames)
		}
		block, _ := pem.Decode(got.PrivateKeyPEM)
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil || !key.(*ecdsa.PrivateKey).PublicKey.Equal(cert.PublicKey) {
			t.Fatalf("private key: %v", err)
		}
		if got.SubjectDN != "CN=api.example.com,O=Acme,C=US" || got.ValidDays != 365 || got.KeySize != 256 || *got.OrganizationID != 10 {
			t.Fatalf("record %+v", got.Certificate)
		}
		stored, again, err := w.PrivateKey(t.Context(), acmeAdmin, got.ID)
		if err != nil || string(again) != string(got.PrivateKeyPEM) || stored.ID != got.ID {
			t.Fatalf("key read back: %v", err)
		}
		if strings.Contains(string(stored.SealedKey), string(block.Bytes)) {
			t.Fatal("the private key is stored in the clear")
		}
	})
	t.Run("without KeepKey no private key exists anywhere", func(t *testing.T) {
		r := serverRequest(root.ID)
		r.KeepKey = false
		got, err := w.Issue(t.Context(), acmeAdmin, r)
		if err != nil || got.PrivateKeyPEM != nil {
			t.Fatalf("key %q, %v", got.PrivateKeyPEM, err)
		}
		if _, key, err := w.PrivateKey(t.Context(), acmeAdmin, got.ID); key != nil || err != nil {
			t.Fatalf("key %q, %v", key, err)
		}
	})
	t.Run("the caller's own key is certified", func(t *testing.T) {
		public, _, _ := ed25519.GenerateKey(rand.Reader)
		r := serverRequest(root.ID)
		r.PublicKey, r.KeepKey, r.Type, r.CommonName, r.SubjectDN = public, false, policy.Client, "alice@example.com", "CN=alice@example.com"
		got, err := w.Issue(t.Context(), acmeAdmin, r)
		if err != nil {
			t.Fatal(err)
		}
		cert := verify(t, got.DER, x509.ExtKeyUsageClientAuth)
		if !public.Equal(cert.PublicKey) || got.KeyType != policy.Ed25519 || got.PrivateKeyPEM != nil || !slices.Equal(cert.EmailAddresses, []string{"alice@example.com"}) {
			t.Fatalf("certificate %v %v", got.KeyType, cert.EmailAddresses)
		}
	})
	t.Run("a subject without common name gets it", func(t *testing.T) {
		r := serverRequest(root.ID)
		r.SubjectDN = "O=Acme,C=US"
		got, err := w.Issue(t.Context(), acmeAdmin, r)
		if err != nil || got.SubjectDN != "CN=api.example.com,O=Acme,C=US" || parse(t, got.DER).Subject.CommonName != "api.example.com" {
			t.Fatalf("subject %q, %v", got.SubjectDN, err)
		}
	})
	t.Run("a CA certificate gets a path length of its own", func(t *testing.T) {
		r := serverRequest(root.ID)
		r.Type, r.CommonName, r.SubjectDN = policy.CA, "External CA", "CN=External CA"
		got, err := w.Issue(t.Context(), acmeAdmin, r)
		if err != nil {
			t.Fatal(err)
		}
		if cert := parse(t, got.DER); !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero {
			t.Fatalf("CA %v path length %d", cert.IsCA, cert.MaxPathLen)
		}
	})
	t.Run("a leaf ends with its issuer", func(t *testing.T) {
		r := serverRequest(root.ID)
		r.ValidDays = 36500
		got, err := w.Issue(t.Context(), acmeAdmin, r)
		if err != nil || got.NotAfter.After(root.NotAfter) || got.ValidDays > root.ValidDays {
			t.Fatalf("ends %v after %v, %d days, %v", got.NotAfter, root.NotAfter, got.ValidDays, err)
		}
	})
	t.Run("intent and certificate are in the audit trail", func(t *testing.T) {
		got := w.issue(t, acmeAdmin, root.ID)
		for _, action := range []audit.Action{audit.CertReserve, audit.CertCreate} {
			entries, n, err := w.AuditLog(t.Context(), superuser, audit.Filter{Action: action, ResourceID: &got.ID, Limit: 9})
			if err != nil || n.N != 1 || !strings.Contains(entries[0].Detail, got.Serial) {
				t.Errorf("%s: %v entries, %v", action, n, err)
			}
		}
	})
}

func TestIssueRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	lone := w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name = "Superuser's" })
	noLeaf := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.AllowLeafCerts = "No leaf", ptr(false) })
	limited := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.PathLength = "Limited", ptr(0) })
	issuerOnly := acmeUser
	issuerOnly.Capabilities.CreateCert = true
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)

	tests := []struct {
		name    string
		caller  policy.Caller
		issuer  int64
		change  func(*ca.IssueRequest)
		code    fault.Code
		message string
	}{
		{"an unknown CA comes before permission", policy.Caller{}, 99, nil, fault.NotFound, "CA not found"},
		{"nobody", policy.Caller{}, root.ID, nil, fault.Forbidden, "Insufficient permissions"},
		{"a member without capability", acmeUser, root.ID, nil, fault.Forbidden, "Insufficient permissions"},
		{"a foreign admin", rivalUser, root.ID, nil, fault.Forbidden, "Insufficient permissions"},
		{"an admin at a CA without organization", acmeAdmin, lone.ID, nil, fault.Forbidden, "Insufficient permissions"},
		{"create_cert does not make CAs", issuerOnly, root.ID, func(r *ca.IssueRequest) { r.Type = policy.CA }, fault.Forbidden, "Insufficient permissions"},
		{"a CA closed for leaf certificates", acmeAdmin, noLeaf.ID, nil, fault.Invalid, "does not allow leaf certificate issuance"},
		{"a CA certificate below path length 0", acmeAdmin, limited.ID, func(r *ca.IssueRequest) { r.Type = policy.CA }, fault.Invalid, ""},
		{"an unknown type", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.Type = "wildcard" }, fault.Invalid, ""},
		{"another common name in the subject", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.SubjectDN = "CN=evil.example,O=Acme" }, fault.Invalid, "differ"},
		{"two common names", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.SubjectDN = "CN=api.example.com,O=x,CN=evil.example" }, fault.Invalid, "2 common names"},
		{"a CA certificate with the issuer's name", acmeAdmin, root.ID, func(r *ca.IssueRequest) {
			r.Type, r.CommonName, r.SubjectDN = policy.CA, "Acme Root", "CN=Acme Root,O=Acme,C=US"
		}, fault.Invalid, "a name of its own"},
		{"an unreadable subject", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.SubjectDN = "CN" }, fault.Invalid, ""},
		{"an e-mail name for a server", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.Emails = []string{"a@example.com"} }, fault.Invalid, ""},
		{"a DNS name for a client", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.Type, r.DNS = policy.Client, []string{"a.example"} }, fault.Invalid, ""},
		{"a malformed IP", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.IPs = []string{"10.0.0.256"} }, fault.Invalid, "10.0.0.256"},
		{"a wildcard in the middle", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.DNS = []string{"a.*.example"} }, fault.Invalid, ""},
		{"no validity", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.ValidDays = 0 }, fault.Invalid, ""},
		{"an unknown key type", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.Key.Type = "dsa" }, fault.Invalid, ""},
		{"a curve nobody trusts", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.PublicKey = p224.Public() }, fault.Invalid, ""},
		{"the CA's own key", acmeAdmin, root.ID, func(r *ca.IssueRequest) { r.PublicKey = parse(t, root.Certificate).PublicKey }, fault.Invalid, "key is that of a CA"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := serverRequest(tt.issuer)
			if tt.change != nil {
				tt.change(&r)
			}
			_, err := w.Issue(t.Context(), tt.caller, r)
			wantFault(t, err, tt.code, tt.message)
		})
	}
	if _, n, _ := w.Certificates(t.Context(), superuser, ca.CertificateFilter{}, ca.Page{Limit: 1}); n.N != 0 {
		t.Errorf("refused requests left %d certificates", n.N)
	}
	if _, n, _ := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CertReserve, Limit: 1}); n.N != 0 {
		t.Errorf("refused requests left %d intents", n.N)
	}
}

func TestTokenAwayDuringSigning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	other := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN = "Other Root", "CN=Other Root,O=Acme,C=US" })
	w.issue(t, acmeAdmin, root.ID) // the issuer is known from here on, so only the signature can fail
	w.keys.setAway(true)
	for range 9 { // within a moment: only the first finds out and leaves a reservation
		_, err := w.Issue(t.Context(), acmeAdmin, serverRequest(root.ID))
		wantFault(t, err, fault.Unavailable, "the signing token is not available")
	}

	certs, total, _ := w.Certificates(t.Context(), acmeAdmin, ca.CertificateFilter{}, ca.Page{Limit: 10})
	if total.N != 1 || len(certs) != 1 {
		t.Fatalf("%v certificates listed, want the one that was answered", total)
	}
	w.keys.setAway(false)
	w.issue(t, acmeAdmin, other.ID) // its key may be in another token: what became of the first CA's does not hold it up
	w.clock.advance(3 * time.Minute)
	if n, err := w.Reconcile(t.Context(), w.clock.Now()); n != 1 || err != nil {
		t.Fatalf("reconciled %d, %v", n, err)
	}
	entries, _, _ := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CertAbandon, Limit: 10})
	if len(entries) != 1 {
		t.Fatalf("%d abandon events", len(entries))
	}
	w.publishNow(t, root)
	list := w.crl(t, root)
	if len(list.RevokedCertificateEntries) != 1 || !strings.Contains(entries[0].Detail, list.RevokedCertificateEntries[0].SerialNumber.Text(16)) {
		t.Fatalf("the abandoned serial is not in the CRL: %v", list.RevokedCertificateEntries)
	}
}

func TestPrivateKeyPermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	exporter := acmeUser
	exporter.Capabilities.ExportPrivateKey = true
	for _, tt := range []struct {
		name   string
		caller policy.Caller
		ok     bool
	}{
		{"a member without capability", acmeUser, false},
		{"a foreign admin", rivalUser, false},
		{"a user without organization", loneUser, false},
		{"a member with the capability", exporter, true},
		{"a superuser", superuser, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, key, err := w.PrivateKey(t.Context(), tt.caller, cert.ID)
			if tt.ok != (err == nil) || tt.ok != (key != nil) {
				t.Fatalf("key %v, error %v", key != nil, err)
			}
			if !tt.ok {
				wantFault(t, err, fault.Forbidden, "Insufficient permissions")
			}
			entries, _, _ := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CertExportPrivate, UserID: &tt.caller.UserID, Limit: 1})
			if len(entries) != 1 || strings.HasPrefix(entries[0].Detail, "refused") == tt.ok {
				t.Fatalf("audit %+v", entries)
			}
		})
	}
}

func TestIPCommonNameBecomesIPName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	r := serverRequest(root.ID)
	r.CommonName, r.SubjectDN = "10.0.0.42", "CN=10.0.0.42"
	got, err := w.Issue(t.Context(), acmeAdmin, r)
	if err != nil {
		t.Fatal(err)
	}
	if cert := parse(t, got.DER); len(cert.DNSNames) != 0 || len(cert.IPAddresses) != 1 || !cert.IPAddresses[0].Equal(net.IPv4(10, 0, 0, 42)) {
		t.Fatalf("DNS %q IP %v", cert.DNSNames, cert.IPAddresses)
	}
}
