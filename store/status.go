package store

import (
	"context"
	"crypto"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

var (
	errNoResponder          = fault.New(fault.NotFound, "OCSP responder not found")
	errNoAnswer             = fault.New(fault.NotFound, "OCSP answer not found")
	errResponderNotReserved = fault.New(fault.Conflict, "OCSP responder is not reserved, or already completed")
)

// responderRow is a row of ocsp_responders.
type responderRow struct {
	ID          int64
	CAID        int64 `gorm:"column:ca_id"`
	Token       string
	KeyID       []byte
	PublicKey   []byte
	Serial      string
	TBS         []byte
	Certificate []byte
	NotBefore   instant
	NotAfter    instant
	State       string
	Created     instant `gorm:"column:created_at"`
}

func (responderRow) TableName() string { return "ocsp_responders" }

func (r responderRow) responder() ca.Responder {
	return ca.Responder{
		ID: r.ID, CAID: r.CAID, Token: r.Token, KeyID: r.KeyID, PublicKey: r.PublicKey, Serial: r.Serial, TBS: r.TBS,
		Certificate: r.Certificate, NotBefore: r.NotBefore.Time, NotAfter: r.NotAfter.Time, State: ca.State(r.State),
	}
}

// answerRow is a row of ocsp_answers.
type answerRow struct {
	CAID       int64   `gorm:"column:ca_id;primaryKey;autoIncrement:false"`
	Serial     string  `gorm:"primaryKey"`
	Hash       string  `gorm:"primaryKey"`
	ThisUpdate instant `gorm:"primaryKey"`
	NextUpdate instant
	Sequence   int64
	DER        []byte
}

func (answerRow) TableName() string { return "ocsp_answers" }

// hashNames are what the database calls the hashes of certIDs.
var hashNames = map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA256: "sha256"}

func hashName(h crypto.Hash) (string, error) {
	name, known := hashNames[h]
	if !known {
		return "", fmt.Errorf("a certID has no hash %v", h)
	}
	return name, nil
}

// SerialStatus implements ca.Store. One statement sees one state of the ledger.
func (db *DB) SerialStatus(ctx context.Context, caID int64, serial string) (ca.SerialStatus, error) {
	var rows []struct {
		CurrentSequence int64
		IssuedUntil     *instant
		Changed         *int64
		Shard           int
		RevokedAt       *instant
		Reason          int
		InvalidityDate  *instant
		Released        bool
	}
	err := db.read(ctx, "SerialStatus", func(q *gorm.DB) error {
		rows = nil
		return q.Raw(`
			SELECT s.sequence AS current_sequence, i.not_after AS issued_until, r.sequence AS changed, coalesce(r.shard, 0) AS shard,
				r.revoked_at, coalesce(r.reason, 0) AS reason, r.invalidity_date, coalesce(r.released, false) AS released
			FROM revocation_state s
			LEFT JOIN (
				SELECT not_after FROM certificates WHERE issuer_id = @ca AND serial = @serial
				UNION ALL
				SELECT not_after FROM certificate_authorities WHERE parent_id = @ca AND serial = @serial AND state <> 'pending'
				UNION ALL
				SELECT not_after FROM certificate_authorities WHERE id = @ca AND parent_id IS NULL AND serial = @serial
				UNION ALL
				SELECT not_after FROM ocsp_responders WHERE ca_id = @ca AND serial = @serial AND state <> 'pending'
			) i ON true
			LEFT JOIN revocations r ON r.ca_id = s.ca_id AND r.serial = @serial
			WHERE s.ca_id = @ca
			LIMIT 1`, map[string]any{"ca": caID, "serial": serial}).Scan(&rows).Error
	})
	if err != nil {
		return ca.SerialStatus{}, err
	}
	if len(rows) == 0 {
		return ca.SerialStatus{}, errNoCA
	}
	r := rows[0]
	s := ca.SerialStatus{Sequence: r.CurrentSequence, Issued: r.IssuedUntil != nil, NotAfter: timeOf(r.IssuedUntil)}
	if s.Issued && r.Changed != nil && !r.Released {
		s.Revoked = &ca.RevokedEntry{Serial: serial, Shard: r.Shard, Sequence: *r.Changed, At: timeOf(r.RevokedAt), Reason: r.Reason,
			InvalidityDate: timeOf(r.InvalidityDate), NotAfter: s.NotAfter}
	}
	return s, nil
}

