package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/ca"
)

// keptCRLs is how many lists of a CA are kept; the audit trail names the older ones.
const keptCRLs = 16

// crlRow is a row of crls.
type crlRow struct {
	CAID       int64 `gorm:"column:ca_id;primaryKey;autoIncrement:false"`
	Number     int64 `gorm:"primaryKey;autoIncrement:false"`
	ThisUpdate instant
	NextUpdate instant
	Sequence   int64
	Entries    int
	DER        []byte
}

func (crlRow) TableName() string { return "crls" }

func sortedKeys[V any](m map[int64]V) []int64 { return slices.Sorted(maps.Keys(m)) }

// StaleCRLs implements ca.Store.
func (db *DB) StaleCRLs(ctx context.Context, endsBefore, now time.Time) ([]int64, error) {
	var ids []int64
	err := db.read(ctx, "StaleCRLs", func(q *gorm.DB) error {
		return q.Raw(`
			SELECT a.id
			FROM certificate_authorities a
			LEFT JOIN crls latest ON latest.ca_id = a.id
				AND latest.number = (SELECT max(number) FROM crls WHERE ca_id = a.id)
			WHERE a.state IN ('valid', 'revoked')
				AND a.not_after >= @now AND a.key_destroyed_at IS NULL
				AND (latest.number IS NULL OR latest.sequence < a.revocation_sequence OR latest.next_update < @ends)
				AND (a.deleted_at IS NULL
					OR EXISTS (SELECT 1 FROM certificates c WHERE c.issuer_id = a.id AND c.not_after >= @now)
					OR EXISTS (SELECT 1 FROM certificate_authorities child
						WHERE child.parent_id = a.id AND child.serial IS NOT NULL AND child.not_after >= @now))
			ORDER BY a.id`,
			map[string]any{"now": at(now), "ends": at(endsBefore)}).Scan(&ids).Error
	})
	return ids, err
}

// BeginCRL implements ca.Store.
func (db *DB) BeginCRL(ctx context.Context, caID int64) (ca.CRL, error) {
	var row authorityRow
	err := db.write(ctx, "BeginCRL", func(tx *gorm.DB) error {
		row = authorityRow{}
		res := tx.Model(&row).Clauses(clause.Returning{Columns: columns("crl_number", "revocation_sequence")}).
			Where("id = ? AND "+completed, caID).Update("crl_number", gorm.Expr("crl_number + 1"))
		if res.Error == nil && res.RowsAffected != 1 {
			return errNoCA
		}
		return res.Error
	})
	if err != nil {
		return ca.CRL{}, err
	}
	return ca.CRL{CAID: caID, Number: row.CRLNumber, Sequence: row.RevocationSequence}, nil
}

// RevokedSerials implements ca.Store.
func (db *DB) RevokedSerials(ctx context.Context, caID int64, notExpiredAt time.Time) ([]ca.RevokedSerial, error) {
	var rows []struct {
		Serial           string
		RevokedAt        instant
		RevocationReason int
	}
	err := db.read(ctx, "RevokedSerials", func(q *gorm.DB) error {
		return q.Raw(`
			SELECT serial, revoked_at, revocation_reason FROM certificates
			WHERE issuer_id = @ca AND revoked_at IS NOT NULL AND not_after >= @at
			UNION ALL
			SELECT serial, revoked_at, revocation_reason FROM certificate_authorities
			WHERE parent_id = @ca AND revoked_at IS NOT NULL AND not_after >= @at AND serial IS NOT NULL
			ORDER BY revoked_at, serial`,
			map[string]any{"ca": caID, "at": at(notExpiredAt)}).Scan(&rows).Error
	})
	out := make([]ca.RevokedSerial, len(rows))
	for i, r := range rows {
		out[i] = ca.RevokedSerial{Serial: r.Serial, At: r.RevokedAt.Time, Reason: r.RevocationReason}
	}
	return out, err
}

// CompleteCRL implements ca.Store.
func (db *DB) CompleteCRL(ctx context.Context, c ca.CRL, e audit.Event) error {
	return db.write(ctx, "CompleteCRL", func(tx *gorm.DB) error {
		var authorities []authorityRow
		if err := tx.Select("crl_number").Where("id = ? AND "+completed, c.CAID).Find(&authorities).Error; err != nil {
			return err
		}
		if len(authorities) == 0 {
			return errNoCA
		}
		if c.Number < 1 || c.Number > authorities[0].CRLNumber { // it only grows
			return errCRLNumber
		}
		res := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&crlRow{
			CAID: c.CAID, Number: c.Number, ThisUpdate: at(c.ThisUpdate), NextUpdate: at(c.NextUpdate),
			Sequence: c.Sequence, Entries: c.Entries, DER: c.DER,
		})
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return errCRLNumber
		}
		if err := tx.Where("ca_id = ? AND number <= ?", c.CAID, c.Number-keptCRLs).Delete(&crlRow{}).Error; err != nil {
			return err
		}
		return db.append(tx, e, c.CAID)
	})
}

// LatestCRL implements ca.Store.
func (db *DB) LatestCRL(ctx context.Context, caID int64) (ca.CRL, error) {
	var rows []crlRow
	err := db.read(ctx, "LatestCRL", func(q *gorm.DB) error {
		if err := q.Where("ca_id = ?", caID).Order("number DESC").Limit(1).Find(&rows).Error; err != nil {
			return err
		}
		if len(rows) == 0 {
			return errNoCRL
		}
		return nil
	})
	if err != nil {
		return ca.CRL{}, err
	}
	r := rows[0]
	return ca.CRL{CAID: r.CAID, Number: r.Number, ThisUpdate: r.ThisUpdate.Time, NextUpdate: r.NextUpdate.Time,
		Sequence: r.Sequence, DER: r.DER, Entries: r.Entries}, nil
}
