package ca_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"signet/ca"
	"signet/ca/catest"
	"signet/fault"
)

// mutedStore is a database that one replica cannot reach for some things.
type mutedStore struct {
	ca.Store
	lease, all atomic.Bool
	failing    atomic.Int64 // the CA whose changes cannot be read
	reads      atomic.Int32 // of lists
}

var errMuted = &fault.Error{Code: fault.Unavailable, Message: "the database does not answer"}

func (s *mutedStore) Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	if s.lease.Load() || s.all.Load() {
		return false, errMuted
	}
	return s.Store.Lease(ctx, name, holder, ttl)
}

func (s *mutedStore) RevocationStates(ctx context.Context) ([]ca.RevocationState, error) {
	if s.all.Load() {
		return nil, errMuted
	}
	return s.Store.RevocationStates(ctx)
}

func (s *mutedStore) ChangedSerials(ctx context.Context, caID, after int64, limit int) ([]ca.RevokedEntry, error) {
	if s.failing.Load() == caID {
		return nil, errMuted
	}
	return s.Store.ChangedSerials(ctx, caID, after, limit)
}

func (s *mutedStore) ListScopes(ctx context.Context, now time.Time, caIDs ...int64) ([]ca.ScopeState, error) {
	if s.all.Load() {
		return nil, errMuted
	}
	return s.Store.ListScopes(ctx, now, caIDs...)
}

func (s *mutedStore) CurrentList(ctx context.Context, scope ca.ListScope, now time.Time) (ca.List, time.Time, error) {
	s.reads.Add(1)
	if s.all.Load() {
		return ca.List{}, time.Time{}, errMuted
	}
	return s.Store.CurrentList(ctx, scope, now)
}

// replicas are some on one store, whose leases end by the time of the machine.
func replicas(t *testing.T, n int, ttl time.Duration) (all []*world, stores []*mutedStore) {
	t.Helper()
	memory := catest.New()
	first := newWorldOn(t, struct{ *catest.Memory }{memory})
	for range n {
		s := &mutedStore{Store: memory}
		all = append(all, first.replica(func(c *ca.Config) { c.Store, c.LeaseTTL = s, ttl }))
		stores = append(stores, s)
	}
	return all, stores
}

func leaders(all []*world) (leading []int) {
	for i, w := range all {
		if w.Leads() {
			leading = append(leading, i)
		}
	}
	return leading
}

