package ca_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/ca/catest"
	"signet/policy"
)

const day = 24 * time.Hour

// tower is an authority that looks out for what ends. Its records need no key.
type tower struct {
	*testing.T
	*ca.Authority
	store *responderStore
	now   time.Time
	made  int
}

// responderStore shows a responder for each CA that has one here.
type responderStore struct {
	*catest.Memory
	responders map[int64]*ca.Responder
}

func (s *responderStore) CAExpiries(ctx context.Context, now time.Time, within []time.Duration) ([]ca.CAExpiry, error) {
	all, err := s.Memory.CAExpiries(ctx, now, within)
	for i := range all {
		all[i].Responder = s.responders[all[i].CA.ID]
	}
	return all, err
}

func newTower(t *testing.T) *tower {
	w := &tower{T: t, store: &responderStore{catest.New(), map[int64]*ca.Responder{}}, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.store.Now = func() time.Time { return w.now }
	w.Authority = ca.New(ca.Config{
		Store: w.store, PublicURL: "http://pki.example", Now: w.store.Now, CRLOverlap: day,
		Notices: &ca.NoticeConfig{
			Certificates: []time.Duration{30 * day, 7 * day, day},
			CAs:          []time.Duration{90 * day, 30 * day, 7 * day},
		},
	})
	return w
}

func (w *tower) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

var byNobody = audit.Event{ResourceType: audit.ResourceCA}

// ca makes a CA that ends after this time.
func (w *tower) ca(life time.Duration) ca.CA {
	w.Helper()
	w.made++
	c, err := w.store.CreateCA(w.Context(), ca.CA{
		Name: fmt.Sprintf("CA %d", w.made), KeyType: policy.EC, KeyID: fmt.Appendf(nil, "key %d", w.made), AllowLeafCerts: true,
		NotBefore: w.now, NotAfter: w.now.Add(life), State: ca.Pending, CreatedAt: w.now, UpdatedAt: w.now,
	}, byNobody)
	w.ok(err)
	c.PublicKey, c.Serial, c.TBS = c.KeyID, fmt.Sprintf("ca%d", w.made), []byte("tbs")
	w.ok(w.store.ReserveCA(w.Context(), c, byNobody))
	c, err = w.store.CompleteCA(w.Context(), c.ID, []byte("certificate"), byNobody)
	w.ok(err)
	return c
}

// leaf makes a certificate that ends after this time.
func (w *tower) leaf(issuer ca.CA, life time.Duration) ca.Certificate {
	w.Helper()
	w.made++
	id, err := w.store.Reserve(w.Context(), ca.Certificate{
		IssuerID: issuer.ID, CommonName: fmt.Sprintf("host%d.example", w.made), Serial: fmt.Sprintf("1e%d", w.made), TBS: []byte("tbs"),
		NotBefore: w.now, NotAfter: w.now.Add(life), State: ca.Pending, CreatedAt: w.now, UpdatedAt: w.now,
	}, byNobody)
	w.ok(err)
	c, err := w.store.Complete(w.Context(), id, []byte("certificate"), nil, byNobody)
	w.ok(err)
	return c
}

// list publishes a list.
func (w *tower) list(s ca.ListScope, this, next time.Time) ca.List {
	w.Helper()
	l, err := w.store.BeginList(w.Context(), s, this)
	w.ok(err)
	l.ListScope, l.ThisUpdate, l.NextUpdate, l.DER = s, this, next, []byte("list")
	w.ok(w.store.CompleteLists(w.Context(), []ca.List{l}, byNobody))
	return l
}

// told are the keys of what was found since the last call.
func (w *tower) told() []string {
	w.Helper()
	before := len(w.store.Notices())
	w.ok(w.FindNotices(w.Context()))
	keys := []string{}
	for _, n := range w.store.Notices()[before:] {
		keys = append(keys, n.Key)
	}
	slices.Sort(keys)
	return keys
}

func (w *tower) wantTold(want ...string) {
	w.Helper()
	if got := w.told(); !slices.Equal(got, append([]string{}, want...)) {
		w.Errorf("told %q, want %q", got, want)
	}
}

func TestACertificateIsToldOnceForEachThreshold(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	w.leaf(w.ca(3650*day), 365*day)
	told := map[string]time.Duration{}
	for start := w.now; w.now.Sub(start) < 366*day; w.now = w.now.Add(time.Hour) {
		for _, key := range w.told() {
			if _, again := told[key]; again {
				t.Errorf("%s is told again", key)
			}
			told[key] = 365*day - w.now.Sub(start)
		}
	}
	for key, want := range map[string]time.Duration{"certificate-expiring/1/720h": 30 * day, "certificate-expiring/1/168h": 7 * day, "certificate-expiring/1/24h": day} {
		if told[key] != want {
			t.Errorf("%s is told %s before the end, want %s", key, told[key], want)
		}
	}
	if len(told) != 3 {
		t.Errorf("told %v", told)
	}
}

func TestAfterALongStopACertificateIsToldForTheLastThresholdOnly(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	root := w.ca(3650 * day)
	w.leaf(root, 40*day)  // 1
	w.leaf(root, 60*day)  // 2
	w.leaf(root, 38*day)  // 3: ends during the stop
	w.leaf(root, 900*day) // 4
	w.wantTold()
	w.now = w.now.Add(39*day + time.Hour)
	w.wantTold("certificate-expiring/1/24h", "certificate-expiring/2/720h")
	w.now = w.now.Add(time.Minute)
	w.wantTold()
}

func TestTheFirstSearchTellsWhatIsAboutToEndAlready(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	root := w.ca(100 * day)
	w.leaf(root, 40*day)
	w.now = w.now.Add(35 * day) // nobody searched until now
	w.wantTold("ca-expiring/1/2160h", "certificate-expiring/1/168h")
}

func TestWhatIsIssuedForLessThanAThresholdIsNotToldForIt(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	root := w.ca(60 * day)
	w.leaf(root, 20*day)
	w.leaf(root, day)
	w.leaf(root, time.Hour)
	w.wantTold()
	w.now = w.now.Add(13*day + time.Minute)
	w.wantTold("certificate-expiring/1/168h")
	w.now = w.now.Add(17 * day)
	w.wantTold("ca-expiring/1/720h")
}

func TestWhatWasRevokedOrDeletedBeforeIsNotTold(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	root, gone := w.ca(3650*day), w.ca(100*day)
	revoked, told := w.leaf(root, 40*day), w.leaf(root, 40*day)
	w.leaf(gone, 40*day)
	_, err := w.store.Revoke(t.Context(), revoked.ID, ca.Revocation{At: w.now, Reason: 4}, nil, byNobody)
	w.ok(err)
	w.ok(w.store.DeleteCA(t.Context(), gone.ID, w.now, byNobody))
	w.now = w.now.Add(11 * day)
	w.wantTold(fmt.Sprintf("certificate-expiring/%d/720h", told.ID))
	_, err = w.store.Revoke(t.Context(), told.ID, ca.Revocation{At: w.now, Reason: 4}, nil, byNobody)
	w.ok(err)
	if n := len(w.store.Notices()); n != 1 {
		t.Errorf("%d notices are left, want the one from before the revocation", n)
	}
}

func TestACertificateThatWasCompletedAfterItsSearchIsFound(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	root := w.ca(3650 * day)
	id, err := w.store.Reserve(t.Context(), ca.Certificate{IssuerID: root.ID, CommonName: "slow", Serial: "51", TBS: []byte("tbs"),
		NotBefore: w.now, NotAfter: w.now.Add(day + time.Second), State: ca.Pending, CreatedAt: w.now}, byNobody)
	w.ok(err)
	w.now = w.now.Add(30 * time.Second)
	w.wantTold()
	_, err = w.store.Complete(t.Context(), id, []byte("certificate"), nil, byNobody)
	w.ok(err)
	w.now = w.now.Add(time.Minute)
	w.wantTold("certificate-expiring/1/24h")
}

func TestASearchGoesThroughMoreThanAPage(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	root := w.ca(3650 * day)
	for range 1203 {
		w.leaf(root, 40*day) // all end in the same second
	}
	w.now = w.now.Add(11 * day)
	if n := len(w.told()); n != 1203 {
		t.Errorf("%d are told, want 1203", n)
	}
	w.wantTold()
}

func TestAFailedSearchIsMadeAgain(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	w.leaf(w.ca(3650*day), 40*day)
	w.wantTold()
	w.now = w.now.Add(11 * day)
	away := errors.New("the database is away")
	w.store.Fail = func(method string) error {
		if method == "AddNotices" {
			return away
		}
		return nil
	}
	if err := w.FindNotices(t.Context()); !errors.Is(err, away) {
		t.Fatalf("error is %v", err)
	}
	w.store.Fail = nil
	w.wantTold("certificate-expiring/1/720h")
}

func TestNoticesSayWhatTheyAreAbout(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	root := w.ca(100 * day)
	w.leaf(root, 40*day)
	w.list(ca.ListScope{CAID: root.ID}, w.now, w.now.Add(7*day))
	w.store.responders[root.ID] = &ca.Responder{CAID: root.ID, Serial: "ab", NotBefore: w.now, NotAfter: w.now.Add(14 * day), State: ca.Valid}
	w.now = w.now.Add(11 * day)
	w.told()
	want := map[string]string{
		"certificate.expiring": `{"certificate_id":1,"ca_id":1,"ca_name":"CA 1","organization_id":null,"common_name":"host2.example",` +
			`"serial_number":"1e2","not_after":"2026-04-10T12:00:00Z","within":"720h"}`,
		"ca.expiring": `{"ca_id":1,"ca_name":"CA 1","organization_id":null,"serial_number":"ca1","not_after":"2026-06-09T12:00:00Z","within":"2160h"}`,
		"crl.lapsing": `{"ca_id":1,"ca_name":"CA 1","shard":0,"delta":false,"number":1,"next_update":"2026-03-08T12:00:00Z",` +
			`"url":"http://pki.example/crl/ca-1-1"}`,
		"ocsp_responder.ending": `{"ca_id":1,"ca_name":"CA 1","serial_number":"ab","not_after":"2026-03-15T12:00:00Z"}`,
	}
	for _, n := range w.store.Notices() {
		if n.Data != want[n.Type] || !n.CreatedAt.Equal(w.now) || !json.Valid([]byte(n.Data)) {
			t.Errorf("%s says %s at %s", n.Type, n.Data, n.CreatedAt)
		}
		delete(want, n.Type)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestAListIsToldWhenNothingFollowsIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		policy ca.RevocationPolicy
		delta  bool
		ahead  bool // another list is signed ahead
		left   time.Duration
		want   bool
	}{
		{name: "fresh", left: 7 * day},
		{name: "within the overlap", left: 13 * time.Hour},
		{name: "half of the overlap is left", left: 12 * time.Hour},
		{name: "less than half of the overlap is left", left: 12*time.Hour - time.Second, want: true},
		{name: "it has lapsed", left: -day, want: true},
		{name: "another one is signed ahead", left: time.Hour, ahead: true},
		{name: "the policy has a shorter overlap", policy: ca.RevocationPolicy{CRLOverlap: 2 * time.Hour}, left: 3 * time.Hour},
		{name: "less than half of the policy's overlap", policy: ca.RevocationPolicy{CRLOverlap: 2 * time.Hour}, left: 59 * time.Minute, want: true},
		{name: "a delta", policy: ca.RevocationPolicy{Delta: true}, delta: true, left: time.Hour, want: true},
		{name: "a delta that is wanted no more", delta: true, left: time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newTower(t)
			root := w.ca(3650 * day)
			w.ok(w.store.SetRevocationPolicy(t.Context(), root.ID, test.policy, byNobody))
			next := w.now.Add(7 * day)
			if test.delta {
				w.list(ca.ListScope{CAID: root.ID}, w.now, w.now.Add(30*day))
			}
			w.list(ca.ListScope{CAID: root.ID, Delta: test.delta}, w.now, next)
			if test.ahead {
				w.list(ca.ListScope{CAID: root.ID, Delta: test.delta}, next.Add(-time.Hour), next.Add(6*day))
			}
			w.now = next.Add(-test.left)
			got := w.told()
			if (len(got) == 1 && strings.HasPrefix(got[0], "crl-lapsing/1/0/")) != test.want || len(got) > 1 {
				t.Errorf("told %q, want it %t", got, test.want)
			}
			w.wantTold()
		})
	}
}

