package store

import (
	"context"
	"time"
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

// loggedSQL appends the events of the certificates in "made", which has their places in the group (n) and ids.
const loggedSQL = `
	event AS (
		SELECT * FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::text[])
			WITH ORDINALITY AS e (action, user_id, username, organization_id, resource_type, resource_id, detail, request_id, remote_addr, n)
	),
	logged AS (
		INSERT INTO audit_log (created_at, action, user_id, username, organization_id, resource_type, resource_id, detail, request_id, remote_addr)
		SELECT $1, e.action, e.user_id, e.username, e.organization_id, e.resource_type, coalesce(e.resource_id, made.id), e.detail, e.request_id, e.remote_addr
		FROM made JOIN event e USING (n) ORDER BY n
	)`

// reserveSQL does a group of reservations in one statement, which is one transaction and one round trip. An item that
// the issuer may not sign, or whose serial is taken, is left out.
const reserveSQL = `
WITH item AS MATERIALIZED (
		SELECT nextval(pg_get_serial_sequence('certificates', 'id')) AS id, i.*
		FROM unnest($11::bigint[], $12::text[], $13::text[], $14::text[], $15::text[], $16::integer[], $17::integer[], $18::bigint[],
			$19::bigint[], $20::text[], $21::text[], $22::integer[], $23::bytea[], $24::timestamptz[], $25::timestamptz[], $26::timestamptz[])
			WITH ORDINALITY AS i (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
				created_by, serial, names, crl_shard, tbs, not_before, not_after, created_at, n)
	),
	issuer AS MATERIALIZED (
		SELECT id, allow_leaf_certs, key_locked <> '' AS locked FROM certificate_authorities
		WHERE id = ANY ($11) AND state = 'valid' AND deleted_at IS NULL
		FOR SHARE
	),
	inserted AS (
		INSERT INTO certificates (id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, tbs, not_before, not_after, state, created_at, updated_at)
		SELECT item.id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, tbs, not_before, not_after, 'pending', created_at, created_at
		FROM item JOIN issuer ON issuer.id = issuer_id
		WHERE (allow_leaf_certs OR type = 'ca') AND NOT locked
			AND NOT EXISTS (SELECT 1 FROM certificate_authorities child WHERE child.parent_id = issuer_id AND child.serial = item.serial)
		ORDER BY n
		ON CONFLICT (issuer_id, serial) DO NOTHING
		RETURNING id
	),
	made AS (SELECT id, n FROM inserted JOIN item USING (id)),` + loggedSQL + `
SELECT item.n, coalesce(made.id, 0), issuer.id IS NOT NULL, coalesce(issuer.allow_leaf_certs, false), coalesce(issuer.locked, false)
FROM item LEFT JOIN made USING (n) LEFT JOIN issuer ON issuer.id = item.issuer_id`

func (db *DB) reservePostgres(ctx context.Context, jobs []*job) error {
	var events eventArrays
	var issuer []int64
	var commonName, subject, typ, keyType, serial, names []string
	var keySize, validDays, shard []int32
	var organization, creator []*int64
	var tbs [][]byte
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
		tbs = append(tbs, r.TBS)
		notBefore = append(notBefore, r.NotBefore.Time)
		notAfter = append(notAfter, r.NotAfter.Time)
		created = append(created, r.Created.Time)
	}
	args := append(events.values(at(db.now()).Time), issuer, commonName, subject, typ, keyType, keySize, validDays,
		organization, creator, serial, names, shard, tbs, notBefore, notAfter, created)
	rows, err := db.pools[0].QueryContext(ctx, reserveSQL, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		var id int64
		var s standing
		if err := rows.Scan(&n, &id, &s.signs, &s.leaves, &s.locked); err != nil {
			return err
		}
		j := jobs[n-1]
		if j.result.ID = id; id == 0 {
			j.err = whyNotReserved(j.reserve, s)
		}
	}
	return rows.Err()
}

// completeSQL does a group of completions in one statement.
const completeSQL = `
WITH item AS MATERIALIZED (
		SELECT * FROM unnest($11::bigint[], $12::bytea[], $13::bytea[]) WITH ORDINALITY AS i (id, der, sealed_key, n)
	),
	made AS (
		UPDATE certificates c SET state = 'valid', der = item.der, tbs = NULL, updated_at = $1
		FROM item WHERE c.id = item.id AND c.state = 'pending'
		RETURNING c.*, item.n
	),
	kept AS (
		INSERT INTO certificate_keys (certificate_id, sealed_key)
		SELECT made.id, sealed_key FROM made JOIN item USING (n) WHERE sealed_key IS NOT NULL
	),` + loggedSQL + `
SELECT n, id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
	serial, names, crl_shard, not_before, not_after, state, created_at, updated_at
FROM made`

func (db *DB) completePostgres(ctx context.Context, jobs []*job) error {
	var events eventArrays
	var ids []int64
	var der, sealed [][]byte
	for _, j := range jobs {
		events.add(db.auditRow(j.event))
		ids = append(ids, j.complete.id)
		der = append(der, j.complete.der)
		if len(j.complete.sealedKey) == 0 {
			sealed = append(sealed, nil)
		} else {
			sealed = append(sealed, j.complete.sealedKey)
		}
		j.err = errNotReserved // until its row comes back
	}
	rows, err := db.pools[0].QueryContext(ctx, completeSQL, append(events.values(at(db.now()).Time), ids, der, sealed)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		var r certificateRow
		if err := rows.Scan(&n, &r.ID, &r.IssuerID, &r.CommonName, &r.SubjectDN, &r.Type, &r.KeyType, &r.KeySize, &r.ValidDays,
			&r.OrganizationID, &r.CreatedBy, &r.Serial, &r.Names, &r.CRLShard, &r.NotBefore, &r.NotAfter, &r.State, &r.Created, &r.Updated); err != nil {
			return err
		}
		jobs[n-1].err, jobs[n-1].result = nil, r
	}
	return rows.Err()
}
