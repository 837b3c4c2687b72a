package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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