func TestAListOfShortValidityIsNotToldAllTheTime(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	w.list(ca.ListScope{CAID: w.ca(3650 * day).ID}, w.now, w.now.Add(4*time.Hour)) // shorter than the overlap
	w.wantTold()
	w.now = w.now.Add(3*time.Hour + time.Second)
	w.wantTold("crl-lapsing/1/0/false/1")
}

func TestAResponderIsToldWhenItWasNotRenewed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		life time.Duration // of the responder, whose CA lives 20 days
		left time.Duration
		want bool
	}{
		{"half of it is left", 8 * day, 4 * day, false},
		{"a quarter is left", 8 * day, 2 * day, false},
		{"less than a quarter is left", 8 * day, 2*day - time.Second, true},
		{"it has ended", 8 * day, -day, true},
		{"it lasts as long as the CA", 20 * day, day, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newTower(t)
			root := w.ca(20 * day)
			w.list(ca.ListScope{CAID: root.ID}, w.now, w.now.Add(30*day))
			end := w.now.Add(test.life)
			w.store.responders[root.ID] = &ca.Responder{CAID: root.ID, Serial: "ab", NotBefore: w.now, NotAfter: end, State: ca.Valid}
			w.now = end.Add(-test.left)
			got := slices.Contains(w.told(), "ocsp-responder-ending/1/ab")
			if got != test.want {
				t.Errorf("told %t, want %t", got, test.want)
			}
		})
	}
}

