package store

import (
	"context"
	"errors"
	"time"
)

// How long an operation waits for a database, connection and retries included. A network that swallows packets gives no error:
// without a bound a request would hang for minutes. Once an operation has waited in vain, the others wait less until one is
// answered.
const (
	patience   = 10 * time.Second
	impatience = time.Second
)

// patiently runs an operation that is tried again when it lost against another one.
func (db *DB) patiently(ctx context.Context, operation func(context.Context) error) error {
	limit := patience
	if db.silent.Load() {
		limit = impatience
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := retry(limited, func() error { return operation(limited) })
	switch {
	case ctx.Err() != nil: // the caller left, which says nothing about the database
	case limited.Err() != nil && err != nil:
		db.silent.Store(true)
		err = errors.Join(context.DeadlineExceeded, err) // drivers tell it in ways of their own
	default:
		db.silent.Store(false)
	}
	return db.classify(err)
}
