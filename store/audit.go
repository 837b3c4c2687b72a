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
func (db *DB) AuditLog(ctx context.Context, f audit.Filter) ([]audit.Entry, audit.Total, error) {
	var all []audit.Entry
	var total audit.Total
	err := db.read(ctx, "AuditLog", func(q *gorm.DB) error {
		match, alternatives := filtered(f)
		found, args := union("SELECT id, created_at FROM audit_log WHERE ", match, alternatives, " LIMIT ?", countCap+1)
		n, err := db.number(ctx, q, "SELECT count(*) FROM ("+found+") found", args...)
		if err != nil {
			return err
		}
		total = capped(n)
		all, err = db.auditPage(ctx, q, match, alternatives, f)
		total = atLeast(total, f.Skip, len(all))
		return err
	})
	return all, total, err
}

// auditPage reads a page in the order of time, from an index for each alternative.
func (db *DB) auditPage(ctx context.Context, q *gorm.DB, match condition, alternatives []condition, f audit.Filter) ([]audit.Entry, error) {
	all := []audit.Entry{}
	if f.BeforeID > 0 {
		last, at, err := db.lastEntry(ctx, q, f.BeforeID)
		if err != nil || last == 0 {
			return all, err
		}
		match = match.and("(created_at, id) < (?, ?)", at, min(last+1, f.BeforeID))
	}
	limit, skip := max(f.Limit, 0), skipped(f.Skip)
	const order = " ORDER BY created_at DESC, id DESC LIMIT ?"
	found, args := union("SELECT * FROM audit_log WHERE ", match, alternatives, order, limit+skip)
	rows, err := db.query(ctx, q, `SELECT id, created_at, action, user_id, username, organization_id, resource_type, resource_id, detail,
		request_id, remote_addr FROM (`+found+`) found`+order+` OFFSET ?`, append(args, limit, skip)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r auditRow
		err := rows.Scan(&r.ID, &r.Created, &r.Action, &r.UserID, &r.Username, &r.OrganizationID, &r.ResourceType, &r.ResourceID, &r.Detail,
			&r.RequestID, &r.RemoteAddr)
		if err != nil {
			return nil, err
		}
		all = append(all, r.entry())
	}
	return all, rows.Err()
}

// lastEntry finds the entry with an id, or the next older one when it is gone; 0 when there is none.
func (db *DB) lastEntry(ctx context.Context, q *gorm.DB, id int64) (last int64, at instant, err error) {
	rows, err := db.query(ctx, q, "SELECT id, created_at FROM audit_log WHERE id <= ? ORDER BY id DESC LIMIT 1", id)
	if err != nil {
		return 0, at, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&last, &at); err != nil {
			return 0, at, err
		}
	}
	return last, at, rows.Err()
}

// union selects what matches and is in one of the alternatives, each of which has the end and its argument.
func union(columns string, match condition, alternatives []condition, end string, argument any) (text string, args []any) {
	for i, alternative := range alternatives {
		if i > 0 {
			text += " UNION "
		}
		one := both(match, alternative)
		text += "SELECT * FROM (" + columns + one.String() + end + ") alternative"
		args = append(append(args, one.args...), argument)
	}
	return text, args
}

// filtered is the condition of a filter on entries, and the alternatives of what may be seen.
func filtered(f audit.Filter) (c condition, alternatives []condition) {
	var none condition
	if f.Action != "" {
		c = c.and("action = ?", string(f.Action))
	}
	if f.UserID != nil {
		c = c.and("user_id = ?", *f.UserID)
	}
	if f.ResourceType != "" {
		c = c.and("resource_type = ?", f.ResourceType)
	}
	if f.ResourceID != nil {
		c = c.and("resource_id = ?", *f.ResourceID)
	}
	if !f.Since.IsZero() {
		c = c.and("created_at >= ?", at(f.Since))
	}
	if !f.Until.IsZero() {
		c = c.and("created_at <= ?", at(f.Until))
	}
	if f.OrganizationID != nil {
		alternatives = append(alternatives, none.and("organization_id = ?", *f.OrganizationID))
	}
	if f.OwnUserID != nil {
		alternatives = append(alternatives, none.and("user_id = ?", *f.OwnUserID))
	}
	if len(alternatives) == 0 {
		alternatives = []condition{none}
	}
	return c, alternatives
}

// each converts rows.
func each[Row, Record any](rows []Row, convert func(Row) Record) []Record {
	out := make([]Record, len(rows))
	for i, r := range rows {
		out[i] = convert(r)
	}
	return out
}
