package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations
var migrations embed.FS

// migrationLock is the advisory lock of Signet's migrations in PostgreSQL. Never change it: replicas of different
// versions must exclude each other.
const migrationLock = 0x5369676e6574

func (db *DB) migrator() (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations/"+string(db.dialect))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	if db.dialect == onSQLite {
		return goose.NewProvider(goose.DialectSQLite3, db.pools[0], files)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, fmt.Errorf("prepare migration lock: %w", err)
	}
	return goose.NewProvider(goose.DialectPostgres, db.pools[0], files, goose.WithSessionLocker(locker))
}

// Migrate brings the schema to the version of this program, each step in a transaction of its own. Of processes that
// start together one does the work and the others wait. It refuses a schema that is newer than the program.
func (db *DB) Migrate(ctx context.Context) error {
	m, err := db.migrator()
	if err != nil {
		return err
	}
	return db.migrate(ctx, m)
}

func (db *DB) migrate(ctx context.Context, m *goose.Provider) error {
	for last := int64(-1); ; {
		_, err := m.Up(ctx)
		current, latest, versionErr := m.GetVersions(ctx)
		switch {
		case versionErr != nil:
			return fmt.Errorf("migrate database: %w", classify(versionErr))
		case current > latest:
			return fmt.Errorf("migrate database: its schema has version %d, this program knows %d: use a newer program", current, latest)
		case err == nil:
			return nil
		// SQLite has no lock that spans the steps. When another process was faster with a step, this one failed and
		// was undone: go on from there, as long as there is progress.
		case db.dialect == onPostgres || current <= last:
			return fmt.Errorf("migrate database: %w", classify(err))
		}
		last = current
	}
}

// SchemaVersion returns the version of the database's schema and the version that this program needs.
func (db *DB) SchemaVersion(ctx context.Context) (current, needed int64, err error) {
	m, err := db.migrator()
	if err != nil {
		return 0, 0, err
	}
	current, needed, err = m.GetVersions(ctx)
	return current, needed, classify(err)
}
