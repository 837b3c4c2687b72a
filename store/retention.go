package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gorm.io/gorm"

	"signet/audit"
	"signet/ca"
)

// unlisted is the condition that a certificate c is in the ledger, and that a list which must be kept up has not shown it since it
// ended: such a list leaves it out only after one did (RFC 5280, section 3.3). Whatever changes in the ledger must be shown, too.
const unlisted = `EXISTS (
	SELECT 1 FROM revocations r
	JOIN certificate_authorities a ON a.id = r.ca_id
	JOIN crl_scopes s ON s.ca_id = r.ca_id AND s.shard IN (0, r.shard)
	WHERE r.ca_id = c.issuer_id AND r.serial = c.serial AND ` + keptUp + ` AND NOT EXISTS (
		SELECT 1 FROM crls l
		WHERE l.ca_id = s.ca_id AND l.shard = s.shard AND l.delta = false AND l.kept AND l.this_update <= @now
			AND l.this_update > c.not_after AND l.sequence >= r.sequence))`

// retired is the condition that nothing but a row is left of a list.
const retired = "NOT kept AND state <> 'pending'"

// removable is what a query counts of one kind, of one CA and, for certificates, of one state.
type removable struct {
	CAID           int64 `gorm:"column:ca_id"`
	State          string
	Waiting        bool
	Count          int64
	Oldest, Newest *instant
	Bytes, Keys    int64
}

// Removable implements ca.Store.
func (db *DB) Removable(ctx context.Context, now, expired, entries time.Time) ([]ca.Removable, error) {
	found := map[ca.RecordKind][]removable{}
	names := map[int64]string{}
	err := db.read(ctx, "Removable", func(q *gorm.DB) error {
		clear(found)
		if !expired.IsZero() {
			for kind, query := range map[ca.RecordKind]string{
				ca.CertificateRecords: `
					SELECT c.issuer_id AS ca_id, c.state, c.waiting, count(*) AS count, min(c.not_after) AS oldest, max(c.not_after) AS newest,
						sum(octet_length(coalesce(c.der, c.tbs)) + coalesce(octet_length(k.sealed_key), 0)) AS bytes,
						count(k.certificate_id) AS keys
					FROM (SELECT c.*, ` + unlisted + ` AS waiting FROM certificate_authorities issuer
						JOIN certificates c ON c.issuer_id = issuer.id AND c.not_after < @before) c
					LEFT JOIN certificate_keys k ON k.certificate_id = c.id
					GROUP BY c.issuer_id, c.state, c.waiting`,
				ca.ListRecords: `
					SELECT ca_id, count(*) AS count, min(next_update) AS oldest, max(next_update) AS newest FROM crls
					WHERE ` + retired + ` AND next_update < @before GROUP BY ca_id`,
			} {
				var rows []removable
				if err := q.Raw(query, map[string]any{"now": at(now), "before": at(expired)}).Scan(&rows).Error; err != nil {
					return err
				}
				found[kind] = rows
			}
			var authorities []authorityRow
			if err := q.Select("id", "name").Find(&authorities).Error; err != nil {
				return err
			}
			for _, a := range authorities {
				names[a.ID] = a.Name
			}
		}
		if entries.IsZero() {
			return nil
		}
		var rows []removable
		err := q.Raw(`SELECT count(*) AS count, min(created_at) AS oldest, max(created_at) AS newest,
				coalesce(sum(octet_length(username) + octet_length(detail) + octet_length(request_id) + octet_length(remote_addr)), 0) AS bytes
			FROM audit_log WHERE created_at < ? AND action <> ?`, at(entries), string(audit.Retention)).Scan(&rows).Error
		found[ca.AuditRecords] = rows
		return err
	})
	if err != nil {
		return nil, err
	}
	limits := map[ca.RecordKind]time.Time{ca.CertificateRecords: expired, ca.ListRecords: expired, ca.AuditRecords: entries}
	all := []ca.Removable{}
	for _, kind := range ca.RecordKinds {
		all = append(all, summed(kind, limits[kind], found[kind], names)...)
	}
	return all, nil
}

