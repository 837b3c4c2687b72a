package store

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
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
		// A replica that hangs or is cut off in a transaction must not keep its locks until others have waited for them in vain.
		"idle_in_transaction_session_timeout": strconv.FormatInt((patience / 2).Milliseconds(), 10),
	}
	for name, value := range defaults {
		if _, given := config.RuntimeParams[name]; !given {
			config.RuntimeParams[name] = value
		}
	}
	hosts := hostsOf(config)
	pool := db.pool(hosts.connector(config), connections)
	db.commits = db.pool(hosts.connector(forGroups(config)), committers)
	db.dialect, db.readers = onPostgres, pool
	db.issueStripe, db.stripe = rand.IntN(issueStripes), issueStripes+rand.IntN(otherStripes)
	db.writer, err = gormDB(postgres.New(postgres.Config{Conn: pool}))
	db.reader = db.writer
	return err
}

func (db *DB) pool(connector driver.Connector, connections int) *sql.DB {
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	db.pools = append(db.pools, pool)
	return pool
}

// committers is how many groups are committed at the same time: reservations, completions and revocations.
const committers = 3

// forGroups is the configuration of connections for the statements of groups. Each has one plan, made once, that finds every
// row through an index, whatever the statistics said of tables that were empty a minute ago.
func forGroups(config *pgx.ConnConfig) *pgx.ConnConfig {
	config = config.Copy()
	for _, name := range []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"} {
		config.RuntimeParams[name] = "off"
	}
	config.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	return config
}
