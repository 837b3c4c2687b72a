package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/store"
	"signet/store/pgtest"
)

// bare makes the URL of a database without schema.
var bare = map[string]func(t testing.TB) string{
	"SQLite":     func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "signet.db") },
	"PostgreSQL": pgtest.Database,
}

func TestMigrationKeepsTheDataOfEveryVersion(t *testing.T) {
	t.Parallel()
	for name, url := range bare {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t, store.Config{URL: url(t)})
			last, to := db.MigrationSteps(t)
			if last < 2 {
				t.Fatalf("there are only %d versions", last)
			}
			to(1)
			db.InsertVersion1(t)
			for version := int64(1); version <= last; version++ {
				to(version)
				current, needed, err := db.SchemaVersion(context.Background())
				if err != nil || current != version || needed != last {
					t.Fatalf("schema has version %d of %d, %v; want %d of %d", current, needed, err, version, last)
				}
				db.CheckVersion1(t)
			}
		})
	}
}

func TestMigrationKeepsReservationsAndCounts(t *testing.T) {
	t.Parallel()
	for name, url := range bare {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			db := open(t, store.Config{URL: url(t)})
			last, to := db.MigrationSteps(t)
			to(1)
			db.InsertVersion1(t)
			to(4)
			db.InsertPending(t, 1, "6f", "7f", "8f")
			to(last)
			db.CheckCounts(t)
			if c, err := db.Complete(ctx, 5, []byte("certificate"), nil, audit.Event{Action: audit.CertCreate}); err != nil || c.Serial != "7f" {
				t.Errorf("a reservation of the version before was completed as %+v, %v", c, err)
			}
			c := draft(1)
			c.Serial = "6f"
			if _, err := db.Reserve(ctx, c, reserved); !fault.Is(err, fault.Conflict) {
				t.Errorf("a serial number that was reserved before: %v", err)
			}
			if id, err := db.Reserve(ctx, draft(1), reserved); err != nil || id <= 6 {
				t.Errorf("the next id is %d, %v", id, err)
			}
			n, err := db.Abandon(ctx, time.Date(2026, 3, 1, 12, 0, 1, 0, time.UTC), time.Now())
			if err != nil || n != 2 {
				t.Errorf("%d reservations were abandoned, %v; want 2", n, err)
			}
			db.CheckCounts(t)
		})
	}
}

func TestMigrationKeepsWhatWasRevokedAndPublished(t *testing.T) {
	t.Parallel()
	for name, url := range bare {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, day := t.Context(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			db := open(t, store.Config{URL: url(t)})
			last, to := db.MigrationSteps(t)
			to(3)
			db.InsertVersion1(t)
			der := octets(5 << 19)
			db.ReplaceVersion1List(t, der)
			to(last)

			states, err := db.RevocationStates(ctx)
			if want := []ca.RevocationState{{CAID: 1, Sequence: 3, CRLNumber: 2}, {CAID: 2}}; err != nil || !slices.Equal(states, want) {
				t.Errorf("states are %+v, %v; want %+v", states, err, want)
			}
			want := map[string]int{"2f": 1, "3f": 0, "4f": 5} // reasons
			got := map[string]int{}
			for e, err := range db.RevokedEntries(ctx, 1, 0, -1, day) {
				if err != nil || !e.At.Equal(day) || !e.NotAfter.Equal(day) || e.Sequence != 0 || e.Released || !e.InvalidityDate.IsZero() {
					t.Errorf("entry is %+v, %v", e, err)
				}
				got[e.Serial] = e.Reason
			}
			if !maps.Equal(got, want) {
				t.Errorf("ledger is %v, want %v", got, want)
			}

			list, until, err := db.CurrentList(ctx, ca.ListScope{CAID: 1}, day)
			sum := sha256.Sum256(der)
			if err != nil || list.Number != 1 || list.Sequence != 2 || list.Entries != 2 || list.Size != int64(len(der)) || !until.IsZero() ||
				!bytes.Equal(list.SHA256, sum[:]) {
				t.Errorf("current list is %d with %d octets until %v, %v", list.Number, list.Size, until, err)
			}
			if !bytes.Equal(list.DER, der) {
				t.Error("the list has other octets now")
			}
			scopes, err := db.ListScopes(ctx, day)
			if err != nil || len(scopes) != 2 || scopes[0].Changed != 3 || scopes[0].Current == nil || scopes[1].Current != nil {
				t.Errorf("scopes are %+v, %v", scopes, err)
			}
			if next, err := db.BeginList(ctx, ca.ListScope{CAID: 1}, day); err != nil || next.Number != 3 || next.Sequence != 3 {
				t.Errorf("next list is %+v, %v", next, err)
			}
		})
	}
}

func TestMigrationByProcessesThatStartTogetherHappensOnce(t *testing.T) {
	t.Parallel()
	for name, url := range bare {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := url(t)
			var wg sync.WaitGroup
			errs := make([]error, 4)
			for i := range errs {
				wg.Go(func() { errs[i] = migrate(u) })
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			validCA(t, open(t, store.Config{URL: u}))
		})
	}
}

func TestMigrationRefusesASchemaThatIsNewer(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		if err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // the database may serve another test
			if err := db.Exec("DELETE FROM goose_db_version WHERE version_id = 999"); err != nil {
				t.Error(err)
			}
		})
		err := db.Migrate(context.Background())
		if err == nil || !strings.Contains(err.Error(), "version 999") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestAuditLogIsAppendOnly(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		validCA(t, db)
		for _, statement := range []string{"UPDATE audit_log SET detail = 'x'", "DELETE FROM audit_log"} {
			if err := db.Exec(statement); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: error is %v", statement, err)
			}
		}
	})
}
