package store_test

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"signet/audit"
	"signet/ca"
	"signet/store"
	"signet/store/pgtest"
)

func TestAbandonClosesTheReservationOfAResponder(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		id := validCA(t, db)
		db.InsertPendingResponder(t, id, "0c5b")
		for _, step := range []struct {
			before time.Time
			want   int
		}{{noon, 0}, {noon.Add(time.Second), 1}, {noon.Add(time.Second), 0}} {
			if n, err := db.Abandon(t.Context(), step.before, noon.Add(time.Hour)); err != nil || n != step.want {
				t.Errorf("closed %d, %v; want %d", n, err, step.want)
			}
		}
		var got []ca.RevokedEntry
		for e, err := range db.RevokedEntries(t.Context(), id, 0, -1, noon) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		if want := []ca.RevokedEntry{{Serial: "0c5b", Sequence: 1, At: noon.Add(time.Hour), NotAfter: noon.AddDate(0, 0, 14)}}; !slices.Equal(got, want) {
			t.Errorf("ledger is %+v, want %+v", got, want)
		}
		entries, _, err := db.AuditLog(t.Context(), audit.Filter{Action: audit.ResponderAbandon, Limit: 10})
		if err != nil || len(entries) != 1 || entries[0].ResourceType != audit.ResourceCA || *entries[0].ResourceID != id ||
			entries[0].Detail != "reservation of serial 0c5b was never completed" {
			t.Errorf("events are %+v, %v", entries, err)
		}
	})
}

// A token that fails for a minute leaves tens of thousands, and an operation has ten seconds.
func TestManyReservationsAreClosedInShortTransactions(t *testing.T) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var transactions atomic.Int64
			db := open(t, store.Config{URL: url(t), Observe: func(op string, _ time.Duration, _ error) {
				if op == "Abandon" {
					transactions.Add(1)
				}
			}})
			id, noon := validCA(t, db), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			const n = 2500
			db.InsertReserved(t, id, n, noon)
			if got, err := db.Abandon(t.Context(), noon, noon); got != 0 || err != nil {
				t.Errorf("%d reservations of noon are from before it, %v", got, err)
			}
			transactions.Store(0)
			if got, err := db.Abandon(t.Context(), noon.Add(time.Second), noon.Add(time.Hour)); got != n || err != nil {
				t.Fatalf("%d reservations were closed, %v; want %d", got, err, n)
			}
			if got := transactions.Load(); got != 3 {
				t.Errorf("in %d transactions, want 3", got)
			}
			db.CheckCounts(t)
			serials := map[string]int64{}
			for e, err := range db.RevokedEntries(t.Context(), id, 0, -1, noon) {
				if err != nil {
					t.Fatal(err)
				}
				serials[e.Serial] = e.Sequence
			}
			if last := slices.Max(slices.Collect(maps.Values(serials))); len(serials) != n || last != n {
				t.Errorf("the ledger has %d serial numbers up to sequence %d, want %d of both", len(serials), last, n)
			}
			if _, total, err := db.AuditLog(t.Context(), audit.Filter{Action: audit.CertAbandon, Limit: 1}); total.N != n || err != nil {
				t.Errorf("%d events, %v; want %d", total.N, err, n)
			}
		})
	}
}

func TestAReservationThatIsBeingCompletedIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	url := pgtest.Prepared(t, migrate)
	db, noon := open(t, store.Config{URL: url}), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	db.InsertReserved(t, validCA(t, db), 3, noon)
	other, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "DELETE FROM reservations WHERE id = 2"); err != nil {
		t.Fatal(err)
	}
	if n, err := db.Abandon(t.Context(), noon.Add(time.Second), noon); n != 2 || err != nil {
		t.Errorf("%d reservations were closed, %v; want 2", n, err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := db.Abandon(t.Context(), noon.Add(time.Second), noon); n != 1 || err != nil {
		t.Errorf("%d reservations were closed afterwards, %v; want 1", n, err)
	}
}
