package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
	"gorm.io/driver/sqlite"
)

// openSQLite opens one connection that writes and several that read: SQLite has one writer at a time, and waiting
// for it in this process is cheaper and fairer than waiting for the file lock.
func (db *DB) openSQLite(path string, readers int) error {
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return errors.New("an SQLite database needs a file")
	}
	// The files that SQLite adds take the mode of this one.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("create database file: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("create database file: %w", err)
	}
	base := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_journal_mode=WAL&_synchronous=FULL&_foreign_keys=on&_busy_timeout=5000&_stmt_cache_size=64"
	write := sql.OpenDB(sqliteConnector(base + "&_txlock=immediate"))
	write.SetMaxOpenConns(1)
	read := sql.OpenDB(sqliteConnector(base + "&_query_only=on"))
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	db.pools = append(db.pools, write, read)
	db.commits = write
	db.dialect, db.readers = onSQLite, read
	if db.writer, err = gormDB(sqlite.New(sqlite.Config{Conn: write})); err != nil {
		return err
	}
	db.reader, err = gormDB(sqlite.New(sqlite.Config{Conn: read}))
	return err
}

// sqliteConnector opens connections to the data source it names.
type sqliteConnector string

var sqliteDriver = &sqlite3.SQLiteDriver{}

func (c sqliteConnector) Driver() driver.Driver { return sqliteDriver }

func (c sqliteConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := sqliteDriver.Open(string(c))
	if err != nil {
		return nil, err
	}
	return sqliteConn{conn.(*sqlite3.SQLiteConn)}, nil
}

// sqliteConn stores times as integers. The driver's own choice, text with as many digits as needed, does not sort.
type sqliteConn struct{ *sqlite3.SQLiteConn }

// CheckNamedValue implements driver.NamedValueChecker.
func (sqliteConn) CheckNamedValue(v *driver.NamedValue) (err error) {
	v.Value, err = driver.DefaultParameterConverter.ConvertValue(v.Value)
	if t, ok := v.Value.(time.Time); ok {
		v.Value = t.UnixMicro()
	}
	return err
}
