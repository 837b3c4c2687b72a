package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"signet/store"
)

// openDatabase connects to the configured database and brings its schema up to date.
func openDatabase(ctx context.Context, c *Config, log *slog.Logger, now func() time.Time, observe func(op string, took time.Duration, err error)) (*store.DB, error) {
	url, err := c.databaseURL(log)
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{URL: url, Now: now, Observe: observe})
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if indexed, err := db.NamesIndexed(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	} else if !indexed {
		log.Warn("the database has no index of names, because it lacks pg_trgm or the right to use it: searches look through all certificates",
			"see", "docs/size.md")
	}
	return db, nil
}

// migrateCommand is for operators who change the schema apart from the start of the server, which does it too.
type migrateCommand struct{ Config }

// Run migrates and prints the version of the schema.
func (c *migrateCommand) Run(in *invocation) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if err := makeDataDir(c.DataDir); err != nil {
		return err
	}
	db, err := openDatabase(in.ctx, &c.Config, c.logger(in.stderr), time.Now, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	current, _, err := db.SchemaVersion(in.ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(in.stdout, "schema version", current)
	return err
}
