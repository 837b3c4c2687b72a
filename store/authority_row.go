package store

import (
	"crypto/sha256"
	"time"

	"signet/ca"
	"signet/fault"
	"signet/policy"
)

// authorityRow is a row of certificate_authorities.
type authorityRow struct {
	ID               int64
	Name             string
	Description      *string
	SubjectDN        string
	KeyType          string
	KeySize          int
	ValidDays        int
	ParentID         *int64
	PathLength       *int
	AllowLeafCerts   bool
	CRLBaseURL       *string `gorm:"column:crl_base_url"`
	OrganizationID   *int64
	CreatedBy        *int64
	Token            string
	KeyID            []byte
	PublicKey        []byte
	PublicKeySHA256  []byte `gorm:"column:public_key_sha256"`
	Serial           *string
	TBS              []byte
	Certificate      []byte
	NotBefore        instant
	NotAfter         instant
	State            string
	RevokedAt        *instant
	RevocationReason int
	RevocationText   string
	InvalidityDate   *instant
	KeyGrade         string
	KeyLocked        string
	AcceptedGrade    string
	AcceptedBy       string
	AcceptedAt       *instant
	AcceptedReason   string
	DrillClaimed     *instant `gorm:"column:drill_claimed_at"`
	KeyDestroyed     *instant `gorm:"column:key_destroyed_at"`
	Deleted          *instant `gorm:"column:deleted_at"`
	Created          instant  `gorm:"column:created_at"`
	Updated          instant  `gorm:"column:updated_at"`
}

func (authorityRow) TableName() string { return "certificate_authorities" }

func (r authorityRow) ca() ca.CA {
	c := ca.CA{
		ID: r.ID, Name: r.Name, Description: r.Description, SubjectDN: r.SubjectDN,
		KeyType: policy.KeyType(r.KeyType), KeySize: r.KeySize, ValidDays: r.ValidDays,
		ParentID: r.ParentID, PathLength: r.PathLength, AllowLeafCerts: r.AllowLeafCerts, CRLBaseURL: r.CRLBaseURL,
		OrganizationID: r.OrganizationID, CreatedBy: r.CreatedBy,
		Token: r.Token, KeyID: r.KeyID, PublicKey: r.PublicKey, Proof: r.proof(), TBS: r.TBS, Certificate: r.Certificate,
		NotBefore: r.NotBefore.Time, NotAfter: r.NotAfter.Time, State: ca.State(r.State),
		Revocation: revocation(r.RevokedAt, r.RevocationReason, r.RevocationText, r.InvalidityDate),
		CreatedAt:  r.Created.Time, UpdatedAt: r.Updated.Time,
	}
	if r.Serial != nil {
		c.Serial = *r.Serial
	}
	for column, field := range map[*instant]**time.Time{
		r.Deleted: &c.DeletedAt, r.DrillClaimed: &c.DrillClaimedAt, r.KeyDestroyed: &c.KeyDestroyedAt,
	} {
		if column != nil {
			*field = &column.Time
		}
	}
	return c
}

func (db *DB) pendingAuthority(c ca.CA) authorityRow {
	created := c.CreatedAt
	if created.IsZero() {
		created = db.now()
	}
	row := authorityRow{
		Name: c.Name, Description: c.Description, SubjectDN: c.SubjectDN,
		KeyType: string(c.KeyType), KeySize: c.KeySize, ValidDays: c.ValidDays,
		ParentID: c.ParentID, PathLength: c.PathLength, AllowLeafCerts: c.AllowLeafCerts, CRLBaseURL: c.CRLBaseURL,
		OrganizationID: c.OrganizationID, CreatedBy: c.CreatedBy, Token: c.Token, KeyID: c.KeyID,
		NotBefore: at(c.NotBefore), NotAfter: at(c.NotAfter), State: string(ca.Pending),
		AcceptedGrade: string(c.Proof.Accepted.Grade), AcceptedBy: c.Proof.Accepted.By, AcceptedReason: c.Proof.Accepted.Reason,
		Created: at(created), Updated: at(created),
	}
	if when := at(c.Proof.Accepted.At); !when.IsZero() {
		row.AcceptedAt = &when
	}
	return row
}

func fingerprint(publicKey []byte) []byte {
	sum := sha256.Sum256(publicKey)
	return sum[:]
}

// The answers to a caller.
var (
	errNoCA             = fault.New(fault.NotFound, "CA not found")
	errNoCertificate    = fault.New(fault.NotFound, "Certificate not found")
	errNoCRL            = fault.New(fault.NotFound, "CRL not found")
	errCANotPending     = fault.New(fault.Conflict, "CA is not pending, or already reserved")
	errCANotReserved    = fault.New(fault.Conflict, "CA is not reserved, or already completed")
	errNotReserved      = fault.New(fault.Conflict, "Certificate is not reserved, or already completed")
	errSerialTaken      = fault.New(fault.Conflict, "Serial number is already in use")
	errKeyTaken         = fault.New(fault.Conflict, "Public key is already in use")
	errKeyProof         = fault.New(fault.Conflict, "What is known of the CA's key has changed meanwhile")
	errKeyInUse         = fault.New(fault.Conflict, "CA is neither deleted nor revoked, or its key was destroyed before")
	errCARevoked        = fault.New(fault.Conflict, "CA is already revoked")
	errRoot             = fault.New(fault.Conflict, "A root CA cannot be revoked")
	errChildren         = fault.New(fault.Conflict, "CA has child CAs; delete them first")
	errCertificateEnded = fault.New(fault.Conflict, "Certificate is already revoked")
	errNotHeld          = fault.New(fault.Conflict, "Certificate is not on hold")
	errCRLNumber        = fault.New(fault.Conflict, "CRL number is not the next one any more")
)

// errIssuerGone says that an issuer can no longer sign anything.
func errIssuerGone(id int64) error {
	return fault.New(fault.Conflict, "CA %d is revoked or deleted", id)
}

// errIssuerLocked says that the key of an issuer is known too little by now.
func errIssuerLocked(id int64) error {
	return fault.New(fault.Conflict, "CA %d is locked", id)
}

// errNoLeaves says that an issuer no longer signs leaf certificates.
func errNoLeaves(id int64) error {
	return fault.New(fault.Conflict, "CA %d does not allow leaf certificate issuance", id)
}