// ReserveResponder implements ca.Store.
func (db *DB) ReserveResponder(ctx context.Context, r ca.Responder, e audit.Event) (int64, error) {
	var row responderRow
	err := db.write(ctx, "ReserveResponder", func(tx *gorm.DB) error {
		var issuer []int64 // held, so that nobody else reserves a serial number of it meanwhile
		err := tx.Model(&authorityRow{}).Clauses(clause.Locking{Strength: "NO KEY UPDATE"}).Where("id = ?", r.CAID).Pluck("id", &issuer).Error
		if err != nil {
			return err
		}
		if err := refuseTakenSerial(tx, r.CAID, r.Serial, "certificate_authorities WHERE parent_id"); err != nil {
			return err
		}
		row = responderRow{
			CAID: r.CAID, Token: r.Token, KeyID: r.KeyID, PublicKey: r.PublicKey, Serial: r.Serial, TBS: r.TBS,
			NotBefore: at(r.NotBefore), NotAfter: at(r.NotAfter), State: string(ca.Pending), Created: at(db.now()),
		}
		switch err := tx.Create(&row).Error; {
		case violates(err, "ocsp_responders", "serial"):
			return errSerialTaken
		case violatesForeignKey(err):
			return errNoCA
		case err != nil:
			return err
		}
		return db.append(tx, e, r.CAID)
	})
	return row.ID, err
}

// CompleteResponder implements ca.Store.
func (db *DB) CompleteResponder(ctx context.Context, id int64, der []byte, e audit.Event) error {
	return db.write(ctx, "CompleteResponder", func(tx *gorm.DB) error {
		var row responderRow
		res := tx.Model(&row).Clauses(clause.Returning{Columns: columns("ca_id")}).Where("id = ? AND state = 'pending'", id).
			Updates(map[string]any{"state": string(ca.Valid), "certificate": der, "tbs": nil})
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return errResponderNotReserved
		}
		return db.append(tx, e, row.CAID)
	})
}

// LatestResponder implements ca.Store.
func (db *DB) LatestResponder(ctx context.Context, caID int64) (ca.Responder, error) {
	var rows []responderRow
	err := db.read(ctx, "LatestResponder", func(q *gorm.DB) error {
		return q.Where("ca_id = ? AND state = 'valid'", caID).Order("id DESC").Limit(1).Find(&rows).Error
	})
	if err != nil {
		return ca.Responder{}, err
	}
	if len(rows) == 0 {
		return ca.Responder{}, errNoResponder
	}
	return rows[0].responder(), nil
}

// Responders implements ca.Store.
func (db *DB) Responders(ctx context.Context, after int64, limit int) ([]ca.Responder, error) {
	var rows []responderRow
	err := db.read(ctx, "Responders", func(q *gorm.DB) error { return page(q, after, 0, limit).Find(&rows).Error })
	return each(rows, responderRow.responder), err
}

// answersAtOnce bounds the rows of one statement.
const answersAtOnce = 200

// KeepAnswers implements ca.Store.
func (db *DB) KeepAnswers(ctx context.Context, all []ca.SignedAnswer) error {
	rows := make([]answerRow, len(all))
	last := map[string]int{} // a statement must not write a row twice
	n := 0
	for _, s := range all {
		hash, err := hashName(s.Hash)
		if err != nil {
			return err
		}
		row := answerRow{CAID: s.CAID, Serial: s.Serial, Hash: hash, ThisUpdate: at(s.ThisUpdate), NextUpdate: at(s.NextUpdate),
			Sequence: s.Sequence, DER: s.DER}
		key := fmt.Sprint(row.CAID, row.Serial, row.Hash, row.ThisUpdate.UnixMicro())
		switch i, twice := last[key]; {
		case !twice:
			last[key], rows[n] = n, row
			n++
		case rows[i].Sequence <= row.Sequence:
			rows[i] = row
		}
	}
	if n == 0 {
		return nil
	}
	return db.write(ctx, "KeepAnswers", func(tx *gorm.DB) error {
		return tx.Clauses(clause.OnConflict{
			Columns:   columns("ca_id", "serial", "hash", "this_update"),
			DoUpdates: clause.AssignmentColumns([]string{"next_update", "sequence", "der"}),
			Where:     clause.Where{Exprs: []clause.Expression{gorm.Expr("ocsp_answers.sequence <= excluded.sequence")}},
		}).CreateInBatches(rows[:n], answersAtOnce).Error
	})
}

