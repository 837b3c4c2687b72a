package store

import (
	"context"
	"time"

	"gorm.io/gorm"

	"signet/ca"
)

// keptUp is the condition that the lists of a CA a must be kept up.
const keptUp = `a.state IN ('valid', 'revoked') AND a.not_after >= @now AND a.key_destroyed_at IS NULL
		AND (a.deleted_at IS NULL
			OR EXISTS (SELECT 1 FROM certificates unexpired WHERE unexpired.issuer_id = a.id AND unexpired.not_after >= @now)
			OR EXISTS (SELECT 1 FROM certificate_authorities child
				WHERE child.parent_id = a.id AND child.serial IS NOT NULL AND child.not_after >= @now))`

// scopesSQL finds the lists that must be kept up, and what there is of each: a row for the current list and one for the
// last, which may be the same one or missing. Whatever may be served is kept, and is found through the index of what is.
const scopesSQL = `
WITH scope AS MATERIALIZED (
	SELECT s.ca_id, s.shard, s.sequence AS changed, d.delta,
		(SELECT c.number FROM crls c
			WHERE c.ca_id = s.ca_id AND c.shard = s.shard AND c.delta = d.delta AND c.kept AND c.this_update <= @now
			ORDER BY c.this_update DESC, c.number DESC LIMIT 1) AS serving,
		(SELECT c.number FROM crls c
			WHERE c.ca_id = s.ca_id AND c.shard = s.shard AND c.delta = d.delta AND c.kept
			ORDER BY c.this_update DESC, c.number DESC LIMIT 1) AS last
	FROM certificate_authorities a
	JOIN crl_scopes s ON s.ca_id = a.id
	CROSS JOIN (SELECT false AS delta UNION ALL SELECT true) d
	WHERE (@every OR a.id IN @ids) AND ` + keptUp + `
)
SELECT scope.ca_id, scope.shard, scope.delta, scope.changed, scope.serving, scope.last,
	l.number, l.base_number, l.state, l.attempts, l.this_update, l.next_update, l.sequence, l.entries, l.size, l.sha256
FROM scope LEFT JOIN crls l ON l.ca_id = scope.ca_id AND l.shard = scope.shard AND l.delta = scope.delta AND l.kept
	AND l.number IN (scope.serving, scope.last)
WHERE NOT scope.delta OR scope.last IS NOT NULL
ORDER BY scope.ca_id, scope.shard, scope.delta`

// scopeList is a row of scopesSQL. Without a list, what would be of it is zero.
type scopeList struct {
	List          listRow `gorm:"embedded"`
	Changed       int64
	Serving, Last *int64
}

// ListScopes implements ca.Store.
func (db *DB) ListScopes(ctx context.Context, now time.Time, caIDs ...int64) ([]ca.ScopeState, error) {
	var rows []scopeList
	err := db.read(ctx, "ListScopes", func(q *gorm.DB) error {
		return q.Raw(scopesSQL, map[string]any{"now": at(now), "every": len(caIDs) == 0, "ids": caIDs}).Scan(&rows).Error
	})
	var all []ca.ScopeState
	for _, r := range rows {
		l := r.List.list()
		if n := len(all); n == 0 || all[n-1].ListScope != l.ListScope {
			all = append(all, ca.ScopeState{ListScope: l.ListScope, Changed: r.Changed})
		}
		scope := &all[len(all)-1]
		if r.Serving != nil && *r.Serving == l.Number {
			scope.Current = &l
		}
		if r.Last != nil && *r.Last == l.Number {
			scope.Last = &l
		}
	}
	return all, err
}
