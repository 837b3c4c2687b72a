package store

import (
	"context"
	"fmt"
	"iter"
	"time"

	"gorm.io/gorm"

	"signet/ca"
)

// revocationRow is a row of revocations, the ledger of what a CA revoked.
type revocationRow struct {
	CAID           int64 `gorm:"column:ca_id"`
	Serial         string
	Shard          int
	Sequence       int64
	RevokedAt      instant
	Reason         int
	InvalidityDate *instant
	NotAfter       instant
	Released       bool
}

func (revocationRow) TableName() string { return "revocations" }

func (r revocationRow) entry() ca.RevokedEntry {
	return ca.RevokedEntry{Serial: r.Serial, Shard: r.Shard, Sequence: r.Sequence, At: r.RevokedAt.Time, Reason: r.Reason,
		InvalidityDate: timeOf(r.InvalidityDate), NotAfter: r.NotAfter.Time, Released: r.Released}
}

// stateRow is a row of revocation_state.
type stateRow struct {
	CAID      int64 `gorm:"column:ca_id"`
	Sequence  int64
	CRLNumber int64 `gorm:"column:crl_number"`
}

func (stateRow) TableName() string { return "revocation_state" }

// openState begins the numbering of a CA.
func openState(tx *gorm.DB, id int64) error {
	if err := tx.Exec("INSERT INTO revocation_state (ca_id) VALUES (?) ON CONFLICT (ca_id) DO NOTHING", id).Error; err != nil {
		return err
	}
	return tx.Exec("INSERT INTO crl_scopes (ca_id, shard) VALUES (?, 0) ON CONFLICT (ca_id, shard) DO NOTHING", id).Error
}

// change enters serial numbers of one CA in its ledger, or changes what it says of them; their order is that of the
// sequence. Everybody else who revokes for this CA waits from here to the end of the transaction: let it be the last
// statement. In return a sequence that is visible has every smaller one before it.
func (db *DB) change(tx *gorm.DB, caID int64, entries []revocationRow) error {
	if db.dialect == onPostgres {
		return changePostgres(tx, caID, entries)
	}
	for _, e := range entries {
		if err := changeSQLite(tx, caID, e); err != nil {
			return err
		}
	}
	return nil
}

func errNoState(caID int64) error { return fmt.Errorf("CA %d has no revocation state", caID) }

// changeSQL does all of it in one round trip, as the row of the state is locked meanwhile.
const changeSQL = `
WITH entry AS MATERIALIZED (
		SELECT * FROM unnest($2::text[], $3::integer[], $4::timestamptz[], $5::integer[], $6::timestamptz[], $7::timestamptz[], $8::boolean[])
			WITH ORDINALITY AS e (serial, shard, revoked_at, reason, invalidity_date, not_after, released, n)
	),
	state AS (
		UPDATE revocation_state SET sequence = sequence + $9 WHERE ca_id = $1 RETURNING sequence - $9 AS base
	),
	kept AS (
		INSERT INTO revocations (ca_id, serial, shard, sequence, revoked_at, reason, invalidity_date, not_after, released)
		SELECT $1, serial, shard, base + n, revoked_at, reason, invalidity_date, not_after, released FROM entry, state
		ON CONFLICT (ca_id, serial) DO UPDATE SET shard = excluded.shard, sequence = excluded.sequence,
			revoked_at = excluded.revoked_at, reason = excluded.reason, invalidity_date = excluded.invalidity_date,
			not_after = excluded.not_after, released = excluded.released
	)
INSERT INTO crl_scopes (ca_id, shard, sequence)
SELECT $1, shard, base + max(n) FROM entry, state GROUP BY shard, base
ON CONFLICT (ca_id, shard) DO UPDATE SET sequence = excluded.sequence`

func changePostgres(tx *gorm.DB, caID int64, entries []revocationRow) error {
	var serial []string
	var shard, reason []int32
	var revokedAt, notAfter []time.Time
	var invalidity []*time.Time
	var released []bool
	for _, e := range entries {
		serial = append(serial, e.Serial)
		shard = append(shard, int32(e.Shard))
		revokedAt = append(revokedAt, e.RevokedAt.Time)
		reason = append(reason, int32(e.Reason))
		if e.InvalidityDate == nil {
			invalidity = append(invalidity, nil)
		} else {
			invalidity = append(invalidity, &e.InvalidityDate.Time)
		}
		notAfter = append(notAfter, e.NotAfter.Time)
		released = append(released, e.Released)
	}
	// Past GORM, which would make a list of placeholders of each array.
	res, err := tx.Statement.ConnPool.ExecContext(tx.Statement.Context, changeSQL,
		caID, serial, shard, revokedAt, reason, invalidity, notAfter, released, int64(len(entries)))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errNoState(caID)
	}
	return nil
}