func TestTheOutlookOfACAHasItsListsAndCounts(t *testing.T) {
	t.Parallel()
	w := newTower(t)
	root, other := w.ca(3650*day), w.ca(3650*day)
	w.leaf(root, 2*day)
	w.ok(w.store.SetRevocationPolicy(t.Context(), root.ID, ca.RevocationPolicy{Shards: 1}, byNobody))
	w.list(ca.ListScope{CAID: root.ID}, w.now, w.now.Add(7*day))
	all, err := w.Outlook(t.Context(), day, 3*day)
	w.ok(err)
	if len(all) != 2 || all[0].CA.ID != root.ID || all[1].CA.ID != other.ID || !slices.Equal(all[0].Expiring, []int64{0, 1}) {
		t.Fatalf("outlook is %+v", all)
	}
	if next, ok := all[0].NextUpdate(); !ok || !next.IsZero() {
		t.Errorf("a shard without a list: next update %v, %t, want zero", next, ok)
	}
	w.list(ca.ListScope{CAID: root.ID, Shard: 1}, w.now, w.now.Add(5*day))
	all, err = w.Outlook(t.Context(), day)
	w.ok(err)
	if next, ok := all[0].NextUpdate(); !ok || !next.Equal(w.now.Add(5*day)) || all[0].CRLNumber() != 2 {
		t.Errorf("next update %v, number %d: want that of the shard and 2", next, all[0].CRLNumber())
	}
	if next, ok := all[1].NextUpdate(); !ok || !next.IsZero() || all[1].CRLNumber() != 0 {
		t.Errorf("without a list: next update %v, %t", next, ok)
	}
	if _, ok := (ca.Outlook{}).NextUpdate(); ok {
		t.Error("a CA that keeps no lists has a next update")
	}
}
