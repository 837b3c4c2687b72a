package store_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"signet/ca"
	"signet/ca/catest"
	"signet/identity"
	"signet/identity/identitytest"
	"signet/store"
	"signet/store/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// databases are the ways to keep records; each makes the URL of a new, migrated database.
var databases = map[string]func(t testing.TB) string{
	"SQLite":     sqliteURL,
	"PostgreSQL": func(t testing.TB) string { return pgtest.Prepared(t, migrate) },
}

func sqliteURL(t testing.TB) string {
	url := "sqlite:" + filepath.Join(t.TempDir(), "signet.db")
	if err := migrate(url); err != nil {
		t.Fatal(err)
	}
	return url
}

func migrate(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := store.Open(ctx, store.Config{URL: url})
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	return db.Close()
}

// open opens a database for the rest of the test.
func open(t testing.TB, config store.Config) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// onEach runs a test on an empty store in each database.
func onEach(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t, store.Config{URL: url(t), MaxConnections: 8}))
		})
	}
}

func TestStoreKeepsTheContractOfCA(t *testing.T) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			catest.Suite(t, func(t *testing.T) ca.Store { return open(t, store.Config{URL: url(t), MaxConnections: 8}) })
		})
	}
}

func TestStoreKeepsTheContractOfIdentity(t *testing.T) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			identitytest.Suite(t, func(t *testing.T) identity.Store { return open(t, store.Config{URL: url(t), MaxConnections: 8}) })
		})
	}
}
