package catest

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

// Suite holds a ca.Store to its contract. Every test gets a store of its own from newStore, which must be empty.
func Suite(t *testing.T, newStore func(t *testing.T) ca.Store) {
	tests := map[string]map[string]func(f fixture){
		"create CA":   createCATests,
		"find CA":     findCATests,
		"end CA":      endCATests,
		"reserve":     reserveTests,
		"certificate": certificateTests,
		"revoke":      revokeTests,
		"abandon":     abandonTests,
		"hold":        holdTests,
		"ledger":      ledgerTests,
		"list":        listTests,
		"list scope":  scopeTests,
		"policy":      policyTests,
		"status":      statusTests,
		"responder":   responderTests,
		"answer":      answerTests,
		"lease":       leaseTests,
		"filter":      filterTests,
		"expiry":      expiryTests,
		"notice":      noticeTests,
		"audit":       auditTests,
		"race":        raceTests,
		"proof":       proofTests,
		"adopt":       adoptTests,
		"seal":        sealTests,
		"retention":   retentionTests,
	}
	for group, cases := range tests {
		for name, test := range cases {
			t.Run(group+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(fixture{T: t, s: newStore(t), n: new(atomic.Int64)})
			})
		}
	}
}

// now is when the records of the suite are made; a database keeps its microseconds.
var now = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

// fixture makes records in one store.
type fixture struct {
	*testing.T
	s ca.Store
	n *atomic.Int64 // of records made
}

func ptr[T any](v T) *T { return &v }

// ok fails the test at once.
func (f fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("unexpected error: %v", err)
	}
}

// refused checks that an error has a code and a message.
func (f fixture) refused(err error, code fault.Code, message string) {
	f.Helper()
	if !fault.Is(err, code) || err.Error() != message {
		f.Errorf("error is %q (%v), want %q (%v)", err, fault.CodeOf(err), message, code)
	}
}

