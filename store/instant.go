package store

import (
	"database/sql/driver"
	"fmt"
	"time"
)

// instant is a time as both databases keep it: UTC, in microseconds. PostgreSQL has a type for it; in SQLite it is
// the number of microseconds since 1970.
type instant struct{ time.Time }

func at(t time.Time) instant { return instant{t.UTC().Truncate(time.Microsecond)} }

// Value implements driver.Valuer.
func (i instant) Value() (driver.Value, error) { return at(i.Time).Time, nil }

// Scan implements sql.Scanner.
func (i *instant) Scan(v any) error {
	switch v := v.(type) {
	case time.Time:
		i.Time = v.UTC()
	case int64:
		i.Time = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("%T is not a time", v)
	}
	return nil
}

// timeOf is the time of a column that may be null: then it is zero.
func timeOf(i *instant) time.Time {
	if i == nil {
		return time.Time{}
	}
	return i.Time
}
