package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"gorm.io/gorm"

	"signet/audit"
	"signet/ca"
	"signet/evidence"
)

// drillRow is a row of key_drills.
type drillRow struct {
	ID         int64
	CAID       int64 `gorm:"column:ca_id"`
	At         instant
	Token      string `gorm:"column:token_serial"`
	Cause      string
	Grade      string
	Conclusive bool
	Reasons    string
	Attacks    string
}

func (drillRow) TableName() string { return "key_drills" }

// attackJSON is an attack as the database keeps it, whatever package evidence calls its fields.
type attackJSON struct {
	Name    string `json:"name"`
	Call    string `json:"call"`
	Target  string `json:"target"`
	Outcome string `json:"outcome"`
	Result  string `json:"result"`
}

func drillRowOf(caID int64, d ca.KeyDrill) (drillRow, error) {
	attacks, err := json.Marshal(each(d.Attacks, func(a evidence.Attack) attackJSON {
		return attackJSON{a.Name, a.Call, a.Target, string(a.Outcome), a.Result}
	}))
	if err != nil {
		return drillRow{}, fmt.Errorf("encode attacks: %w", err)
	}
	reasons, err := json.Marshal(d.Reasons)
	if err != nil {
		return drillRow{}, fmt.Errorf("encode reasons: %w", err)
	}
	return drillRow{CAID: caID, At: at(d.At), Token: d.Token, Cause: string(d.Trigger), Grade: string(d.Grade), Conclusive: d.Conclusive,
		Reasons: string(reasons), Attacks: string(attacks)}, nil
}

func (r drillRow) drill() (ca.KeyDrill, error) {
	d := ca.KeyDrill{CAID: r.CAID, Trigger: ca.Trigger(r.Cause), Grade: evidence.Grade(r.Grade), Conclusive: r.Conclusive}
	var attacks []attackJSON
	if err := json.Unmarshal([]byte(r.Attacks), &attacks); err != nil {
		return ca.KeyDrill{}, fmt.Errorf("decode attacks of drill %d: %w", r.ID, err)
	}
	if err := json.Unmarshal([]byte(r.Reasons), &d.Reasons); err != nil {
		return ca.KeyDrill{}, fmt.Errorf("decode reasons of drill %d: %w", r.ID, err)
	}
	d.At, d.Token = r.At.Time, r.Token
	d.Attacks = each(attacks, func(a attackJSON) evidence.Attack {
		return evidence.Attack{Name: a.Name, Call: a.Call, Target: a.Target, Outcome: evidence.Outcome(a.Outcome), Result: a.Result}
	})
	return d, nil
}

// proof is the columns of what is known of a key.
func proof(p ca.KeyProof) map[string]any {
	columns := map[string]any{
		"key_grade": string(p.Grade), "key_locked": p.Locked, "accepted_grade": string(p.Accepted.Grade),
		"accepted_by": p.Accepted.By, "accepted_at": nil, "accepted_reason": p.Accepted.Reason,
	}
	if !p.Accepted.At.IsZero() {
		columns["accepted_at"] = at(p.Accepted.At)
	}
	return columns
}

func (r authorityRow) proof() ca.KeyProof {
	return ca.KeyProof{Grade: evidence.Grade(r.KeyGrade), Locked: r.KeyLocked, Accepted: evidence.Acceptance{
		Grade: evidence.Grade(r.AcceptedGrade), By: r.AcceptedBy, At: timeOf(r.AcceptedAt), Reason: r.AcceptedReason,
	}}
}

