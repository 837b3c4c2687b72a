package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"signet/audit"
	"signet/ca"
)

// certificateHold is the CRLReason that can be taken back (RFC 5280, section 5.3.1).
const certificateHold = 6

// revocation is what columns say of the end of a record.
func revocation(revokedAt *instant, reason int, text string, invalidity *instant) ca.Revocation {
	return ca.Revocation{At: timeOf(revokedAt), Reason: reason, Text: text, InvalidityDate: timeOf(invalidity)}
}

// revocation is the columns that end a record.
func (db *DB) revocation(s ca.State, r ca.Revocation) map[string]any {
	return map[string]any{
		"state": string(s), "revoked_at": at(r.At), "revocation_reason": r.Reason, "revocation_text": r.Text,
		"updated_at": at(db.now()),
	}
}

// revoke ends the records that q selects, if they are valid or if their reason is one of those that are replaced.
func (db *DB) revoke(q *gorm.DB, r ca.Revocation, replaces []int) *gorm.DB {
	columns := db.revocation(ca.Revoked, r)
	columns["revoked_at"] = gorm.Expr("coalesce(revoked_at, ?)", at(r.At))
	if !r.InvalidityDate.IsZero() {
		columns["invalidity_date"] = at(r.InvalidityDate)
	}
	if len(replaces) == 0 {
		q = q.Where("state = 'valid'")
	} else {
		q = q.Where("(state = 'valid' OR state = 'revoked' AND revocation_reason IN ?)", replaces)
	}
	return q.Clauses(clause.Returning{}).Updates(columns)
}

func (r certificateRow) ledger() revocationRow {
	return revocationRow{Serial: r.Serial, Shard: r.CRLShard, RevokedAt: *r.RevokedAt, Reason: r.RevocationReason,
		InvalidityDate: r.InvalidityDate, NotAfter: r.NotAfter}
}

func (r authorityRow) ledger() revocationRow {
	return revocationRow{Serial: *r.Serial, RevokedAt: *r.RevokedAt, Reason: r.RevocationReason,
		InvalidityDate: r.InvalidityDate, NotAfter: r.NotAfter}
}

// withKey is a certificate with its sealed key.
func withKey(q *gorm.DB, row certificateRow) (ca.Certificate, error) {
	c := row.certificate()
	var keys []keyRow
	if err := q.Where("certificate_id = ?", row.ID).Find(&keys).Error; err != nil {
		return c, err
	}
	if len(keys) > 0 {
		c.SealedKey = keys[0].SealedKey
	}
	return c, nil
}

// whyNotEnded is why the state of a certificate did not change: it does not exist, or otherwise.
func whyNotEnded(tx *gorm.DB, id int64, otherwise error) error {
	var found int64
	err := tx.Model(&certificateRow{}).Where("id = ? AND "+visibleCertificate, id).Count(&found).Error
	switch {
	case err != nil:
		return err
	case found == 0:
		return errNoCertificate
	}
	return otherwise
}

// Release implements ca.Store.
func (db *DB) Release(ctx context.Context, id int64, when time.Time, e audit.Event) (ca.Certificate, error) {
	var c ca.Certificate
	err := db.write(ctx, "Release", func(tx *gorm.DB) error {
		var rows []certificateRow
		err := tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE"}).
			Where("id = ? AND state = 'revoked' AND revocation_reason = ? AND "+visibleCertificate, id, certificateHold).Find(&rows).Error
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return whyNotEnded(tx, id, errNotHeld)
		}
		entry := rows[0].ledger()
		entry.Released = true
		var row certificateRow
		err = tx.Model(&row).Clauses(clause.Returning{}).Where("id = ?", id).Updates(map[string]any{
			"state": string(ca.Valid), "revoked_at": nil, "revocation_reason": 0, "revocation_text": "", "invalidity_date": nil,
			"updated_at": at(when),
		}).Error
		if err != nil {
			return err
		}
		if c, err = withKey(tx, row); err != nil {
			return err
		}
		if err := db.append(tx, e, id); err != nil {
			return err
		}
		if err := db.count(tx, map[tally]int64{row.tally(ca.Revoked): -1, row.tally(ca.Valid): 1}); err != nil {
			return err
		}
		return db.change(tx, row.IssuerID, []revocationRow{entry})
	})
	return c, err
}

// RevokeCA implements ca.Store.
func (db *DB) RevokeCA(ctx context.Context, id int64, r ca.Revocation, replaces []int, e audit.Event) (ca.CA, error) {
	var row authorityRow
	err := db.write(ctx, "RevokeCA", func(tx *gorm.DB) error {
		row = authorityRow{}
		res := db.revoke(tx.Model(&row).Where("id = ? AND deleted_at IS NULL AND parent_id IS NOT NULL", id), r, replaces)
		if res.Error != nil {
			return res.Error
		}
		if res.RowsAffected != 1 {
			return whyNotRevoked(tx, id)
		}
		if err := db.append(tx, e, id); err != nil {
			return err
		}
		return db.change(tx, *row.ParentID, []revocationRow{row.ledger()})
	})
	return row.ca(), err
}

func whyNotRevoked(tx *gorm.DB, id int64) error {
	var rows []authorityRow
	if err := tx.Where(visible).Where("id = ?", id).Find(&rows).Error; err != nil {
		return err
	}
	switch {
	case len(rows) == 0:
		return errNoCA
	case rows[0].ParentID == nil:
		return errRoot
	}
	return errCARevoked
}

// abandoned is how a reservation ends that nobody completed. Its to-be-signed bytes stay in the database as evidence.
func abandoned(now time.Time) ca.Revocation {
	return ca.Revocation{At: now, Text: "never completed"}
}

