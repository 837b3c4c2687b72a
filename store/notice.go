package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/ca"
	"signet/notify"
)

var _ notify.Store = (*DB)(nil)

// noticeRow is a row of notifications.
type noticeRow struct {
	ID          int64
	Key         string
	Kind        string
	Payload     string
	Created     instant `gorm:"column:created_at"`
	Attempts    int
	NextAttempt instant  `gorm:"column:next_attempt_at"`
	Delivered   *instant `gorm:"column:delivered_at"`
	GivenUp     *instant `gorm:"column:given_up_at"`
	LastError   string
}

func (noticeRow) TableName() string { return "notifications" }

func (r noticeRow) event() notify.Event {
	return notify.Event{ID: r.ID, Key: r.Key, Type: r.Kind, Data: r.Payload, CreatedAt: r.Created.Time, Attempts: r.Attempts}
}

// openNotice is the condition that an event is neither delivered nor given up.
const openNotice = "delivered_at IS NULL AND given_up_at IS NULL"

// AddNotices implements ca.Store.
func (db *DB) AddNotices(ctx context.Context, all []ca.Notice) error {
	if len(all) == 0 {
		return nil
	}
	rows := make([]noticeRow, len(all))
	for i, n := range all {
		payload, err := json.Marshal(n.Data)
		if err != nil {
			return fmt.Errorf("encode notice %s: %w", n.Key, err)
		}
		created := at(n.CreatedAt)
		rows[i] = noticeRow{Key: n.Key, Kind: string(n.Kind), Payload: string(payload), Created: created, NextAttempt: created}
	}
	return db.write(ctx, "AddNotices", func(tx *gorm.DB) error {
		return tx.Clauses(clause.OnConflict{DoNothing: true}).CreateInBatches(rows, 500).Error
	})
}

// NoticedUntil implements ca.Store.
func (db *DB) NoticedUntil(ctx context.Context, search string) (time.Time, error) {
	var found []instant
	err := db.read(ctx, "NoticedUntil", func(q *gorm.DB) error {
		return q.Table("notification_searches").Where("name = ?", search).Pluck("until", &found).Error
	})
	if err != nil || len(found) == 0 {
		return time.Time{}, err
	}
	return found[0].Time, nil
}

// SetNoticedUntil implements ca.Store.
func (db *DB) SetNoticedUntil(ctx context.Context, search string, until time.Time) error {
	return db.write(ctx, "SetNoticedUntil", func(tx *gorm.DB) error {
		return tx.Exec(`INSERT INTO notification_searches (name, until) VALUES (?, ?) ON CONFLICT (name)
			DO UPDATE SET until = excluded.until WHERE notification_searches.until < excluded.until`, search, at(until)).Error
	})
}

// ClaimEvents implements notify.Store. Of two callers that want the same row, the second one finds it no longer due.
func (db *DB) ClaimEvents(ctx context.Context, now, until time.Time, limit int) ([]notify.Event, error) {
	var rows []noticeRow
	err := db.write(ctx, "ClaimEvents", func(tx *gorm.DB) error {
		due := tx.Model(&noticeRow{}).Select("id").Where("next_attempt_at <= ? AND "+openNotice, at(now)).
			Order("next_attempt_at, id").Limit(limit)
		return tx.Model(&rows).Clauses(clause.Returning{}).
			Where("id IN (?) AND next_attempt_at <= ? AND "+openNotice, due, at(now)).
			Updates(map[string]any{"attempts": gorm.Expr("attempts + 1"), "next_attempt_at": at(until)}).Error
	})
	return each(rows, noticeRow.event), err
}

// EventDelivered implements notify.Store.
func (db *DB) EventDelivered(ctx context.Context, id int64, when time.Time) error {
	return db.endAttempt(ctx, "EventDelivered", id, map[string]any{"delivered_at": at(when), "last_error": ""})
}

// EventFailed implements notify.Store.
func (db *DB) EventFailed(ctx context.Context, id int64, next time.Time, reason string) error {
	return db.endAttempt(ctx, "EventFailed", id, map[string]any{"next_attempt_at": at(next), "last_error": reason})
}

// EventGivenUp implements notify.Store.
func (db *DB) EventGivenUp(ctx context.Context, id int64, when time.Time, reason string) error {
	return db.endAttempt(ctx, "EventGivenUp", id, map[string]any{"given_up_at": at(when), "last_error": reason})
}

func (db *DB) endAttempt(ctx context.Context, op string, id int64, outcome map[string]any) error {
	return db.write(ctx, op, func(tx *gorm.DB) error {
		return tx.Model(&noticeRow{}).Where("id = ? AND "+openNotice, id).Updates(outcome).Error
	})
}

// DropEvents implements notify.Store.
func (db *DB) DropEvents(ctx context.Context, createdBefore time.Time, limit int) (int, error) {
	var dropped int64
	err := db.write(ctx, "DropEvents", func(tx *gorm.DB) error {
		old := tx.Model(&noticeRow{}).Select("id").
			Where("created_at < ? AND NOT ("+openNotice+")", at(createdBefore)).Order("created_at").Limit(limit)
		res := tx.Where("id IN (?)", old).Delete(&noticeRow{})
		dropped = res.RowsAffected
		return res.Error
	})
	return int(dropped), err
}
