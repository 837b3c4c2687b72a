package ca_test

import (
	"crypto/x509"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

func TestCreateCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	child := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) {
		r.Name, r.SubjectDN, r.ParentID, r.PathLength = "Acme Issuing", "CN=Acme Issuing,O=Acme,C=US", &root.ID, ptr(0)
	})

	t.Run("a root certifies itself", func(t *testing.T) {
		cert := parse(t, root.Certificate)
		if err := cert.CheckSignatureFrom(cert); err != nil || !cert.IsCA || cert.Subject.String() != cert.Issuer.String() {
			t.Fatalf("root is not self-signed CA: %v", err)
		}
		if root.State != ca.Valid || !root.IsRoot() || *root.OrganizationID != 10 || *root.CreatedBy != acmeAdmin.UserID {
			t.Fatalf("record %+v", root)
		}
	})
	t.Run("an intermediate is certified by its parent", func(t *testing.T) {
		cert, parent := parse(t, child.Certificate), parse(t, root.Certificate)
		if err := cert.CheckSignatureFrom(parent); err != nil {
			t.Fatal(err)
		}
		if cert.MaxPathLen != 0 || !cert.MaxPathLenZero {
			t.Fatalf("path length %d", cert.MaxPathLen)
		}
		if got := cert.CRLDistributionPoints; len(got) != 1 || got[0] != "http://pki.example/crl/acme-root-1" {
			t.Fatalf("CRL distribution points %q", got)
		}
		if got := cert.IssuingCertificateURL; len(got) != 1 || got[0] != "http://pki.example/ca/acme-root-1.crt" {
			t.Fatalf("caIssuers %q", got)
		}
		if cert.NotAfter.After(parent.NotAfter) {
			t.Fatalf("child ends %v, parent %v", cert.NotAfter, parent.NotAfter)
		}
	})
	t.Run("a parent stops issuing leaf certificates", func(t *testing.T) {
		_, err := w.Issue(t.Context(), acmeAdmin, serverRequest(root.ID))
		wantFault(t, err, fault.Invalid, "CA 1 does not allow leaf certificate issuance")
	})
	t.Run("an empty CRL exists at once", func(t *testing.T) {
		for _, c := range []ca.CA{root, child} {
			crl, err := w.PublicList(t.Context(), ca.Slug(c.Name, c.ID), 0, false)
			if err != nil {
				t.Fatal(err)
			}
			list, err := x509.ParseRevocationList(crl.DER)
			if err != nil || list.CheckSignatureFrom(parse(t, c.Certificate)) != nil || len(list.RevokedCertificateEntries) != 0 {
				t.Fatalf("CRL of %s: %v", c.Name, err)
			}
		}
	})
	t.Run("the chain leads to the root, the children lead down", func(t *testing.T) {
		chain, err := w.Chain(t.Context(), acmeUser, child.ID)
		if err != nil || len(chain) != 2 || chain[0].ID != child.ID || chain[1].ID != root.ID {
			t.Fatalf("chain %v, %v", chain, err)
		}
		children, err := w.Children(t.Context(), acmeUser, root.ID)
		if err != nil || len(children) != 1 || children[0].ID != child.ID {
			t.Fatalf("children %v, %v", children, err)
		}
	})
}

func TestCreateCARefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.PathLength = ptr(1) })
	leafOnly := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.PathLength = "Leaf only", ptr(0) })
	short := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.ValidDays = "Short", 1 })
	creator := acmeUser
	creator.Capabilities.CreateCA = true

	tests := []struct {
		name    string
		caller  policy.Caller
		change  func(*ca.CreateCARequest)
		code    fault.Code
		message string
	}{
		{"nobody creates nothing", policy.Caller{}, nil, fault.Forbidden, "Insufficient permissions"},
		{"a user without capability", acmeUser, nil, fault.Forbidden, "Insufficient permissions"},
		{"a foreign admin below our root", rivalUser, func(r *ca.CreateCARequest) { r.ParentID = &root.ID }, fault.Forbidden, "Insufficient permissions"},
		{"an unknown parent", superuser, func(r *ca.CreateCARequest) { r.ParentID = ptr(int64(99)) }, fault.NotFound, "Parent CA 99 not found"},
		{"a parent with path length 0", acmeAdmin, func(r *ca.CreateCARequest) { r.ParentID = &leafOnly.ID }, fault.Invalid, ""},
		{"more path than the parent allows", acmeAdmin, func(r *ca.CreateCARequest) { r.ParentID, r.PathLength = &root.ID, ptr(1) }, fault.Invalid, ""},
		{"a negative path length", acmeAdmin, func(r *ca.CreateCARequest) { r.PathLength = ptr(-1) }, fault.Invalid, "negative"},
		{"an unreadable subject", acmeAdmin, func(r *ca.CreateCARequest) { r.SubjectDN = "no equals sign" }, fault.Invalid, ""},
		{"an unknown attribute", acmeAdmin, func(r *ca.CreateCARequest) { r.SubjectDN = "CN=x,FOO=y" }, fault.Invalid, "FOO"},
		{"a blank name", acmeAdmin, func(r *ca.CreateCARequest) { r.Name = " \t" }, fault.Invalid, "name must not be empty"},
		{"a name with a line break", acmeAdmin, func(r *ca.CreateCARequest) { r.Name = "a\nb" }, fault.Invalid, "control"},
		{"a short RSA key", acmeAdmin, func(r *ca.CreateCARequest) { r.Key = policy.KeySpec{Type: policy.RSA, Size: 1024} }, fault.Invalid, ""},
		{"an unknown curve", acmeAdmin, func(r *ca.CreateCARequest) { r.Key = policy.KeySpec{Type: policy.EC, Size: 224} }, fault.Invalid, ""},
		{"the name of its issuer", acmeAdmin, func(r *ca.CreateCARequest) { r.ParentID, r.SubjectDN = &root.ID, root.SubjectDN }, fault.Invalid, "a name of its own"},
		{"no validity", acmeAdmin, func(r *ca.CreateCARequest) { r.ValidDays = 0 }, fault.Invalid, ""},
		{"eternal validity", acmeAdmin, func(r *ca.CreateCARequest) { r.ValidDays = 1 << 40 }, fault.Invalid, ""},
	}
	before := auditCount(t, w)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := ca.CreateCARequest{Name: "New", SubjectDN: "CN=New", Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 30}
			if tt.change != nil {
				tt.change(&r)
			}
			_, err := w.CreateCA(t.Context(), tt.caller, r)
			wantFault(t, err, tt.code, tt.message)
		})
	}
	if after := auditCount(t, w); after != before {
		t.Errorf("refused requests left %d audit entries", after-before)
	}

	t.Run("every reason is given at once", func(t *testing.T) {
		_, err := w.CreateCA(t.Context(), acmeAdmin, ca.CreateCARequest{Name: "", SubjectDN: "FOO=x", Key: policy.KeySpec{Type: policy.RSA, Size: 512}})
		for _, part := range []string{"name", "FOO", "512"} {
			wantFault(t, err, fault.Invalid, part)
		}
	})
	t.Run("a capability creates a root in the own organization", func(t *testing.T) {
		c := w.createCA(t, creator, func(r *ca.CreateCARequest) { r.Name = "Bob's" })
		if *c.OrganizationID != 10 {
			t.Fatalf("organization %v", c.OrganizationID)
		}
	})
	t.Run("an expired parent certifies nobody", func(t *testing.T) {
		w.clock.advance(48 * time.Hour)
		_, err := w.CreateCA(t.Context(), acmeAdmin, ca.CreateCARequest{Name: "Late", SubjectDN: "CN=Late", Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 30, ParentID: &short.ID})
		wantFault(t, err, fault.Invalid, "expired")
	})
}

func TestWhatCannotBeBuiltLeavesNoKeyBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	parent := w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.CRLBaseURL = ptr("no URL at all") })
	before := auditCount(t, w)
	_, err := w.CreateCA(t.Context(), superuser, ca.CreateCARequest{
		Name: "x", SubjectDN: "CN=x", Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 30, ParentID: &parent.ID})
	if err == nil {
		t.Fatal("a certificate with a broken URL")
	}
	if n := auditCount(t, w) - before; n != 0 {
		t.Fatalf("%d events: a key was announced for a certificate that cannot be built", n)
	}
}

func TestCreateCAWithoutToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keys.setAway(true)
	_, err := w.CreateCA(t.Context(), superuser, ca.CreateCARequest{Name: "x", SubjectDN: "CN=x", Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 30})
	wantFault(t, err, fault.Unavailable, "token")
	if cas, total, _ := w.CAs(t.Context(), superuser, ca.Page{Limit: 10}); total != 0 || len(cas) != 0 {
		t.Fatalf("a CA without certificate is listed: %v", cas)
	}
	w.keys.setAway(false)
	w.clock.advance(time.Minute)
	if n, err := w.Reconcile(t.Context(), w.clock.Now()); n != 1 || err != nil {
		t.Fatalf("reconciled %d, %v; want the announced CA", n, err)
	}
	if c := w.createCA(t, superuser, nil); c.ID != 2 {
		t.Fatalf("id %d: the id of an abandoned CA was used again", c.ID)
	}
}

func TestCreateCAIsAudited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := audit.WithRequest(t.Context(), audit.Request{ID: "req-1", RemoteAddr: "192.0.2.1"})
	c, err := w.CreateCA(ctx, acmeAdmin, ca.CreateCARequest{Name: "x", SubjectDN: "CN=x", Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 30})
	if err != nil {
		t.Fatal(err)
	}
	entries, _, err := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CACreate, Limit: 10})
	if err != nil || len(entries) != 1 {
		t.Fatalf("entries %v, %v", entries, err)
	}
	e := entries[0]
	if *e.UserID != acmeAdmin.UserID || e.Username != "alice" || e.RequestID != "req-1" || e.RemoteAddr != "192.0.2.1" ||
		e.ResourceType != audit.ResourceCA || *e.ResourceID != c.ID || *e.OrganizationID != 10 {
		t.Fatalf("entry %+v", e)
	}
}

func auditCount(t *testing.T, w *world) int64 {
	t.Helper()
	_, n, err := w.AuditLog(t.Context(), superuser, audit.Filter{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return n.N
}
