package store

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// revokeSQL does a group of revocations, of which each certificate has one. The rows of the certificates are locked in the
// order of their ids, the counters after them, those of the ledgers last, and each of these in one order: groups of several
// replicas wait for each other, but never in a circle. A CA without state fails them all: there is no sequence.
const revokeSQL = `
WITH item AS MATERIALIZED (
		SELECT * FROM unnest($11::bigint[], $12::timestamptz[], $13::integer[], $14::text[], $15::timestamptz[], $16::integer[], ` +
	eventArraysSQL + `)
			WITH ORDINALITY AS i (item_id, at, reason, text, invalid_since, replaces, ` + eventColumnsSQL + `, n)
	),
	target AS MATERIALIZED (
		SELECT item.*, c.state AS was FROM item JOIN certificates c ON c.id = item_id
		WHERE (c.state = 'valid' OR c.state = 'revoked' AND (replaces >> c.revocation_reason) & 1 = 1)
			AND NOT EXISTS (SELECT 1 FROM certificate_authorities a WHERE a.id = c.issuer_id AND a.deleted_at IS NOT NULL)
		ORDER BY c.id FOR NO KEY UPDATE OF c
	),
	made AS (
		UPDATE certificates c SET state = 'revoked', revoked_at = coalesce(c.revoked_at, target.at), revocation_reason = target.reason,
			revocation_text = target.text, invalidity_date = coalesce(invalid_since, c.invalidity_date), updated_at = $1
		FROM target WHERE c.id = item_id
		RETURNING c.*, target.*
	),
	counted AS (
		INSERT INTO certificate_counts AS k (issuer_id, organization_id, created_by, state, stripe, n)
		SELECT issuer_id, coalesce(organization_id, 0), coalesce(created_by, 0), s.state, $17, sum(s.change)
		FROM made CROSS JOIN (VALUES ('revoked', 1), ('valid', -1)) AS s (state, change)
		WHERE was = 'valid' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
		ON CONFLICT (issuer_id, organization_id, created_by, state, stripe) DO UPDATE SET n = k.n + excluded.n
		RETURNING 1
	),
	logged AS (` + loggedSQL + ` FROM made ORDER BY n),
	issuer AS MATERIALIZED (
		SELECT issuer_id, count(*) AS changes FROM made WHERE (SELECT count(*) FROM counted) >= 0 GROUP BY issuer_id
	),
	held AS MATERIALIZED (
		SELECT ca_id, changes FROM issuer JOIN revocation_state ON ca_id = issuer_id ORDER BY ca_id FOR NO KEY UPDATE OF revocation_state
	),
	state AS (
		UPDATE revocation_state s SET sequence = s.sequence + held.changes FROM held WHERE s.ca_id = held.ca_id
		RETURNING s.ca_id, s.sequence - held.changes AS base
	),
	entry AS MATERIALIZED (
		SELECT made.*, base + row_number() OVER (PARTITION BY issuer_id ORDER BY n) AS sequence FROM made LEFT JOIN state ON ca_id = issuer_id
	),
	entered AS (
		INSERT INTO revocations (ca_id, serial, shard, sequence, revoked_at, reason, invalidity_date, not_after, released)
		SELECT issuer_id, serial, crl_shard, sequence, revoked_at, revocation_reason, invalidity_date, not_after, false FROM entry
		ON CONFLICT (ca_id, serial) DO UPDATE SET shard = excluded.shard, sequence = excluded.sequence,
			revoked_at = excluded.revoked_at, reason = excluded.reason, invalidity_date = excluded.invalidity_date,
			not_after = excluded.not_after, released = excluded.released
	),
	scope AS (
		INSERT INTO crl_scopes (ca_id, shard, sequence)
		SELECT issuer_id, crl_shard, max(sequence) FROM entry GROUP BY 1, 2 ORDER BY 1, 2
		ON CONFLICT (ca_id, shard) DO UPDATE SET sequence = excluded.sequence
	)
SELECT made.n, made.id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by, serial, names,
	crl_shard, der, not_before, not_after, state, revoked_at, revocation_reason, revocation_text, invalidity_date, created_at, updated_at, sealed_key
FROM made LEFT JOIN certificate_keys k ON k.certificate_id = made.id`

func (db *DB) revokePostgres(ctx context.Context, jobs []*job) error {
	jobs = slices.Clone(jobs)
	slices.SortStableFunc(jobs, func(a, b *job) int { return cmp.Compare(a.revoke.id, b.revoke.id) })
	var events eventArrays
	var ids []int64
	var revokedAt []time.Time
	var reason, replaces []int32
	var text []string
	var invalidity []*time.Time
	for _, j := range jobs {
		r := j.revoke
		events.add(db.auditRow(j.event))
		ids = append(ids, r.id)
		revokedAt = append(revokedAt, at(r.At).Time)
		reason = append(reason, int32(r.Reason))
		text = append(text, r.Text)
		if r.InvalidityDate.IsZero() {
			invalidity = append(invalidity, nil)
		} else {
			date := at(r.InvalidityDate).Time
			invalidity = append(invalidity, &date)
		}
		replaces = append(replaces, r.replacesMask())
		j.err = errCertificateEnded // until its row comes back
	}
	args := append(events.values(at(db.now()).Time), ids, revokedAt, reason, text, invalidity, replaces, db.stripe)
	return db.group(ctx, func(row scanner) error {
		var n int
		var r certificateRow
		var sealed []byte
		if err := row.Scan(&n, &r.ID, &r.IssuerID, &r.CommonName, &r.SubjectDN, &r.Type, &r.KeyType, &r.KeySize, &r.ValidDays,
			&r.OrganizationID, &r.CreatedBy, &r.Serial, &r.Names, &r.CRLShard, &r.DER, &r.NotBefore, &r.NotAfter, &r.State, &r.RevokedAt,
			&r.RevocationReason, &r.RevocationText, &r.InvalidityDate, &r.Created, &r.Updated, &sealed); err != nil {
			return err
		}
		j := jobs[n-1]
		j.err, j.result, j.sealed = nil, r, sealed
		return nil
	}, revokeSQL, args...)
}

// replacesMask has bit n set when the CRLReason n (RFC 5280, section 5.3.1: 0 to 10) is replaced.
func (e *ending) replacesMask() int32 {
	var mask int32
	for _, reason := range e.replaces {
		mask |= 1 << reason
	}
	return mask
}
