package store

import (
	"cmp"
	"maps"
	"slices"

	"gorm.io/gorm"

	"signet/ca"
)

// issueStripes and otherStripes are how many transactions of each kind count at the same time, at best. Each process takes
// one stripe for what it issues and another one for what it changes afterwards.
const (
	issueStripes = 8
	otherStripes = 8
)

// tally names a counter in certificate_counts, whatever its stripe.
type tally struct {
	issuer, organization, creator int64
	state                         ca.State
}

// tally is where the certificate counts in a state.
func (r *certificateRow) tally(s ca.State) tally {
	t := tally{issuer: r.IssuerID, state: s}
	if r.OrganizationID != nil {
		t.organization = *r.OrganizationID
	}
	if r.CreatedBy != nil {
		t.creator = *r.CreatedBy
	}
	return t
}

const countSQL = `INSERT INTO certificate_counts AS c (issuer_id, organization_id, created_by, state, stripe, n) VALUES (?, ?, ?, ?, ?, ?)
	ON CONFLICT (issuer_id, organization_id, created_by, state, stripe) DO UPDATE SET n = c.n + excluded.n`

// sorted is the order in which every transaction changes counters, so that two of them never wait in a circle.
func sorted(changes map[tally]int64) []tally {
	return slices.SortedFunc(maps.Keys(changes), func(a, b tally) int {
		return cmp.Or(cmp.Compare(a.issuer, b.issuer), cmp.Compare(a.organization, b.organization),
			cmp.Compare(a.creator, b.creator), cmp.Compare(a.state, b.state))
	})
}

// count changes counters in the transaction of what they count.
func (db *DB) count(tx *gorm.DB, changes map[tally]int64) error {
	for _, t := range sorted(changes) {
		err := tx.Exec(countSQL, t.issuer, t.organization, t.creator, string(t.state), db.stripe, changes[t]).Error
		if err != nil {
			return err
		}
	}
	return nil
}
