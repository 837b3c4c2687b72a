package ca

import (
	"context"
	"time"

	"signet/audit"
)

// RetentionPolicy is how long records are kept. A zero duration is for ever; others are at least [MinRetention].
type RetentionPolicy struct {
	Expired time.Duration // certificates after their notAfter, with their private keys; what is known of lists after their nextUpdate
	Audit   time.Duration // entries of the audit trail, but those that tell of a removal
}

// MinRetention is the shortest time for which records are kept after they ended.
const MinRetention = 24 * time.Hour

// RecordKind is what retention removes.
type RecordKind string

// The kinds.
const (
	CertificateRecords RecordKind = "certificates"
	ListRecords        RecordKind = "crls" // lists whose DER was dropped when others replaced them
	AuditRecords       RecordKind = "audit_log"
)

// RecordKinds is every kind, in the order in which they are removed.
var RecordKinds = []RecordKind{CertificateRecords, ListRecords, AuditRecords}

// RecordPlace is a place in records in the order of time, then of id: by notAfter for certificates, by when they were written
// for entries of the audit trail.
type RecordPlace struct {
	At time.Time
	ID int64
}

// Cut is a batch of records that is removed, as it is kept for ever.
type Cut struct {
	Kind        RecordKind
	CAID        int64     // 0 for entries of the audit trail
	First, Last int64     // the smallest id and the greatest one; numbers of lists
	Count       int       //
	At          time.Time // now
	Before      time.Time // each record ended, or was written, before; at least [MinRetention] before At
	SHA256      []byte    // of the lines that tell what was removed
	Archive     string    // name of the file with these lines; "" when none keeps them
}

// ExpiredCertificate is a certificate that may be removed. SealedKey is empty.
type ExpiredCertificate struct {
	Certificate
	HasKey bool // a private key is kept, which goes with it
}

// Removable counts what a retention policy would remove of one kind, of one CA.
type Removable struct {
	Kind           RecordKind
	CAID           int64 // 0 for entries of the audit trail
	CAName         string
	Before         time.Time // each record ended, or was written, before
	Count          int64
	Oldest, Newest time.Time // when the first and the last of them ended, or were written; zero when Count is 0
	Bytes          int64     // octets of certificates, to-be-signed bytes and private keys, or of the text of entries; 0 for lists

	// Of certificates only. OCSP says good of Valid ones and revoked of the others, and would say unknown.
	Valid, Revoked, Abandoned int64
	Keys                      int64 // private keys that go with them
	Waiting                   int64 // beside Count: no list has shown them yet since they ended
}

// RetentionStore removes records whose time is over. What it removes is gone as a whole: a certificate with its private key, its
// entry in the ledger and its OCSP answers. CAs, their keys and responders, and cuts are never removed.
type RetentionStore interface {
	// Removable counts what ended before expired, and the entries written before entries, as of now. A zero time asks for
	// nothing. Kinds and CAs of which there is nothing are left out; the order is that of RecordKinds, then of CAs.
	Removable(ctx context.Context, now, expired, entries time.Time) ([]Removable, error)
	// ExpiredCertificates lists the certificates of a CA, a deleted one too, in the states Valid, Revoked and Abandoned that ended
	// before a time, after a place, in order. It passes over those in the ledger that a list which must be kept up has not shown
	// since they ended (RFC 5280, section 3.3).
	ExpiredCertificates(ctx context.Context, caID int64, now, before time.Time, after RecordPlace, limit int) ([]ExpiredCertificate, error)
	// RetiredLists lists the lists of a CA that are not pending, whose DER is not kept and whose nextUpdate is before a time, at
	// the smallest Place first.
	RetiredLists(ctx context.Context, caID int64, before time.Time, limit int) ([]List, error)
	// OldEntries lists entries written before a time, after a place, in order; none that tells of a removal.
	OldEntries(ctx context.Context, before time.Time, after RecordPlace, limit int) ([]audit.Entry, error)

	// RemoveCertificates removes certificates of one CA that were listed, all or none, with the cut and its event. Conflict when
	// one was changed or removed since, or may not be removed any more.
	RemoveCertificates(ctx context.Context, c Cut, all []ExpiredCertificate, e audit.Event) error
	// RemoveLists does it with lists.
	RemoveLists(ctx context.Context, c Cut, all []List, e audit.Event) error
	// RemoveEntries does it with entries of the audit trail.
	RemoveEntries(ctx context.Context, c Cut, all []audit.Entry, e audit.Event) error
}

// Archive keeps what retention removes.
type Archive interface {
	// Keep stores lines of JSON under a name. When it returns nil, a power cut does not lose them. The same lines may be kept
	// twice, under the same name.
	Keep(name string, lines []byte) error
}
