package ca_test

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/ca/catest"
	"signet/fault"
	"signet/policy"
)

// set changes the revocation policy of a CA.
func (w *world) set(t testing.TB, c ca.CA, p ca.RevocationPolicy) {
	t.Helper()
	w.clock.advance(time.Second) // lists of an earlier second are of the old policy
	if _, err := w.SetRevocationPolicy(t.Context(), superuser, c.ID, p); err != nil {
		t.Fatal(err)
	}
}

func (w *world) revoke(t testing.TB, cert ca.Issued, reason string) {
	t.Helper()
	if _, err := w.Revoke(t.Context(), superuser, cert.ID, ca.RevokeRequest{Reason: reason}); err != nil {
		t.Fatal(err)
	}
}

// lists are all of a CA, the oldest first.
func (w *world) lists(t testing.TB, c ca.CA) []ca.List {
	t.Helper()
	all, _, err := w.Lists(t.Context(), superuser, c.ID, ca.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(all)
	return all
}

// wantNumbers checks that the numbers of a CA's lists have neither gaps nor repeats, nothing pending aside.
func (w *world) wantNumbers(t testing.TB, c ca.CA) {
	t.Helper()
	last := int64(0)
	for _, l := range w.lists(t, c) {
		pair := l.Number == last && !l.Delta
		if l.Number != last+1 && !pair {
			t.Fatalf("number %d after %d", l.Number, last)
		}
		last = l.Number
	}
}

func TestListsOfOneSecondAreOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t).replica(func(c *ca.Config) { c.CRLCoalesce = 400 * time.Millisecond })
	root := w.createCA(t, acmeAdmin, nil)
	certs := make([]ca.Issued, 20)
	for i := range certs {
		certs[i] = w.issue(t, acmeAdmin, root.ID)
	}
	time.Sleep(400 * time.Millisecond)
	start := time.Now()
	w.revoke(t, certs[0], "")
	if n := len(w.crl(t, root).RevokedCertificateEntries); n != 1 || time.Since(start) > 350*time.Millisecond {
		t.Errorf("%d entries after %s, want the first change at once", n, time.Since(start))
	}
	for _, cert := range certs[1:] {
		w.revoke(t, cert, "superseded")
	}
	if n := len(w.crl(t, root).RevokedCertificateEntries); n != len(certs) {
		t.Errorf("%d entries, want %d", n, len(certs))
	}
	if n := len(w.lists(t, root)); n > 4 {
		t.Errorf("%d lists for 20 revocations in %s", n, time.Since(start))
	}
	w.wantNumbers(t, root)
}

// stuckStore makes lists wait before they are completed, or fail there.
type stuckStore struct {
	*catest.Memory
	mu   sync.Mutex
	fail map[string]func() error
}

func newStuckStore() *stuckStore {
	s := &stuckStore{Memory: catest.New(), fail: map[string]func() error{}}
	s.Fail = func(method string) error {
		s.mu.Lock()
		f := s.fail[method]
		s.mu.Unlock()
		if f == nil {
			return nil
		}
		return f()
	}
	return s
}

func (s *stuckStore) on(method string, f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[method] = f
}

func TestARevocationDoesNotWaitForItsList(t *testing.T) {
	t.Parallel()
	s := newStuckStore()
	w := newWorldOn(t, s)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	gate := make(chan struct{})
	s.on("CompleteLists", func() error { <-gate; return nil })

	start := time.Now()
	w.revoke(t, cert, "")
	if took := time.Since(start); took > 200*time.Millisecond {
		t.Errorf("a revocation took %s while its list was signed", took)
	}
	start = time.Now()
	if n := len(w.crl(t, root).RevokedCertificateEntries); n != 0 {
		t.Fatalf("%d entries", n)
	}
	if took := time.Since(start); took < 900*time.Millisecond || took > 3*time.Second {
		t.Errorf("a reader waited %s for the list, want about 1 s", took)
	}
	close(gate)
	if n := len(w.crl(t, root).RevokedCertificateEntries); n != 1 {
		t.Errorf("%d entries", n)
	}
	start = time.Now()
	w.crl(t, root)
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("a reader waited %s for nothing", took)
	}
}

