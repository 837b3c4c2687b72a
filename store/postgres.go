package store

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
)

func (db *DB) openPostgres(url string, connections int) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("read database URL: %w", err) // pgx leaves the password out
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	defaults := map[string]string{
		"application_name": "signet",
		// A replica that hangs in a transaction must not keep its locks for ever.
		"idle_in_transaction_session_timeout": "60s",
	}
	for name, value := range defaults {
		if _, given := config.RuntimeParams[name]; !given {
			config.RuntimeParams[name] = value
		}
	}
	pool := stdlib.OpenDB(*config)
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	db.pools = append(db.pools, pool)
	db.dialect = onPostgres
	db.writer, err = gormDB(postgres.New(postgres.Config{Conn: pool}))
	db.reader = db.writer
	return err
}
