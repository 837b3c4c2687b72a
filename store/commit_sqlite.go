package store

import (
	"context"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/ca"
)

// commitSQLite does the jobs one by one in one transaction. What a job may not do, its conditional statement does not
// do, without harm to the others.
func (db *DB) commitSQLite(ctx context.Context, jobs []*job) error {
	return db.writer.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		for _, j := range jobs {
			do := db.completeSQLite
			if j.reserve != nil {
				do = db.reserveSQLite
			}
			if err := do(tx, j); err != nil {
				return err
			}
		}
		return nil
	})
}

func (db *DB) reserveSQLite(tx *gorm.DB, j *job) error {
	r := j.reserve
	var ids []int64
	err := tx.Raw(`
		INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, tbs, not_before, not_after, state, created_at, updated_at)
		SELECT id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?
		FROM certificate_authorities
		WHERE id = ? AND state = 'valid' AND deleted_at IS NULL AND key_locked = '' AND (allow_leaf_certs OR ? = 'ca')
			AND NOT EXISTS (SELECT 1 FROM certificate_authorities child WHERE child.parent_id = ? AND child.serial = ?)
		ON CONFLICT (issuer_id, serial) DO NOTHING
		RETURNING id`,
		r.CommonName, r.SubjectDN, r.Type, r.KeyType, r.KeySize, r.ValidDays, r.OrganizationID,
		r.CreatedBy, r.Serial, r.Names, r.CRLShard, r.TBS, r.NotBefore, r.NotAfter, r.Created, r.Updated,
		r.IssuerID, r.Type, r.IssuerID, r.Serial).Scan(&ids).Error
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		var issuers []authorityRow
		if err := tx.Select("state", "deleted_at", "allow_leaf_certs", "key_locked").Where("id = ?", r.IssuerID).Find(&issuers).Error; err != nil {
			return err
		}
		var s standing
		if len(issuers) > 0 {
			i := issuers[0]
			s = standing{signs: i.State == string(ca.Valid) && i.Deleted == nil, leaves: i.AllowLeafCerts, locked: i.KeyLocked != ""}
		}
		j.err = whyNotReserved(r, s)
		return nil
	}
	j.result.ID = ids[0]
	return db.append(tx, j.event, ids[0])
}

func (db *DB) completeSQLite(tx *gorm.DB, j *job) error {
	c := j.complete
	res := tx.Model(&j.result).Clauses(clause.Returning{}).Where("id = ? AND state = 'pending'", c.id).
		Updates(map[string]any{"state": string(ca.Valid), "der": c.der, "tbs": nil, "updated_at": at(db.now())})
	if res.Error != nil {
		return res.Error
	}
	if res.RowsAffected != 1 {
		j.err = errNotReserved
		return nil
	}
	if len(c.sealedKey) > 0 {
		if err := tx.Create(&keyRow{CertificateID: c.id, SealedKey: c.sealedKey}).Error; err != nil {
			return err
		}
	}
	return db.append(tx, j.event, c.id)
}