// ProveCA implements ca.Store.
func (db *DB) ProveCA(ctx context.Context, id int64, was, is ca.KeyProof, d *ca.KeyDrill, events ...audit.Event) error {
	return db.write(ctx, "ProveCA", func(tx *gorm.DB) error {
		columns := proof(is)
		if was != is { // a drill that shows nothing new changes nothing that people see
			columns["updated_at"] = at(db.now())
		}
		res := tx.Model(&authorityRow{}).
			Where("id = ? AND state <> 'abandoned' AND key_grade = ? AND key_locked = ? AND accepted_grade = ?",
				id, string(was.Grade), was.Locked, string(was.Accepted.Grade)).Updates(columns)
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return errKeyProof
		}
		if d != nil {
			if err := keepDrill(tx, id, *d); err != nil {
				return err
			}
		}
		for _, e := range events {
			if err := db.append(tx, e, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// keepDrill adds a drill and lets go of the oldest.
func keepDrill(tx *gorm.DB, id int64, d ca.KeyDrill) error {
	row, err := drillRowOf(id, d)
	if err != nil {
		return err
	}
	if err := tx.Create(&row).Error; err != nil {
		return err
	}
	return tx.Exec(`DELETE FROM key_drills WHERE ca_id = ? AND id <= (
		SELECT id FROM key_drills WHERE ca_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`, id, id, ca.KeptDrills).Error
}

// Drills implements ca.Store.
func (db *DB) Drills(ctx context.Context, id int64, limit int) ([]ca.KeyDrill, error) {
	var drills []ca.KeyDrill
	err := db.read(ctx, "Drills", func(q *gorm.DB) error {
		var rows []drillRow
		if err := q.Where("ca_id = ?", id).Order("id DESC").Limit(max(limit, 0)).Find(&rows).Error; err != nil {
			return err
		}
		drills = nil
		for _, r := range rows {
			d, err := r.drill()
			if err != nil {
				return err
			}
			drills = append(drills, d)
		}
		return nil
	})
	return drills, err
}

// ClaimDrill implements ca.Store.
func (db *DB) ClaimDrill(ctx context.Context, id int64, before, when time.Time) (bool, error) {
	var mine bool
	err := db.write(ctx, "ClaimDrill", func(tx *gorm.DB) error {
		res := tx.Model(&authorityRow{}).Where(visible).
			Where("id = ? AND (drill_claimed_at IS NULL OR drill_claimed_at < ?)", id, at(before)).
			Update("drill_claimed_at", at(when))
		mine = res.RowsAffected == 1
		return res.Error
	})
	return mine, err
}

// KeyDestroyed implements ca.Store.
func (db *DB) KeyDestroyed(ctx context.Context, id int64, when time.Time, e audit.Event) error {
	return db.write(ctx, "KeyDestroyed", func(tx *gorm.DB) error {
		res := tx.Model(&authorityRow{}).
			Where("id = ? AND key_destroyed_at IS NULL AND "+completed+" AND (deleted_at IS NOT NULL OR state = 'revoked')", id).
			Updates(map[string]any{"key_destroyed_at": at(when), "updated_at": at(db.now())})
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return errKeyInUse
		}
		return db.append(tx, e, id)
	})
}

// AdoptCA implements ca.Store.
func (db *DB) AdoptCA(ctx context.Context, c ca.CA, e audit.Event) (ca.CA, error) {
	var row authorityRow
	err := db.write(ctx, "AdoptCA", func(tx *gorm.DB) error {
		if err := db.reserveCA(tx, c); err != nil {
			return err
		}
		var err error
		if row, err = db.completeCA(tx, c.ID, c.Certificate); err != nil {
			return err
		}
		return db.append(tx, e, c.ID)
	})
	return row.ca(), err
}

// AbandonCA implements ca.Store.
func (db *DB) AbandonCA(ctx context.Context, id int64, r ca.Revocation, e audit.Event) error {
	return db.write(ctx, "AbandonCA", func(tx *gorm.DB) error {
		res := tx.Model(&authorityRow{}).Where("id = ? AND state = 'pending' AND serial IS NULL", id).
			Updates(db.revocation(ca.Abandoned, r))
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return errCANotPending
		}
		return db.append(tx, e, id)
	})
}
