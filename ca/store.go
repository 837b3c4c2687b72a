package ca

import (
	"context"
	"time"

	"signet/audit"
	"signet/fault"
)

// ErrCAKey says that the key of a CA was to be certified as somebody's own.
var ErrCAKey = fault.New(fault.Invalid, "the public key is that of a CA; use a key of your own")

// Store keeps the records. Each method is one transaction, and appends its audit event in that transaction. An
// event without ResourceID gets the id of the record. Errors are *fault.Error: NotFound, Conflict, Unavailable
// (the database does not answer); anything else is a defect.
//
// Only records that are Valid or Revoked exist for the reading methods, unless they say otherwise; the records of a
// deleted CA, and the CA, do not.
type Store interface {
	ListStore
	PolicyStore
	LeaseStore
	StatusStore
	ExpiryStore
	NoticeStore
	RetentionStore

	// CreateCA records the intent to create a CA: state Pending, no key yet. It assigns the ID, which is never
	// used again.
	CreateCA(ctx context.Context, c CA, e audit.Event) (CA, error)
	// ReserveCA adds to a Pending CA what its certificate will say: SubjectDN, PublicKey, Serial, TBS, ValidDays,
	// NotBefore, NotAfter and PathLength of c are stored. Conflict when it is no longer Pending or when its
	// parent is revoked, deleted or locked by now. A public key belongs to one CA, abandoned ones aside.
	ReserveCA(ctx context.Context, c CA, e audit.Event) error
	// CompleteCA turns a Pending CA into a Valid one and clears TBS. With a parent, it sets the parent's
	// AllowLeafCerts to false. Conflict when the CA is not Pending.
	CompleteCA(ctx context.Context, id int64, der []byte, e audit.Event) (CA, error)
	// AdoptCA is ReserveCA and CompleteCA at once, for a certificate that exists already: a crash leaves no serial
	// that would count as revoked.
	AdoptCA(ctx context.Context, c CA, e audit.Event) (CA, error)
	// AbandonCA closes a Pending CA that was never reserved: no certificate can exist. Conflict otherwise.
	AbandonCA(ctx context.Context, id int64, r Revocation, e audit.Event) error

	CA(ctx context.Context, id int64) (CA, error)
	// PublicCA is CA for relying parties: a deleted CA is found too.
	PublicCA(ctx context.Context, id int64) (CA, error)
	// CAs lists the CAs in scope and counts them all.
	CAs(ctx context.Context, s Scope, p Page) ([]CA, int64, error)
	// EveryCA lists the CAs in every state, Pending, Abandoned and deleted ones too: whose is a key in a token?
	EveryCA(ctx context.Context, p Page) ([]CA, error)
	// CAsByName finds every CA in scope with exactly this name.
	CAsByName(ctx context.Context, s Scope, name string) ([]CA, error)
	// Children lists the CAs certified by this one.
	Children(ctx context.Context, id int64) ([]CA, error)
	// IsCAKey reports whether a public key (DER SubjectPublicKeyInfo) is that of any CA, deleted ones included.
	IsCAKey(ctx context.Context, publicKey []byte) (bool, error)
	// RevokeCA is Revoke for a CA that has a parent.
	RevokeCA(ctx context.Context, id int64, r Revocation, replaces []int, e audit.Event) (CA, error)
	// DeleteCA hides a CA and its certificates. Conflict while a CA that is not deleted names it as parent.
	DeleteCA(ctx context.Context, id int64, at time.Time, e audit.Event) error

	// ProveCA replaces what is known of the key of a Pending, Valid or Revoked CA, and adds the drill that it follows
	// from, if any; of older ones [KeptDrills] are kept, this one included. UpdatedAt stays when nothing changes.
	// Conflict when what is known is no longer what it was: Grade, Locked and Accepted.Grade are compared.
	ProveCA(ctx context.Context, id int64, was, is KeyProof, d *KeyDrill, events ...audit.Event) error
	// Drills lists the drills of a CA, newest first.
	Drills(ctx context.Context, id int64, limit int) ([]KeyDrill, error)
	// ClaimDrill sets DrillClaimedAt of a CA that is not deleted, unless it was set to the time before or a later one.
	// It reports whether it did: of parallel calls one does.
	ClaimDrill(ctx context.Context, id int64, before, at time.Time) (bool, error)
	// KeyDestroyed sets KeyDestroyedAt of a CA that is deleted or revoked. Conflict otherwise, or when it is set.
	KeyDestroyed(ctx context.Context, id int64, at time.Time, e audit.Event) error

	// Reserve records the intent to sign a certificate: state Pending, with serial and TBS. It assigns the ID.
	// Conflict when the serial is taken, or when the issuer is deleted, revoked, locked, or (Type not ca) no longer
	// allows leaf certificates. ErrCAKey when the hash PublicKeySHA256, if given, is that of the key of any CA, deleted
	// and abandoned ones included.
	Reserve(ctx context.Context, c Certificate, e audit.Event) (int64, error)
	// Complete turns a Pending certificate into a Valid one, stores DER and sealed key, clears TBS. Conflict when
	// it is not Pending.
	Complete(ctx context.Context, id int64, der, sealedKey []byte, e audit.Event) (Certificate, error)

	// Certificate finds a certificate; its SealedKey is included.
	Certificate(ctx context.Context, id int64) (Certificate, error)
	// Certificates lists certificates, without their sealed keys, and counts them: at least the first ones
	// where nothing keeps their number.
	Certificates(ctx context.Context, f CertificateFilter, p Page) ([]Certificate, Total, error)
	// Revoke revokes a Valid certificate; the reason of a Revoked one is replaced when its reason is one of replaces, and its
	// time of revocation stays. It enters the ledger of the issuer, whose sequence advances. Conflict when it is already
	// revoked; of parallel calls exactly one succeeds.
	Revoke(ctx context.Context, id int64, r Revocation, replaces []int, e audit.Event) (Certificate, error)
	// Release makes a certificate Valid that is Revoked for the reason certificateHold (6), at the given time. Conflict when
	// it is not on hold.
	Release(ctx context.Context, id int64, at time.Time, e audit.Event) (Certificate, error)

	// Abandon closes every reservation made before the given time: state Abandoned, revoked at now, the issuer's
	// revocation sequence advanced, one event per record (CAAbandon or CertAbandon). It returns how many.
	Abandon(ctx context.Context, before, now time.Time) (int, error)

	// Record appends an event that records no change, such as a refusal.
	Record(ctx context.Context, e audit.Event) error
	// AuditLog lists entries, newest first, those of one moment by id, and counts the first ten thousand.
	AuditLog(ctx context.Context, f audit.Filter) ([]audit.Entry, Total, error)

	// SealedKeys lists the private keys that are kept, by certificate id, only of greater ids than after and at most
	// limit: those of every certificate, whatever became of it and its CA.
	SealedKeys(ctx context.Context, after int64, limit int) ([]SealedKey, error)
	// ReplaceSealedKeys replaces keys that are what they were, all or none: Conflict when one has changed. The event is
	// about no single record.
	ReplaceSealedKeys(ctx context.Context, all []KeyReplacement, e audit.Event) error
}
