package store

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/fault"
	"signet/idempotency"
	"signet/identity"
	"signet/policy"
)

// userRow is a row of users.
type userRow struct {
	ID               int64
	Username         string
	Email            string
	EmailKey         string
	PasswordHash     string
	Role             string
	Active           bool
	CreateCA         bool `gorm:"column:create_ca"`
	CreateCert       bool
	RevokeCert       bool
	ExportPrivateKey bool
	DeleteCA         bool `gorm:"column:delete_ca"`
	OrganizationID   *int64
	TokenEpoch       int64
	Created          instant `gorm:"column:created_at"`
	Updated          instant `gorm:"column:updated_at"`
}

func (userRow) TableName() string { return "users" }

func (r userRow) user() identity.User {
	return identity.User{
		ID: r.ID, Username: r.Username, Email: r.Email, PasswordHash: r.PasswordHash, Role: policy.Role(r.Role), Active: r.Active,
		Capabilities: policy.Capabilities{CreateCA: r.CreateCA, CreateCert: r.CreateCert, RevokeCert: r.RevokeCert,
			ExportPrivateKey: r.ExportPrivateKey, DeleteCA: r.DeleteCA},
		OrganizationID: r.OrganizationID, TokenEpoch: r.TokenEpoch, CreatedAt: r.Created.Time, UpdatedAt: r.Updated.Time,
	}
}

func rowOfUser(u identity.User) userRow {
	c := u.Capabilities
	return userRow{
		ID: u.ID, Username: u.Username, Email: u.Email, EmailKey: strings.ToLower(u.Email), PasswordHash: u.PasswordHash,
		Role: string(u.Role), Active: u.Active, CreateCA: c.CreateCA, CreateCert: c.CreateCert, RevokeCert: c.RevokeCert,
		ExportPrivateKey: c.ExportPrivateKey, DeleteCA: c.DeleteCA,
		OrganizationID: u.OrganizationID, TokenEpoch: u.TokenEpoch, Created: at(u.CreatedAt), Updated: at(u.UpdatedAt),
	}
}

var (
	errNoUser         = fault.New(fault.NotFound, "User not found")
	errNoOrganization = fault.New(fault.NotFound, "Organization not found")
	errUserChanged    = fault.New(fault.Conflict, "User was changed by someone else")
	errNotFirst       = fault.New(fault.Conflict, "There already is, or was, a user")
	errUsername       = fault.New(fault.Invalid, "Username already registered")
	errEmail          = fault.New(fault.Invalid, "Email already registered")
)

// userError says what a violated constraint of users means.
func userError(err error) error {
	switch {
	case violates(err, "users", "username"):
		return errUsername
	case violates(err, "users", "email_key"):
		return errEmail
	case violatesForeignKey(err):
		return errNoOrganization
	}
	return err
}

// bootstrapRow exists once there has been a user.
type bootstrapRow struct {
	ID      int64
	Created instant `gorm:"column:created_at"`
}

func (bootstrapRow) TableName() string { return "bootstrap" }

// bootstrapTokenRow is the one-time token for the first user.
type bootstrapTokenRow struct {
	ID   int64
	Hash []byte
}

func (bootstrapTokenRow) TableName() string { return "bootstrap_token" }

// CreateFirstUser implements identity.Store.
func (db *DB) CreateFirstUser(ctx context.Context, u identity.User, e audit.Event) (identity.User, error) {
	return db.createUser(ctx, "CreateFirstUser", u, e)
}

// CreateUser implements identity.Store.
func (db *DB) CreateUser(ctx context.Context, u identity.User, e audit.Event) (identity.User, error) {
	return db.createUser(ctx, "CreateUser", u, e)
}

func (db *DB) createUser(ctx context.Context, op string, u identity.User, e audit.Event) (identity.User, error) {
	var row userRow
	err := db.write(ctx, op, func(tx *gorm.DB) error {
		// The row with id 1 decides the race for the first user; it is never removed.
		first := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&bootstrapRow{ID: 1, Created: at(db.now())})
		if first.Error != nil {
			return first.Error
		}
		if op == "CreateFirstUser" && first.RowsAffected != 1 {
			return errNotFirst
		}
		if err := tx.Where("id = 1").Delete(&bootstrapTokenRow{}).Error; err != nil {
			return err
		}
		row = rowOfUser(u)
		row.ID = 0
		row.Created = db.created(u.CreatedAt)
		row.Updated = row.Created
		if err := tx.Create(&row).Error; err != nil {
			return userError(err)
		}
		if err := fulfil(tx, idempotency.From(ctx), row.ID); err != nil {
			return err
		}
		return db.append(tx, e, row.ID)
	})
	return row.user(), err
}

// created is the date of a new record: what it says, or now.
func (db *DB) created(t time.Time) instant {
	if t.IsZero() {
		return at(db.now())
	}
	return at(t)
}

// after is now, or the next instant after t if that is later: an update is never invisible in updated_at.
func (db *DB) after(t instant) instant {
	if now := at(db.now()); now.After(t.Time) {
		return now
	}
	return instant{t.Add(time.Microsecond)}
}

// HasUsers implements identity.Store.
func (db *DB) HasUsers(ctx context.Context) (bool, error) {
	var n int64
	err := db.read(ctx, "HasUsers", func(q *gorm.DB) error { return q.Model(&bootstrapRow{}).Count(&n).Error })
	return n > 0, err
}