// notOvertaken is what is true of an answer a as long as its serial number has not changed since.
const notOvertaken = `NOT EXISTS (SELECT 1 FROM revocations r WHERE r.ca_id = a.ca_id AND r.serial = a.serial AND r.sequence > a.sequence)`

// Answer implements ca.Store.
func (db *DB) Answer(ctx context.Context, caID int64, serial string, hash crypto.Hash, now time.Time) (ca.SignedAnswer, error) {
	name, err := hashName(hash)
	if err != nil {
		return ca.SignedAnswer{}, err
	}
	var rows []answerRow
	err = db.read(ctx, "Answer", func(q *gorm.DB) error {
		rows = nil
		return q.Raw(`SELECT a.* FROM ocsp_answers a
			WHERE a.ca_id = @ca AND a.serial = @serial AND a.hash = @hash AND a.this_update <= @now AND a.next_update > @now AND `+notOvertaken+`
			ORDER BY a.this_update DESC LIMIT 1`,
			map[string]any{"ca": caID, "serial": serial, "hash": name, "now": at(now)}).Scan(&rows).Error
	})
	if err != nil {
		return ca.SignedAnswer{}, err
	}
	if len(rows) == 0 {
		return ca.SignedAnswer{}, errNoAnswer
	}
	r := rows[0]
	return ca.SignedAnswer{CAID: r.CAID, Serial: r.Serial, Hash: hash, ThisUpdate: r.ThisUpdate.Time, NextUpdate: r.NextUpdate.Time,
		Sequence: r.Sequence, DER: r.DER}, nil
}

// Unanswered implements ca.Store. It reads what it looks at in the order of an index, and no more.
func (db *DB) Unanswered(ctx context.Context, caID int64, hash crypto.Hash, when time.Time, left time.Duration, after string, limit int) ([]string, string, error) {
	name, err := hashName(hash)
	if err != nil {
		return nil, "", err
	}
	const current = `serial > @after AND state IN ('valid', 'revoked') AND not_after >= @at ORDER BY serial LIMIT @limit`
	var rows []struct {
		Serial  string
		Missing bool
	}
	err = db.read(ctx, "Unanswered", func(q *gorm.DB) error {
		rows = nil
		return q.Raw(`
			SELECT c.serial, NOT EXISTS (
				SELECT 1 FROM ocsp_answers a WHERE a.ca_id = @ca AND a.serial = c.serial AND a.hash = @hash
					AND a.this_update <= @at AND a.next_update >= @until AND `+notOvertaken+`) AS missing
			FROM (
				SELECT * FROM (SELECT serial FROM certificates WHERE issuer_id = @ca AND `+current+`) leaves
				UNION ALL
				SELECT * FROM (SELECT serial FROM certificate_authorities WHERE parent_id = @ca AND `+current+`) authorities
				ORDER BY serial LIMIT @limit
			) c ORDER BY c.serial`,
			map[string]any{"ca": caID, "hash": name, "at": at(when), "until": at(when.Add(left)), "after": after, "limit": limit}).
			Scan(&rows).Error
	})
	if err != nil {
		return nil, "", err
	}
	var serials []string
	last := ""
	for i, r := range rows {
		if r.Missing {
			serials = append(serials, r.Serial)
		}
		if i == limit-1 {
			last = r.Serial
		}
	}
	return serials, last, nil
}

// DropAnswers implements ca.Store.
func (db *DB) DropAnswers(ctx context.Context, endedBefore time.Time, limit int) (int, error) {
	var dropped int64
	err := db.write(ctx, "DropAnswers", func(tx *gorm.DB) error {
		res := tx.Exec(`DELETE FROM ocsp_answers WHERE (ca_id, serial, hash, this_update) IN (
				SELECT ca_id, serial, hash, this_update FROM ocsp_answers WHERE next_update < ? ORDER BY next_update LIMIT ?)`,
			at(endedBefore), max(limit, 0))
		dropped = res.RowsAffected
		return res.Error
	})
	return int(dropped), err
}
