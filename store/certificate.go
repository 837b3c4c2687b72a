package store

import (
	"context"
	"encoding/json"

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

// Certificates implements ca.Store: the page is found in indexes first, then its certificates are read.
func (db *DB) Certificates(ctx context.Context, f ca.CertificateFilter, p ca.Page) ([]ca.Certificate, ca.Total, error) {
	all := []ca.Certificate{}
	var total ca.Total
	match, possible := selected(f)
	scope, alternatives := within(f.Scope)
	if !possible || len(alternatives) == 0 {
		return all, total, nil
	}
	err := db.read(ctx, "Certificates", func(q *gorm.DB) error {
		s := search{db: db, q: q, filter: f, page: p, match: match, scope: scope, alternatives: alternatives}
		ids, n, err := s.run(ctx)
		if err != nil {
			return err
		}
		total = n
		all, err = db.listed(ctx, q, ids)
		return err
	})
	return all, total, err
}

// listed reads certificates as lists have them, in the order of ids. Without reflection: a page has a thousand of them.
func (db *DB) listed(ctx context.Context, q *gorm.DB, ids []int64) ([]ca.Certificate, error) {
	all := make([]ca.Certificate, 0, len(ids))
	if len(ids) == 0 {
		return all, nil
	}
	take := func(rows scanner) error {
		var r certificateRow
		err := rows.Scan(&r.ID, &r.IssuerID, &r.CommonName, &r.SubjectDN, &r.Type, &r.KeyType, &r.KeySize, &r.ValidDays, &r.OrganizationID, &r.CreatedBy,
			&r.Serial, &r.Names, &r.CRLShard, &r.DER, &r.NotBefore, &r.NotAfter, &r.State, &r.RevokedAt, &r.RevocationReason, &r.RevocationText,
			&r.InvalidityDate, &r.Created, &r.Updated)
		all = append(all, r.certificate())
		return err
	}
	const columns = `SELECT id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
		serial, names, crl_shard, der, not_before, not_after, state, revoked_at, revocation_reason, revocation_text, invalidity_date,
		created_at, updated_at FROM certificates WHERE `
	if db.dialect == onPostgres {
		return all, direct(ctx, db.readers, take, columns+"id = ANY($1) ORDER BY id", ids)
	}
	text, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	rows, err := db.query(ctx, q, columns+"id IN (SELECT value FROM json_each(?)) ORDER BY id", string(text))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := take(rows); err != nil {
			return nil, err
		}
	}
	return all, rows.Err()
}
