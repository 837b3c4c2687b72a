package store

import (
	"context"
	"time"

	"gorm.io/gorm"

	"signet/fault"
	"signet/idempotency"
)

var errClaimLost = fault.New(fault.Conflict, "Another request with the same Idempotency-Key took over")

// ClaimKey implements api.Keys.
func (db *DB) ClaimKey(ctx context.Context, c idempotency.Claim, fingerprint []byte, now time.Time) (idempotency.Found, error) {
	var rows []struct {
		Fingerprint []byte
		Token       string
		ResourceID  *int64
	}
	err := db.write(ctx, "ClaimKey", func(tx *gorm.DB) error {
		rows = nil
		err := tx.Exec(`
			INSERT INTO idempotency_keys AS k (user_id, key, fingerprint, token, claimed_at) VALUES (@user, @key, @fingerprint, @token, @now)
			ON CONFLICT (user_id, key) DO UPDATE SET
				fingerprint = excluded.fingerprint, token = excluded.token, claimed_at = excluded.claimed_at, done_at = NULL, resource_id = NULL
			WHERE k.claimed_at <= @expired OR k.done_at IS NULL AND k.claimed_at <= @dead AND k.fingerprint = excluded.fingerprint`,
			map[string]any{"user": c.UserID, "key": c.Key, "fingerprint": fingerprint, "token": c.Token, "now": at(now),
				"expired": at(now.Add(-idempotency.Lifetime)), "dead": at(now.Add(-idempotency.Lease))}).Error
		if err != nil {
			return err
		}
		return tx.Raw(`SELECT fingerprint, token, resource_id FROM idempotency_keys WHERE user_id = ? AND key = ?`, c.UserID, c.Key).Scan(&rows).Error
	})
	switch {
	case violatesForeignKey(err):
		return idempotency.Found{}, errNoUser
	case err != nil:
		return idempotency.Found{}, err
	case len(rows) == 0: // released between the two statements
		return idempotency.Found{Fingerprint: fingerprint}, nil
	}
	r := rows[0]
	f := idempotency.Found{Claimed: r.Token == c.Token, Fingerprint: r.Fingerprint, Done: r.ResourceID != nil}
	if f.Done {
		f.ResourceID = *r.ResourceID
	}
	return f, nil
}

// ReleaseKey implements api.Keys.
func (db *DB) ReleaseKey(ctx context.Context, c idempotency.Claim) error {
	return db.write(ctx, "ReleaseKey", func(tx *gorm.DB) error {
		return tx.Exec(`DELETE FROM idempotency_keys WHERE user_id = ? AND key = ? AND token = ? AND done_at IS NULL`, c.UserID, c.Key, c.Token).Error
	})
}

// useClaimSQL marks what a claim created. It changes no row when the claim was taken over.
const useClaimSQL = `UPDATE idempotency_keys SET done_at = ?, resource_id = ? WHERE user_id = ? AND key = ? AND token = ? AND done_at IS NULL`

// useClaim does, in the transaction of the record.
func (db *DB) useClaim(ctx context.Context, tx *gorm.DB, id int64) error {
	c := idempotency.From(ctx)
	if c == nil {
		return nil
	}
	res := tx.Exec(useClaimSQL, at(db.now()), id, c.UserID, c.Key, c.Token)
	if res.Error == nil && res.RowsAffected != 1 {
		return errClaimLost
	}
	return res.Error
}