// What changes the ledger of a CA in SQLite.
const (
	advanceSQLite = "UPDATE revocation_state SET sequence = sequence + 1 WHERE ca_id = ? RETURNING sequence"
	enterSQLite   = `
		INSERT INTO revocations (ca_id, serial, shard, sequence, revoked_at, reason, invalidity_date, not_after, released)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (ca_id, serial) DO UPDATE SET shard = excluded.shard, sequence = excluded.sequence,
			revoked_at = excluded.revoked_at, reason = excluded.reason, invalidity_date = excluded.invalidity_date,
			not_after = excluded.not_after, released = excluded.released`
	scopeSQLite = `INSERT INTO crl_scopes (ca_id, shard, sequence) VALUES (?, ?, ?)
		ON CONFLICT (ca_id, shard) DO UPDATE SET sequence = excluded.sequence`
)

func changeSQLite(tx *gorm.DB, caID int64, e revocationRow) error {
	var sequence []int64
	err := tx.Raw(advanceSQLite, caID).Scan(&sequence).Error
	if err != nil {
		return err
	}
	if len(sequence) == 0 {
		return errNoState(caID)
	}
	err = tx.Exec(enterSQLite,
		caID, e.Serial, e.Shard, sequence[0], e.RevokedAt, e.Reason, e.InvalidityDate, e.NotAfter, e.Released).Error
	if err != nil {
		return err
	}
	return tx.Exec(scopeSQLite, caID, e.Shard, sequence[0]).Error
}

// RevocationStates implements ca.Store.
func (db *DB) RevocationStates(ctx context.Context) ([]ca.RevocationState, error) {
	var rows []stateRow
	err := db.read(ctx, "RevocationStates", func(q *gorm.DB) error { return q.Order("ca_id").Find(&rows).Error })
	return each(rows, func(r stateRow) ca.RevocationState { return ca.RevocationState(r) }), err
}

// ChangedSerials implements ca.Store.
func (db *DB) ChangedSerials(ctx context.Context, caID, after int64, limit int) ([]ca.RevokedEntry, error) {
	var rows []revocationRow
	err := db.read(ctx, "ChangedSerials", func(q *gorm.DB) error {
		return q.Where("ca_id = ? AND sequence > ?", caID, after).Order("sequence").Limit(max(limit, 0)).Find(&rows).Error
	})
	return each(rows, revocationRow.entry), err
}

// RevokedEntries implements ca.Store. Its rows come from one statement, as fast as they are taken, and in no order: to sort
// a long list would need a disk.
func (db *DB) RevokedEntries(ctx context.Context, caID int64, shard int, changedAfter int64, notExpiredAt time.Time) iter.Seq2[ca.RevokedEntry, error] {
	return func(yield func(ca.RevokedEntry, error) bool) {
		start := time.Now()
		query := `SELECT serial, shard, sequence, revoked_at, reason, invalidity_date, not_after, released FROM revocations
			WHERE ca_id = ? AND sequence > ? AND not_after >= ?`
		args := []any{caID, changedAfter, at(notExpiredAt)}
		if shard > 0 {
			query, args = query+" AND shard = ?", append(args, shard)
		}
		err := db.classify(db.stream(ctx, func(r revocationRow) bool { return yield(r.entry(), nil) }, query, args...))
		db.observe("RevokedEntries", time.Since(start), err)
		if err != nil {
			yield(ca.RevokedEntry{}, err)
		}
	}
}

// stream gives the rows of a query to take, until it has enough. The query is run again if a migration came before it.
func (db *DB) stream(ctx context.Context, take func(revocationRow) bool, query string, args ...any) error {
	return retry(ctx, func() error {
		rows, err := db.reader.WithContext(ctx).Raw(query, args...).Rows()
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r revocationRow
			err := rows.Scan(&r.Serial, &r.Shard, &r.Sequence, &r.RevokedAt, &r.Reason, &r.InvalidityDate, &r.NotAfter, &r.Released)
			if err != nil {
				return err
			}
			if !take(r) {
				return nil
			}
		}
		return rows.Err()
	})
}