func TestANumberWhosePublisherDiedIsTakenAgain(t *testing.T) {
	t.Parallel()
	s := newStuckStore()
	w := newWorldOn(t, s)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	s.on("CompleteLists", func() error { return errors.New("connection lost") })
	w.revoke(t, cert, "")
	w.crl(t, root) // waits for the failure
	if err := <-w.failed; !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("reported %v", err)
	}
	s.on("CompleteLists", nil)

	other := w.replica(nil)
	other.publishNow(t, root)
	all := w.lists(t, root)
	if l := all[len(all)-1]; len(all) != 2 || l.Number != 2 || l.Attempts != 2 || l.Entries != 1 {
		t.Errorf("lists %+v", all)
	}
}

func TestATokenThatIsAwayUsesNoNumber(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	cert := w.issue(t, acmeAdmin, root.ID)
	w.keys.setAway(true)
	w.revoke(t, cert, "")
	w.run(t)
	for range 2 { // it is tried again
		select {
		case err := <-w.failed:
			if responder := "responder: certify OCSP responder of CA 1"; strings.HasPrefix(err.Error(), responder) {
				err = <-w.failed
			}
			if !strings.HasPrefix(err.Error(), "crl: publish lists of CA 1") {
				t.Errorf("reported %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was reported")
		}
	}
	for _, l := range w.lists(t, root)[1:] { // this key says only when it is to sign that it cannot
		if l.State != ca.ListPending || l.Number != 2 {
			t.Errorf("%+v", l)
		}
	}
	w.keys.setAway(false)
	eventually(t, 10*time.Second, "the list follows", func() bool { return len(w.crl(t, root).RevokedCertificateEntries) == 1 })
	w.wantNumbers(t, root)
}

func TestReplicasThatPublishAtOnceShareTheNumbers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	const each = 10
	var replicas sync.WaitGroup
	for range 3 {
		r := w.replica(func(c *ca.Config) { c.CRLCoalesce = time.Millisecond })
		var certs []ca.Issued
		for range each {
			certs = append(certs, w.issue(t, acmeAdmin, root.ID))
		}
		replicas.Go(func() {
			for _, cert := range certs {
				r.revoke(t, cert, "")
			}
		})
	}
	replicas.Wait()
	eventually(t, 10*time.Second, "every revocation is listed", func() bool { return len(w.crl(t, root).RevokedCertificateEntries) == 3*each })
	w.wantNumbers(t, root)
	select {
	case err := <-w.failed:
		t.Error(err)
	default:
	}
}

// extension is the value of an extension of a list; nil: it has none.
func extension(list *x509.RevocationList, oid string) (value []byte, critical bool) {
	for _, e := range list.Extensions {
		if e.Id.String() == oid {
			return e.Value, e.Critical
		}
	}
	return nil, false
}

const (
	oidDeltaIndicator      = "2.5.29.27"
	oidIssuingDistribution = "2.5.29.28"
	oidFreshest            = "2.5.29.46"
)

func TestShardsAddUpToTheWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	before := w.issue(t, acmeAdmin, root.ID) // names no shard
	if idp, _ := extension(w.crl(t, root), oidIssuingDistribution); idp != nil {
		t.Error("a list for everything has an issuing distribution point")
	}
	w.set(t, root, ca.RevocationPolicy{Shards: 3})
	certs := []ca.Issued{before}
	for range 12 {
		certs = append(certs, w.issue(t, acmeAdmin, root.ID))
	}
	for _, cert := range certs {
		w.revoke(t, cert, "")
	}
	inShards := map[string]bool{}
	for shard := 1; shard <= 3; shard++ {
		list := w.list(t, root, shard, false)
		idp, critical := extension(list, oidIssuingDistribution)
		url := fmt.Sprintf("http://pki.example/crl/acme-root-1/%d", shard)
		if !critical || !strings.HasSuffix(string(idp), url) {
			t.Errorf("shard %d: issuing distribution point %q, critical %v", shard, idp, critical)
		}
		for _, e := range list.RevokedCertificateEntries {
			serial := e.SerialNumber.Text(16)
			if inShards[serial] {
				t.Errorf("%s is in two shards", serial)
			}
			inShards[serial] = true
			i := slices.IndexFunc(certs, func(c ca.Issued) bool { return c.Serial == serial })
			if got := parse(t, certs[i].DER).CRLDistributionPoints; !slices.Equal(got, []string{url}) {
				t.Errorf("the list of shard %d has a certificate that names %v", shard, got)
			}
		}
	}
	if len(inShards) != 12 {
		t.Errorf("%d certificates are listed in shards, want 12", len(inShards))
	}
	_, err := w.PublicList(t.Context(), "acme-root-1", 4, false)
	wantFault(t, err, fault.NotFound, "CRL not found")

	w.set(t, root, ca.RevocationPolicy{}) // shards once opened stay
	w.clock.advance(7 * 24 * time.Hour)
	w.run(t)
	eventually(t, 10*time.Second, "old shards are kept up", func() bool {
		for shard := range 4 {
			if list := w.list(t, root, shard, false); !list.ThisUpdate.Equal(w.clock.Now()) {
				return false
			}
		}
		return true
	})
	whole := w.crl(t, root)
	if idp, _ := extension(whole, oidIssuingDistribution); idp != nil {
		t.Error("the list of everything has an issuing distribution point")
	}
	for _, e := range whole.RevokedCertificateEntries {
		inShards[e.SerialNumber.Text(16)] = true
	}
	if len(whole.RevokedCertificateEntries) != len(certs) || len(inShards) != len(certs) {
		t.Errorf("the list of everything has %d of %d", len(whole.RevokedCertificateEntries), len(certs))
	}
	w.wantNumbers(t, root)
}

// reasonsOf is what a list says of serial numbers.
func reasonsOf(list *x509.RevocationList) map[string]int {
	all := map[string]int{}
	for _, e := range list.RevokedCertificateEntries {
		all[e.SerialNumber.Text(16)] = e.ReasonCode
	}
	return all
}

func baseNumber(t *testing.T, delta *x509.RevocationList) int64 {
	t.Helper()
	var n int64
	value, critical := extension(delta, oidDeltaIndicator)
	if _, err := asn1.Unmarshal(value, &n); err != nil || !critical {
		t.Fatalf("delta CRL indicator %x, critical %v: %v", value, critical, err)
	}
	return n
}

