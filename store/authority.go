package store

import (
	"bytes"
	"context"
	"slices"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/ca"
	"signet/idempotency"
)

const (
	completed = "state IN ('valid', 'revoked')"
	// visible CAs are completed and not deleted.
	visible = completed + " AND deleted_at IS NULL"
)

// CreateCA implements ca.Store.
func (db *DB) CreateCA(ctx context.Context, c ca.CA, e audit.Event) (ca.CA, error) {
	var row authorityRow
	err := db.write(ctx, "CreateCA", func(tx *gorm.DB) error {
		row = db.pendingAuthority(c)
		if err := tx.Create(&row).Error; violatesForeignKey(err) {
			return errNoCA
		} else if err != nil {
			return err
		}
		return db.append(tx, e, row.ID)
	})
	return row.ca(), err
}

// ReserveCA implements ca.Store. A CA is reserved once: a second certificate would leave the first unaccounted for.
func (db *DB) ReserveCA(ctx context.Context, c ca.CA, e audit.Event) error {
	return db.write(ctx, "ReserveCA", func(tx *gorm.DB) error {
		if err := db.reserveCA(tx, c); err != nil {
			return err
		}
		return db.append(tx, e, c.ID)
	})
}

func (db *DB) reserveCA(tx *gorm.DB, c ca.CA) error {
	var row authorityRow
	res := tx.Model(&row).Clauses(clause.Returning{}).
		Where("id = ? AND state = 'pending' AND serial IS NULL", c.ID).
		Updates(map[string]any{
			"subject_dn": c.SubjectDN, "public_key": c.PublicKey, "public_key_sha256": fingerprint(c.PublicKey),
			"serial": c.Serial, "tbs": c.TBS, "valid_days": c.ValidDays, "path_length": c.PathLength,
			"not_before": at(c.NotBefore), "not_after": at(c.NotAfter), "updated_at": at(db.now()),
		})
	switch {
	case violates(res.Error, "certificate_authorities", "serial"):
		return errSerialTaken
	case violates(res.Error, "certificate_authorities", "key"), violates(res.Error, "certificate_authorities", "public_key_sha256"):
		return errKeyTaken
	case res.Error != nil:
		return res.Error
	case res.RowsAffected != 1:
		return errCANotPending
	case row.ParentID != nil:
		return checkParent(tx, *row.ParentID, c.Serial)
	}
	return nil
}

// checkParent holds the parent as it is until the transaction ends, and keeps others from reserving a serial number of it.
func checkParent(tx *gorm.DB, id int64, serial string) error {
	var parent []authorityRow
	err := tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE"}).Select("id", "key_locked").
		Where("id = ? AND state = 'valid' AND deleted_at IS NULL", id).Find(&parent).Error
	if err != nil {
		return err
	}
	switch {
	case len(parent) == 0:
		return errIssuerGone(id)
	case parent[0].KeyLocked != "":
		return errIssuerLocked(id)
	}
	return refuseTakenSerial(tx, id, serial, "ocsp_responders WHERE ca_id")
}

// refuseTakenSerial refuses a serial number that a leaf of an issuer has, or what the other table keeps under it.
func refuseTakenSerial(tx *gorm.DB, issuer int64, serial, other string) error {
	var taken int64
	err := tx.Raw(`SELECT count(*) FROM (
			SELECT serial FROM reservations WHERE issuer_id = @issuer AND serial = @serial
			UNION ALL
			SELECT serial FROM certificates WHERE issuer_id = @issuer AND serial = @serial
			UNION ALL
			SELECT serial FROM `+other+` = @issuer AND serial = @serial
		) t`, map[string]any{"issuer": issuer, "serial": serial}).Scan(&taken).Error
	if err == nil && taken > 0 {
		err = errSerialTaken
	}
	return err
}

// CompleteCA implements ca.Store.
func (db *DB) CompleteCA(ctx context.Context, id int64, der []byte, e audit.Event) (ca.CA, error) {
	var row authorityRow
	err := db.write(ctx, "CompleteCA", func(tx *gorm.DB) (err error) {
		if row, err = db.completeCA(tx, id, der); err != nil {
			return err
		}
		if err := fulfil(tx, idempotency.From(ctx), id); err != nil {
			return err
		}
		return db.append(tx, e, id)
	})
	return row.ca(), err
}

func (db *DB) completeCA(tx *gorm.DB, id int64, der []byte) (authorityRow, error) {
	var row authorityRow
	res := tx.Model(&row).Clauses(clause.Returning{}).
		Where("id = ? AND state = 'pending' AND serial IS NOT NULL", id).
		Updates(map[string]any{"state": "valid", "certificate": der, "tbs": nil, "updated_at": at(db.now())})
	if res.Error != nil {
		return row, res.Error
	}
	if res.RowsAffected != 1 {
		return row, errCANotReserved
	}
	if err := openState(tx, id); err != nil {
		return row, err
	}
	if row.ParentID == nil {
		return row, nil
	}
	return row, tx.Model(&authorityRow{}).Where("id = ?", *row.ParentID).Update("allow_leaf_certs", false).Error
}

