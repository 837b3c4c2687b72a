package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/ca"
)

// keptLists is how many lists of a scope whose time has come keep their DER: a reader's clock may be behind.
const keptLists = 2

// listRow is a row of crls.
type listRow struct {
	CAID       int64  `gorm:"column:ca_id;primaryKey;autoIncrement:false"`
	Number     int64  `gorm:"primaryKey;autoIncrement:false"`
	Delta      bool   `gorm:"primaryKey"`
	Shard      int    //
	Base       *int64 `gorm:"column:base_number"`
	State      string
	Attempts   int
	ThisUpdate instant
	NextUpdate instant
	Sequence   int64
	Entries    int
	Size       int64
	SHA256     []byte `gorm:"column:sha256"`
	Kept       bool   // its DER is in crl_chunks
}

func (listRow) TableName() string { return "crls" }

func (r listRow) list() ca.List {
	l := ca.List{
		ListScope: ca.ListScope{CAID: r.CAID, Shard: r.Shard, Delta: r.Delta}, Number: r.Number,
		State: ca.ListState(r.State), Attempts: r.Attempts, ThisUpdate: r.ThisUpdate.Time, NextUpdate: r.NextUpdate.Time,
		Sequence: r.Sequence, Entries: r.Entries, Size: r.Size, SHA256: r.SHA256,
	}
	if r.Base != nil {
		l.Base = *r.Base
	}
	return l
}

func publishedRow(l ca.List) listRow {
	sum := sha256.Sum256(l.DER)
	row := listRow{
		CAID: l.CAID, Number: l.Number, Delta: l.Delta, Shard: l.Shard, State: string(ca.ListPublished),
		ThisUpdate: at(l.ThisUpdate), NextUpdate: at(l.NextUpdate), Sequence: l.Sequence, Entries: l.Entries,
		Size: int64(len(l.DER)), SHA256: sum[:], Kept: true,
	}
	if l.Base != 0 {
		row.Base = &l.Base
	}
	return row
}

// listMetadata is what is said of a list.
const listMetadata = "ca_id, number, delta, shard, base_number, state, attempts, this_update, next_update, sequence, entries, size, sha256"

// numbering makes those who number the lists of a CA wait for each other until the end of the transaction. It is not the
// row of the state that they wait for: to store a long list must not hold up revocations.
func (db *DB) numbering(tx *gorm.DB, caID int64) error {
	if db.dialect == onSQLite {
		return nil // there is one writer
	}
	return tx.Exec("SELECT pg_advisory_xact_lock(hashtextextended('signet crls', ?))", caID).Error
}

// checkScope refuses a list of a CA that does not exist, or of a shard that was never opened.
func checkScope(tx *gorm.DB, s ca.ListScope) error {
	var authorities, scopes int64
	if err := tx.Model(&authorityRow{}).Where("id = ? AND "+completed, s.CAID).Count(&authorities).Error; err != nil {
		return err
	}
	if authorities == 0 {
		return errNoCA
	}
	if err := tx.Model(&scopeRow{}).Where("ca_id = ? AND shard = ?", s.CAID, s.Shard).Count(&scopes).Error; err != nil {
		return err
	}
	if scopes == 0 {
		return errNoCRL
	}
	return nil
}

// BeginList implements ca.Store.
func (db *DB) BeginList(ctx context.Context, s ca.ListScope, when time.Time) (ca.List, error) {
	var row listRow
	err := db.write(ctx, "BeginList", func(tx *gorm.DB) error {
		row = listRow{CAID: s.CAID, Shard: s.Shard, Delta: s.Delta, State: string(ca.ListPending), Attempts: 1,
			ThisUpdate: at(when), NextUpdate: at(when)}
		if err := checkScope(tx, s); err != nil {
			return err
		}
		if err := db.numbering(tx, s.CAID); err != nil {
			return err
		}
		var state stateRow
		if err := tx.Where("ca_id = ?", s.CAID).Take(&state).Error; err != nil {
			return err
		}
		row.Number, row.Sequence = state.CRLNumber+1, state.Sequence
		var earlier []listRow
		if err := takePending(tx, row, &earlier); err != nil {
			return err
		}
		if len(earlier) > 0 {
			row.Attempts += earlier[0].Attempts
		}
		return tx.Create(&row).Error
	})
	return row.list(), err
}

