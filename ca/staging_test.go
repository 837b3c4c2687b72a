package ca_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"signet/ca"
	"signet/policy"
)

// outagePolicy makes lists of six hours, which are signed ahead five hours apart.
func outagePolicy(from, until time.Time) ca.RevocationPolicy {
	return ca.RevocationPolicy{CRLValidity: 6 * time.Hour, CRLRefresh: time.Hour, CRLOverlap: time.Hour, Outage: ca.Outage{From: from, Until: until}}
}

// signedUntil is when the last published list of a scope ends that follows outagePolicy.
func (w *world) signedUntil(t testing.TB, s ca.ListScope) (until time.Time) {
	t.Helper()
	for _, l := range w.lists(t, ca.CA{ID: s.CAID}) {
		if l.ListScope == s && l.State == ca.ListPublished && l.NextUpdate.Sub(l.ThisUpdate) == 6*time.Hour {
			until = l.NextUpdate
		}
	}
	return until
}

func TestListsOfAnOutageAreSignedAheadAndReleasedByTime(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*ca.RevocationPolicy){
		"complete lists": func(*ca.RevocationPolicy) {},
		"deltas":         func(p *ca.RevocationPolicy) { p.Delta = true },
		"shards":         func(p *ca.RevocationPolicy) { p.Shards = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			root := w.createCA(t, acmeAdmin, nil)
			cert := w.issue(t, acmeAdmin, root.ID)
			w.revoke(t, cert, "superseded")
			w.crl(t, root)
			from := w.clock.Now().Add(2 * time.Hour)
			until := from.Add(3 * 24 * time.Hour)
			p := outagePolicy(from, until)
			change(&p)
			stop := w.run(t)
			w.set(t, root, p)
			var scopes []ca.ListScope
			for shard := range p.Shards + 1 {
				scopes = append(scopes, ca.ListScope{CAID: root.ID, Shard: shard})
				if p.Delta {
					scopes = append(scopes, ca.ListScope{CAID: root.ID, Shard: shard, Delta: true})
				}
			}
			staged := func() bool {
				return !slices.ContainsFunc(scopes, func(s ca.ListScope) bool { return !w.signedUntil(t, s).After(until) })
			}
			eventually(t, 10*time.Second, "lists are signed until the end of the outage", staged)
			eventually(t, 20*time.Second, "and answers", func() bool { return w.answered(t, root, cert.Serial, from, until) })

			w.keys.setAway(true)
			w.clock.advance(2 * time.Hour)
			count, numbers := len(w.lists(t, root)), map[ca.ListScope]int64{}
			for ; w.clock.Now().Before(until); w.clock.advance(30 * time.Minute) {
				for _, s := range scopes {
					list := w.list(t, root, s.Shard, s.Delta)
					if now := w.clock.Now(); list.ThisUpdate.After(now) || !list.NextUpdate.After(now) {
						t.Fatalf("%+v at %s: list %v from %s until %s", s, now, list.Number, list.ThisUpdate, list.NextUpdate)
					}
					if n := list.Number.Int64(); n < numbers[s] {
						t.Fatalf("%+v: number %d after %d", s, n, numbers[s])
					}
					numbers[s] = list.Number.Int64()
				}
				if _, listed := entry(w.list(t, root, cert.CRLShard, false), cert.Serial); !listed {
					t.Fatal("a list that was signed ahead lacks what was revoked before")
				}
			}
			w.clock.advance(-time.Minute)
			time.Sleep(1100 * time.Millisecond) // the schedule looks
			stop()
			for len(w.failed) > 0 {
				if err := <-w.failed; strings.HasPrefix(err.Error(), "crl: ") {
					t.Errorf("an outage that was declared is reported: %v", err)
				}
			}
			if n := len(w.lists(t, root)); n != count {
				t.Errorf("%d lists after the outage, %d before", n, count)
			}
			w.wantNumbers(t, root)

			w.keys.setAway(false)
			w.clock.advance(time.Minute)
			w.publishNow(t, root)
			if list := w.crl(t, root); !list.ThisUpdate.Equal(w.clock.Now()) {
				t.Errorf("after the outage: list of %s at %s", list.ThisUpdate, w.clock.Now())
			}
		})
	}
}