func (db *DB) authority(ctx context.Context, op, condition string, id int64) (ca.CA, error) {
	var rows []authorityRow
	err := db.read(ctx, op, func(q *gorm.DB) error {
		if err := q.Where("id = ? AND "+condition, id).Find(&rows).Error; err != nil {
			return err
		}
		if len(rows) == 0 {
			return errNoCA
		}
		return nil
	})
	if err != nil {
		return ca.CA{}, err
	}
	return rows[0].ca(), nil
}

// CA implements ca.Store.
func (db *DB) CA(ctx context.Context, id int64) (ca.CA, error) {
	return db.authority(ctx, "CA", visible, id)
}

// PublicCA implements ca.Store.
func (db *DB) PublicCA(ctx context.Context, id int64) (ca.CA, error) {
	return db.authority(ctx, "PublicCA", completed, id)
}

// scoped restricts a list to what a caller may see.
func scoped(q *gorm.DB, s ca.Scope) *gorm.DB {
	switch {
	case s.All:
		return q
	case s.UserID != 0 && s.OrganizationID != nil:
		return q.Where("(created_by = ? OR organization_id = ?)", s.UserID, *s.OrganizationID)
	case s.UserID != 0:
		return q.Where("created_by = ?", s.UserID)
	case s.OrganizationID != nil:
		return q.Where("organization_id = ?", *s.OrganizationID)
	}
	return q.Where("1 = 0")
}

// CAs implements ca.Store.
func (db *DB) CAs(ctx context.Context, s ca.Scope, p ca.Page) ([]ca.CA, int64, error) {
	var rows []authorityRow
	var total int64
	err := db.read(ctx, "CAs", func(q *gorm.DB) error {
		if err := scoped(q.Model(&authorityRow{}), s).Where(visible).Count(&total).Error; err != nil {
			return err
		}
		return page(scoped(q, s).Where(visible), p.After, p.Skip, p.Limit).Find(&rows).Error
	})
	return each(rows, authorityRow.ca), total, err
}

// EveryCA implements ca.Store.
func (db *DB) EveryCA(ctx context.Context, p ca.Page) ([]ca.CA, error) {
	var rows []authorityRow
	err := db.read(ctx, "EveryCA", func(q *gorm.DB) error {
		return page(q, p.After, p.Skip, p.Limit).Find(&rows).Error
	})
	return each(rows, authorityRow.ca), err
}

// CAsByName implements ca.Store.
func (db *DB) CAsByName(ctx context.Context, s ca.Scope, name string) ([]ca.CA, error) {
	var rows []authorityRow
	err := db.read(ctx, "CAsByName", func(q *gorm.DB) error {
		return scoped(q, s).Where(visible).Where("name = ?", name).Order("id").Find(&rows).Error
	})
	return each(rows, authorityRow.ca), err
}

// Children implements ca.Store.
func (db *DB) Children(ctx context.Context, id int64) ([]ca.CA, error) {
	var rows []authorityRow
	err := db.read(ctx, "Children", func(q *gorm.DB) error {
		return q.Where(visible).Where("parent_id = ?", id).Order("id").Find(&rows).Error
	})
	return each(rows, authorityRow.ca), err
}

// IsCAKey implements ca.Store.
func (db *DB) IsCAKey(ctx context.Context, publicKey []byte) (bool, error) {
	var rows []authorityRow
	err := db.read(ctx, "IsCAKey", func(q *gorm.DB) error {
		return q.Select("public_key").Where("public_key_sha256 = ?", fingerprint(publicKey)).Find(&rows).Error
	})
	return slices.ContainsFunc(rows, func(r authorityRow) bool { return bytes.Equal(r.PublicKey, publicKey) }), err
}

// DeleteCA implements ca.Store. A child that was never completed does not count.
func (db *DB) DeleteCA(ctx context.Context, id int64, when time.Time, e audit.Event) error {
	return db.write(ctx, "DeleteCA", func(tx *gorm.DB) error {
		// The row lock first: a child that is being reserved meanwhile is then seen by the condition below.
		var rows []authorityRow
		err := tx.Clauses(clause.Locking{Strength: "UPDATE"}).Select("id").Where(visible).Where("id = ?", id).Find(&rows).Error
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return errNoCA
		}
		res := tx.Model(&authorityRow{}).Where(visible).Where(`id = ? AND NOT EXISTS (
			SELECT 1 FROM certificate_authorities child
			WHERE child.parent_id = ? AND child.deleted_at IS NULL AND child.state <> 'abandoned')`, id, id).
			Updates(map[string]any{"deleted_at": at(when), "updated_at": at(db.now())})
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return errChildren
		}
		return db.append(tx, e, id)
	})
}
