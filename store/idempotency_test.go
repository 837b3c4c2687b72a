package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/idempotency"
	"signet/identity"
	"signet/policy"
	"signet/store"
)

// claims makes claims, each an attempt of its own.
type claims struct{ attempts atomic.Int64 }

func (c *claims) of(user int64, key, request string) idempotency.Claim {
	return idempotency.Claim{UserID: user, Key: sha256.Sum256([]byte(key)), Request: sha256.Sum256([]byte(request)), Attempt: c.attempts.Add(1)}
}

// shifted is a clock that is ahead.
type shifted struct{ ahead atomic.Int64 }

func (s *shifted) Now() time.Time          { return time.Now().Add(time.Duration(s.ahead.Load())) }
func (s *shifted) advance(d time.Duration) { s.ahead.Add(int64(d)) }

// claimSite is two replicas on one database, with a CA.
type claimSite struct {
	*testing.T
	claims
	shifted
	db, other *store.DB
	ca        int64
	serials   atomic.Int64
}

func onClaimSites(t *testing.T, test func(s *claimSite)) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &claimSite{T: t}
			config := store.Config{URL: url(t), MaxConnections: 8, Now: s.Now}
			s.db, s.other = open(t, config), open(t, config)
			s.ca = s.authority(t.Context(), s.db)
			test(s)
		})
	}
}