// summed adds up what was counted of each CA, in their order.
func summed(kind ca.RecordKind, before time.Time, rows []removable, names map[int64]string) (all []ca.Removable) {
	slices.SortFunc(rows, func(a, b removable) int { return cmp.Compare(a.CAID, b.CAID) })
	for _, r := range rows {
		if r.Count == 0 {
			continue
		}
		if n := len(all); n == 0 || all[n-1].CAID != r.CAID {
			all = append(all, ca.Removable{Kind: kind, CAID: r.CAID, CAName: names[r.CAID], Before: before})
		}
		sum := &all[len(all)-1]
		if r.Waiting {
			sum.Waiting += r.Count
			continue
		}
		sum.Count, sum.Bytes, sum.Keys = sum.Count+r.Count, sum.Bytes+r.Bytes, sum.Keys+r.Keys
		if oldest := timeOf(r.Oldest); sum.Oldest.IsZero() || oldest.Before(sum.Oldest) {
			sum.Oldest = oldest
		}
		if newest := timeOf(r.Newest); newest.After(sum.Newest) {
			sum.Newest = newest
		}
		switch ca.State(r.State) {
		case ca.Valid:
			sum.Valid += r.Count
		case ca.Revoked:
			sum.Revoked += r.Count
		case ca.Abandoned:
			sum.Abandoned += r.Count
		}
	}
	return all
}

// expiredRow is a certificate with what is known of its private key.
type expiredRow struct {
	Certificate certificateRow `gorm:"embedded"`
	HasKey      bool
}

// ExpiredCertificates implements ca.Store.
func (db *DB) ExpiredCertificates(ctx context.Context, caID int64, now, before time.Time, after ca.RecordPlace, limit int) ([]ca.ExpiredCertificate, error) {
	var rows []expiredRow
	err := db.read(ctx, "ExpiredCertificates", func(q *gorm.DB) error {
		rows = nil
		return q.Raw(`
			SELECT c.*, EXISTS (SELECT 1 FROM certificate_keys k WHERE k.certificate_id = c.id) AS has_key
			FROM certificates c
			WHERE c.issuer_id = @ca AND c.not_after < @before AND c.not_after >= @after AND (c.not_after > @after OR c.id > @id)
				AND NOT `+unlisted+`
			ORDER BY c.not_after, c.id LIMIT @limit`,
			map[string]any{"ca": caID, "now": at(now), "before": at(before), "after": at(after.At), "id": after.ID, "limit": max(limit, 0)}).
			Scan(&rows).Error
	})
	return each(rows, func(r expiredRow) ca.ExpiredCertificate {
		return ca.ExpiredCertificate{Certificate: r.Certificate.certificate(), HasKey: r.HasKey}
	}), err
}

// RetiredLists implements ca.Store.
func (db *DB) RetiredLists(ctx context.Context, caID int64, before time.Time, limit int) ([]ca.List, error) {
	var rows []listRow
	err := db.read(ctx, "RetiredLists", func(q *gorm.DB) error {
		return q.Select(listMetadata).Where("ca_id = ? AND next_update < ? AND "+retired, caID, at(before)).
			Order("number, delta DESC").Limit(max(limit, 0)).Find(&rows).Error
	})
	return each(rows, listRow.list), err
}

// OldEntries implements ca.Store.
func (db *DB) OldEntries(ctx context.Context, before time.Time, after ca.RecordPlace, limit int) ([]audit.Entry, error) {
	var rows []auditRow
	from := at(after.At)
	err := db.read(ctx, "OldEntries", func(q *gorm.DB) error {
		return q.Where("created_at < ? AND created_at >= ? AND (created_at > ? OR id > ?) AND action <> ?",
			at(before), from, from, after.ID, string(audit.Retention)).
			Order("created_at, id").Limit(max(limit, 0)).Find(&rows).Error
	})
	return each(rows, auditRow.entry), err
}
