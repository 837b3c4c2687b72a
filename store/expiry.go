package store

import (
	"context"
	"time"

	"gorm.io/gorm"

	"signet/ca"
)

// responderEnd is what CAExpiries reads of ocsp_responders.
type responderEnd struct {
	ID        int64
	CAID      int64 `gorm:"column:ca_id"`
	Token     string
	KeyID     []byte
	PublicKey []byte
	Serial    string
	NotBefore instant
	NotAfter  instant
	State     string
}

func (r responderEnd) responder() *ca.Responder {
	return &ca.Responder{ID: r.ID, CAID: r.CAID, Token: r.Token, KeyID: r.KeyID, PublicKey: r.PublicKey, Serial: r.Serial,
		NotBefore: r.NotBefore.Time, NotAfter: r.NotAfter.Time, State: ca.State(r.State)}
}

// latestResponders are the valid responders of which their CA has no later one.
const latestResponders = `SELECT id, ca_id, token, key_id, public_key, serial, not_before, not_after, state FROM ocsp_responders r
	WHERE state = 'valid' AND id = (SELECT max(id) FROM ocsp_responders later WHERE later.ca_id = r.ca_id AND later.state = 'valid')`

// endingCertificates counts, for each CA, a part of its index by notAfter.
const endingCertificates = `SELECT id, (SELECT count(*) FROM certificates
		WHERE issuer_id = issuer.id AND state = 'valid' AND not_after > ? AND not_after <= ?) AS count
	FROM certificate_authorities issuer WHERE ` + visible

type endingCount struct{ ID, Count int64 }

// CAExpiries implements ca.Store.
func (db *DB) CAExpiries(ctx context.Context, now time.Time, within []time.Duration) ([]ca.CAExpiry, error) {
	var authorities []authorityRow
	var responders []responderEnd
	counts := make([][]endingCount, len(within))
	err := db.read(ctx, "CAExpiries", func(q *gorm.DB) error {
		if err := q.Omit("tbs", "certificate").Where(completed).Order("id").Find(&authorities).Error; err != nil {
			return err
		}
		if err := q.Raw(latestResponders).Scan(&responders).Error; err != nil {
			return err
		}
		after := at(now).Add(-time.Microsecond) // what ends now has not ended
		for i, d := range within {
			until := at(now.Add(d))
			if err := q.Raw(endingCertificates, at(after), until).Scan(&counts[i]).Error; err != nil {
				return err
			}
			after = until.Time
		}
		return nil
	})
	all := make([]ca.CAExpiry, len(authorities))
	place := map[int64]*ca.CAExpiry{}
	for i, row := range authorities {
		all[i] = ca.CAExpiry{CA: row.ca(), Expiring: make([]int64, len(within))}
		place[row.ID] = &all[i]
	}
	for _, r := range responders {
		if e := place[r.CAID]; e != nil {
			e.Responder = r.responder()
		}
	}
	for i := range counts {
		for _, c := range counts[i] {
			e := place[c.ID]
			if e == nil { // completed between the queries
				continue
			}
			for longer := i; longer < len(within); longer++ {
				e.Expiring[longer] += c.Count
			}
		}
	}
	return all, err
}

// Endings implements ca.Store.
func (db *DB) Endings(ctx context.Context, caID int64, after ca.Ending, until time.Time, limit int) ([]ca.Certificate, error) {
	var rows []certificateRow
	from := at(after.NotAfter)
	err := db.read(ctx, "Endings", func(q *gorm.DB) error {
		return q.Omit("tbs", "der").Where("issuer_id = ? AND state = 'valid' AND "+visibleCertificate, caID).
			Where("not_after >= ? AND not_after <= ? AND (not_after > ? OR id > ?)", from, at(until), from, after.ID).
			Order("not_after, id").Limit(limit).Find(&rows).Error
	})
	return each(rows, certificateRow.certificate), err
}