func (db *DB) user(ctx context.Context, op, condition string, value any) (identity.User, error) {
	var rows []userRow
	err := db.read(ctx, op, func(q *gorm.DB) error {
		if err := q.Where(condition, value).Find(&rows).Error; err != nil {
			return err
		}
		if len(rows) == 0 {
			return errNoUser
		}
		return nil
	})
	if err != nil {
		return identity.User{}, err
	}
	return rows[0].user(), nil
}

// User implements identity.Store.
func (db *DB) User(ctx context.Context, id int64) (identity.User, error) {
	return db.user(ctx, "User", "id = ?", id)
}

// UserByName implements identity.Store.
func (db *DB) UserByName(ctx context.Context, username string) (identity.User, error) {
	return db.user(ctx, "UserByName", "username = ?", username)
}

// Users implements identity.Store.
func (db *DB) Users(ctx context.Context, p identity.Page) ([]identity.User, int64, error) {
	return db.users(ctx, "Users", "1 = 1", nil, p)
}

// Members implements identity.Store.
func (db *DB) Members(ctx context.Context, organizationID int64, p identity.Page) ([]identity.User, int64, error) {
	return db.users(ctx, "Members", "organization_id = ?", []any{organizationID}, p)
}

func (db *DB) users(ctx context.Context, op, condition string, values []any, p identity.Page) ([]identity.User, int64, error) {
	var rows []userRow
	var total int64
	err := db.read(ctx, op, func(q *gorm.DB) error {
		if err := q.Model(&userRow{}).Where(condition, values...).Count(&total).Error; err != nil {
			return err
		}
		return page(q.Where(condition, values...), p.After, p.Skip, p.Limit).Find(&rows).Error
	})
	return each(rows, userRow.user), total, err
}

// UpdateUser implements identity.Store.
func (db *DB) UpdateUser(ctx context.Context, u identity.User, e audit.Event) (identity.User, error) {
	var row userRow
	err := db.write(ctx, "UpdateUser", func(tx *gorm.DB) error {
		// The row lock makes a rotation of the user's refresh tokens wait, or this wait for it.
		var stored []userRow
		if err := tx.Clauses(clause.Locking{Strength: "UPDATE"}).Where("id = ?", u.ID).Find(&stored).Error; err != nil {
			return err
		}
		switch {
		case len(stored) == 0:
			return errNoUser
		case !stored[0].Updated.Equal(at(u.UpdatedAt).Time):
			return errUserChanged
		}
		row = rowOfUser(u)
		row.Username, row.Created, row.Updated = stored[0].Username, stored[0].Created, db.after(stored[0].Updated)
		// Select("*") stores false and zero too.
		if err := tx.Model(&row).Where("updated_at = ?", stored[0].Updated).Select("*").Omit("id").Updates(&row).Error; err != nil {
			return userError(err)
		}
		if u.TokenEpoch != stored[0].TokenEpoch {
			err := tx.Model(&refreshTokenRow{}).Where("user_id = ? AND spent_at IS NULL", u.ID).Update("spent_at", at(db.now())).Error
			if err != nil {
				return err
			}
		}
		return db.append(tx, e, u.ID)
	})
	return row.user(), err
}

// DeleteUser implements identity.Store.
func (db *DB) DeleteUser(ctx context.Context, id int64, e audit.Event) error {
	return db.write(ctx, "DeleteUser", func(tx *gorm.DB) error {
		res := tx.Where("id = ?", id).Delete(&userRow{}) // the refresh tokens go with it
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return errNoUser
		}
		return db.append(tx, e, id)
	})
}

// CreatedOutside implements identity.Store. The indexes by creator serve it; of reservations there are few.
func (db *DB) CreatedOutside(ctx context.Context, userID, organizationID int64) (bool, error) {
	var outside bool
	err := db.read(ctx, "CreatedOutside", func(q *gorm.DB) error {
		return q.Raw(`SELECT EXISTS (SELECT 1 FROM certificate_authorities WHERE created_by = @user AND organization_id IS DISTINCT FROM @organization)
			OR EXISTS (SELECT 1 FROM reservations WHERE created_by = @user AND organization_id IS DISTINCT FROM @organization)
			OR EXISTS (SELECT 1 FROM certificates WHERE created_by = @user AND organization_id IS DISTINCT FROM @organization)`,
			sql.Named("user", userID), sql.Named("organization", organizationID)).Scan(&outside).Error
	})
	return outside, err
}

// SetBootstrapToken implements identity.Store.
func (db *DB) SetBootstrapToken(ctx context.Context, hash []byte) error {
	return db.write(ctx, "SetBootstrapToken", func(tx *gorm.DB) error {
		return tx.Clauses(clause.OnConflict{UpdateAll: true}).Create(&bootstrapTokenRow{ID: 1, Hash: hash}).Error
	})
}

// BootstrapToken implements identity.Store.
func (db *DB) BootstrapToken(ctx context.Context) ([]byte, error) {
	var rows []bootstrapTokenRow
	err := db.read(ctx, "BootstrapToken", func(q *gorm.DB) error { return q.Where("id = 1").Find(&rows).Error })
	if err == nil && len(rows) == 0 {
		err = fault.New(fault.NotFound, "No bootstrap token is set")
	}
	if err != nil {
		return nil, err
	}
	return rows[0].Hash, nil
}