func TestAChangeWithdrawsWhatWasSignedAhead(t *testing.T) {
	t.Parallel()
	for name, delta := range map[string]bool{"complete lists": false, "deltas": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			root := w.createCA(t, acmeAdmin, nil)
			early, next, late := w.issue(t, acmeAdmin, root.ID), w.issue(t, acmeAdmin, root.ID), w.issue(t, acmeAdmin, root.ID)
			from := w.clock.Now()
			until := from.Add(24 * time.Hour)
			p := outagePolicy(from, until)
			p.Delta = delta
			w.set(t, root, p)
			w.run(t)
			eventually(t, 5*time.Second, "it leads", w.Leads)
			staged := func() bool { return w.signedUntil(t, ca.ListScope{CAID: root.ID}).After(until) }
			eventually(t, 10*time.Second, "lists are signed until the end of the outage", staged)

			w.revoke(t, early, "keyCompromise")
			if _, listed := entry(w.crl(t, root), early.Serial); !listed {
				t.Fatal("a revocation while the token signs is not listed at once")
			}
			w.revoke(t, next, "keyCompromise") // when nothing is signed ahead
			w.crl(t, root)
			eventually(t, 10*time.Second, "lists are signed ahead again", staged)

			w.keys.setAway(true)
			w.revoke(t, late, "keyCompromise")
			for ; w.clock.Now().Before(until); w.clock.advance(time.Hour) {
				list := w.crl(t, root)
				if !list.NextUpdate.After(w.clock.Now()) {
					t.Fatalf("list %v ended at %s", list.Number, list.NextUpdate)
				}
				for _, cert := range []ca.Issued{early, next} {
					if _, listed := entry(list, cert.Serial); !listed {
						t.Fatalf("list %v lacks what was revoked before", list.Number)
					}
				}
			}
			w.keys.setAway(false)
			eventually(t, 35*time.Second, "what was revoked meanwhile is listed", func() bool {
				_, listed := entry(w.crl(t, root), late.Serial)
				return listed
			})
			w.wantNumbers(t, root)
			withdrawn := 0
			for _, l := range w.lists(t, root) {
				if l.State == ca.ListWithdrawn {
					withdrawn++
				}
			}
			if withdrawn == 0 {
				t.Error("nothing was withdrawn")
			}
		})
	}
}

func TestAPolicyWithdrawsNothingOfItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	w.crl(t, root)
	w.run(t)
	eventually(t, 5*time.Second, "it leads", w.Leads)
	w.clock.advance(1500 * time.Millisecond) // a list of this second would say the same thisUpdate as one of the old policy
	from := w.clock.Now()
	w.set(t, root, outagePolicy(from, from.Add(24*time.Hour)))
	staged := func() bool { return w.signedUntil(t, ca.ListScope{CAID: root.ID}).After(from.Add(24 * time.Hour)) }
	for range 12 {
		time.Sleep(100 * time.Millisecond) // the schedule looks within a second
		if staged() {
			break
		}
	}
	w.clock.advance(500 * time.Millisecond)
	eventually(t, 10*time.Second, "lists are signed until the end of the outage", staged)
	time.Sleep(1100 * time.Millisecond)
	now := 0
	for _, l := range w.lists(t, root) {
		if l.State == ca.ListWithdrawn {
			t.Errorf("list %d was withdrawn", l.Number)
		}
		if !l.ThisUpdate.After(w.clock.Now()) {
			now++
		}
	}
	if now != 2 {
		t.Errorf("%d lists for two policies", now)
	}
}

func TestWhatIsRevokedAndExpiresInAnOutageIsListedOnce(t *testing.T) {
	t.Parallel()
	for name, delta := range map[string]bool{"complete lists": false, "deltas": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			root := w.createCA(t, acmeAdmin, nil)
			cert, err := w.Issue(t.Context(), acmeAdmin, ca.IssueRequest{IssuerID: root.ID, CommonName: "short.acme.example", Type: policy.Server,
				Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 1})
			if err != nil {
				t.Fatal(err)
			}
			until := w.clock.Now().Add(3 * 24 * time.Hour)
			p := outagePolicy(w.clock.Now(), until)
			p.Delta = delta
			w.set(t, root, p)
			w.run(t)
			eventually(t, 10*time.Second, "lists are signed until the end of the outage", func() bool {
				return w.signedUntil(t, ca.ListScope{CAID: root.ID}).After(until)
			})
			w.keys.setAway(true)
			w.clock.advance(time.Hour)
			w.revoke(t, cert, "keyCompromise")
			w.clock.advance(until.Sub(w.clock.Now()))
			w.keys.setAway(false)
			listed := func() bool {
				_, listed := entry(w.crl(t, root), cert.Serial)
				return listed
			}
			eventually(t, 35*time.Second, "it is listed", listed)
			w.clock.advance(2 * time.Hour)
			eventually(t, 35*time.Second, "it has left", func() bool { return !listed() })
		})
	}
}
