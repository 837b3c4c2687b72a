package store

import (
	"context"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/ca"
	"signet/policy"
)

// certificateRow is a row of certificates.
type certificateRow struct {
	ID               int64
	IssuerID         int64
	CommonName       string
	SubjectDN        string
	Type             string
	KeyType          string
	KeySize          int
	ValidDays        int
	OrganizationID   *int64
	CreatedBy        *int64
	Serial           string
	TBS              []byte
	DER              []byte
	NotBefore        instant
	NotAfter         instant
	State            string
	RevokedAt        *instant
	RevocationReason int
	RevocationText   string
	Created          instant `gorm:"column:created_at"`
	Updated          instant `gorm:"column:updated_at"`
}

func (certificateRow) TableName() string { return "certificates" }

func (r certificateRow) certificate() ca.Certificate {
	return ca.Certificate{
		ID: r.ID, IssuerID: r.IssuerID, CommonName: r.CommonName, SubjectDN: r.SubjectDN,
		Type: policy.CertificateType(r.Type), KeyType: policy.KeyType(r.KeyType), KeySize: r.KeySize, ValidDays: r.ValidDays,
		OrganizationID: r.OrganizationID, CreatedBy: r.CreatedBy, Serial: r.Serial, TBS: r.TBS, DER: r.DER,
		NotBefore: r.NotBefore.Time, NotAfter: r.NotAfter.Time, State: ca.State(r.State),
		Revocation: ca.Revocation{At: timeOf(r.RevokedAt), Reason: r.RevocationReason, Text: r.RevocationText},
		CreatedAt:  r.Created.Time, UpdatedAt: r.Updated.Time,
	}
}

// keyRow is a row of certificate_keys.
type keyRow struct {
	CertificateID int64 `gorm:"primaryKey"`
	SealedKey     []byte
}

func (keyRow) TableName() string { return "certificate_keys" }

// visibleCertificate is the condition that a certificate exists for callers.
const visibleCertificate = completed + ` AND NOT EXISTS (
	SELECT 1 FROM certificate_authorities issuer WHERE issuer.id = certificates.issuer_id AND issuer.deleted_at IS NOT NULL)`

// Certificate implements ca.Store.
func (db *DB) Certificate(ctx context.Context, id int64) (ca.Certificate, error) {
	var rows []certificateRow
	var keys []keyRow
	err := db.read(ctx, "Certificate", func(q *gorm.DB) error {
		if err := q.Where("id = ? AND "+visibleCertificate, id).Find(&rows).Error; err != nil {
			return err
		}
		if len(rows) == 0 {
			return errNoCertificate
		}
		return q.Where("certificate_id = ?", id).Find(&keys).Error
	})
	if err != nil {
		return ca.Certificate{}, err
	}
	c := rows[0].certificate()
	if len(keys) > 0 {
		c.SealedKey = keys[0].SealedKey
	}
	return c, nil
}

// Certificates implements ca.Store.
func (db *DB) Certificates(ctx context.Context, f ca.CertificateFilter, p ca.Page) ([]ca.Certificate, int64, error) {
	var rows []certificateRow
	var total int64
	matching := func(q *gorm.DB) *gorm.DB { return filtered(q, f).Where(visibleCertificate) }
	err := db.read(ctx, "Certificates", func(q *gorm.DB) error {
		if err := matching(q.Model(&certificateRow{})).Count(&total).Error; err != nil {
			return err
		}
		return page(matching(q).Omit("tbs"), p.After, p.Skip, p.Limit).Find(&rows).Error
	})
	return each(rows, certificateRow.certificate), total, err
}

// Revoke implements ca.Store.
func (db *DB) Revoke(ctx context.Context, id int64, r ca.Revocation, e audit.Event) (ca.Certificate, error) {
	var c ca.Certificate
	err := db.write(ctx, "Revoke", func(tx *gorm.DB) error {
		var row certificateRow
		res := tx.Model(&row).Clauses(clause.Returning{}).
			Where("id = ? AND state = 'valid' AND "+visibleCertificate, id).
			Updates(db.revocation(ca.Revoked, r))
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return whyNotEnded(tx, id)
		}
		var keys []keyRow
		if err := tx.Where("certificate_id = ?", id).Find(&keys).Error; err != nil {
			return err
		}
		if err := advance(tx, row.IssuerID, 1); err != nil {
			return err
		}
		c = row.certificate()
		if len(keys) > 0 {
			c.SealedKey = keys[0].SealedKey
		}
		return db.append(tx, e, id)
	})
	return c, err
}

func whyNotEnded(tx *gorm.DB, id int64) error {
	var found int64
	err := tx.Model(&certificateRow{}).Where("id = ? AND "+visibleCertificate, id).Count(&found).Error
	switch {
	case err != nil:
		return err
	case found == 0:
		return errNoCertificate
	}
	return errCertificateEnded
}

// abandoned is how a reservation ends that nobody completed. Its to-be-signed bytes stay in the database as evidence.
func abandoned(now time.Time) ca.Revocation {
	return ca.Revocation{At: now, Text: "never completed"}
}

// Abandon implements ca.Store.
func (db *DB) Abandon(ctx context.Context, before, now time.Time) (int, error) {
	var n int
	err := db.write(ctx, "Abandon", func(tx *gorm.DB) error {
		var certificates []certificateRow
		err := tx.Model(&certificates).Clauses(clause.Returning{Columns: columns("id", "issuer_id", "serial", "organization_id")}).
			Where("state = 'pending' AND created_at < ?", at(before)).Updates(db.revocation(ca.Abandoned, abandoned(now))).Error
		if err != nil {
			return err
		}
		var authorities []authorityRow
		err = tx.Model(&authorities).Clauses(clause.Returning{Columns: columns("id", "parent_id", "serial", "organization_id")}).
			Where("state = 'pending' AND created_at < ?", at(before)).Updates(db.revocation(ca.Abandoned, abandoned(now))).Error
		if err != nil {
			return err
		}
		n = len(certificates) + len(authorities)
		return db.closeReservations(tx, certificates, authorities)
	})
	return n, err
}

func columns(names ...string) []clause.Column {
	return each(names, func(name string) clause.Column { return clause.Column{Name: name} })
}

// closeReservations makes the CRLs of the issuers stale and adds the events.
func (db *DB) closeReservations(tx *gorm.DB, certificates []certificateRow, authorities []authorityRow) error {
	var events []auditRow
	issuers := map[int64]int{}
	event := func(action audit.Action, resource string, id int64, organization *int64, serial string) {
		events = append(events, db.auditRow(audit.Event{Action: action, ResourceType: resource, ResourceID: &id,
			OrganizationID: organization, Detail: "reservation of serial " + serial + " was never completed"}))
	}
	for _, c := range certificates {
		issuers[c.IssuerID]++
		event(audit.CertAbandon, audit.ResourceCertificate, c.ID, c.OrganizationID, c.Serial)
	}
	for _, a := range authorities {
		if a.ParentID != nil {
			issuers[*a.ParentID]++
		}
		event(audit.CAAbandon, audit.ResourceCA, a.ID, a.OrganizationID, a.ca().Serial)
	}
	for _, id := range sortedKeys(issuers) {
		if err := advance(tx, id, issuers[id]); err != nil {
			return err
		}
	}
	if len(events) == 0 {
		return nil
	}
	return tx.CreateInBatches(events, 500).Error
}
