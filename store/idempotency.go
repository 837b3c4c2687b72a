package store

import (
	"context"
	"strings"
	"time"

	"gorm.io/gorm"

	"signet/idempotency"
)

// claimSQL claims a key that is free, has expired (?6), or was claimed for the same request so long ago (?7) that nobody is
// at it any more. A row comes back when it did.
const claimSQL = `
INSERT INTO idempotency_keys AS k (user_id, key_sha256, request, attempt, claimed_at) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (user_id, key_sha256) DO UPDATE
	SET request = excluded.request, attempt = excluded.attempt, claimed_at = excluded.claimed_at, result_id = NULL
	WHERE k.claimed_at <= ?6 OR k.result_id IS NULL AND k.claimed_at <= ?7 AND k.request = excluded.request
RETURNING `

// A claim need not outlive a crash of the database: without it nothing can be completed, and what is completed is durable with
// the claim, which was written before. So nobody waits for the disk here.
var (
	claimPostgres = strings.ReplaceAll(claimSQL, "?", "$") + "set_config('synchronous_commit', 'off', true)"
	claimSQLite   = claimSQL + "attempt"
)

// claimAttempts bounds how often a claim is tried that lost against one that was then released.
const claimAttempts = 3

// ClaimRequest implements api.Claims.
func (db *DB) ClaimRequest(ctx context.Context, c idempotency.Claim) (int64, error) {
	for range claimAttempts {
		claimed, err := db.claim(ctx, c)
		if claimed || err != nil {
			return 0, err
		}
		var rows []claimRow
		err = db.read(ctx, "FindClaim", func(q *gorm.DB) error {
			return q.Where("user_id = ? AND key_sha256 = ?", c.UserID, c.Key[:]).Find(&rows).Error
		})
		if err != nil {
			return 0, err
		}
		if len(rows) > 0 {
			return rows[0].found(c, db.now())
		}
	}
	return 0, idempotency.InFlight(0)
}

// claim reports whether the claim was made.
func (db *DB) claim(ctx context.Context, c idempotency.Claim) (bool, error) {
	if db.dialect == onSQLite { // where what is durable is worth sharing
		j := &job{claim: &c}
		err := db.submit(ctx, "ClaimRequest", db.reserves, j)
		return j.result.ID != 0, err
	}
	claimed, start := false, time.Now()
	err := db.patiently(ctx, func(ctx context.Context) error {
		rows, err := db.writer.ConnPool.QueryContext(ctx, claimPostgres, db.claimValues(c)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		claimed = rows.Next()
		return rows.Err()
	})
	db.observe("ClaimRequest", time.Since(start), err)
	return claimed, err
}

// claimValues are the arguments of claimSQL.
func (db *DB) claimValues(c idempotency.Claim) []any {
	now := db.now()
	return []any{c.UserID, c.Key[:], c.Request[:], c.Attempt, at(now), at(now.Add(-idempotency.Lifetime)), at(now.Add(-idempotency.Lease))}
}

// claimRow is a row of idempotency_keys.
type claimRow struct {
	UserID    int64
	KeySHA256 []byte `gorm:"column:key_sha256"`
	Request   []byte
	Attempt   int64
	ClaimedAt instant
	ResultID  *int64
}

func (claimRow) TableName() string { return "idempotency_keys" }

// found is the answer to a claim that found this row in its way.
func (r claimRow) found(c idempotency.Claim, now time.Time) (int64, error) {
	switch {
	case string(r.Request) != string(c.Request[:]):
		return 0, idempotency.ErrReused
	case r.ResultID == nil:
		return 0, idempotency.InFlight(now.Sub(r.ClaimedAt.Time))
	}
	return *r.ResultID, nil
}

// fulfil records in a claim, if there is one, what was made, in the transaction that makes it.
func fulfil(tx *gorm.DB, c *idempotency.Claim, resultID int64) error {
	if c == nil {
		return nil
	}
	res := held(tx, *c).Update("result_id", resultID)
	if res.Error == nil && res.RowsAffected != 1 {
		return idempotency.ErrLost
	}
	return res.Error
}

// held finds a claim that has no result yet and is nobody else's by now.
func held(tx *gorm.DB, c idempotency.Claim) *gorm.DB {
	return tx.Model(&claimRow{}).
		Where("user_id = ? AND key_sha256 = ? AND attempt = ? AND result_id IS NULL", c.UserID, c.Key[:], c.Attempt)
}

// ReleaseClaim implements api.Claims.
func (db *DB) ReleaseClaim(ctx context.Context, c idempotency.Claim) error {
	return db.write(ctx, "ReleaseClaim", func(tx *gorm.DB) error { return held(tx, c).Delete(&claimRow{}).Error })
}

// EndClaims lets whoever comes next take over every claim without result: those of an earlier process, on a database that no
// other one uses now.
func (db *DB) EndClaims(ctx context.Context) error {
	return db.write(ctx, "EndClaims", func(tx *gorm.DB) error {
		ended := at(db.now().Add(-idempotency.Lease))
		return tx.Model(&claimRow{}).Where("result_id IS NULL AND claimed_at > ?", ended).Update("claimed_at", ended).Error
	})
}

// PruneClaims removes the claims that have expired, in transactions so short that nobody waits for them.
func (db *DB) PruneClaims(ctx context.Context) error {
	expired := at(db.now().Add(-idempotency.Lifetime))
	for {
		var removed int64
		err := db.write(ctx, "PruneClaims", func(tx *gorm.DB) error {
			// The time once more: a row that is claimed anew meanwhile stays.
			res := tx.Exec(`DELETE FROM idempotency_keys WHERE claimed_at <= ? AND (user_id, key_sha256) IN (
				SELECT user_id, key_sha256 FROM idempotency_keys WHERE claimed_at <= ? LIMIT ?)`, expired, expired, maxPruned)
			removed = res.RowsAffected
			return res.Error
		})
		if err != nil || removed == 0 {
			return err
		}
	}
}

// claimSQLite is claim for a group.
func (g *groupSQLite) claim(j *job) error {
	row, err := g.row(claimSQLite, g.db.claimValues(*j.claim)...)
	if err != nil || row == nil {
		return err
	}
	j.result.ID = 1 // claimed
	return nil
}

// fulfil is the function of that name for a completion in a group, and comes before it; false when the claim is lost, or the
// reservation is not there any more.
func (g *groupSQLite) fulfil(c *completion) (bool, error) {
	row, err := g.row(`
		UPDATE idempotency_keys SET result_id = ?1
		WHERE user_id = ?2 AND key_sha256 = ?3 AND attempt = ?4 AND result_id IS NULL AND EXISTS (SELECT 1 FROM reservations WHERE id = ?1)
		RETURNING result_id`, c.id, c.claim.UserID, c.claim.Key[:], c.claim.Attempt)
	return row != nil, err
}
