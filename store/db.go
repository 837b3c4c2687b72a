// Package store keeps Signet's records in PostgreSQL or SQLite.
//
// What must never happen: a record without its audit event, or an event without its record; a serial number, a CRL
// number or an id given out twice; a single-use token used twice; an answer that a crash takes back. Whatever must be
// unique or happen once is decided by the database, in a constraint or a conditional statement, so that any number of
// processes may share one.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"signet/ca"
	"signet/fault"
	"signet/identity"
)

// Config is what Open needs.
type Config struct {
	// URL is postgres://… (what libpq understands), or sqlite:PATH.
	URL string
	// MaxConnections bounds the connections to PostgreSQL, three that commit in groups aside, or the concurrent readers of
	// SQLite; 0 means 16.
	MaxConnections int
	// Now dates audit entries and updates; nil means time.Now.
	Now func() time.Time
	// Observe, if set, is told how long each operation took and how it ended. Operations are the methods of
	// ca.Store and identity.Store by name, and "Commit" for one group of reservations, completions or revocations.
	Observe func(op string, took time.Duration, err error)
}

// DB is a ca.Store and an identity.Store. It is safe for concurrent use.
type DB struct {
	now     func() time.Time
	observe func(op string, took time.Duration, err error)
	dialect dialect
	writer  *gorm.DB
	reader  *gorm.DB // the same as writer on PostgreSQL
	pools   []*sql.DB
	commits *sql.DB // the one of pools that the committers have
	readers *sql.DB // the one of reader
	closed  atomic.Bool
	silent  atomic.Bool // it did not answer the last time

	reserves, completes, revokes *committer // the same one on SQLite, which has one writer anyway

	sample atomic.Pointer[sample] // of certificates, for searches

	issueStripe, stripe int // of certificate_counts: that of what is issued, and that of every other change
}

var (
	_ ca.Store       = (*DB)(nil)
	_ identity.Store = (*DB)(nil)
)

type dialect string

const (
	onPostgres dialect = "postgres"
	onSQLite   dialect = "sqlite"
)

// Open connects to a database and checks that it answers. It does not change the schema: see [DB.Migrate].
// The error is a *fault.Error with code Unavailable when the database is not there.
func Open(ctx context.Context, c Config) (*DB, error) {
	db := &DB{now: c.Now, observe: c.Observe}
	if db.now == nil {
		db.now = time.Now
	}
	if db.observe == nil {
		db.observe = func(string, time.Duration, error) {}
	}
	if c.MaxConnections <= 0 {
		c.MaxConnections = 16
	}
	var err error
	if path, ok := strings.CutPrefix(c.URL, "sqlite:"); ok {
		err = db.openSQLite(path, c.MaxConnections)
	} else if strings.HasPrefix(c.URL, "postgres://") || strings.HasPrefix(c.URL, "postgresql://") {
		err = db.openPostgres(c.URL, c.MaxConnections)
	} else {
		return nil, errors.New("open database: the URL must start with postgres:// or sqlite:")
	}
	if err == nil {
		err = db.Ping(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", classify(err)), db.closePools())
	}
	db.startCommitters()
	return db, nil
}

// gormDB puts GORM on a pool. PrepareStmt stays off: the drivers below cache their statements.
func gormDB(d gorm.Dialector) (*gorm.DB, error) {
	return gorm.Open(d, &gorm.Config{
		SkipDefaultTransaction: true, DisableAutomaticPing: true, DisableNestedTransaction: true, Logger: logger.Discard,
	})
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	for _, pool := range db.pools {
		if err := pool.PingContext(ctx); err != nil {
			return classify(err)
		}
	}
	return nil
}

// Close ends what was begun and disconnects. Calls after it fail.
func (db *DB) Close() error {
	db.closed.Store(true)
	for _, c := range []*committer{db.reserves, db.completes, db.revokes} {
		c.close()
	}
	return db.closePools()
}

func (db *DB) closePools() error {
	var errs []error
	for _, pool := range db.pools {
		errs = append(errs, pool.Close())
	}
	return errors.Join(errs...)
}

// read runs a query, again if a migration came between. It must not leave anything behind that a second run would trip
// over.
func (db *DB) read(ctx context.Context, op string, query func(q *gorm.DB) error) (err error) {
	start := time.Now()
	defer func() { db.observe(op, time.Since(start), err) }()
	return db.patiently(ctx, func(ctx context.Context) error { return query(db.reader.WithContext(ctx)) })
}

// write runs a transaction, again if it lost against another one. The function may therefore run more than once and
// must not leave anything behind that a second run would trip over.
func (db *DB) write(ctx context.Context, op string, change func(tx *gorm.DB) error) (err error) {
	start := time.Now()
	defer func() { db.observe(op, time.Since(start), err) }()
	return db.patiently(ctx, func(ctx context.Context) error { return db.writer.WithContext(ctx).Transaction(change) })
}

// classify is the function of that name, which cannot know what a closed pool answers.
func (db *DB) classify(err error) error {
	err = classify(err)
	if err == nil || !db.closed.Load() || fault.CodeOf(err) != fault.Internal || errors.Is(err, context.Canceled) {
		return err
	}
	return fault.Wrap(errClosed.Code, errClosed.Message, err)
}

// page restricts a list ordered by id.
func page(q *gorm.DB, after int64, skip, limit int) *gorm.DB {
	if after > 0 {
		q = q.Where("id > ?", after)
	}
	return q.Order("id").Offset(max(skip, 0)).Limit(max(limit, 0))
}
