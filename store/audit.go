package store

import (
	"context"

	"gorm.io/gorm"

	"signet/audit"
)

// auditRow is a row of audit_log.
type auditRow struct {
	ID             int64
	Created        instant `gorm:"column:created_at"`
	Action         string
	UserID         *int64
	Username       string
	OrganizationID *int64
	ResourceType   string
	ResourceID     *int64
	Detail         string
	RequestID      string
	RemoteAddr     string
}

func (auditRow) TableName() string { return "audit_log" }

func (db *DB) auditRow(e audit.Event) auditRow {
	return auditRow{
		Created: at(db.now()), Action: string(e.Action), UserID: e.UserID, Username: e.Username, OrganizationID: e.OrganizationID,
		ResourceType: e.ResourceType, ResourceID: e.ResourceID, Detail: e.Detail, RequestID: e.RequestID, RemoteAddr: e.RemoteAddr,
	}
}

func (r auditRow) entry() audit.Entry {
	return audit.Entry{ID: r.ID, CreatedAt: r.Created.Time, Event: audit.Event{
		Action: audit.Action(r.Action), UserID: r.UserID, Username: r.Username, OrganizationID: r.OrganizationID,
		ResourceType: r.ResourceType, ResourceID: r.ResourceID, Detail: r.Detail, RequestID: r.RequestID, RemoteAddr: r.RemoteAddr,
	}}
}

// about returns the event with the id of the record it is about, unless it names one.
func about(e audit.Event, id int64) audit.Event {
	if e.ResourceID == nil {
		e.ResourceID = &id
	}
	return e
}

// append adds an event about a record to the trail, in the transaction of the change.
func (db *DB) append(tx *gorm.DB, e audit.Event, id int64) error {
	row := db.auditRow(about(e, id))
	return tx.Create(&row).Error
}

// Record implements ca.Store and identity.Store.
func (db *DB) Record(ctx context.Context, e audit.Event) error {
	return db.write(ctx, "Record", func(tx *gorm.DB) error {
		row := db.auditRow(e)
		return tx.Create(&row).Error
	})
}

// AuditLog implements ca.Store.
func (db *DB) AuditLog(ctx context.Context, f audit.Filter) ([]audit.Entry, int64, error) {
	var rows []auditRow
	var total int64
	err := db.read(ctx, "AuditLog", func(q *gorm.DB) error {
		if err := filtered(q.Model(&auditRow{}), f).Count(&total).Error; err != nil {
			return err
		}
		list := filtered(q, f)
		if f.BeforeID > 0 {
			list = list.Where("id < ?", f.BeforeID)
		}
		return list.Order("id DESC").Offset(max(f.Skip, 0)).Limit(max(f.Limit, 0)).Find(&rows).Error
	})
	if err != nil {
		return nil, 0, err
	}
	return each(rows, auditRow.entry), total, nil
}

func filtered(q *gorm.DB, f audit.Filter) *gorm.DB {
	if f.Action != "" {
		q = q.Where("action = ?", string(f.Action))
	}
	if f.UserID != nil {
		q = q.Where("user_id = ?", *f.UserID)
	}
	if f.ResourceType != "" {
		q = q.Where("resource_type = ?", f.ResourceType)
	}
	if f.ResourceID != nil {
		q = q.Where("resource_id = ?", *f.ResourceID)
	}
	if !f.Since.IsZero() {
		q = q.Where("created_at >= ?", at(f.Since))
	}
	if !f.Until.IsZero() {
		q = q.Where("created_at <= ?", at(f.Until))
	}
	switch {
	case f.OrganizationID != nil && f.OwnUserID != nil:
		return q.Where("(organization_id = ? OR user_id = ?)", *f.OrganizationID, *f.OwnUserID)
	case f.OrganizationID != nil:
		return q.Where("organization_id = ?", *f.OrganizationID)
	case f.OwnUserID != nil:
		return q.Where("user_id = ?", *f.OwnUserID)
	}
	return q
}

// each converts rows.
func each[Row, Record any](rows []Row, convert func(Row) Record) []Record {
	out := make([]Record, len(rows))
	for i, r := range rows {
		out[i] = convert(r)
	}
	return out
}
