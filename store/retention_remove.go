package store

import (
	"context"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

var errRecordsChanged = fault.New(fault.Conflict, "A record was changed or removed since it was listed, or must be kept")

// cutRow is a row of retention_cuts.
type cutRow struct {
	ID      int64
	Created instant `gorm:"column:created_at"`
	Kind    string
	CAID    *int64 `gorm:"column:ca_id"`
	FirstID int64
	LastID  int64
	Count   int
	Before  instant
	SHA256  []byte `gorm:"column:sha256"`
	Archive string
}

func (cutRow) TableName() string { return "retention_cuts" }

// cut records a cut with its event, and removes in between: the audit trail lets go of nothing else.
func (db *DB) cut(ctx context.Context, op string, c ca.Cut, e audit.Event, remove func(tx *gorm.DB) error) error {
	return db.write(ctx, op, func(tx *gorm.DB) error {
		row := cutRow{Created: at(c.At), Kind: string(c.Kind), FirstID: c.First, LastID: c.Last, Count: c.Count, Before: at(c.Before),
			SHA256: c.SHA256, Archive: c.Archive}
		if c.CAID != 0 {
			row.CAID = &c.CAID
		}
		if db.dialect == onPostgres { // of two who remove the same records, the second one sees that they are gone
			if err := tx.Exec("SELECT pg_advisory_xact_lock(hashtextextended('signet retention', 0))").Error; err != nil {
				return err
			}
		}
		if err := tx.Create(&row).Error; err != nil {
			return err
		}
		if err := remove(tx); err != nil {
			return err
		}
		if db.dialect == onSQLite {
			if err := tx.Exec("UPDATE retention_cuts SET open = 0 WHERE id = ?", row.ID).Error; err != nil {
				return err
			}
		}
		event := db.auditRow(e)
		return tx.Create(&event).Error
	})
}

// removeAll deletes rows, which must be as many as are said.
func removeAll(q *gorm.DB, n int, model any) error {
	res := q.Delete(model)
	if res.Error == nil && res.RowsAffected != int64(n) {
		return errRecordsChanged
	}
	return res.Error
}

// RemoveCertificates implements ca.Store.
func (db *DB) RemoveCertificates(ctx context.Context, c ca.Cut, all []ca.ExpiredCertificate, e audit.Event) error {
	listed := map[int64]instant{} // when each was updated
	ids, serials := make([]int64, len(all)), make([]string, len(all))
	for i, x := range all {
		ids[i], serials[i], listed[x.ID] = x.ID, x.Serial, at(x.UpdatedAt)
	}
	return db.cut(ctx, "RemoveCertificates", c, e, func(tx *gorm.DB) error {
		// Nobody revokes or releases them from here on.
		var rows []certificateRow
		err := tx.Clauses(clause.Locking{Strength: "UPDATE"}).Omit("tbs", "der", "names").
			Where("id IN ? AND issuer_id = ? AND not_after < ?", ids, c.CAID, at(c.Before)).Order("id").Find(&rows).Error
		if err != nil {
			return err
		}
		counts := map[tally]int64{}
		for i := range rows {
			if !rows[i].Updated.Equal(listed[rows[i].ID].Time) {
				return errRecordsChanged
			}
			counts[rows[i].tally(ca.State(rows[i].State))]--
		}
		// Another statement, which sees what was committed while the rows were waited for.
		var waiting int64
		err = tx.Raw("SELECT count(*) FROM certificates c WHERE c.id IN @ids AND "+unlisted,
			map[string]any{"ids": ids, "now": at(c.At)}).Scan(&waiting).Error
		if err != nil {
			return err
		}
		if len(rows) != len(all) || waiting > 0 {
			return errRecordsChanged
		}
		if err := tx.Where("certificate_id IN ?", ids).Delete(&keyRow{}).Error; err != nil {
			return err
		}
		if err := removeAll(tx.Where("id IN ?", ids), len(all), &certificateRow{}); err != nil {
			return err
		}
		if err := tx.Where("ca_id = ? AND serial IN ?", c.CAID, serials).Delete(&revocationRow{}).Error; err != nil {
			return err
		}
		if err := tx.Where("ca_id = ? AND serial IN ?", c.CAID, serials).Delete(&answerRow{}).Error; err != nil {
			return err
		}
		return db.count(tx, counts)
	})
}

// RemoveLists implements ca.Store.
func (db *DB) RemoveLists(ctx context.Context, c ca.Cut, all []ca.List, e audit.Event) error {
	places := make([][]any, len(all))
	for i, l := range all {
		places[i] = []any{l.Number, l.Delta}
	}
	return db.cut(ctx, "RemoveLists", c, e, func(tx *gorm.DB) error {
		return removeAll(tx.Where("ca_id = ? AND (number, delta) IN ? AND next_update < ? AND "+retired, c.CAID, places, at(c.Before)),
			len(all), &listRow{})
	})
}

// RemoveEntries implements ca.Store.
func (db *DB) RemoveEntries(ctx context.Context, c ca.Cut, all []audit.Entry, e audit.Event) error {
	ids := make([]int64, len(all))
	for i, entry := range all {
		ids[i] = entry.ID
	}
	return db.cut(ctx, "RemoveEntries", c, e, func(tx *gorm.DB) error {
		old := tx.Model(&auditRow{}).Where("id IN ? AND created_at < ? AND action <> ?", ids, at(c.Before), string(audit.Retention)).
			Session(&gorm.Session{})
		var found int64
		if err := old.Count(&found).Error; err != nil {
			return err
		}
		if found != int64(len(all)) { // the trail lets go of as many as were announced, or of none
			return errRecordsChanged
		}
		return removeAll(old, len(all), &auditRow{})
	})
}
