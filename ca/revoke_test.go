package ca_test

import (
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

// crl is the published list of a CA, verified under the CA's certificate.
func (w *world) crl(t *testing.T, c ca.CA) *x509.RevocationList {
	t.Helper()
	return w.list(t, c, 0, false)
}

// list is a published list of a CA, verified under the CA's certificate.
func (w *world) list(t testing.TB, c ca.CA, shard int, delta bool) *x509.RevocationList {
	t.Helper()
	l, err := w.PublicList(t.Context(), ca.Slug(c.Name, c.ID), shard, delta)
	if err != nil {
		t.Fatal(err)
	}
	return parseList(t, c, l.DER)
}

func parseList(t testing.TB, c ca.CA, der []byte) *x509.RevocationList {
	t.Helper()
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(parse(t, c.Certificate)); err != nil {
		t.Fatal(err)
	}
	return list
}

// publishNow runs the background work until the CA's list has a higher number.
func (w *world) publishNow(t *testing.T, c ca.CA) {
	t.Helper()
	before := w.crl(t, c).Number
	stop := w.run(t)
	defer stop()
	eventually(t, 10*time.Second, "a new CRL", func() bool { return w.crl(t, c).Number.Cmp(before) > 0 })
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	first := w.crl(t, root).Number

	got, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{Reason: "Key compromise"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Status(w.clock.Now()) != "revoked" || got.Revocation.Text != "Key compromise" || !got.Revocation.At.Equal(w.clock.Now()) {
		t.Fatalf("record %+v", got)
	}
	list := w.crl(t, root)
	if list.Number.Cmp(first) <= 0 {
		t.Fatalf("CRL number %v after %v", list.Number, first)
	}
	serial, _ := new(big.Int).SetString(cert.Serial, 16)
	if e := list.RevokedCertificateEntries; len(e) != 1 || e[0].SerialNumber.Cmp(serial) != 0 || e[0].ReasonCode != 1 {
		t.Fatalf("entries %+v", e)
	}
	if len(list.AuthorityKeyId) == 0 || !slices.Equal(list.AuthorityKeyId, parse(t, root.Certificate).SubjectKeyId) {
		t.Fatalf("authority key id %x", list.AuthorityKeyId)
	}
	_, err = w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{})
	wantFault(t, err, fault.Conflict, "Certificate is already revoked")
}

func TestRevokeRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	for _, tt := range []struct {
		name   string
		caller policy.Caller
		id     int64
		reason string
		code   fault.Code
	}{
		{"an unknown certificate", superuser, 99, "", fault.NotFound},
		{"nobody", policy.Caller{}, cert.ID, "", fault.Forbidden},
		{"a member without capability", acmeUser, cert.ID, "", fault.Forbidden},
		{"a foreign admin", rivalUser, cert.ID, "", fault.Forbidden},
		{"an endless reason", acmeAdmin, cert.ID, string(make([]byte, ca.MaxReasonText+1)), fault.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.Revoke(t.Context(), tt.caller, tt.id, ca.RevokeRequest{Reason: tt.reason})
			wantFault(t, err, tt.code, "")
		})
	}
	if got, _ := w.Certificate(t.Context(), acmeAdmin, cert.ID); got.State != ca.Valid {
		t.Fatalf("state %s after refusals", got.State)
	}
}

func TestParallelRevocationsHaveOneWinner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{Reason: "superseded"}); err == nil {
				won.Add(1)
			} else if !fault.Is(err, fault.Conflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d winners", won.Load())
	}
	if _, n, _ := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CertRevoke, Limit: 1}); n.N != 1 {
		t.Fatalf("%d audit events for one revocation", n.N)
	}
}

func TestRevokeCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	child := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN, r.ParentID = "Issuing", "CN=Issuing", &root.ID })
	below := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN, r.ParentID = "Below", "CN=Below", &child.ID })

	_, err := w.RevokeCA(t.Context(), acmeAdmin, root.ID, ca.RevokeRequest{})
	wantFault(t, err, fault.Invalid, "is a root")
	_, err = w.RevokeCA(t.Context(), rivalUser, child.ID, ca.RevokeRequest{})
	wantFault(t, err, fault.Forbidden, "Insufficient permissions")

	if _, err := w.RevokeCA(t.Context(), acmeAdmin, child.ID, ca.RevokeRequest{Reason: "cessation of operation"}); err != nil {
		t.Fatal(err)
	}
	if e := w.crl(t, root).RevokedCertificateEntries; len(e) != 1 || e[0].SerialNumber.Text(16) != child.Serial || e[0].ReasonCode != 5 {
		t.Fatalf("parent's CRL %+v", e)
	}
	_, err = w.Issue(t.Context(), acmeAdmin, serverRequest(child.ID))
	wantFault(t, err, fault.Invalid, "is revoked")
	_, err = w.Issue(t.Context(), acmeAdmin, serverRequest(below.ID))
	wantFault(t, err, fault.Invalid, "CA 2 is revoked, and with it every CA below it")
	_, err = w.CreateCA(t.Context(), acmeAdmin, ca.CreateCARequest{Name: "x", SubjectDN: "CN=x", Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 30, ParentID: &below.ID})
	wantFault(t, err, fault.Invalid, "CA 2 is revoked, and with it every CA below it")
	_, err = w.RevokeCA(t.Context(), acmeAdmin, child.ID, ca.RevokeRequest{})
	wantFault(t, err, fault.Conflict, "already revoked")
}

func TestRevocationOutlivesTheTokensAbsence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	w.keys.setAway(true)
	if _, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{}); err != nil {
		t.Fatalf("revocation needs no token: %v", err)
	}
	if n := len(w.crl(t, root).RevokedCertificateEntries); n != 0 {
		t.Fatalf("%d entries signed without a token", n)
	}
	w.keys.setAway(false)
	w.publishNow(t, root)
	if n := len(w.crl(t, root).RevokedCertificateEntries); n != 1 {
		t.Fatalf("%d entries after the token came back", n)
	}
}

func TestCRLSchedule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	r := serverRequest(root.ID)
	r.ValidDays = 1
	short, err := w.Issue(t.Context(), acmeAdmin, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Revoke(t.Context(), acmeAdmin, short.ID, ca.RevokeRequest{}); err != nil {
		t.Fatal(err)
	}
	if n := len(w.crl(t, root).RevokedCertificateEntries); n != 1 {
		t.Fatalf("%d entries", n)
	}

	w.clock.advance(6*24*time.Hour + time.Minute) // less than a day before nextUpdate; the certificate has expired
	w.publishNow(t, root)
	if n := len(w.crl(t, root).RevokedCertificateEntries); n != 1 {
		t.Fatalf("%d entries in the first list after expiry, want the expired one once more", n)
	}
	w.clock.advance(6*24*time.Hour + time.Minute)
	w.publishNow(t, root)
	list := w.crl(t, root)
	if n := len(list.RevokedCertificateEntries); n != 0 {
		t.Fatalf("%d entries, want the expired one gone", n)
	}
	if !list.ThisUpdate.Equal(w.clock.Now()) || !list.NextUpdate.Equal(w.clock.Now().Add(7*24*time.Hour)) {
		t.Fatalf("window %v to %v", list.ThisUpdate, list.NextUpdate)
	}
}

// entry is what a list says of a serial number.
func entry(list *x509.RevocationList, serial string) (e x509.RevocationListEntry, listed bool) {
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Text(16) == serial {
			return e, true
		}
	}
	return e, false
}

func TestAStrongerReasonReplacesAWeakerOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	for _, tt := range []struct {
		first, then string
		code        int // in the list afterwards
		refused     bool
	}{
		{"superseded", "keyCompromise", 1, false},
		{"", "aACompromise", 10, false},
		{"certificateHold", "keyCompromise", 1, false},
		{"certificateHold", "superseded", 4, false},
		{"certificateHold", "", 0, false},
		{"certificateHold", "certificateHold", 6, true},
		{"superseded", "certificateHold", 4, true},
		{"superseded", "cessationOfOperation", 4, true},
		{"keyCompromise", "keyCompromise", 1, true},
		{"keyCompromise", "cACompromise", 1, true},
		{"keyCompromise", "superseded", 1, true},
	} {
		t.Run(tt.first+" then "+tt.then, func(t *testing.T) {
			cert := w.issue(t, acmeAdmin, root.ID)
			if _, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{Reason: tt.first}); err != nil {
				t.Fatal(err)
			}
			at := w.clock.Now()
			w.clock.advance(time.Minute)
			_, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{Reason: tt.then})
			if tt.refused {
				wantFault(t, err, fault.Conflict, "Certificate is already revoked")
			} else if err != nil {
				t.Fatal(err)
			}
			e, listed := entry(w.crl(t, root), cert.Serial)
			if !listed || e.ReasonCode != tt.code || !e.RevocationTime.Equal(at) {
				t.Fatalf("listed %v: %+v, want reason %d since %s", listed, e, tt.code, at)
			}
		})
	}
}

func TestAHoldEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	_, err := w.Release(t.Context(), acmeAdmin, cert.ID, "")
	wantFault(t, err, fault.Conflict, "Certificate is not on hold")
	for range 2 {
		if _, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{Reason: "certificateHold: lost badge"}); err != nil {
			t.Fatal(err)
		}
		if e, _ := entry(w.crl(t, root), cert.Serial); e.ReasonCode != 6 {
			t.Fatalf("entry %+v", e)
		}
		_, err = w.Release(t.Context(), acmeUser, cert.ID, "")
		wantFault(t, err, fault.Forbidden, "")
		_, err = w.Release(t.Context(), acmeAdmin, cert.ID, string(make([]byte, ca.MaxReasonText+1)))
		wantFault(t, err, fault.Invalid, "reason must have at most")
		got, err := w.Release(t.Context(), acmeAdmin, cert.ID, "badge found")
		if err != nil || got.Status(w.clock.Now()) != "valid" {
			t.Fatalf("%s, %v", got.State, err)
		}
		if _, listed := entry(w.crl(t, root), cert.Serial); listed {
			t.Fatal("what was released is still listed")
		}
	}
	if d := w.last(t, audit.CertRelease).Detail; !strings.Contains(d, cert.Serial) || !strings.Contains(d, "badge found") {
		t.Errorf("detail %q", d)
	}
	if _, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{Reason: "superseded"}); err != nil {
		t.Fatal(err)
	}
	_, err = w.Release(t.Context(), acmeAdmin, cert.ID, "")
	wantFault(t, err, fault.Conflict, "Certificate is not on hold")
}

func TestInvalidityDate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	for _, tt := range []struct {
		at   time.Time
		want string
	}{
		{w.clock.Now().Add(2 * time.Second), "must not be in the future"},
		{time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC), "must not be before 1970"},
		{time.Time{}, "must not be before 1970"},
	} {
		_, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{InvalidityDate: &tt.at})
		wantFault(t, err, fault.Invalid, tt.want)
	}
	at := w.clock.Now().Add(-48 * time.Hour)
	if _, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{Reason: "keyCompromise", InvalidityDate: &at}); err != nil {
		t.Fatal(err)
	}
	e, _ := entry(w.crl(t, root), cert.Serial)
	var got time.Time
	for _, x := range e.Extensions {
		if x.Id.String() == "2.5.29.24" {
			if _, err := asn1.UnmarshalWithParams(x.Value, &got, "generalized"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !got.Equal(at) {
		t.Errorf("invalidityDate %s, want %s", got, at)
	}
}

func TestWhatIsNoReasonToRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	child := w.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN, r.ParentID = "Issuing", "CN=Issuing", &root.ID })
	cert := w.issue(t, acmeAdmin, child.ID)
	_, err := w.Revoke(t.Context(), acmeAdmin, cert.ID, ca.RevokeRequest{Reason: "remove_from_CRL"})
	wantFault(t, err, fault.Invalid, "removeFromCRL is no reason")
	_, err = w.RevokeCA(t.Context(), acmeAdmin, child.ID, ca.RevokeRequest{Reason: "certificate hold"})
	wantFault(t, err, fault.Invalid, "a CA cannot be on hold")
	if n := len(w.crl(t, root).RevokedCertificateEntries) + len(w.crl(t, child).RevokedCertificateEntries); n != 0 {
		t.Errorf("%d entries", n)
	}
}

func TestReasonCode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"": 0, "testing": 0, "removeFromCRL": 0, "lost the laptop": 0,
		"Key compromise": 1, "keyCompromise": 1, "key_compromise: stolen disk": 1,
		"CA compromise": 2, "affiliationChanged": 3, "Superseded by a new one": 4,
		"cessation-of-operation": 5, "certificateHold": 6, "privilege withdrawn": 9, "AA Compromise": 10,
	} {
		if got := ca.ReasonCode(text); got != want {
			t.Errorf("ReasonCode(%q) = %d, want %d", text, got, want)
		}
	}
}