// abandonedResponder is a row of ocsp_responders whose reservation has ended.
type abandonedResponder struct {
	ID             int64
	CAID           int64 `gorm:"column:ca_id"`
	Serial         string
	NotAfter       instant
	OrganizationID *int64
}

// maxAbandoned is how many reservations one transaction closes. A token that fails for a minute leaves more than an operation
// has time for, and what cannot be closed is in no list.
const maxAbandoned = 1000

// Abandon implements ca.Store. It is several transactions when there are many reservations; what an error leaves, the next call
// closes.
func (db *DB) Abandon(ctx context.Context, before, now time.Time) (int, error) {
	for all := 0; ; {
		n, more, err := db.abandon(ctx, before, now)
		if all += n; !more || err != nil {
			return all, err
		}
	}
}

// abandon closes some reservations and says how many, and whether there may be more.
func (db *DB) abandon(ctx context.Context, before, now time.Time) (n int, more bool, err error) {
	err = db.write(ctx, "Abandon", func(tx *gorm.DB) error {
		n, more = 0, false
		end := db.revocation(ca.Abandoned, abandoned(now))
		certificates, err := db.abandonReservations(tx, at(before), at(now))
		if err != nil {
			return err
		}
		var authorities []authorityRow
		err = tx.Model(&authorities).Clauses(clause.Returning{Columns: columns("id", "parent_id", "serial",
			"revoked_at", "not_after", "organization_id")}).
			Where("state = 'pending' AND created_at < ?", at(before)).Updates(end).Error
		if err != nil {
			return err
		}
		var responders []abandonedResponder
		err = tx.Raw(`UPDATE ocsp_responders SET state = 'abandoned' WHERE state = 'pending' AND created_at < ?
			RETURNING id, ca_id, serial, not_after,
				(SELECT organization_id FROM certificate_authorities a WHERE a.id = ocsp_responders.ca_id) AS organization_id`,
			at(before)).Scan(&responders).Error
		if err != nil {
			return err
		}
		slices.SortFunc(authorities, func(a, b authorityRow) int { return cmp.Compare(a.ID, b.ID) })
		slices.SortFunc(responders, func(a, b abandonedResponder) int { return cmp.Compare(a.ID, b.ID) })
		if err := db.closeReservations(tx, certificates, authorities, responders, at(now)); err != nil {
			return err
		}
		n, more = len(certificates)+len(authorities)+len(responders), len(certificates) == maxAbandoned
		return nil
	})
	if err != nil {
		return 0, false, err
	}
	return n, more, nil
}

// abandonReservations moves the oldest reservations to where certificates are, and returns them in the order of their ids. Those
// that somebody completes or moves at the moment are left to him: to wait for them in another order than his would be a circle.
func (db *DB) abandonReservations(tx *gorm.DB, before, now instant) ([]certificateRow, error) {
	var rows []certificateRow
	free := ""
	if db.dialect == onPostgres {
		free = " FOR UPDATE SKIP LOCKED"
	}
	err := tx.Raw(`
		WITH oldest AS MATERIALIZED (SELECT id FROM reservations WHERE created_at < ? ORDER BY id LIMIT ?`+free+`)
		DELETE FROM reservations WHERE id IN (SELECT id FROM oldest) RETURNING *`, before, maxAbandoned).Scan(&rows).Error
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b certificateRow) int { return cmp.Compare(a.ID, b.ID) })
	end := abandoned(now.Time)
	counts := map[tally]int64{}
	for i := range rows {
		r := &rows[i]
		r.State, r.RevokedAt, r.RevocationText, r.Updated = string(ca.Abandoned), &now, end.Text, at(db.now())
		counts[r.tally(ca.Abandoned)]++
	}
	if err := tx.CreateInBatches(rows, 500).Error; err != nil {
		return nil, err
	}
	return rows, db.count(tx, counts)
}

func columns(names ...string) []clause.Column {
	return each(names, func(name string) clause.Column { return clause.Column{Name: name} })
}

// closeReservations adds the events and enters the serial numbers in the ledgers of their issuers.
func (db *DB) closeReservations(tx *gorm.DB, certificates []certificateRow, authorities []authorityRow,
	responders []abandonedResponder, now instant) error {
	var events []auditRow
	ledger := map[int64][]revocationRow{}
	event := func(action audit.Action, resource string, id int64, organization *int64, serial string) {
		events = append(events, db.auditRow(audit.Event{Action: action, ResourceType: resource, ResourceID: &id,
			OrganizationID: organization, Detail: "reservation of serial " + serial + " was never completed"}))
	}
	for _, c := range certificates {
		ledger[c.IssuerID] = append(ledger[c.IssuerID], c.ledger())
		event(audit.CertAbandon, audit.ResourceCertificate, c.ID, c.OrganizationID, c.Serial)
	}
	for _, a := range authorities {
		if a.ParentID != nil && a.Serial != nil {
			ledger[*a.ParentID] = append(ledger[*a.ParentID], a.ledger())
		}
		event(audit.CAAbandon, audit.ResourceCA, a.ID, a.OrganizationID, a.ca().Serial)
	}
	for _, r := range responders {
		ledger[r.CAID] = append(ledger[r.CAID], revocationRow{Serial: r.Serial, RevokedAt: now, NotAfter: r.NotAfter})
		event(audit.ResponderAbandon, audit.ResourceCA, r.CAID, r.OrganizationID, r.Serial)
	}
	if len(events) > 0 {
		if err := tx.CreateInBatches(events, 500).Error; err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ledger)) { // one order, so that two who do this do not wait for each other
		if err := db.change(tx, id, ledger[id]); err != nil {
			return err
		}
	}
	return nil
}
