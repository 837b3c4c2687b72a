package store

import (
	"context"

	"gorm.io/gorm"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

var errKeyChanged = fault.New(fault.Conflict, "Sealed key has changed")

// SealedKeys implements ca.Store.
func (db *DB) SealedKeys(ctx context.Context, after int64, limit int) ([]ca.SealedKey, error) {
	var all []ca.SealedKey
	err := db.read(ctx, "SealedKeys", func(q *gorm.DB) error {
		return q.Raw(`
			SELECT k.certificate_id, c.issuer_id, c.serial, k.sealed_key AS sealed
			FROM certificate_keys k JOIN certificates c ON c.id = k.certificate_id
			WHERE k.certificate_id > ? ORDER BY k.certificate_id LIMIT ?`, after, max(limit, 0)).Scan(&all).Error
	})
	return all, err
}

// ReplaceSealedKeys implements ca.Store. The order of the ids keeps two of these from waiting for each other.
func (db *DB) ReplaceSealedKeys(ctx context.Context, all []ca.KeyReplacement, e audit.Event) error {
	return db.write(ctx, "ReplaceSealedKeys", func(tx *gorm.DB) error {
		for _, r := range all {
			res := tx.Exec("UPDATE certificate_keys SET sealed_key = ? WHERE certificate_id = ? AND sealed_key = ?", r.New, r.CertificateID, r.Old)
			if res.Error != nil {
				return res.Error
			}
			if res.RowsAffected != 1 {
				return errKeyChanged
			}
		}
		row := db.auditRow(e)
		return tx.Create(&row).Error
	})
}