// takePending removes the row of a number that was taken, if any.
func takePending(tx *gorm.DB, r listRow, taken *[]listRow) error {
	return tx.Clauses(clause.Returning{Columns: columns("attempts", "this_update")}).
		Where("ca_id = ? AND number = ? AND state = 'pending'", r.CAID, r.Number).Delete(taken).Error
}

// CompleteLists implements ca.Store.
func (db *DB) CompleteLists(ctx context.Context, lists []ca.List, e audit.Event) error {
	rows := each(lists, publishedRow)
	if len(rows) == 0 || slices.ContainsFunc(rows, func(r listRow) bool { return r.CAID != rows[0].CAID || r.Number != rows[0].Number }) {
		return errors.New("complete lists: they are not of one number")
	}
	return db.write(ctx, "CompleteLists", func(tx *gorm.DB) error {
		for _, l := range lists {
			if err := checkScope(tx, l.ListScope); err != nil {
				return err
			}
		}
		first := rows[0]
		if err := db.numbering(tx, first.CAID); err != nil {
			return err
		}
		var begun []listRow
		if err := takePending(tx, first, &begun); err != nil {
			return err
		}
		if len(begun) == 0 {
			return errCRLNumber
		}
		now := at(db.now())
		if begun[0].ThisUpdate.Before(now.Time) {
			now = begun[0].ThisUpdate
		}
		for i := range rows {
			rows[i].Attempts = begun[0].Attempts
			if err := publish(tx, &rows[i], lists[i].DER, now); err != nil {
				return err
			}
		}
		if err := db.append(tx, e, first.CAID); err != nil {
			return err
		}
		// Last, as revocations wait for this row.
		res := tx.Exec("UPDATE revocation_state SET crl_number = ? WHERE ca_id = ? AND crl_number = ?", first.Number, first.CAID, first.Number-1)
		if res.Error == nil && res.RowsAffected != 1 {
			return errCRLNumber
		}
		return res.Error
	})
}

// publish stores a list. Those of its scope that are of a later time are withdrawn, and the DER of those that nobody asks
// for any more is dropped.
func publish(tx *gorm.DB, r *listRow, der []byte, now instant) error {
	scope := map[string]any{"ca": r.CAID, "shard": r.Shard, "delta": r.Delta, "from": r.ThisUpdate, "now": now, "kept": keptLists}
	var withdrawn, past []int64
	err := tx.Raw(`UPDATE crls SET state = 'withdrawn', kept = false
		WHERE ca_id = @ca AND shard = @shard AND delta = @delta AND kept AND this_update > @from
		RETURNING number`, scope).Scan(&withdrawn).Error
	if err != nil {
		return err
	}
	if err := tx.Create(r).Error; err != nil {
		return err
	}
	if err := storeDER(tx, r, der); err != nil {
		return err
	}
	err = tx.Raw(`UPDATE crls SET kept = false
		WHERE ca_id = @ca AND shard = @shard AND delta = @delta AND kept AND this_update <= @now AND number NOT IN (
			SELECT number FROM crls
			WHERE ca_id = @ca AND shard = @shard AND delta = @delta AND kept AND this_update <= @now
			ORDER BY this_update DESC, number DESC LIMIT @kept)
		RETURNING number`, scope).Scan(&past).Error
	if err != nil {
		return err
	}
	return dropDER(tx, r, append(withdrawn, past...))
}

// Lists implements ca.Store.
func (db *DB) Lists(ctx context.Context, caID int64, p ca.Page) ([]ca.List, int64, error) {
	var rows []listRow
	var total int64
	err := db.read(ctx, "Lists", func(q *gorm.DB) error {
		if err := q.Model(&listRow{}).Where("ca_id = ?", caID).Count(&total).Error; err != nil {
			return err
		}
		q = q.Where("ca_id = ?", caID)
		if p.After > 0 { // a Place
			q = q.Where("(number < ? OR number = ? AND delta AND ?)", p.After/2, p.After/2, p.After%2 == 1)
		}
		return q.Select(listMetadata).Order("number DESC, delta").Offset(max(p.Skip, 0)).Limit(max(p.Limit, 0)).Find(&rows).Error
	})
	return each(rows, listRow.list), total, err
}
