// Package pgtest runs a throwaway PostgreSQL cluster for the tests of one test binary.
//
// Everything it makes lies in one temporary folder that only the user who runs the server (and root) may enter: the
// server listens on a socket there and nowhere else, so it needs no password. The server dies with the test binary,
// however that ends. Durability is as in production: fsync is on.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
//
//	func TestX(t *testing.T) { url := pgtest.Database(t) … }
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// state is the cluster of this test binary. It starts when a test first asks for a database.
var state struct {
	running   atomic.Bool // Run was called
	start     sync.Once
	cluster   *cluster
	err       error
	databases atomic.Int64

	prepare    sync.Once
	prepareErr error
	reset      string // SQL that empties a prepared database
	mu         sync.Mutex
	free       []string // prepared databases that no test uses
}

// Run runs the tests and then stops the cluster, if there is one. It is for TestMain; the answer is the exit code.
func Run(m *testing.M) int {
	state.running.Store(true)
	code := m.Run()
	if state.cluster == nil {
		return code
	}
	if err := state.cluster.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

// Database makes an empty database for one test and returns its URL.
func Database(t testing.TB) string {
	t.Helper()
	c := started(t)
	name, err := c.create("template0")
	if err != nil {
		t.Fatalf("pgtest: create database: %v", err)
	}
	t.Cleanup(func() { c.drop(t, name) })
	return c.url(name)
}

// Prepared is Database with a schema: prepare makes it, once for the test binary, and every test gets a copy. It must be
// the same function in all calls, and close its connections. Because making a database takes PostgreSQL long, a later
// test may get that of an earlier one, after what the test wrote was removed; tables that prepare filled stay as they are.
func Prepared(t testing.TB, prepare func(url string) error) string {
	t.Helper()
	c := started(t)
	state.prepare.Do(func() { state.prepareErr = c.prepare(prepare) })
	if state.prepareErr != nil {
		t.Fatalf("pgtest: prepare database: %v", state.prepareErr)
	}
	name := takeFree()
	if name == "" {
		var err error
		if name, err = c.create(template); err != nil {
			t.Fatalf("pgtest: copy database: %v", err)
		}
	}
	t.Cleanup(func() {
		if err := c.exec(name, state.reset); err != nil { // such as a connection that holds locks
			t.Logf("pgtest: reset database: %v", err)
			c.drop(t, name)
			return
		}
		state.mu.Lock()
		defer state.mu.Unlock()
		state.free = append(state.free, name)
	})
	return c.url(name)
}

// template is the prepared database; tests get copies.
const template = "prepared"

func takeFree() string {
	state.mu.Lock()
	defer state.mu.Unlock()
	if len(state.free) == 0 {
		return ""
	}
	last := len(state.free) - 1
	name := state.free[last]
	state.free = state.free[:last]
	return name
}

func started(t testing.TB) *cluster {
	t.Helper()
	if !state.running.Load() {
		t.Fatal("pgtest: TestMain must call pgtest.Run, or nobody stops the server")
	}
	state.start.Do(func() { state.cluster, state.err = startCluster() })
	if state.err != nil {
		t.Fatalf("pgtest: %v", state.err)
	}
	return state.cluster
}

func (c *cluster) create(from string) (string, error) {
	name := fmt.Sprintf("test_%d", state.databases.Add(1))
	return name, c.exec("postgres", "CREATE DATABASE "+name+" TEMPLATE "+from)
}

func (c *cluster) drop(t testing.TB, name string) {
	t.Helper()
	if err := c.exec("postgres", "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
		t.Errorf("pgtest: drop database: %v", err)
	}
}

func (c *cluster) prepare(prepare func(url string) error) error {
	if err := c.exec("postgres", "CREATE DATABASE "+template+" TEMPLATE template0"); err != nil {
		return err
	}
	if err := prepare(c.url(template)); err != nil {
		return err
	}
	reset, err := c.resetScript(template)
	state.reset = reset
	return err
}

// resetScript is SQL that deletes the rows of the tables that never had any until now, past triggers and foreign keys, and
// restarts their identities.
func (c *cluster) resetScript(database string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.url(database))
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	var script string
	err = conn.QueryRow(ctx, `
		SELECT 'SET session_replication_role = replica; SET lock_timeout = ''10s'';' || string_agg(
			format('DELETE FROM %s;', oid::regclass) || coalesce((
				SELECT string_agg(format('ALTER SEQUENCE %s RESTART;', pg_get_serial_sequence(oid::regclass::text, attname)), '')
				FROM pg_attribute WHERE attrelid = oid AND attidentity <> ''), ''), '')
		FROM pg_class
		WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
			AND pg_relation_size(oid) = 0`).Scan(&script)
	return script, errors.Join(err, conn.Close(ctx))
}

func (c *cluster) url(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: url.Values{"host": {c.dir}}.Encode()}
	return u.String()
}

func (c *cluster) exec(database, statements string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.url(database))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	_, err = conn.PgConn().Exec(ctx, statements).ReadAll()
	return errors.Join(err, conn.Close(ctx))
}