func (s *claimSite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// authority makes a CA, complete in the given context.
func (s *claimSite) authority(ctx context.Context, db *store.DB) int64 {
	s.Helper()
	id, err := s.tryAuthority(ctx, db)
	s.ok(err)
	return id
}

func (s *claimSite) tryAuthority(ctx context.Context, db *store.DB) (int64, error) {
	n := s.serials.Add(1)
	c, err := db.CreateCA(ctx, ca.CA{Name: "CA", SubjectDN: "CN=CA", KeyType: policy.EC, KeySize: 256, AllowLeafCerts: true, State: ca.Pending,
		KeyID: fmt.Appendf(nil, "key %d", n), NotBefore: s.Now(), NotAfter: s.Now().Add(time.Hour)}, audit.Event{Action: audit.CAReserve})
	if err != nil {
		return 0, err
	}
	c.PublicKey, c.Serial, c.TBS = fmt.Appendf(nil, "public %d", n), fmt.Sprintf("a%d", n), []byte("tbs")
	if err := db.ReserveCA(ctx, c, audit.Event{Action: audit.CAReserve}); err != nil {
		return 0, err
	}
	_, err = db.CompleteCA(ctx, c.ID, []byte("der"), audit.Event{Action: audit.CACreate})
	return c.ID, err
}

func (s *claimSite) reserve(db *store.DB) int64 {
	s.Helper()
	n := s.serials.Add(1)
	id, err := db.Reserve(s.Context(), ca.Certificate{IssuerID: s.ca, Type: policy.Server, KeyType: policy.EC, Serial: fmt.Sprintf("b%d", n), TBS: []byte("tbs"),
		NotBefore: s.Now(), NotAfter: s.Now().Add(time.Hour)}, audit.Event{Action: audit.CertReserve})
	s.ok(err)
	return id
}

func (s *claimSite) complete(db *store.DB, c *idempotency.Claim, id int64) error {
	ctx := s.Context()
	if c != nil {
		ctx = idempotency.With(ctx, *c)
	}
	_, err := db.Complete(ctx, id, []byte("der"), nil, audit.Event{Action: audit.CertCreate})
	return err
}

func (s *claimSite) claim(db *store.DB, c idempotency.Claim) {
	s.Helper()
	if id, err := db.ClaimRequest(s.Context(), c); id != 0 || err != nil {
		s.Fatalf("claim: result %d, %v", id, err)
	}
}

func (s *claimSite) has(c idempotency.Claim, want int64) {
	s.Helper()
	for _, db := range []*store.DB{s.db, s.other} {
		if id, err := db.ClaimRequest(s.Context(), c); id != want || err != nil {
			s.Errorf("the claim has result %d, %v; want %d", id, err, want)
		}
	}
}

// inFlight checks that another attempt has the claim.
func (s *claimSite) inFlight(c idempotency.Claim) {
	s.Helper()
	id, err := s.other.ClaimRequest(s.Context(), c)
	var f *fault.Error
	if id != 0 || !errors.As(err, &f) || f.Code != fault.Conflict || f.RetryAfter < time.Second {
		s.Errorf("claim: result %d, %v; want a conflict that says when to try again", id, err)
	}
}

func TestAClaimIsCompletedByWhatIsMade(t *testing.T) {
	onClaimSites(t, func(s *claimSite) {
		for name, make := range map[string]func(ctx context.Context) (int64, error){
			"certificate": func(ctx context.Context) (int64, error) {
				id := s.reserve(s.db)
				_, err := s.db.Complete(ctx, id, []byte("der"), []byte("sealed"), audit.Event{Action: audit.CertCreate})
				return id, err
			},
			"CA": func(ctx context.Context) (int64, error) { return s.tryAuthority(ctx, s.db) },
			"user": func(ctx context.Context) (int64, error) {
				u, err := s.db.CreateUser(ctx, identity.User{Username: fmt.Sprint("user", s.serials.Add(1)), Email: fmt.Sprint(s.serials.Add(1))}, audit.Event{Action: audit.UserCreate})
				return u.ID, err
			},
			"organization": func(ctx context.Context) (int64, error) {
				o, err := s.db.CreateOrganization(ctx, identity.Organization{Name: fmt.Sprint("org", s.serials.Add(1))}, audit.Event{Action: audit.OrgCreate})
				return o.ID, err
			},
		} {
			first := s.of(1, name, "request")
			s.claim(s.db, first)
			s.inFlight(s.of(1, name, "request"))
			id, err := make(idempotency.With(s.Context(), first))
			s.ok(err)
			s.has(s.of(1, name, "request"), id)

			// An attempt without the claim makes nothing, and leaves no event.
			before := s.events()
			lost := s.of(1, name, "request")
			if _, err := make(idempotency.With(s.Context(), lost)); !errors.Is(err, idempotency.ErrLost) {
				s.Errorf("%s: without the claim: %v", name, err)
			}
			for action, n := range s.events() {
				if n != before[action] && action != audit.CertReserve && action != audit.CAReserve {
					s.Errorf("%s: the lost attempt left an event %s", name, action)
				}
			}
			s.has(s.of(1, name, "request"), id)
			s.ok(s.db.ReleaseClaim(s.Context(), lost))
			s.ok(s.db.ReleaseClaim(s.Context(), first)) // it made something: nothing to release
			s.has(s.of(1, name, "request"), id)
		}
	})
}

// events counts the audit trail by action.
func (s *claimSite) events() map[audit.Action]int {
	s.Helper()
	entries, _, err := s.db.AuditLog(s.Context(), audit.Filter{Limit: 1000})
	s.ok(err)
	n := map[audit.Action]int{}
	for _, e := range entries {
		n[e.Action]++
	}
	return n
}

func TestAKeyIsOfOneUserAndOneRequest(t *testing.T) {
	onClaimSites(t, func(s *claimSite) {
		first := s.of(1, "key", "request")
		s.claim(s.db, first)
		for _, when := range []string{"in flight", "done"} {
			if _, err := s.other.ClaimRequest(s.Context(), s.of(1, "key", "another request")); !errors.Is(err, idempotency.ErrReused) {
				s.Errorf("%s: another request with the key: %v", when, err)
			}
			if when == "in flight" {
				s.ok(s.complete(s.db, &first, s.reserve(s.db)))
			}
		}
		s.claim(s.db, s.of(2, "key", "another request"))
		s.claim(s.db, s.of(1, "another key", "request"))
	})
}

func TestAReleasedKeyIsFree(t *testing.T) {
	onClaimSites(t, func(s *claimSite) {
		first := s.of(1, "key", "request")
		s.claim(s.db, first)
		s.ok(s.db.ReleaseClaim(s.Context(), first))
		second := s.of(1, "key", "a corrected request")
		s.claim(s.other, second)
		s.ok(s.db.ReleaseClaim(s.Context(), first)) // it is another's by now
		s.inFlight(s.of(1, "key", "a corrected request"))
		if err := s.complete(s.db, &first, s.reserve(s.db)); !errors.Is(err, idempotency.ErrLost) {
			s.Errorf("an attempt that had released its claim: %v", err)
		}
		s.ok(s.complete(s.db, &second, s.reserve(s.db)))
	})
}

// The process of the first attempt seems to have died, but it goes on as soon as another one has taken its place.
func TestAClaimIsTakenOverOnceAndTheAttemptBeforeMakesNothing(t *testing.T) {
	onClaimSites(t, func(s *claimSite) {
		first := s.of(1, "key", "request")
		s.claim(s.db, first)
		reserved := s.reserve(s.db)
		s.advance(idempotency.Lease - time.Minute)
		s.inFlight(s.of(1, "key", "request"))
		s.advance(2 * time.Minute)
		if _, err := s.db.ClaimRequest(s.Context(), s.of(1, "key", "another request")); !errors.Is(err, idempotency.ErrReused) {
			s.Errorf("another request takes the key of a dead one: %v", err)
		}

		var group sync.WaitGroup
		var taken atomic.Int64
		var second idempotency.Claim
		for i := range 16 {
			c := s.of(1, "key", "request")
			db := []*store.DB{s.db, s.other}[i%2]
			group.Go(func() {
				switch _, err := db.ClaimRequest(s.Context(), c); {
				case err == nil:
					taken.Add(1)
					second = c
				case !fault.Is(err, fault.Conflict):
					s.Error(err)
				}
			})
		}
		group.Wait()
		if taken.Load() != 1 {
			s.Fatalf("the claim was taken over %d times", taken.Load())
		}
		if err := s.complete(s.db, &first, reserved); !errors.Is(err, idempotency.ErrLost) {
			s.Errorf("the first attempt completes: %v", err)
		}
		id := s.reserve(s.other)
		s.ok(s.complete(s.other, &second, id))
		s.has(s.of(1, "key", "request"), id)
		if err := s.complete(s.db, &first, reserved); !errors.Is(err, idempotency.ErrLost) {
			s.Errorf("the first attempt completes: %v", err)
		}
		if n := s.events()[audit.CertCreate]; n != 1 {
			s.Errorf("%d certificates", n)
		}
	})
}

func TestAKeyIsFreeAfterADay(t *testing.T) {
	onClaimSites(t, func(s *claimSite) {
		first := s.of(1, "key", "request")
		s.claim(s.db, first)
		id := s.reserve(s.db)
		s.ok(s.complete(s.db, &first, id))
		s.advance(idempotency.Lifetime - time.Minute)
		s.ok(s.db.PruneClaims(s.Context()))
		s.has(s.of(1, "key", "request"), id)
		s.advance(2 * time.Minute)
		s.claim(s.db, s.of(1, "key", "another request")) // also when nobody pruned it
		s.ok(s.db.PruneClaims(s.Context()))
		s.inFlight(s.of(1, "key", "another request"))
		s.advance(idempotency.Lifetime + time.Minute)
		s.ok(s.db.PruneClaims(s.Context()))
		s.claim(s.db, s.of(1, "key", "a third request"))
	})
}

func TestTheClaimsOfAnEarlierRunEnd(t *testing.T) {
	onClaimSites(t, func(s *claimSite) {
		done, dead := s.of(1, "done", "request"), s.of(1, "dead", "request")
		s.claim(s.db, done)
		id := s.reserve(s.db)
		s.ok(s.complete(s.db, &done, id))
		s.claim(s.db, dead)
		s.ok(s.db.EndClaims(s.Context()))
		if _, err := s.db.ClaimRequest(s.Context(), s.of(1, "dead", "another request")); !errors.Is(err, idempotency.ErrReused) {
			s.Errorf("another request takes the key of a dead one: %v", err)
		}
		s.claim(s.db, s.of(1, "dead", "request"))
		s.has(s.of(1, "done", "request"), id)
	})
}

// Completions with and without claims, lost ones and such whose reservation is gone, share groups.
func TestAGroupOfCompletionsDoesNotMixTheirClaims(t *testing.T) {
	onClaimSites(t, func(s *claimSite) {
		const n = 120
		claims, reserved, errs := make([]*idempotency.Claim, n), make([]int64, n), make([]error, n)
		for i := range n {
			reserved[i] = s.reserve(s.db)
			if i%4 == 0 {
				continue // no claim
			}
			c := s.of(1, fmt.Sprint(i), "request")
			s.claim(s.db, c)
			claims[i] = &c
			switch i % 4 {
			case 2:
				s.ok(s.db.ReleaseClaim(s.Context(), c))
			case 3:
				reserved[i] = -int64(i)
			}
		}
		var group sync.WaitGroup
		for i := range n {
			group.Go(func() { errs[i] = s.complete(s.db, claims[i], reserved[i]) })
		}
		group.Wait()
		for i, err := range errs {
			switch {
			case i%4 < 2 && err != nil:
				s.Errorf("completion %d: %v", i, err)
			case i%4 >= 2 && !errors.Is(err, idempotency.ErrLost):
				s.Errorf("completion %d, which is lost: %v", i, err)
			}
			switch i % 4 {
			case 1:
				s.has(s.of(1, fmt.Sprint(i), "request"), reserved[i])
			case 3:
				s.inFlight(s.of(1, fmt.Sprint(i), "request")) // and nothing was recorded
			}
		}
		if n := s.events()[audit.CertCreate]; n != 60 {
			s.Errorf("%d certificates were completed, want 60", n)
		}
	})
}

func TestOfClaimsAtOnceOneWins(t *testing.T) {
	onClaimSites(t, func(s *claimSite) {
		for round := range 10 {
			key := fmt.Sprint("key", round)
			var group sync.WaitGroup
			var won atomic.Int64
			for i := range 32 {
				c := s.of(1, key, "request")
				db := []*store.DB{s.db, s.other}[i%2]
				group.Go(func() {
					switch id, err := db.ClaimRequest(s.Context(), c); {
					case err == nil && id == 0:
						won.Add(1)
					case !fault.Is(err, fault.Conflict):
						s.Errorf("result %d, %v", id, err)
					}
				})
			}
			group.Wait()
			if won.Load() != 1 {
				s.Errorf("%d attempts have the claim", won.Load())
			}
		}
	})
}
