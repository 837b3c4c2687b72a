package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mattn/go-sqlite3"

	"signet/idempotency"
)

// commitSQLite does the jobs one by one in one transaction. What a job may not do, its conditional statement does not
// do, without harm to the others. It talks to the driver, past GORM and database/sql: nobody else writes meanwhile.
func (db *DB) commitSQLite(ctx context.Context, jobs []*job) error {
	conn, err := db.commits.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error {
		g := groupSQLite{db: db, conn: c.(sqliteConn).SQLiteConn, now: at(db.now()), counts: map[tally]int64{}}
		err := g.transaction(jobs)
		if err != nil && !g.conn.AutoCommit() {
			if _, open := g.conn.Exec("ROLLBACK", nil); open != nil {
				return errors.Join(err, open, driver.ErrBadConn)
			}
		}
		return err
	})
}

// groupSQLite is the transaction of a group of jobs.
type groupSQLite struct {
	db     *DB
	conn   *sqlite3.SQLiteConn
	now    instant
	counts map[tally]int64
}

func (g *groupSQLite) transaction(jobs []*job) error {
	if _, err := g.conn.Exec("BEGIN IMMEDIATE", nil); err != nil {
		return err
	}
	for _, j := range jobs {
		do := g.complete
		switch {
		case j.reserve != nil:
			do = g.reserve
		case j.revoke != nil:
			do = g.revoke
		case j.claim != nil:
			do = g.claim
		}
		if err := do(j); err != nil {
			return err
		}
	}
	for _, t := range sorted(g.counts) {
		if _, err := g.row(countSQL, t.issuer, t.organization, t.creator, string(t.state), g.db.stripe, g.counts[t]); err != nil {
			return err
		}
	}
	_, err := g.conn.Exec("COMMIT", nil)
	return err
}

