package ca

import (
	"context"
	"time"

	"signet/audit"
)

// RevocationPolicy is how a CA publishes what it revoked. The zero value follows the settings of the server: one complete
// list, and OCSP answers signed when they are asked for.
type RevocationPolicy struct {
	CRLValidity time.Duration // from thisUpdate to nextUpdate; 0: the server's setting
	CRLRefresh  time.Duration // a list that did not change is replaced so long after its thisUpdate; 0: the server's setting
	CRLOverlap  time.Duration // a list is replaced at least so long before its nextUpdate; 0: the server's setting
	Shards      int           // partitions that new certificates are spread over, up to MaxShards; 0: none
	Delta       bool          // changes go into delta CRLs, and complete lists follow the schedule

	OCSPValidity time.Duration // from thisUpdate to nextUpdate of an answer; 0: the server's setting
	ByName       bool          // the responder names itself by its subject; otherwise by the hash of its key
	Presign      bool          // answers for every certificate are signed in the background, before anybody asks

	Outage Outage

	UpdatedAt time.Time // zero: never set
}

// MaxShards bounds the partitions of a CA.
const MaxShards = 1024

// Outage is a time during which the token may be away: what must be signed then is signed before. The zero value is none.
type Outage struct{ From, Until time.Time }

// PolicyStore keeps the revocation policies of CAs.
type PolicyStore interface {
	// RevocationPolicy returns the policy of a CA, the zero value when none was set. A deleted CA has one too.
	RevocationPolicy(ctx context.Context, caID int64) (RevocationPolicy, error)
	// RevocationPolicies returns every policy that was set, by CA.
	RevocationPolicies(ctx context.Context) (map[int64]RevocationPolicy, error)
	// SetRevocationPolicy replaces the policy of a CA and opens a list for each of its shards. Shards once opened stay.
	SetRevocationPolicy(ctx context.Context, caID int64, p RevocationPolicy, e audit.Event) error
}

// policyOf returns the revocation policy of a CA.
func (a *Authority) policyOf(ctx context.Context, caID int64) (RevocationPolicy, error) {
	return a.cfg.Store.RevocationPolicy(ctx, caID)
}