// RFC 5280, section 5.2.4: a delta may be combined with any complete list whose number is at least that of its base and less
// than its own. Whatever the history was, the result is what is revoked now.
func TestACompleteListAndADeltaAreTheNewCompleteList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	w.set(t, root, ca.RevocationPolicy{Delta: true})
	var certs []ca.Issued
	for range 8 {
		certs = append(certs, w.issue(t, acmeAdmin, root.ID))
	}
	random := rand.New(rand.NewPCG(4, 2))
	now := map[string]int{} // reason of what is revoked now
	complete := map[int64]*x509.RevocationList{}
	combined, removals := 0, 0
	for step := range 60 {
		cert := certs[random.IntN(len(certs))]
		reason, revoked := now[cert.Serial]
		switch {
		case revoked && reason == 6 && random.IntN(3) > 0:
			if _, err := w.Release(t.Context(), superuser, cert.ID, ""); err != nil {
				t.Fatal(err)
			}
			delete(now, cert.Serial)
		case revoked && reason != 1 && step > 40:
			w.revoke(t, cert, "keyCompromise")
			now[cert.Serial] = 1
		case revoked:
			continue
		case random.IntN(4) == 0:
			w.revoke(t, cert, "superseded")
			now[cert.Serial] = 4
		default:
			w.revoke(t, cert, "certificateHold")
			now[cert.Serial] = 6
		}
		if random.IntN(6) == 0 {
			w.clock.advance(25 * time.Hour) // the next change comes with a complete list
		} else {
			w.clock.advance(time.Minute)
		}
		delta := w.list(t, root, 0, true)
		base, newest := baseNumber(t, delta), w.crl(t, root)
		complete[newest.Number.Int64()] = newest
		if !delta.NextUpdate.Equal(newest.NextUpdate) || delta.Number.Cmp(newest.Number) < 0 {
			t.Fatalf("delta %v until %s beside list %v until %s", delta.Number, delta.NextUpdate, newest.Number, newest.NextUpdate)
		}
		if delta.Number.Cmp(newest.Number) == 0 && !maps.Equal(reasonsOf(newest), now) {
			t.Fatalf("step %d: the complete list has %v, want %v", step, reasonsOf(newest), now)
		}
		for number, list := range complete {
			if number < base || number >= delta.Number.Int64() {
				continue
			}
			got := reasonsOf(list)
			for serial, reason := range reasonsOf(delta) {
				if got[serial] = reason; reason == 8 {
					delete(got, serial)
					removals++
				}
			}
			if combined++; !maps.Equal(got, now) {
				t.Fatalf("step %d: list %d and delta %v on %d are %v, want %v", step, number, delta.Number, base, got, now)
			}
		}
	}
	if combined < 30 || removals == 0 {
		t.Errorf("only %d combinations, %d removals", combined, removals)
	}
	w.wantNumbers(t, root)
	list := w.crl(t, root)
	if freshest, critical := extension(list, oidFreshest); critical || !strings.HasSuffix(string(freshest), "/crl/acme-root-1/delta") {
		t.Errorf("freshest CRL %q, critical %v", freshest, critical)
	}

	w.set(t, root, ca.RevocationPolicy{})
	if freshest, _ := extension(w.crl(t, root), oidFreshest); freshest != nil {
		t.Error("a list without delta has a freshest CRL")
	}
	_, err := w.PublicList(t.Context(), "acme-root-1", 0, true)
	wantFault(t, err, fault.NotFound, "CRL not found")
}

func TestADeltaThatIsTooLongBecomesACompleteList(t *testing.T) {
	t.Parallel()
	store := catest.New()
	w := newWorldOn(t, store)
	root := w.createCA(t, acmeAdmin, nil)
	w.set(t, root, ca.RevocationPolicy{Delta: true})
	w.list(t, root, 0, true)
	number := w.crl(t, root).Number
	const many = 1001
	for i := range many {
		serial := fmt.Sprintf("1%05x", i)
		id, err := store.Reserve(t.Context(), ca.Certificate{IssuerID: root.ID, Serial: serial, Type: policy.Server, TBS: []byte{1},
			NotBefore: w.clock.Now(), NotAfter: w.clock.Now().Add(time.Hour), CreatedAt: w.clock.Now()}, audit.Event{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Complete(t.Context(), id, []byte{1}, nil, audit.Event{}); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Revoke(t.Context(), id, ca.Revocation{At: w.clock.Now()}, nil, audit.Event{}); err != nil {
			t.Fatal(err)
		}
	}
	w.publishNow(t, root)
	list, delta := w.crl(t, root), w.list(t, root, 0, true)
	if len(list.RevokedCertificateEntries) != many || list.Number.Cmp(number) <= 0 {
		t.Errorf("list %v with %d entries", list.Number, len(list.RevokedCertificateEntries))
	}
	if len(delta.RevokedCertificateEntries) != 0 || baseNumber(t, delta) != list.Number.Int64() || delta.Number.Cmp(list.Number) != 0 {
		t.Errorf("delta %v on %d with %d entries beside list %v", delta.Number, baseNumber(t, delta), len(delta.RevokedCertificateEntries), list.Number)
	}
	w.wantNumbers(t, root)
}

func TestTheTrailNamesEachList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	if e := w.last(t, audit.CRLPublish); e.Detail != "CRL number 1 with 0 entries, from "+w.clock.Now().Format(time.RFC3339) || *e.OrganizationID != 10 {
		t.Errorf("%+v", e)
	}
	w.set(t, root, ca.RevocationPolicy{Delta: true, Shards: 1})
	w.run(t)
	eventually(t, 10*time.Second, "a list of the shard", func() bool {
		return strings.HasPrefix(w.last(t, audit.CRLPublish).Detail, "CRL number ") && w.list(t, root, 1, true) != nil
	})
	details := ""
	entries, _, _ := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CRLPublish, Limit: 10})
	for _, e := range entries {
		details += e.Detail + "\n"
	}
	if !strings.Contains(details, " of shard 1 with 0 entries, with a delta of 0 entries on number ") {
		t.Errorf("details:\n%s", details)
	}
}

