package store

import (
	"context"
	"database/sql"
	"strings"

	"gorm.io/gorm"

	"signet/ca"
)

// hasName is the condition that a name has a part.
func (s *search) hasName() string {
	if s.db.dialect == onSQLite {
		return "instr(names, ?) > 0"
	}
	return "strpos(names, ?) > 0"
}

// NamesIndexed reports whether searches for names have their index. PostgreSQL makes it with the extension pg_trgm; SQLite, which
// is for thousands of certificates, has none and needs none.
func (db *DB) NamesIndexed(ctx context.Context) (indexed bool, err error) {
	if db.dialect == onSQLite {
		return true, nil
	}
	err = db.read(ctx, "NamesIndexed", func(q *gorm.DB) error {
		return q.Raw("SELECT to_regclass('certificates_names') IS NOT NULL").Scan(&indexed).Error
	})
	return indexed, err
}

// The indexes certificates_listing and certificates_long have the certificates by the length of their names: these conditions find them.
const (
	shortNames = "octet_length(names) <= 2000"
	longNames  = "octet_length(names) > 2000"
)

// everyName selects what matches, from the index of short names and from that of long ones.
func everyName(columns string, match condition, end string, argument ...any) (text string, args []any) {
	for _, length := range []string{shortNames, longNames} {
		if text != "" {
			text += " UNION ALL "
		}
		text += "(SELECT " + columns + " FROM certificates WHERE " + match.and(length).String() + end + ")"
		args = append(append(args, match.args...), argument...)
	}
	return text, args
}

// named reads the page of what has a part of a name, or this serial number.
func (s *search) named(ctx context.Context) ([]int64, ca.Total, error) {
	serials, err := s.serials(ctx)
	if err != nil {
		return nil, ca.Total{}, err
	}
	e, err := s.estimate(ctx)
	if err != nil {
		return nil, ca.Total{}, err
	}
	var ids []int64
	var total ca.Total
	if e.indexed && e.fetch < e.scan {
		ids, total, err = s.fetch(ctx, e.piece, s.page.After)
	} else {
		ids, total, err = s.scan(ctx, e)
	}
	if err != nil {
		return nil, ca.Total{}, err
	}
	later := serials
	for len(later) > 0 && later[0] <= s.page.After {
		later = later[1:]
	}
	total.N += int64(len(serials))
	page := s.cut(merge(ids, later))
	return page, atLeast(total, s.page.Skip, len(page)), nil
}

// serials are the certificates with the query as serial number and not in a name.
func (s *search) serials(ctx context.Context) ([]int64, error) {
	if strings.Trim(s.filter.Query, "0123456789abcdef") != "" {
		return nil, nil
	}
	c := both(s.match, s.scope).and("serial = ?", s.filter.Query).and("strpos(names, ?) = 0", s.filter.Query)
	return column[int64](ctx, s.db, s.q, "SELECT id FROM certificates WHERE "+c.String()+" ORDER BY id", c.args...)
}

// scan looks through certificates, in steps that grow. When that has cost what the index costs, the index takes over.
func (s *search) scan(ctx context.Context, e estimate) (ids []int64, total ca.Total, err error) {
	match := both(s.match, s.scope).and(s.hasName(), s.filter.Query)
	step := int64(block)
	for from := e.first - 1; e.first > 0 && from < e.last && len(ids) < s.want(); step *= 2 {
		if e.indexed && float64(from-e.first) > e.fetch {
			rest, all, err := s.fetch(ctx, e.piece, from)
			return append(ids, rest...), all, err
		}
		c := match.and("id > ?", from).and("id <= ?", from+step)
		left := s.want() - len(ids)
		text, args := everyName("id", c, " ORDER BY id LIMIT ?", left)
		found, err := column[int64](ctx, s.db, s.q, text+" ORDER BY id LIMIT ?", append(args, left)...)
		if err != nil {
			return nil, total, err
		}
		ids, from = append(ids, found...), from+step
	}
	if s.page.After == 0 && len(ids) < s.want() { // it saw everything
		return ids, ca.Total{N: int64(len(ids))}, nil
	}
	first, err := s.db.number(ctx, s.q, "SELECT coalesce(min(id), 0) FROM certificates")
	if err != nil {
		return nil, total, err
	}
	c := match.and("id < ?", first+block)
	text, args := everyName("1", c, "")
	n, err := s.db.number(ctx, s.q, "SELECT count(*) FROM ("+text+") found", args...)
	return ids, ca.Total{N: n, AtLeast: e.last >= first+block}, err
}

// fetch reads every certificate that the index finds by a piece, and takes those after an id that match.
func (s *search) fetch(ctx context.Context, piece string, after int64) (ids []int64, total ca.Total, err error) {
	c := both(both(condition{}.and(s.hasName(), s.filter.Query), s.match), s.scope)
	err = s.q.Transaction(func(tx *gorm.DB) error {
		// The planner does not know how rare a piece is.
		const onlyBitmaps = `SELECT 0 FROM (SELECT set_config('enable_seqscan', 'off', true), set_config('enable_indexscan', 'off', true),
			set_config('enable_indexonlyscan', 'off', true)) settings`
		if _, err := s.db.number(ctx, tx, onlyBitmaps); err != nil {
			return err
		}
		found, err := column[int64](ctx, s.db, tx, `WITH found AS MATERIALIZED (
				SELECT id FROM (SELECT * FROM certificates WHERE names LIKE ? OFFSET 0) certificates WHERE `+c.String()+`)
			SELECT -count(*) AS id FROM found UNION ALL (SELECT id FROM found WHERE id > ? ORDER BY id LIMIT ?) ORDER BY id`,
			append(append([]any{likePattern(piece)}, c.args...), after, s.want())...)
		if err == nil {
			ids, total = found[1:], ca.Total{N: -found[0]}
		}
		return err
	}, &sql.TxOptions{ReadOnly: true})
	return ids, total, err
}
