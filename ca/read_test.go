package ca_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

func TestReading(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acme := w.createCA(t, acmeAdmin, nil)
	own := w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name = "Superuser's" })
	w.issue(t, acmeAdmin, acme.ID)
	w.issue(t, superuser, own.ID)
	for _, tt := range []struct {
		name          string
		caller        policy.Caller
		reads         []int64
		refused       []int64
		listed, certs int64
	}{
		{"a superuser reads everything", superuser, []int64{acme.ID, own.ID}, nil, 2, 2},
		{"a member reads the own organization", acmeUser, []int64{acme.ID}, []int64{own.ID}, 1, 1},
		{"another organization reads nothing", rivalUser, nil, []int64{acme.ID, own.ID}, 0, 0},
		{"a user without organization reads nothing", loneUser, nil, []int64{acme.ID, own.ID}, 0, 0},
		{"nobody reads nothing", policy.Caller{}, nil, []int64{acme.ID, own.ID}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, id := range tt.reads {
				if _, err := w.CA(t.Context(), tt.caller, id); err != nil {
					t.Errorf("CA %d: %v", id, err)
				}
			}
			for _, id := range tt.refused {
				_, err := w.CA(t.Context(), tt.caller, id)
				wantFault(t, err, fault.Forbidden, "Insufficient permissions")
				_, err = w.Chain(t.Context(), tt.caller, id)
				wantFault(t, err, fault.Forbidden, "Insufficient permissions")
				_, err = w.Children(t.Context(), tt.caller, id)
				wantFault(t, err, fault.Forbidden, "Insufficient permissions")
			}
			if cas, total, err := w.CAs(t.Context(), tt.caller, ca.Page{Limit: 10}); err != nil || total != tt.listed || int64(len(cas)) != tt.listed {
				t.Errorf("%d CAs of %d, %v; want %d", len(cas), total, err, tt.listed)
			}
			if certs, total, err := w.Certificates(t.Context(), tt.caller, ca.CertificateFilter{}, ca.Page{Limit: 10}); err != nil || total.N != tt.certs || int64(len(certs)) != tt.certs {
				t.Errorf("%d certificates of %d, %v; want %d", len(certs), total.N, err, tt.certs)
			}
		})
	}
}

func TestCreatorsReadWhatTheyCreatedAndNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	other := acmeAdmin
	other.UserID = 99
	w.createCA(t, other, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN, r.ParentID = "Theirs", "CN=Theirs", &root.ID })
	left := acmeAdmin
	left.Role, left.OrganizationID = policy.RoleUser, nil
	children, err := w.Children(t.Context(), left, root.ID)
	if err != nil || len(children) != 0 {
		t.Fatalf("a creator who left the organization sees %d children of others, %v", len(children), err)
	}
}

func TestChainsHaveALimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.createCA(t, superuser, nil)
	depth := 1
	for {
		child, err := w.CreateCA(t.Context(), superuser, ca.CreateCARequest{
			Name: "x", SubjectDN: fmt.Sprintf("CN=CA %d", depth), Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 30, ParentID: ptr(c.ID)})
		if err != nil {
			wantFault(t, err, fault.Invalid, "deeper chains are not supported")
			break
		}
		c = child
		if depth++; depth > 100 {
			t.Fatal("a chain of 100 CAs")
		}
	}
	if chain, err := w.Chain(t.Context(), superuser, c.ID); err != nil || len(chain) != depth {
		t.Fatalf("chain of %d, want %d, %v", len(chain), depth, err)
	}
}

func TestDeleteCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	child := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN, r.ParentID = "Issuing", "CN=Issuing", &root.ID })
	cert := w.issue(t, acmeAdmin, child.ID)

	wantFault(t, w.DeleteCA(t.Context(), acmeUser, child.ID), fault.Forbidden, "Insufficient permissions")
	wantFault(t, w.DeleteCA(t.Context(), acmeAdmin, root.ID), fault.Conflict, "child")
	if err := w.DeleteCA(t.Context(), acmeAdmin, child.ID); err != nil {
		t.Fatal(err)
	}

	t.Run("it is gone from every authenticated call", func(t *testing.T) {
		_, err := w.CA(t.Context(), superuser, child.ID)
		wantFault(t, err, fault.NotFound, "")
		_, err = w.Certificate(t.Context(), superuser, cert.ID)
		wantFault(t, err, fault.NotFound, "")
		_, _, err = w.PrivateKey(t.Context(), superuser, cert.ID)
		wantFault(t, err, fault.NotFound, "")
		_, err = w.Revoke(t.Context(), superuser, cert.ID, ca.RevokeRequest{})
		wantFault(t, err, fault.NotFound, "")
		_, err = w.Issue(t.Context(), superuser, serverRequest(child.ID))
		wantFault(t, err, fault.NotFound, "")
		wantFault(t, w.RefuseCAKey(t.Context(), superuser, child.ID), fault.NotFound, "")
		if _, n, _ := w.Certificates(t.Context(), superuser, ca.CertificateFilter{}, ca.Page{Limit: 1}); n.N != 0 {
			t.Errorf("%d certificates listed", n.N)
		}
	})
	t.Run("relying parties still find certificate and CRL, and the CRL stays fresh", func(t *testing.T) {
		if c, err := w.PublicCA(t.Context(), ca.Slug(child.Name, child.ID)); err != nil || len(c.Certificate) == 0 {
			t.Fatal(err)
		}
		w.clock.advance(6*24*time.Hour + time.Minute)
		w.publishNow(t, child)
	})
	t.Run("its parent may be deleted now", func(t *testing.T) {
		if err := w.DeleteCA(t.Context(), acmeAdmin, root.ID); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("its id is not used again, its audit trail stays", func(t *testing.T) {
		if c := w.createCA(t, superuser, nil); c.ID <= child.ID {
			t.Errorf("id %d used again", c.ID)
		}
		if _, n, _ := w.AuditLog(t.Context(), superuser, audit.Filter{ResourceType: audit.ResourceCA, ResourceID: &child.ID, Limit: 1}); n.N < 3 {
			t.Errorf("%d entries", n.N)
		}
	})
}

func TestCAKeysAreNeverExported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	for _, caller := range []policy.Caller{superuser, acmeAdmin, acmeUser, rivalUser, loneUser} {
		wantFault(t, w.RefuseCAKey(t.Context(), caller, root.ID), fault.Forbidden, "non-exportable")
		if _, n, _ := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CAExportPrivateKey, UserID: &caller.UserID, Limit: 1}); n.N != 1 {
			t.Errorf("%s: %d audit entries", caller.Username, n.N)
		}
	}
	wantFault(t, w.RefuseCAKey(t.Context(), superuser, 99), fault.NotFound, "")
}

func TestAuditLogVisibility(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCA(t, acmeAdmin, nil)
	w.createCA(t, superuser, nil)
	all := auditCount(t, w)
	for _, tt := range []struct {
		name   string
		caller policy.Caller
		want   func(n int64) bool
	}{
		{"an admin reads the own organization", acmeAdmin, func(n int64) bool { return n > 0 && n < all }},
		{"a foreign admin reads nothing of it", rivalUser, func(n int64) bool { return n == 0 }},
		{"an admin without organization reads the own acts", policy.Caller{UserID: 9, Role: policy.RoleAdmin}, func(n int64) bool { return n == 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entries, n, err := w.AuditLog(t.Context(), tt.caller, audit.Filter{Limit: 100, OrganizationID: ptr(int64(10))})
			if err != nil || !tt.want(n.N) || int64(len(entries)) != n.N {
				t.Fatalf("%d entries, total %v, %v", len(entries), n, err)
			}
		})
	}
	for _, caller := range []policy.Caller{acmeUser, loneUser, {}} {
		_, _, err := w.AuditLog(t.Context(), caller, audit.Filter{Limit: 100})
		wantFault(t, err, fault.Forbidden, "Insufficient permissions")
	}
}

func TestPublicFilesNeedTheWholeSlug(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name = "Zürich Root" })
	if _, err := w.PublicCA(t.Context(), "zurich-root-1"); err != nil {
		t.Fatal(err)
	}
	for _, slug := range []string{"", "1", "-1", "zurich-root", "zurich-root-2", "wrong-name-1", "Zurich-root-1", "zurich-root-01", "zurich-root-1 ", "zurich-root-99999999999999999999"} {
		_, err := w.PublicCA(t.Context(), slug)
		wantFault(t, err, fault.NotFound, "CA not found")
		_, err = w.PublicList(t.Context(), slug, 0, false)
		wantFault(t, err, fault.NotFound, "CA not found")
	}
}

func TestSlug(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Acme Issuing CA": "acme-issuing-ca-7", "  --x--  ": "x-7", "Zürich": "zurich-7", "日本": "ca-7",
		"": "ca-7", "a/b?c#d%": "a-b-c-d-7", "../../etc": "etc-7", "ſ": "s-7",
	} {
		if got := ca.Slug(name, 7); got != want {
			t.Errorf("Slug(%q) = %q, want %q", name, got, want)
		}
	}
}

func FuzzSlug(f *testing.F) {
	for _, name := range []string{"Acme CA", "Zürich", "日本", "", "a--b", "\x00\xff", "İstanbul"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		slug := ca.Slug(name, 42)
		if !strings.HasSuffix(slug, "-42") || strings.HasPrefix(slug, "-") || strings.Contains(slug, "--") {
			t.Fatalf("Slug(%q) = %q", name, slug)
		}
		for _, r := range slug {
			if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') {
				t.Fatalf("Slug(%q) = %q holds %q", name, slug, r)
			}
		}
	})
}
