package store

import (
	"context"
	"time"

	"gorm.io/gorm"
)

// longestWindow is the longest period of a login rate.
const longestWindow = time.Hour

// maxPruned is how many expired rows one call removes on its way.
const maxPruned = 1000

// LoginAttempt implements api.Logins.
func (db *DB) LoginAttempt(ctx context.Context, client string, limit int, per time.Duration, now time.Time) (time.Time, int, error) {
	var rows []struct {
		OpenedAt instant
		Attempts int
	}
	err := db.write(ctx, "LoginAttempt", func(tx *gorm.DB) error {
		rows = nil
		// Clocks of replicas differ, and attempts do not arrive in the order of their times: a window that opens in the future
		// counts, unless it is so far away that the clock was set back. The count stays at one beyond the limit.
		return tx.Raw(`
			INSERT INTO login_attempts AS l (client, opened_at, attempts) VALUES (@client, @now, 1)
			ON CONFLICT (client) DO UPDATE SET
				opened_at = CASE WHEN l.opened_at > @ended AND l.opened_at <= @ahead THEN l.opened_at ELSE excluded.opened_at END,
				attempts = CASE WHEN l.opened_at <= @ended OR l.opened_at > @ahead THEN 1 WHEN l.attempts > @limit THEN l.attempts ELSE l.attempts + 1 END
			RETURNING opened_at, attempts`,
			map[string]any{"client": client, "now": at(now), "ended": at(now.Add(-per)), "ahead": at(now.Add(per)), "limit": limit}).
			Scan(&rows).Error
	})
	if err != nil {
		return time.Time{}, 0, err
	}
	return rows[0].OpenedAt.Time, rows[0].Attempts, nil
}

// PruneLoginAttempts implements api.Logins.
func (db *DB) PruneLoginAttempts(ctx context.Context, before time.Time) error {
	return db.write(ctx, "PruneLoginAttempts", func(tx *gorm.DB) error {
		// Asked twice, because a window may be opened anew between the search and the removal.
		return tx.Exec(`DELETE FROM login_attempts
			WHERE client IN (SELECT client FROM login_attempts WHERE opened_at <= @before LIMIT @most) AND opened_at <= @before`,
			map[string]any{"before": at(before), "most": maxPruned}).Error
	})
}
