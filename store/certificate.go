package store

import (
	"context"

	"gorm.io/gorm"

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
	Names            string
	CRLShard         int `gorm:"column:crl_shard"`
	TBS              []byte
	DER              []byte
	NotBefore        instant
	NotAfter         instant
	State            string
	RevokedAt        *instant
	RevocationReason int
	RevocationText   string
	InvalidityDate   *instant
	Created          instant `gorm:"column:created_at"`
	Updated          instant `gorm:"column:updated_at"`
}

func (certificateRow) TableName() string { return "certificates" }

func (r certificateRow) certificate() ca.Certificate {
	return ca.Certificate{
		ID: r.ID, IssuerID: r.IssuerID, CommonName: r.CommonName, SubjectDN: r.SubjectDN,
		Type: policy.CertificateType(r.Type), KeyType: policy.KeyType(r.KeyType), KeySize: r.KeySize, ValidDays: r.ValidDays,
		OrganizationID: r.OrganizationID, CreatedBy: r.CreatedBy,
		Serial: r.Serial, Names: r.Names, CRLShard: r.CRLShard, TBS: r.TBS, DER: r.DER,
		NotBefore: r.NotBefore.Time, NotAfter: r.NotAfter.Time, State: ca.State(r.State),
		Revocation: revocation(r.RevokedAt, r.RevocationReason, r.RevocationText, r.InvalidityDate),
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
	matching := func(q *gorm.DB) *gorm.DB { return selected(q, f).Where(visibleCertificate) }
	err := db.read(ctx, "Certificates", func(q *gorm.DB) error {
		if err := matching(q.Model(&certificateRow{})).Count(&total).Error; err != nil {
			return err
		}
		return page(matching(q).Omit("tbs"), p.After, p.Skip, p.Limit).Find(&rows).Error
	})
	return each(rows, certificateRow.certificate), total, err
}
