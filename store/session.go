package store

import (
	"context"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/fault"
	"signet/identity"
)

// refreshTokenRow is a row of refresh_tokens.
type refreshTokenRow struct {
	Hash      []byte `gorm:"primaryKey"`
	UserID    int64
	ExpiresAt instant
	SpentAt   *instant // used or revoked
}

func (refreshTokenRow) TableName() string { return "refresh_tokens" }

// revokedTokenRow is a row of revoked_tokens.
type revokedTokenRow struct {
	JTI       string `gorm:"column:jti;primaryKey"`
	ExpiresAt instant
}

func (revokedTokenRow) TableName() string { return "revoked_tokens" }

var (
	errRefreshToken   = fault.New(fault.Unauthenticated, "Invalid or expired refresh token")
	errNoRefreshToken = fault.New(fault.NotFound, "Refresh token not found")
	errTokenExists    = fault.New(fault.Conflict, "Refresh token already exists")
)

// CreateRefreshToken implements identity.Store.
func (db *DB) CreateRefreshToken(ctx context.Context, t identity.RefreshToken, e audit.Event) error {
	return db.write(ctx, "CreateRefreshToken", func(tx *gorm.DB) error {
		if err := insertToken(tx, t); err != nil {
			return err
		}
		return db.append(tx, e, t.UserID)
	})
}

func insertToken(tx *gorm.DB, t identity.RefreshToken) error {
	err := tx.Create(&refreshTokenRow{Hash: t.Hash, UserID: t.UserID, ExpiresAt: at(t.ExpiresAt)}).Error
	switch {
	case violatesForeignKey(err):
		return errNoUser
	case violates(err, "refresh_tokens", "pkey"), violates(err, "refresh_tokens", "hash"):
		return errTokenExists
	}
	return err
}

// RotateRefreshToken implements identity.Store. An event without UserID gets the user whose token it was.
func (db *DB) RotateRefreshToken(ctx context.Context, old []byte, next identity.RefreshToken, now time.Time, e audit.Event) (identity.User, error) {
	var users []userRow
	err := db.write(ctx, "RotateRefreshToken", func(tx *gorm.DB) error {
		// The row lock on the user makes UpdateUser wait, or this wait for it: no token slips past a revocation.
		users = nil
		err := tx.Clauses(clause.Locking{Strength: "SHARE"}).
			Where("id = (SELECT user_id FROM refresh_tokens WHERE hash = ?) AND active", old).Find(&users).Error
		if err != nil {
			return err
		}
		if len(users) == 0 {
			return errRefreshToken
		}
		// Of parallel rotations this update succeeds in one.
		res := tx.Model(&refreshTokenRow{}).
			Where("hash = ? AND spent_at IS NULL AND expires_at > ?", old, at(now)).Update("spent_at", at(now))
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return errRefreshToken
		}
		u := users[0]
		next.UserID = u.ID
		if err := insertToken(tx, next); err != nil {
			return err
		}
		if e.UserID == nil {
			e.UserID, e.Username, e.OrganizationID = &u.ID, u.Username, u.OrganizationID
		}
		return db.append(tx, e, u.ID)
	})
	if err != nil {
		return identity.User{}, err
	}
	return users[0].user(), nil
}

// RefreshTokenOwner implements identity.Store.
func (db *DB) RefreshTokenOwner(ctx context.Context, hash []byte) (int64, error) {
	var rows []refreshTokenRow
	err := db.read(ctx, "RefreshTokenOwner", func(q *gorm.DB) error { return q.Where("hash = ?", hash).Find(&rows).Error })
	if err == nil && len(rows) == 0 {
		err = errNoRefreshToken
	}
	if err != nil {
		return 0, err
	}
	return rows[0].UserID, nil
}

// Logout implements identity.Store.
func (db *DB) Logout(ctx context.Context, hash []byte, jti string, expires time.Time, e audit.Event) error {
	return db.write(ctx, "Logout", func(tx *gorm.DB) error {
		err := tx.Model(&refreshTokenRow{}).Where("hash = ? AND spent_at IS NULL", hash).Update("spent_at", at(db.now())).Error
		if err != nil {
			return err
		}
		err = tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&revokedTokenRow{JTI: jti, ExpiresAt: at(expires)}).Error
		if err != nil {
			return err
		}
		if e.ResourceID == nil {
			e.ResourceID = e.UserID
		}
		row := db.auditRow(e)
		return tx.Create(&row).Error
	})
}

// Session implements identity.Store.
func (db *DB) Session(ctx context.Context, userID int64, jti string) (identity.User, bool, error) {
	var rows []struct {
		User    userRow `gorm:"embedded"`
		Revoked bool
	}
	err := db.read(ctx, "Session", func(q *gorm.DB) error {
		return q.Raw(`SELECT users.*, EXISTS (SELECT 1 FROM revoked_tokens WHERE jti = ?) AS revoked FROM users WHERE id = ?`,
			jti, userID).Scan(&rows).Error
	})
	if err == nil && len(rows) == 0 {
		err = errNoUser
	}
	if err != nil {
		return identity.User{}, false, err
	}
	return rows[0].User.user(), rows[0].Revoked, nil
}

// Prune implements identity.Store.
func (db *DB) Prune(ctx context.Context, now time.Time) error {
	return db.write(ctx, "Prune", func(tx *gorm.DB) error {
		if err := tx.Where("expires_at < ?", at(now)).Delete(&refreshTokenRow{}).Error; err != nil {
			return err
		}
		if err := tx.Where("expires_at < ?", at(now)).Delete(&revokedTokenRow{}).Error; err != nil {
			return err
		}
		return tx.Exec("DELETE FROM login_attempts WHERE opened_at <= ?", at(now.Add(-longestWindow))).Error
	})
}