func TestAClockThatIsSetBackDoesNotMakeListsAllTheTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	w.run(t)
	w.clock.advance(time.Hour)
	w.set(t, root, ca.RevocationPolicy{Shards: 1})
	eventually(t, 5*time.Second, "the lists follow the policy", func() bool { return len(w.lists(t, root)) == 3 })
	w.clock.advance(-time.Hour)
	time.Sleep(2500 * time.Millisecond) // the schedule looks twice
	lists := w.lists(t, root)
	if len(lists) > 4 { // the shard had none at that time
		t.Errorf("%d lists", len(lists))
	}
	cert := w.issue(t, acmeAdmin, root.ID)
	w.revoke(t, cert, "")
	eventually(t, 5*time.Second, "a revocation is published", func() bool {
		_, listed := entry(w.list(t, root, cert.CRLShard, false), cert.Serial)
		return listed
	})
}

func TestAChangeDoesNotWaitForTheListsOfEveryShard(t *testing.T) {
	t.Parallel()
	s := newStuckStore()
	w := newWorldOn(t, s)
	root := w.createCA(t, acmeAdmin, nil)
	w.set(t, root, ca.RevocationPolicy{Shards: 300})
	var cert ca.Issued
	for cert.CRLShard < 200 {
		cert = w.issue(t, acmeAdmin, root.ID)
	}
	eventually(t, 10*time.Second, "every shard has a list", func() bool { return len(w.lists(t, root)) >= 301 })
	before := len(w.lists(t, root))
	s.on("CompleteLists", func() error { time.Sleep(10 * time.Millisecond); return nil })
	w.clock.advance(25 * time.Hour) // all of them are due
	w.run(t)
	eventually(t, 5*time.Second, "the schedule is busy", func() bool { return len(w.lists(t, root)) > before })
	start := time.Now()
	w.revoke(t, cert, "")
	eventually(t, 10*time.Second, "a revocation is published", func() bool {
		_, listed := entry(w.list(t, root, cert.CRLShard, false), cert.Serial)
		return listed
	})
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	eventually(t, 10*time.Second, "every shard has another list", func() bool { return len(w.lists(t, root)) > before+300 })
	w.wantNumbers(t, root)
}

func TestTheEndDoesNotWaitForListsThatAreOnlyDue(t *testing.T) {
	t.Parallel()
	s := newStuckStore()
	w := newWorldOn(t, s)
	root := w.createCA(t, acmeAdmin, nil)
	w.set(t, root, ca.RevocationPolicy{Shards: 300})
	cert := w.issue(t, acmeAdmin, root.ID)
	eventually(t, 10*time.Second, "every shard has a list", func() bool { return len(w.lists(t, root)) >= 301 })
	before := len(w.lists(t, root))
	s.on("CompleteLists", func() error { time.Sleep(20 * time.Millisecond); return nil })
	w.clock.advance(25 * time.Hour)
	stop := w.run(t)
	eventually(t, 5*time.Second, "the schedule is busy", func() bool { return len(w.lists(t, root)) > before })
	w.revoke(t, cert, "")
	start := time.Now()
	stop()
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	if _, listed := entry(w.list(t, root, cert.CRLShard, false), cert.Serial); !listed {
		t.Error("a change was left behind")
	}
}
