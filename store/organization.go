package store

import (
	"context"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/fault"
	"signet/idempotency"
	"signet/identity"
)

// organizationRow is a row of organizations.
type organizationRow struct {
	ID          int64
	Name        string
	Description *string
	Created     instant `gorm:"column:created_at"`
	Updated     instant `gorm:"column:updated_at"`
}

func (organizationRow) TableName() string { return "organizations" }

func (r organizationRow) organization() identity.Organization {
	return identity.Organization{ID: r.ID, Name: r.Name, Description: r.Description, CreatedAt: r.Created.Time, UpdatedAt: r.Updated.Time}
}

var (
	errOrganizationName = fault.New(fault.Invalid, "Organization with this name already exists")
	errHasUsers         = fault.New(fault.Invalid, "Organization has users")
	errHasCAs           = fault.New(fault.Invalid, "Organization has certificate authorities")
)

// CreateOrganization implements identity.Store.
func (db *DB) CreateOrganization(ctx context.Context, o identity.Organization, e audit.Event) (identity.Organization, error) {
	var row organizationRow
	err := db.write(ctx, "CreateOrganization", func(tx *gorm.DB) error {
		created := db.created(o.CreatedAt)
		row = organizationRow{Name: o.Name, Description: o.Description, Created: created, Updated: created}
		if err := tx.Create(&row).Error; violates(err, "organizations", "name") {
			return errOrganizationName
		} else if err != nil {
			return err
		}
		if err := fulfil(tx, idempotency.From(ctx), row.ID); err != nil {
			return err
		}
		return db.append(tx, e, row.ID)
	})
	return row.organization(), err
}

// Organization implements identity.Store.
func (db *DB) Organization(ctx context.Context, id int64) (identity.Organization, error) {
	var rows []organizationRow
	err := db.read(ctx, "Organization", func(q *gorm.DB) error { return q.Where("id = ?", id).Find(&rows).Error })
	if err == nil && len(rows) == 0 {
		err = errNoOrganization
	}
	if err != nil {
		return identity.Organization{}, err
	}
	return rows[0].organization(), nil
}

// Organizations implements identity.Store.
func (db *DB) Organizations(ctx context.Context, only *int64, p identity.Page) ([]identity.Organization, int64, error) {
	var rows []organizationRow
	var total int64
	matching := func(q *gorm.DB) *gorm.DB {
		if only != nil {
			return q.Where("id = ?", *only)
		}
		return q
	}
	err := db.read(ctx, "Organizations", func(q *gorm.DB) error {
		if err := matching(q.Model(&organizationRow{})).Count(&total).Error; err != nil {
			return err
		}
		return page(matching(q), p.After, p.Skip, p.Limit).Find(&rows).Error
	})
	return each(rows, organizationRow.organization), total, err
}

// UpdateOrganization implements identity.Store.
func (db *DB) UpdateOrganization(ctx context.Context, o identity.Organization, e audit.Event) (identity.Organization, error) {
	var row organizationRow
	err := db.write(ctx, "UpdateOrganization", func(tx *gorm.DB) error {
		stored, err := lockOrganization(tx, o.ID)
		if err != nil {
			return err
		}
		row = stored
		row.Name, row.Description, row.Updated = o.Name, o.Description, db.after(stored.Updated)
		if err := tx.Model(&row).Select("*").Omit("id").Updates(&row).Error; violates(err, "organizations", "name") {
			return errOrganizationName
		} else if err != nil {
			return err
		}
		return db.append(tx, e, o.ID)
	})
	return row.organization(), err
}

func lockOrganization(tx *gorm.DB, id int64) (organizationRow, error) {
	var rows []organizationRow
	if err := tx.Clauses(clause.Locking{Strength: "UPDATE"}).Where("id = ?", id).Find(&rows).Error; err != nil {
		return organizationRow{}, err
	}
	if len(rows) == 0 {
		return organizationRow{}, errNoOrganization
	}
	return rows[0], nil
}

// DeleteOrganization implements identity.Store.
func (db *DB) DeleteOrganization(ctx context.Context, id int64, e audit.Event) error {
	return db.write(ctx, "DeleteOrganization", func(tx *gorm.DB) error {
		if _, err := lockOrganization(tx, id); err != nil {
			return err
		}
		var authorities int64
		err := tx.Model(&authorityRow{}).
			Where("organization_id = ? AND deleted_at IS NULL AND state <> 'abandoned'", id).Count(&authorities).Error
		if err != nil {
			return err
		}
		// The foreign key of users guards against one who joins meanwhile.
		res := tx.Where("id = ?", id).Delete(&organizationRow{})
		switch {
		case violatesForeignKey(res.Error):
			return errHasUsers
		case res.Error != nil:
			return res.Error
		case authorities > 0:
			return errHasCAs
		}
		return db.append(tx, e, id)
	})
}
