package ca

import (
	"context"
	"iter"
	"time"

	"signet/audit"
)

// ListScope names a list: the complete or delta CRL of one shard of a CA.
type ListScope struct {
	CAID  int64
	Shard int // 0: the list of everything, which certificates outside shards name
	Delta bool
}

// List is a revocation list.
type List struct {
	ListScope
	Number     int64 // one sequence per CA, over all shards
	Base       int64 // of a delta: the number of the complete list that it builds on
	State      ListState
	Attempts   int // how often its signature was begun
	ThisUpdate time.Time
	NextUpdate time.Time
	Sequence   int64 // every change of the CA up to this one is in the list
	Entries    int
	Size       int64  // octets of DER
	SHA256     []byte // of DER
	DER        []byte // empty while pending, and once the list is no longer kept
}

// Place orders the lists of a CA: those of a later number are at a greater one, and a complete list comes after the delta
// that has its number.
func (l List) Place() int64 {
	if l.Delta {
		return 2 * l.Number
	}
	return 2*l.Number + 1
}

// ListState is where a list stands. One whose time has not come is published too: it is served from its thisUpdate on.
type ListState string

// The states.
const (
	ListPending   ListState = "pending"   // its number is taken; it may have been signed
	ListPublished ListState = "published" //
	ListWithdrawn ListState = "withdrawn" // a newer list took its place before its time
)

// RevokedEntry is one serial number in the ledger of what a CA revoked.
type RevokedEntry struct {
	Serial         string
	Shard          int
	Sequence       int64 // of the CA, when this changed last
	At             time.Time
	Reason         int       // CRLReason (RFC 5280, section 5.3.1)
	InvalidityDate time.Time // zero: not known
	NotAfter       time.Time // of the certificate
	Released       bool      // it was on hold and is good again: for delta CRLs only
}

// ScopeState is a list that must be kept up, and what there is of it.
type ScopeState struct {
	ListScope
	Changed int64 // sequence of the last change in the shard
	Current *List // the newest list whose time has come, without DER; nil: none
	Last    *List // the newest published list, of the future too, without DER; nil: none
}

// RevocationState is what a CA has numbered so far.
type RevocationState struct {
	CAID      int64
	Sequence  int64
	CRLNumber int64 // of the last list that was completed
}

// ListStore keeps revocation lists and the ledger that they are made of.
type ListStore interface {
	// RevocationStates returns those of every CA that has one, deleted CAs included. It is cheap: replicas ask several times
	// a second.
	RevocationStates(ctx context.Context) ([]RevocationState, error)
	// ChangedSerials lists what changed in the ledger of a CA after a sequence, at most limit.
	ChangedSerials(ctx context.Context, caID, after int64, limit int) ([]RevokedEntry, error)
	// RevokedEntries streams what changed in a shard (0: in all of them) after a sequence (-1: everything), released entries
	// included, without what had expired at notExpiredAt (zero: nothing had). One consistent view; memory does not grow with it.
	RevokedEntries(ctx context.Context, caID int64, shard int, changedAfter int64, notExpiredAt time.Time) iter.Seq2[RevokedEntry, error]

	// ListScopes returns the complete lists that must be kept up at the time now: of every CA that has its key and has not
	// expired and, when deleted, has issued what has not expired. Deltas are returned beside them where there is one. With ids,
	// those of these CAs only.
	ListScopes(ctx context.Context, now time.Time, caIDs ...int64) ([]ScopeState, error)
	// BeginList takes the number after the last completed list of the CA and records that it is going to be signed; the same
	// number is taken again while nobody completes it, with Attempts counted up. Number, Sequence and Attempts are returned.
	// at is the time now. A base and its delta have the same number: begin once, complete together. NotFound when there is no
	// such CA, or no such shard.
	BeginList(ctx context.Context, s ListScope, at time.Time) (List, error)
	// CompleteLists stores signed lists of one number (a complete list, a delta, or both), all or none; published lists of
	// the same scopes whose thisUpdate is later are withdrawn. Size and SHA256 follow from DER, which is kept of the last two
	// lists of a scope whose time has come, and of those to come. Conflict when the number is not the next one any more, or
	// was not taken.
	CompleteLists(ctx context.Context, lists []List, e audit.Event) error
	// CurrentList returns the published list with the latest thisUpdate that is not after now, with DER, and the thisUpdate of
	// the one that follows it (zero: none yet). NotFound when there is none.
	CurrentList(ctx context.Context, s ListScope, now time.Time) (list List, until time.Time, err error)
	// Lists returns the lists of a CA without DER, those at the greatest Place first, and counts them all. p.After is a Place:
	// only lists at a smaller one.
	Lists(ctx context.Context, caID int64, p Page) ([]List, int64, error)
}

// PublishedList is a list as relying parties get it, the same octets on every replica. They are shared: do not change them.
type PublishedList struct {
	List
	ETag       string    // strong, quoted
	FreshUntil time.Time // another list may be had from then on: its successor's thisUpdate, or its nextUpdate
	gzip       func() []byte
}

// Gzip returns the DER compressed, or nil when that would not make it smaller.
func (l *PublishedList) Gzip() []byte { return l.gzip() }
