package store

import (
	"context"
	"time"

	"signet/idempotency"
)

// eventArrays are the columns of the events of a group of jobs.
type eventArrays struct {
	action, username, resourceType, detail, requestID, remoteAddr []string
	userID, organizationID, resourceID                            []*int64
}

func (a *eventArrays) add(r auditRow) {
	a.action = append(a.action, r.Action)
	a.userID = append(a.userID, r.UserID)
	a.username = append(a.username, r.Username)
	a.organizationID = append(a.organizationID, r.OrganizationID)
	a.resourceType = append(a.resourceType, r.ResourceType)
	a.resourceID = append(a.resourceID, r.ResourceID)
	a.detail = append(a.detail, r.Detail)
	a.requestID = append(a.requestID, r.RequestID)
	a.remoteAddr = append(a.remoteAddr, r.RemoteAddr)
}

// values are the arguments $1 to $10 of the statements below.
func (a *eventArrays) values(now time.Time) []any {
	return []any{now, a.action, a.userID, a.username, a.organizationID, a.resourceType, a.resourceID, a.detail, a.requestID, a.remoteAddr}
}

// An item of a group is a job: its place in the group (n), its columns and those of its event. All that is made of it carries
// them along, because joins with what has no index cost the square of the group.
const (
	eventArraysSQL  = `$2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::text[]`
	eventColumnsSQL = `e_action, e_user, e_name, e_organization, e_type, e_resource, e_detail, e_request, e_addr`
	// loggedSQL appends the events of the rows that follow it, in their order.
	loggedSQL = `
		INSERT INTO audit_log (created_at, action, user_id, username, organization_id, resource_type, resource_id, detail, request_id, remote_addr)
		SELECT $1, e_action, e_user, e_name, e_organization, e_type, coalesce(e_resource, id), e_detail, e_request, e_addr`
)

// group runs the statement of a group of jobs, which is one transaction and one round trip, and gives each row to take.
func (db *DB) group(ctx context.Context, take func(scanner) error, sql string, args ...any) error {
	return direct(ctx, db.commits, take, sql, args...)
}

// reserveSQL does a group of reservations. An item that the issuer may not sign, or whose serial number is reserved, is left
// out; a serial number that is in use otherwise fails them all, which happens to nobody who has a source of randomness.
const reserveSQL = `
WITH item AS MATERIALIZED (
		SELECT nextval('certificates_id_seq') AS id, i.*
		FROM unnest($11::bigint[], $12::text[], $13::text[], $14::text[], $15::text[], $16::integer[], $17::integer[], $18::bigint[],
			$19::bigint[], $20::text[], $21::text[], $22::integer[], $23::bytea[], $24::timestamptz[], $25::timestamptz[], $26::timestamptz[],
			$27::bytea[], ` + eventArraysSQL + `)
			WITH ORDINALITY AS i (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
				created_by, serial, names, crl_shard, tbs, not_before, not_after, created_at, key_sha256, ` + eventColumnsSQL + `, n)
	),
	issuer AS MATERIALIZED (
		SELECT id, allow_leaf_certs, key_locked <> '' AS locked FROM certificate_authorities
		WHERE id = ANY ($11) AND state = 'valid' AND deleted_at IS NULL
		FOR SHARE
	),
	of_ca AS MATERIALIZED (
		SELECT public_key_sha256 AS key_sha256 FROM certificate_authorities WHERE public_key_sha256 = ANY ($27)
	),
	inserted AS (
		INSERT INTO reservations (id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, tbs, not_before, not_after, created_at)
		SELECT item.id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, tbs, not_before, not_after, created_at
		FROM item JOIN issuer ON issuer.id = issuer_id
		WHERE (allow_leaf_certs OR type = 'ca') AND NOT locked AND key_sha256 NOT IN (SELECT key_sha256 FROM of_ca)
		ON CONFLICT (issuer_id, serial) DO NOTHING
		RETURNING id, issuer_id, serial
	),
	done AS MATERIALIZED (SELECT item.*, (id IN (SELECT id FROM inserted)) AS made FROM item),
	logged AS (` + loggedSQL + ` FROM done WHERE made ORDER BY n)
SELECT done.n, done.id, made, issuer.id IS NOT NULL, coalesce(allow_leaf_certs, false), coalesce(locked, false),
	key_sha256 IN (SELECT key_sha256 FROM of_ca)
FROM done LEFT JOIN issuer ON issuer.id = issuer_id
WHERE (SELECT refuse_taken_serials(array_agg(issuer_id), array_agg(serial)) FROM inserted)`