func (f fixture) equal(got, want any) {
	f.Helper()
	if !reflect.DeepEqual(got, want) {
		f.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// event is one that says who did it.
func event(action audit.Action, resource string) audit.Event {
	return audit.Event{Action: action, UserID: ptr(int64(7)), Username: "alice", OrganizationID: ptr(int64(3)),
		ResourceType: resource, Detail: "details", RequestID: "r-1", RemoteAddr: "192.0.2.1"}
}

// plan is a CA to be created; a nil parent makes it a root.
func (f fixture) plan(parent *int64) ca.CA {
	n := f.n.Add(1)
	return ca.CA{
		Name: fmt.Sprintf("CA number %d", n), Description: ptr("for tests"), SubjectDN: fmt.Sprintf("CN=CA %d", n),
		KeyType: policy.EC, KeySize: 256, ValidDays: 3650, ParentID: parent, PathLength: ptr(2), AllowLeafCerts: true,
		CRLBaseURL: ptr("https://pki.example"), OrganizationID: ptr(int64(3)), CreatedBy: ptr(int64(7)),
		Token: "main", KeyID: fmt.Appendf(nil, "key id %09d", n), NotBefore: now, NotAfter: now.AddDate(10, 0, 0),
		State: ca.Pending, CreatedAt: now, UpdatedAt: now,
	}
}

// pending creates a CA that has not been reserved.
func (f fixture) pending(plan ca.CA) ca.CA {
	f.Helper()
	c, err := f.s.CreateCA(f.Context(), plan, event(audit.CAReserve, audit.ResourceCA))
	f.ok(err)
	return c
}

// reservation is what the certificate of a pending CA will say.
func (f fixture) reservation(c ca.CA) ca.CA {
	n := f.n.Add(1)
	c.PublicKey, c.Serial, c.TBS = fmt.Appendf(nil, "public key %d", n), fmt.Sprintf("ca%x", n), []byte("to be signed")
	return c
}

func (f fixture) reserveCA(c ca.CA) error {
	return f.s.ReserveCA(f.Context(), c, event(audit.CAReserve, audit.ResourceCA))
}

func (f fixture) completeCA(id int64) (ca.CA, error) {
	return f.s.CompleteCA(f.Context(), id, []byte("certificate"), event(audit.CACreate, audit.ResourceCA))
}

// make creates a valid CA.
func (f fixture) make(plan ca.CA) ca.CA {
	f.Helper()
	c := f.pending(plan)
	f.ok(f.reserveCA(f.reservation(c)))
	c, err := f.completeCA(c.ID)
	f.ok(err)
	return c
}

func (f fixture) root() ca.CA              { f.Helper(); return f.make(f.plan(nil)) }
func (f fixture) child(parent ca.CA) ca.CA { f.Helper(); return f.make(f.plan(&parent.ID)) }

// leaf is a certificate to be reserved.
func (f fixture) leaf(issuer ca.CA) ca.Certificate {
	n := f.n.Add(1)
	return ca.Certificate{
		IssuerID: issuer.ID, CommonName: fmt.Sprintf("host%d.example", n), SubjectDN: fmt.Sprintf("CN=host%d.example", n),
		Type: policy.Server, KeyType: policy.RSA, KeySize: 2048, ValidDays: 365,
		OrganizationID: ptr(int64(3)), CreatedBy: ptr(int64(7)), Serial: fmt.Sprintf("1e%x", n),
		Names: fmt.Sprintf("host%d.example\nwww.host%d.example", n, n), TBS: []byte("to be signed"),
		NotBefore: now, NotAfter: now.AddDate(1, 0, 0), State: ca.Pending, CreatedAt: now, UpdatedAt: now,
	}
}

func (f fixture) reserve(c ca.Certificate) (int64, error) {
	return f.s.Reserve(f.Context(), c, event(audit.CertReserve, audit.ResourceCertificate))
}

func (f fixture) complete(id int64, sealedKey []byte) (ca.Certificate, error) {
	return f.s.Complete(f.Context(), id, []byte("certificate"), sealedKey, event(audit.CertCreate, audit.ResourceCertificate))
}

// issue makes a valid certificate.
func (f fixture) issue(c ca.Certificate) ca.Certificate {
	f.Helper()
	id, err := f.reserve(c)
	f.ok(err)
	c, err = f.complete(id, nil)
	f.ok(err)
	return c
}

func (f fixture) revoke(id int64, r ca.Revocation) (ca.Certificate, error) {
	return f.s.Revoke(f.Context(), id, r, nil, event(audit.CertRevoke, audit.ResourceCertificate))
}

func (f fixture) revokeCA(id int64, r ca.Revocation) (ca.CA, error) {
	return f.s.RevokeCA(f.Context(), id, r, nil, event(audit.CARevoke, audit.ResourceCA))
}

func (f fixture) deleteCA(id int64) error {
	return f.s.DeleteCA(f.Context(), id, now, event(audit.CADelete, audit.ResourceCA))
}

var (
	everything = ca.Scope{All: true}
	firstPage  = ca.Page{Limit: 1000}
	keyLost    = ca.Revocation{At: now.Add(time.Hour), Reason: 1, Text: "key compromise, says Bob"}
)

// events are the entries of the trail with this action, oldest first; "" means all.
func (f fixture) events(action audit.Action) []audit.Entry {
	f.Helper()
	entries, _, err := f.s.AuditLog(f.Context(), audit.Filter{Action: action, Limit: 10_000})
	f.ok(err)
	for i, j := 0, len(entries)-1; i < j; i, j = i+1, j-1 {
		entries[i], entries[j] = entries[j], entries[i]
	}
	return entries
}

// silent checks that a call that fails leaves no event.
func (f fixture) silent(call func()) {
	f.Helper()
	before := len(f.events(""))
	call()
	if after := len(f.events("")); after != before {
		f.Errorf("the call left %d events", after-before)
	}
}

// recorded checks the last event.
func (f fixture) recorded(action audit.Action, resource string, id int64) {
	f.Helper()
	all := f.events("")
	if len(all) == 0 {
		f.Fatal("no event was recorded")
	}
	want := event(action, resource)
	want.ResourceID = &id
	f.equal(all[len(all)-1].Event, want)
}

// parallel runs a call n times at once and returns the errors.
func parallel(n int, call func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = call(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWins checks that exactly one call succeeded and the others were refused.
func (f fixture) oneWins(errs []error, code fault.Code, message string) {
	f.Helper()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		f.refused(err, code, message)
	}
	if won != 1 {
		f.Errorf("%d of %d calls succeeded, want 1", won, len(errs))
	}
}

func ids[T any](records []T, id func(T) int64) []int64 {
	out := []int64{}
	for _, r := range records {
		out = append(out, id(r))
	}
	return out
}

func caID(c ca.CA) int64            { return c.ID }
func certID(c ca.Certificate) int64 { return c.ID }
func entryID(e audit.Entry) int64   { return e.ID }
