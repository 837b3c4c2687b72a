package store

import (
	"context"
	"database/sql"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/gorm"
)

// maxSkip is more records than there are of anything. Their number and that of a page can be added.
const maxSkip = 1 << 40

// skipped is how many records are left out.
func skipped(skip int) int { return min(max(skip, 0), maxSkip) }

// condition is a part of a WHERE clause: what is to hold together, with ? for arguments.
type condition struct {
	terms []string
	args  []any
}

// and returns the condition with one more term.
func (c condition) and(term string, args ...any) condition {
	return condition{append(c.terms[:len(c.terms):len(c.terms)], term), append(c.args[:len(c.args):len(c.args)], args...)}
}

func (c condition) String() string {
	if len(c.terms) == 0 {
		return "true"
	}
	return strings.Join(c.terms, " AND ")
}

// query runs a statement whose best plan depends on its arguments: PostgreSQL plans it for them, each time.
func (db *DB) query(ctx context.Context, q *gorm.DB, statement string, args ...any) (*sql.Rows, error) {
	if db.dialect == onPostgres {
		var numbered strings.Builder
		n := 0
		for part := range strings.SplitSeq(statement, "?") {
			if n++; n > 1 {
				numbered.WriteString("$" + strconv.Itoa(n-1))
			}
			numbered.WriteString(part)
		}
		statement, args = numbered.String(), append([]any{pgx.QueryExecModeCacheDescribe}, args...)
	}
	return q.Statement.ConnPool.QueryContext(ctx, statement, args...)
}

// scanner is a row of either driver.
type scanner interface{ Scan(into ...any) error }

// direct gives the rows of a statement on a pool of PostgreSQL to take, past database/sql, which would convert each value twice.
func direct(ctx context.Context, pool *sql.DB, take func(scanner) error, statement string, args ...any) error {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error {
		rows, err := c.(*stdlib.Conn).Conn().Query(ctx, statement, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := take(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// column reads the rows of a statement that has one column.
func column[T any](ctx context.Context, db *DB, q *gorm.DB, statement string, args ...any) (all []T, err error) {
	rows, err := db.query(ctx, q, statement, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// number reads the one value of a statement.
func (db *DB) number(ctx context.Context, q *gorm.DB, statement string, args ...any) (int64, error) {
	all, err := column[int64](ctx, db, q, statement, args...)
	if err != nil || len(all) != 1 {
		return 0, err
	}
	return all[0], nil
}