func (db *DB) reservePostgres(ctx context.Context, jobs []*job) error {
	var events eventArrays
	var issuer []int64
	var commonName, subject, typ, keyType, serial, names []string
	var keySize, validDays, shard []int32
	var organization, creator []*int64
	var tbs, key [][]byte
	var notBefore, notAfter, created []time.Time
	for _, j := range jobs {
		r := j.reserve
		events.add(db.auditRow(j.event))
		issuer = append(issuer, r.IssuerID)
		commonName = append(commonName, r.CommonName)
		subject = append(subject, r.SubjectDN)
		typ = append(typ, r.Type)
		keyType = append(keyType, r.KeyType)
		keySize = append(keySize, int32(r.KeySize))
		validDays = append(validDays, int32(r.ValidDays))
		organization = append(organization, r.OrganizationID)
		creator = append(creator, r.CreatedBy)
		serial = append(serial, r.Serial)
		names = append(names, r.Names)
		shard = append(shard, int32(r.CRLShard))
		tbs = append(tbs, present(r.TBS))
		notBefore = append(notBefore, r.NotBefore.Time)
		notAfter = append(notAfter, r.NotAfter.Time)
		created = append(created, r.Created.Time)
		key = append(key, present(r.keySHA256))
	}
	args := append(events.values(at(db.now()).Time), issuer, commonName, subject, typ, keyType, keySize, validDays,
		organization, creator, serial, names, shard, tbs, notBefore, notAfter, created, key)
	err := db.group(ctx, func(row scanner) error {
		var n int
		var id int64
		var made, keyOfCA bool
		var s standing
		if err := row.Scan(&n, &id, &made, &s.signs, &s.leaves, &s.locked, &keyOfCA); err != nil {
			return err
		}
		if j := jobs[n-1]; made {
			j.result.ID = id
		} else {
			j.err = whyNotReserved(j.reserve, s, keyOfCA)
		}
		return nil
	}, reserveSQL, args...)
	if violates(err, "reservations", "serial") {
		return errSerialTaken
	}
	return err
}

// present is octets that are not NULL.
func present(octets []byte) []byte {
	if octets == nil {
		return []byte{}
	}
	return octets
}

// completeSQL does a group of completions.
const completeSQL = `
WITH item AS MATERIALIZED (
		SELECT * FROM unnest($11::bigint[], $12::bytea[], $13::bytea[], ` + eventArraysSQL + `)
			WITH ORDINALITY AS i (item_id, der, sealed_key, ` + eventColumnsSQL + `, n)
	),
	made AS (
		DELETE FROM reservations r USING item WHERE r.id = item_id RETURNING r.*, item.*
	),` + completedSQL

// completedSQL is the rest of it, which makes certificates of the reservations that were taken away.
const completedSQL = `
	inserted AS (
		INSERT INTO certificates (id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, der, not_before, not_after, state, created_at, updated_at)
		SELECT id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, der, not_before, not_after, 'valid', created_at, $1
		FROM made ORDER BY id
	),
	counted AS (
		INSERT INTO certificate_counts AS c (issuer_id, organization_id, created_by, state, stripe, n)
		SELECT issuer_id, coalesce(organization_id, 0), coalesce(created_by, 0), 'valid', $14, count(*) FROM made GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
		ON CONFLICT (issuer_id, organization_id, created_by, state, stripe) DO UPDATE SET n = c.n + excluded.n
	),
	kept AS (
		INSERT INTO certificate_keys (certificate_id, sealed_key)
		SELECT id, sealed_key FROM made WHERE sealed_key IS NOT NULL
	),
	logged AS (` + loggedSQL + ` FROM made ORDER BY n)
SELECT n, id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
	serial, names, crl_shard, not_before, not_after, created_at
FROM made`

func (db *DB) completePostgres(ctx context.Context, jobs []*job) error {
	var events eventArrays
	var ids []int64
	var der, sealed [][]byte
	for _, j := range jobs {
		events.add(db.auditRow(j.event))
		ids = append(ids, j.complete.id)
		der = append(der, present(j.complete.der))
		if len(j.complete.sealedKey) == 0 {
			sealed = append(sealed, nil)
		} else {
			sealed = append(sealed, j.complete.sealedKey)
		}
		j.err = errNotReserved // until its row comes back
		if j.complete.claim != nil {
			j.err = idempotency.ErrLost // it may be either
		}
	}
	now := at(db.now())
	args := append(events.values(now.Time), ids, der, sealed, db.issueStripe)
	sql, args := withClaims(jobs, completeSQL, args)
	return db.group(ctx, func(row scanner) error {
		var n int
		r := certificateRow{State: "valid", Updated: now}
		if err := row.Scan(&n, &r.ID, &r.IssuerID, &r.CommonName, &r.SubjectDN, &r.Type, &r.KeyType, &r.KeySize, &r.ValidDays,
			&r.OrganizationID, &r.CreatedBy, &r.Serial, &r.Names, &r.CRLShard, &r.NotBefore, &r.NotAfter, &r.Created); err != nil {
			return err
		}
		jobs[n-1].err, jobs[n-1].result = nil, r
		return nil
	}, sql, args...)
}