func TestTheLeaseMovesWhenItsHolderStopsRenewing(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	all, stores := replicas(t, 3, ttl)
	for _, w := range all {
		w.run(t)
	}
	root := all[0].createCA(t, acmeAdmin, nil)
	eventually(t, ttl, "one leads", func() bool { return len(leaders(all)) == 1 })
	was := leaders(all)[0]

	stores[was].lease.Store(true)
	start := time.Now()
	for len(leaders(all)) == 0 || slices.Contains(leaders(all), was) {
		if n := leaders(all); len(n) > 1 {
			t.Fatalf("replicas %v lead at once", n)
		}
		if time.Since(start) > 2*ttl {
			t.Fatal("nobody follows")
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("another one leads after %s", time.Since(start))
	if err := <-all[was].failed; !errors.Is(err, errMuted) {
		t.Errorf("reported %v", err)
	}

	// The others learn of what the one without the lease records.
	cert := all[was].issue(t, acmeAdmin, root.ID)
	all[was].revoke(t, cert, "superseded")
	for _, w := range all {
		eventually(t, 5*time.Second, "the list has it on every replica", func() bool {
			_, listed := entry(w.crl(t, root), cert.Serial)
			return listed
		})
	}
	all[was].wantNumbers(t, root)
}

func TestTheLeaseIsGivenUpAtTheEnd(t *testing.T) {
	t.Parallel()
	all, _ := replicas(t, 2, time.Hour)
	stop := all[0].run(t)
	eventually(t, 5*time.Second, "the first leads", all[0].Leads)
	all[1].run(t)
	stop()
	eventually(t, 5*time.Second, "the second leads", all[1].Leads)
}

func TestChangesReachTheOtherReplicas(t *testing.T) {
	t.Parallel()
	all, _ := replicas(t, 2, time.Minute)
	told := make([]chan string, len(all))
	for i, w := range all {
		told[i] = make(chan string, 100)
		w.OnChange(func(_ int64, serials []string) {
			for _, s := range serials {
				told[i] <- s
			}
		})
		w.run(t)
	}
	root := all[0].createCA(t, acmeAdmin, nil)
	cert := all[0].issue(t, acmeAdmin, root.ID)
	for _, change := range []func(){
		func() { all[0].revoke(t, cert, "certificateHold") },
		func() {
			if _, err := all[0].Release(t.Context(), superuser, cert.ID, ""); err != nil {
				t.Fatal(err)
			}
		},
		func() { all[0].revoke(t, cert, "superseded") },
		func() { all[0].revoke(t, cert, "keyCompromise") },
	} {
		for len(told[1]) > 0 {
			<-told[1]
		}
		start := time.Now()
		change()
		select {
		case <-told[0]:
		default:
			t.Error("the replica itself was not told at once")
		}
		select {
		case serial := <-told[1]:
			if serial != cert.Serial || time.Since(start) > time.Second {
				t.Errorf("told %s after %s", serial, time.Since(start))
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the other replica was not told")
		}
	}
	eventually(t, 5*time.Second, "both serve the same octets", func() bool {
		one, err := all[0].PublicList(t.Context(), "acme-root-1", 0, false)
		two, otherErr := all[1].PublicList(t.Context(), "acme-root-1", 0, false)
		return err == nil && otherErr == nil && one.ETag == two.ETag && one.Entries == 1
	})
}

func TestAPolicyReachesTheOtherReplicas(t *testing.T) {
	t.Parallel()
	all, _ := replicas(t, 2, time.Minute)
	for _, w := range all {
		w.run(t)
	}
	root := all[0].createCA(t, acmeAdmin, nil)
	for _, w := range all {
		w.set(t, root, ca.RevocationPolicy{Shards: 1})
		for _, other := range all {
			eventually(t, 3*time.Second, "certificates are issued into shards", func() bool {
				return other.issue(t, acmeAdmin, root.ID).CRLShard == 1
			})
		}
		w.set(t, root, ca.RevocationPolicy{})
		if w.issue(t, acmeAdmin, root.ID).CRLShard != 0 {
			t.Error("the replica that set a policy goes by the old one")
		}
	}
}

func TestListsAreServedFromMemory(t *testing.T) {
	t.Parallel()
	all, stores := replicas(t, 1, time.Minute)
	w, store := all[0], stores[0]
	root := w.createCA(t, acmeAdmin, nil)
	w.run(t)
	w.crl(t, root)
	time.Sleep(500 * time.Millisecond) // the feed has seen the first list
	w.crl(t, root)
	before := store.reads.Load()
	var readers sync.WaitGroup
	for range 64 {
		readers.Go(func() {
			for range 50 {
				if _, err := w.PublicList(t.Context(), "acme-root-1", 0, false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	readers.Wait()
	if n := store.reads.Load() - before; n > 1 {
		t.Errorf("3200 requests read the list %d times", n)
	}

	store.all.Store(true)
	w.clock.advance(6 * 24 * time.Hour)
	for range 3 {
		if l, err := w.PublicList(t.Context(), "acme-root-1", 0, false); err != nil || l.Number != 1 {
			t.Fatalf("%+v, %v", l, err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	if len(w.failed) == 0 || len(w.failed) > 5 { // once by each of the tasks
		t.Errorf("an outage of the database was reported %d times", len(w.failed))
	}
	w.clock.advance(2 * 24 * time.Hour) // nobody vouches for a list that has ended
	_, err := w.PublicList(t.Context(), "acme-root-1", 0, false)
	wantFault(t, err, fault.Unavailable, "the database does not answer")
}

func TestAListThatIsNotPublishedYet(t *testing.T) {
	t.Parallel()
	s := newStuckStore()
	w := newWorldOn(t, s)
	s.on("CompleteLists", func() error { return errors.New("not yet") })
	root := w.createCA(t, acmeAdmin, nil)
	_, err := w.PublicList(t.Context(), "acme-root-1", 0, false)
	wantFault(t, err, fault.Unavailable, "The CRL is not published yet")
	var f *fault.Error
	if errors.As(err, &f); f.RetryAfter == 0 {
		t.Error("nothing says when to ask again")
	}
	for _, missing := range []ca.ListScope{{Shard: 1}, {Shard: -1}, {Delta: true}} {
		_, err := w.PublicList(t.Context(), ca.Slug(root.Name, root.ID), missing.Shard, missing.Delta)
		wantFault(t, err, fault.NotFound, "CRL not found")
	}
}

func TestAListIsCompressedWhenThatHelps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	l, err := w.PublicList(t.Context(), "acme-root-1", 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if small := l.Gzip(); small != nil && len(small) >= len(l.DER) {
		t.Errorf("%d octets for %d", len(small), len(l.DER))
	}
	for range 20 {
		w.revoke(t, w.issue(t, acmeAdmin, root.ID), "superseded")
	}
	eventually(t, 5*time.Second, "every revocation is listed", func() bool {
		l, err = w.PublicList(t.Context(), "acme-root-1", 0, false)
		return err == nil && l.Entries == 20
	})
	if small := l.Gzip(); len(small) == 0 || len(small) >= len(l.DER) {
		t.Errorf("%d octets for %d", len(small), len(l.DER))
	}
	if &l.Gzip()[0] != &l.Gzip()[0] {
		t.Error("compressed twice")
	}
}

// backlogStore says that CA 1 has changed more than is read at once, and fails in between.
type backlogStore struct {
	ca.Store
	mu       sync.Mutex
	sequence int64
	asked    []int64 // after which sequence
	failAt   int64
}

func (s *backlogStore) RevocationStates(context.Context) ([]ca.RevocationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []ca.RevocationState{{CAID: 1, Sequence: s.sequence}}, nil
}

func (s *backlogStore) ChangedSerials(_ context.Context, _, after int64, limit int) (all []ca.RevokedEntry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, after)
	if after == s.failAt {
		s.failAt = -1
		return nil, errMuted
	}
	for n := after + 1; n <= min(after+int64(limit), s.sequence); n++ {
		all = append(all, ca.RevokedEntry{Serial: "1", Sequence: n})
	}
	return all, nil
}

func TestALongBacklogIsNotToldAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	s := &backlogStore{Store: first.store, sequence: 100, failAt: 10100}
	w := first.replica(func(c *ca.Config) { c.Store = s })
	w.run(t)
	time.Sleep(500 * time.Millisecond) // the first look: what was before is no news
	s.mu.Lock()
	s.sequence = 20000
	s.mu.Unlock()
	want := []int64{100, 5100, 10100, 10100, 15100}
	eventually(t, 5*time.Second, "everything is told once", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Equal(s.asked, want)
	})
}

func TestAnswersFromBeforeTheFirstLookAreNotKept(t *testing.T) {
	t.Parallel()
	all, _ := replicas(t, 2, time.Minute)
	root := all[0].createCA(t, superuser, nil)
	var certs []ca.Issued
	for range 100 {
		certs = append(certs, all[0].issue(t, superuser, root.ID))
	}
	if got := all[1].status(t, root, certs[0].Serial); got.Status != ocsp.Good {
		t.Fatalf("status %d", got.Status)
	}
	for _, c := range certs {
		all[0].revoke(t, c, "superseded")
	}
	all[1].run(t)
	eventually(t, time.Second, "it is revoked", func() bool { return all[1].status(t, root, certs[0].Serial).Status == ocsp.Revoked })
}

func TestAFailureOfOneCADoesNotKeepTheListOfAnother(t *testing.T) {
	t.Parallel()
	all, stores := replicas(t, 2, time.Minute)
	one := all[0].createCA(t, superuser, nil)
	two := all[0].createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN = "Two", "CN=Two" })
	certs := []ca.Issued{all[0].issue(t, superuser, one.ID), all[0].issue(t, superuser, two.ID)}
	all[0].run(t)
	eventually(t, 10*time.Second, "the first leads", all[0].Leads)
	all[1].run(t)
	all[1].crl(t, one)
	time.Sleep(500 * time.Millisecond)
	all[1].crl(t, one)

	stores[1].all.Store(true) // so that one look finds both
	stores[1].failing.Store(two.ID)
	for _, c := range certs {
		all[0].revoke(t, c, "superseded")
	}
	eventually(t, 5*time.Second, "the list is published", func() bool { return len(all[0].crl(t, one).RevokedCertificateEntries) == 1 })
	stores[1].all.Store(false)
	eventually(t, 2*time.Second, "the other replica serves it", func() bool { return len(all[1].crl(t, one).RevokedCertificateEntries) == 1 })
}

func TestAReplicaThatDoesNotPublishShowsWhatItRevoked(t *testing.T) {
	t.Parallel()
	for name, delta := range map[string]bool{"complete lists": false, "deltas": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := replicas(t, 2, 10*time.Second)
			root := all[0].createCA(t, acmeAdmin, nil)
			all[0].set(t, root, ca.RevocationPolicy{Delta: delta})
			for _, w := range all {
				w.run(t)
			}
			eventually(t, 5*time.Second, "one leads", func() bool { return len(leaders(all)) == 1 })
			follower := all[1-leaders(all)[0]]
			eventually(t, 5*time.Second, "there is a list", func() bool {
				_, err := follower.PublicList(t.Context(), ca.Slug(root.Name, root.ID), 0, delta)
				return err == nil
			})
			for range 3 {
				time.Sleep(time.Second) // the publisher's interval
				cert := follower.issue(t, acmeAdmin, root.ID)
				follower.revoke(t, cert, "keyCompromise")
				start := time.Now()
				if _, listed := entry(follower.list(t, root, 0, delta), cert.Serial); !listed {
					t.Errorf("the list after a revocation lacks it, after %s", time.Since(start))
				}
			}
		})
	}
}
