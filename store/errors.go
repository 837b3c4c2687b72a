package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/mattn/go-sqlite3"

	"signet/fault"
)

// SQLSTATE codes (PostgreSQL, appendix A) that the store decides on.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	uniqueViolation      = "23505"
	foreignKeyViolation  = "23503"
	badCharacter         = "22021"
	pausedTooLong        = "25P03" // the server ended a connection that was idle in a transaction
	// stalePlan is what a prepared statement answers once after another process migrated its table; the driver then
	// prepares it anew.
	stalePlan = "0A000"
)

// maxAttempts bounds how often a transaction that lost against another one is tried.
const maxAttempts = 5

// classify turns an error of a driver into a fault. A canceled context passes through: nobody waits for the answer.
func classify(err error) error {
	var known *fault.Error
	var pg *pgconn.PgError
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled):
		return err
	case isUnavailable(err):
		return &fault.Error{Code: fault.Unavailable, Message: "the database is not available", RetryAfter: time.Second, Err: err}
	case errors.As(err, &pg) && pg.Code == badCharacter:
		return fault.Wrap(fault.Invalid, "text contains a character that cannot be stored", err)
	}
	return err
}

// isUnavailable reports whether an error says something about the database rather than the statement.
func isUnavailable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// Connection exceptions, lack of resources, operator intervention, system errors; and what lost too often.
		return slices.Contains([]string{"08", "53", "57", "58", "40"}, pg.Code[:2]) ||
			pg.Code == "25006" || pg.Code == pausedTooLong
	}
	var lite sqlite3.Error
	if errors.As(err, &lite) {
		return slices.Contains([]sqlite3.ErrNo{
			sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrIoErr, sqlite3.ErrFull, sqlite3.ErrCantOpen,
			sqlite3.ErrReadonly, sqlite3.ErrInterrupt, sqlite3.ErrNomem,
		}, lite.Code)
	}
	var connect *pgconn.ConnectError
	var network *net.OpError
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// retry runs a transaction again when the database undid it in favor of another one, or of a migration.
func retry(ctx context.Context, transaction func() error) error {
	for attempt := 1; ; attempt++ {
		err := transaction()
		var pg *pgconn.PgError
		lost := errors.As(err, &pg) && (pg.Code == serializationFailure || pg.Code == deadlockDetected || pg.Code == stalePlan)
		if !lost || attempt == maxAttempts {
			return err
		}
		pause := time.Duration(rand.Int64N(int64(attempt) * int64(10*time.Millisecond)))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// violates reports whether an error says that table already has a row with this value in a column that is unique.
// The index in PostgreSQL is named table_column.
func violates(err error, table, column string) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == uniqueViolation && pg.ConstraintName == table+"_"+column
	}
	var lite sqlite3.Error
	return errors.As(err, &lite) && (lite.ExtendedCode == sqlite3.ErrConstraintUnique || lite.ExtendedCode == sqlite3.ErrConstraintPrimaryKey) &&
		strings.Contains(lite.Error(), table+"."+column)
}

// violatesForeignKey reports whether an error says that a referenced row does not exist.
func violatesForeignKey(err error) bool {
	var pg *pgconn.PgError
	var lite sqlite3.Error
	return errors.As(err, &pg) && pg.Code == foreignKeyViolation ||
		errors.As(err, &lite) && lite.ExtendedCode == sqlite3.ErrConstraintForeignKey
}
