package store_test

import (
	"slices"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/store"
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