// row runs a statement and returns its first row, or nil.
func (g *groupSQLite) row(sql string, args ...any) (rowSQLite, error) {
	values := make([]driver.Value, len(args))
	for i, arg := range args {
		v, err := valueSQLite(arg)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	rows, err := g.conn.Query(sql, values)
	if err != nil {
		return nil, err
	}
	row := make(rowSQLite, len(rows.Columns()))
	if err = rows.Next(row); err == io.EOF {
		row, err = nil, nil
	}
	return row, errors.Join(err, rows.Close())
}

func valueSQLite(v any) (driver.Value, error) {
	switch v := v.(type) {
	case int64, string, []byte, bool, nil:
		return v, nil
	case int:
		return int64(v), nil
	case instant:
		return v.UnixMicro(), nil
	case *int64:
		if v == nil {
			return nil, nil
		}
		return *v, nil
	case *instant:
		if v == nil {
			return nil, nil
		}
		return v.UnixMicro(), nil
	}
	return nil, fmt.Errorf("%T is no value of SQLite", v)
}

// rowSQLite is what the driver read.
type rowSQLite []driver.Value

// scan sets what the targets point to.
func (r rowSQLite) scan(targets ...any) error {
	for i, target := range targets {
		var ok bool
		switch t := target.(type) {
		case *int64:
			*t, ok = r[i].(int64)
		case *int:
			var n int64
			n, ok = r[i].(int64)
			*t = int(n)
		case *bool:
			var n int64
			n, ok = r[i].(int64)
			*t = n != 0
		case *string:
			*t, ok = r[i].(string)
		case *[]byte:
			*t, ok = r[i].([]byte)
			ok = ok || r[i] == nil
		case *instant:
			var n int64
			n, ok = r[i].(int64)
			*t = at(time.UnixMicro(n))
		case **int64:
			var n int64
			if n, ok = r[i].(int64); ok {
				*t = &n
			}
			ok = ok || r[i] == nil
		case **instant:
			var n int64
			if n, ok = r[i].(int64); ok {
				when := at(time.UnixMicro(n))
				*t = &when
			}
			ok = ok || r[i] == nil
		}
		if !ok {
			return fmt.Errorf("column %d is %T, which is no %T", i, r[i], target)
		}
	}
	return nil
}

func (g *groupSQLite) log(j *job, id int64) error {
	r := g.db.auditRow(about(j.event, id))
	_, err := g.row(`INSERT INTO audit_log (created_at, action, user_id, username, organization_id, resource_type, resource_id, detail,
			request_id, remote_addr) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.Created, r.Action, r.UserID, r.Username, r.OrganizationID, r.ResourceType, r.ResourceID, r.Detail, r.RequestID, r.RemoteAddr)
	return err
}

func (g *groupSQLite) reserve(j *job) error {
	r := j.reserve
	row, err := g.row(`
		INSERT INTO reservations (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, tbs, not_before, not_after, created_at)
		SELECT id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?2, ?11, ?12, ?13, ?14, ?15, ?16
		FROM certificate_authorities
		WHERE id = ?1 AND state = 'valid' AND deleted_at IS NULL AND key_locked = '' AND (allow_leaf_certs OR ?5 = 'ca')
			AND NOT EXISTS (SELECT 1 FROM certificates t WHERE t.issuer_id = ?1 AND t.serial = ?2)
			AND NOT EXISTS (SELECT 1 FROM certificate_authorities t WHERE t.parent_id = ?1 AND t.serial = ?2)
			AND NOT EXISTS (SELECT 1 FROM ocsp_responders t WHERE t.ca_id = ?1 AND t.serial = ?2)
			AND NOT EXISTS (SELECT 1 FROM certificate_authorities t WHERE t.public_key_sha256 = ?17)
		ON CONFLICT (issuer_id, serial) DO NOTHING
		RETURNING id`,
		r.IssuerID, r.Serial, r.CommonName, r.SubjectDN, r.Type, r.KeyType, r.KeySize, r.ValidDays, r.OrganizationID, r.CreatedBy,
		r.Names, r.CRLShard, present(r.TBS), r.NotBefore, r.NotAfter, r.Created, r.keySHA256)
	if err != nil {
		return err
	}
	if row == nil {
		return g.whyNotReserved(j)
	}
	if err := row.scan(&j.result.ID); err != nil {
		return err
	}
	return g.log(j, j.result.ID)
}

func (g *groupSQLite) whyNotReserved(j *job) error {
	row, err := g.row(`SELECT state = 'valid' AND deleted_at IS NULL, allow_leaf_certs, key_locked <> '',
			EXISTS (SELECT 1 FROM certificate_authorities t WHERE t.public_key_sha256 = ?)
		FROM certificate_authorities WHERE id = ?`, j.reserve.keySHA256, j.reserve.IssuerID)
	if err != nil {
		return err
	}
	var s standing
	var keyOfCA bool
	if row != nil {
		if err := row.scan(&s.signs, &s.leaves, &s.locked, &keyOfCA); err != nil {
			return err
		}
	}
	j.err = whyNotReserved(j.reserve, s, keyOfCA)
	return nil
}

func (g *groupSQLite) complete(j *job) error {
	c, r := j.complete, certificateRow{State: "valid", Updated: g.now}
	if c.claim != nil {
		if held, err := g.fulfil(c); !held || err != nil {
			j.err = idempotency.ErrLost
			return err
		}
	}
	row, err := g.row(`
		INSERT INTO certificates (id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, der, not_before, not_after, state, created_at, updated_at)
		SELECT id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, ?2, not_before, not_after, 'valid', created_at, ?3
		FROM reservations WHERE id = ?1
		RETURNING id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by,
			serial, names, crl_shard, not_before, not_after, created_at`, c.id, present(c.der), g.now)
	if err != nil {
		return err
	}
	if row == nil {
		j.err = errNotReserved
		return nil
	}
	err = row.scan(&r.ID, &r.IssuerID, &r.CommonName, &r.SubjectDN, &r.Type, &r.KeyType, &r.KeySize, &r.ValidDays,
		&r.OrganizationID, &r.CreatedBy, &r.Serial, &r.Names, &r.CRLShard, &r.NotBefore, &r.NotAfter, &r.Created)
	if err != nil {
		return err
	}
	if _, err := g.row("DELETE FROM reservations WHERE id = ?", c.id); err != nil {
		return err
	}
	if len(c.sealedKey) > 0 {
		if _, err := g.row("INSERT INTO certificate_keys (certificate_id, sealed_key) VALUES (?, ?)", c.id, c.sealedKey); err != nil {
			return err
		}
	}
	j.result = r
	g.counts[r.tally("valid")]++
	return g.log(j, c.id)
}

func (g *groupSQLite) revoke(j *job) error {
	e := j.revoke
	was, err := g.row("SELECT state FROM certificates WHERE id = ?", e.id)
	if err != nil {
		return err
	}
	var invalidity *instant
	if !e.InvalidityDate.IsZero() {
		date := at(e.InvalidityDate)
		invalidity = &date
	}
	row, err := g.row(`
		UPDATE certificates SET state = 'revoked', revoked_at = coalesce(revoked_at, ?2), revocation_reason = ?3, revocation_text = ?4,
			invalidity_date = coalesce(?5, invalidity_date), updated_at = ?6
		WHERE id = ?1 AND (state = 'valid' OR state = 'revoked' AND (?7 >> revocation_reason) & 1 = 1)
			AND NOT EXISTS (SELECT 1 FROM certificate_authorities a WHERE a.id = certificates.issuer_id AND a.deleted_at IS NOT NULL)
		RETURNING id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by, serial, names,
			crl_shard, der, not_before, not_after, state, revoked_at, revocation_reason, revocation_text, invalidity_date, created_at, updated_at`,
		e.id, at(e.At), e.Reason, e.Text, invalidity, g.now, int(e.replacesMask()))
	if err != nil {
		return err
	}
	if row == nil {
		j.err = errCertificateEnded
		return nil
	}
	var r certificateRow
	err = row.scan(&r.ID, &r.IssuerID, &r.CommonName, &r.SubjectDN, &r.Type, &r.KeyType, &r.KeySize, &r.ValidDays,
		&r.OrganizationID, &r.CreatedBy, &r.Serial, &r.Names, &r.CRLShard, &r.DER, &r.NotBefore, &r.NotAfter, &r.State, &r.RevokedAt,
		&r.RevocationReason, &r.RevocationText, &r.InvalidityDate, &r.Created, &r.Updated)
	if err != nil {
		return err
	}
	key, err := g.row("SELECT sealed_key FROM certificate_keys WHERE certificate_id = ?", e.id)
	if err != nil {
		return err
	}
	if key != nil {
		j.sealed = key[0].([]byte)
	}
	j.result = r
	if was[0] == "valid" {
		g.counts[r.tally("valid")]--
		g.counts[r.tally("revoked")]++
	}
	if err := g.log(j, e.id); err != nil {
		return err
	}
	return g.enter(r.IssuerID, r.ledger())
}

// enter is changeSQLite for a group.
func (g *groupSQLite) enter(caID int64, e revocationRow) error {
	row, err := g.row(advanceSQLite, caID)
	if err != nil {
		return err
	}
	if row == nil {
		return errNoState(caID)
	}
	if err := row.scan(&e.Sequence); err != nil {
		return err
	}
	if _, err := g.row(enterSQLite, caID, e.Serial, e.Shard, e.Sequence, e.RevokedAt, e.Reason, e.InvalidityDate, e.NotAfter, e.Released); err != nil {
		return err
	}
	_, err = g.row(scopeSQLite, caID, e.Shard, e.Sequence)
	return err
}
