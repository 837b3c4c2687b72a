// Package ca is what a certificate authority does: create CAs, issue certificates, sign CSRs, revoke, publish CRLs,
// export, and answer for it in an audit trail. The order of the steps is written here and nowhere else.
//
// What must never happen: a signature of a CA key that no record announced; a certificate that was answered and is
// not recorded; a CA private key outside its token; a database transaction that waits for the token.
package ca

import (
	"time"

	"signet/audit"
	"signet/policy"
)

// State is where a record stands between the intent to sign and the end of its life.
type State string

// The states. A record is visible to callers once it is valid.
const (
	Pending   State = "pending"   // reserved: a signature may exist
	Valid     State = "valid"     // completed
	Revoked   State = "revoked"   //
	Abandoned State = "abandoned" // never completed; its serial counts as revoked
)

// CA is a certificate authority: a certificate, and a key in the token that is named by KeyID and PublicKey.
type CA struct {
	ID             int64
	Name           string
	Description    *string
	SubjectDN      string
	KeyType        policy.KeyType
	KeySize        int // bits
	ValidDays      int
	ParentID       *int64 // nil: self-signed root
	PathLength     *int   // nil: unlimited
	AllowLeafCerts bool
	CRLBaseURL     *string // base of the URLs in what this CA issues; nil: the server's public URL
	OrganizationID *int64
	CreatedBy      *int64

	Token       string // name of the token with the key, in the configuration; "" is the default one
	KeyID       []byte // CKA_ID; 16 random octets unless the key was adopted
	PublicKey   []byte // DER SubjectPublicKeyInfo
	Serial      string // lower-case hex
	TBS         []byte // DER TBSCertificate, while Pending
	Certificate []byte // DER; empty while Pending or Abandoned
	NotBefore   time.Time
	NotAfter    time.Time

	Proof          KeyProof
	DrillClaimedAt *time.Time // when a scheduled drill of the key began last
	KeyDestroyedAt *time.Time // nothing can be signed since then, no CRL either

	State      State
	Revocation Revocation // when State is Revoked or Abandoned
	DeletedAt  *time.Time // hidden from every authenticated call since then

	CreatedAt, UpdatedAt time.Time
}

// IsRoot reports whether the CA is self-signed.
func (c CA) IsRoot() bool { return c.ParentID == nil }

func (c CA) object() policy.Object {
	return policy.Object{OrganizationID: c.OrganizationID, CreatedBy: c.CreatedBy}
}

// Certificate is a certificate issued by a CA of ours.
type Certificate struct {
	ID             int64
	IssuerID       int64
	CommonName     string
	SubjectDN      string
	Type           policy.CertificateType
	KeyType        policy.KeyType
	KeySize        int // bits
	ValidDays      int
	OrganizationID *int64
	CreatedBy      *int64

	PublicKeySHA256 []byte // of its DER SubjectPublicKeyInfo; for Reserve, and not kept

	Serial     string // lower-case hex, unique per issuer
	Names      string // common name and subject alternative names in lower case, a line each
	CRLShard   int    // the partition that its distribution point names; 0: none
	TBS        []byte // DER TBSCertificate, while Pending
	DER        []byte // empty while Pending or Abandoned
	SealedKey  []byte // private key sealed by the token (PKCS#8 inside); empty when none is kept
	NotBefore  time.Time
	NotAfter   time.Time
	State      State
	Revocation Revocation

	CreatedAt, UpdatedAt time.Time
}

func (c Certificate) object() policy.Object {
	return policy.Object{OrganizationID: c.OrganizationID, CreatedBy: c.CreatedBy}
}

// Status is the state as relying parties see it at the time now: valid, revoked or expired.
func (c Certificate) Status(now time.Time) string {
	switch {
	case c.State == Revoked:
		return "revoked"
	case now.After(c.NotAfter):
		return "expired"
	}
	return "valid"
}

// Revocation is the end of a certificate before its time.
type Revocation struct {
	At     time.Time
	Reason int    // CRLReason (RFC 5280, section 5.3.1)
	Text   string // the caller's words

	InvalidityDate time.Time // since when the key is known or suspected to be compromised; zero: not known
}

// Scope is which records a caller may see in lists. The zero value sees none.
type Scope struct {
	All            bool   // superuser
	UserID         int64  // what this user created
	OrganizationID *int64 // and what belongs to this organization; nil adds nothing
}

// Page is a part of a list, which is ordered by id, ascending.
type Page struct {
	After int64 // only records with a greater id
	Skip  int
	Limit int // at most so many; 0 means none
}

// Total is how many records a list has in all.
type Total = audit.Total

// CertificateFilter selects certificates.
type CertificateFilter struct {
	Scope         Scope
	IssuerID      *int64
	Status        string     // "valid", "revoked" or "expired", at the time Now; "": any
	Now           time.Time  // needed with Status
	ExpiresBefore *time.Time // notAfter is earlier
	Serial        string     // exactly; lower-case hex
	Query         string     // part of a name, or a serial number; lower case
}
