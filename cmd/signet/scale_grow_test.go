package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What every grown database has: issuers, and ids of organizations and creators of its certificates.
const (
	scaleIssuers       = 5
	scaleOrganizations = 4
	scaleCreators      = 40
)

// grown is a server whose database holds many certificates, made from those that it issued.
type grown struct {
	*crowd
	site  *site
	db    *pgx.Conn
	size  int
	admin *client // of the first organization
}

func (s *site) grow(b *testing.B) *grown {
	b.Helper()
	r := s.start("signet")
	r.firstUser()
	g := &grown{crowd: &crowd{running: r}, site: s}
	for i := range scaleIssuers {
		g.authority = r.createCA(fmt.Sprintf("Scale %d", i+1))
		for range 5 {
			r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{"ca_id": g.authority, "certificate_type": "server",
				"csr": csr(b, "model.example.com"), "san_dns_names": []string{"model.example.com", "alternative.example.net"}})
		}
	}
	for i := range scaleOrganizations {
		r.must(http.StatusCreated, "POST", "/api/v1/organizations/", object{"name": fmt.Sprintf("Organization %d", i+1)})
	}
	const password = "a-password-of-the-benchmark"
	r.must(http.StatusCreated, "POST", "/api/v1/users/", object{"username": "administrator", "email": "administrator@example.com",
		"password": password, "role": "admin", "organization_id": 1})
	copied := *r.client
	g.admin = &copied
	g.admin.login("administrator", password)
	var err error
	if g.db, err = pgx.Connect(context.Background(), s.url); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { g.db.Close(context.Background()) })
	g.exec(b, `CREATE TABLE scale_models AS
		SELECT row_number() OVER (ORDER BY id) - 1 AS place, position(decode(serial, 'hex') IN der) AS at, length(serial) AS digits, c.*
		FROM certificates c WHERE length(serial) % 2 = 0`, nil)
	return g
}

func (g *grown) exec(b *testing.B, statement string, arguments pgx.NamedArgs) {
	b.Helper()
	var err error
	if arguments == nil {
		_, err = g.db.Exec(context.Background(), statement)
	} else {
		_, err = g.db.Exec(context.Background(), statement, arguments)
	}
	if err != nil {
		b.Fatalf("%v in %s", err, statement)
	}
}

// A certificate every minute, for two years when there are a million. They are valid for a year, so the older half has expired. One in
// twenty is revoked.
var growth = []string{
	`CREATE TEMPORARY TABLE fresh AS
	SELECT i, m.issuer_id, m.subject_dn, m.type, m.key_type, m.key_size, m.valid_days, m.crl_shard,
		CASE WHEN i % 5 > 0 THEN i % 5 END AS organization_id, 1 + i % @creators::bigint AS created_by,
		'5' || substr(md5(i::text) || md5('more' || i), 1, m.digits - 1) AS serial,
		substr(md5('name' || i), 1, 10) || '.host' || i % 1000 || '.corp.example.com' AS common_name,
		overlay(m.der PLACING decode('5' || substr(md5(i::text) || md5('more' || i), 1, m.digits - 1), 'hex') FROM m.at) AS der,
		now() - interval '730 days' + i * interval '63 seconds' AS born, i % 20 = 7 AS revoked
	FROM generate_series(@first::bigint, @last::bigint) AS i JOIN scale_models m ON m.place = i % (SELECT count(*) FROM scale_models)`,
	`WITH made AS (
		INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by, serial,
			der, not_before, not_after, state, revoked_at, revocation_reason, created_at, updated_at, crl_shard, names)
		SELECT issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by, serial,
			der, born, born + interval '365 days', CASE WHEN revoked THEN 'revoked' ELSE 'valid' END, CASE WHEN revoked THEN born END,
			CASE WHEN revoked THEN 4 ELSE 0 END, born, born, crl_shard,
			common_name || E'\nalt-' || substr(md5('alternative' || i), 1, 8) || '.example.net' || CASE WHEN i % 2 = 0 THEN E'\nwww.shop.example' ELSE '' END
		FROM fresh ORDER BY i
		RETURNING id, organization_id, created_by, created_at, common_name)
	INSERT INTO audit_log (created_at, action, user_id, username, organization_id, resource_type, resource_id, detail, request_id, remote_addr)
	SELECT created_at, action, created_by, 'user' || created_by, organization_id, 'certificate', id,
		'server certificate for ' || common_name, substr(md5(id::text), 1, 16), '192.0.2.1'
	FROM made, (VALUES ('cert_reserve'), ('cert_create')) AS event (action)`,
	`INSERT INTO certificate_counts AS c (issuer_id, organization_id, created_by, state, stripe, n)
	SELECT issuer_id, coalesce(organization_id, 0), created_by, CASE WHEN revoked THEN 'revoked' ELSE 'valid' END, 0, count(*) FROM fresh GROUP BY 1, 2, 3, 4
	ON CONFLICT (issuer_id, organization_id, created_by, state, stripe) DO UPDATE SET n = c.n + excluded.n`,
	`WITH counted AS (
		INSERT INTO revocations (ca_id, serial, shard, sequence, revoked_at, reason, not_after)
		SELECT issuer_id, serial, crl_shard, sequence + row_number() OVER (PARTITION BY issuer_id), born, 4, born + interval '365 days'
		FROM fresh JOIN revocation_state ON ca_id = issuer_id WHERE revoked RETURNING ca_id),
	changed AS (
		UPDATE revocation_state s SET sequence = sequence + n FROM (SELECT ca_id, count(*) AS n FROM counted GROUP BY 1) c WHERE c.ca_id = s.ca_id
		RETURNING s.ca_id, sequence)
	UPDATE crl_scopes s SET sequence = changed.sequence FROM changed WHERE s.ca_id = changed.ca_id AND s.shard = 0`,
	`DROP TABLE fresh`,
}

// to grows the database to a size. Indexes that nothing depends on are made afterwards: that is faster.
func (g *grown) to(b *testing.B, size int) {
	b.Helper()
	ctx := context.Background()
	start := time.Now()
	rows, err := g.db.Query(ctx, `SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
		WHERE indrelid IN ('certificates'::regclass, 'audit_log'::regclass) AND NOT indisunique`)
	if err != nil {
		b.Fatal(err)
	}
	indexes := map[string]string{}
	var name, definition string
	if _, err := pgx.ForEachRow(rows, []any{&name, &definition}, func() error { indexes[name] = definition; return nil }); err != nil {
		b.Fatal(err)
	}
	for name := range indexes {
		g.exec(b, "DROP INDEX "+name, nil)
	}
	const step = 100_000
	for first := g.size + 1; first <= size; first += step {
		arguments := pgx.NamedArgs{"first": first, "last": min(first+step-1, size), "creators": scaleCreators}
		for _, statement := range growth {
			if strings.Contains(statement, "@") {
				g.exec(b, statement, arguments)
			} else {
				g.exec(b, statement, nil)
			}
		}
	}
	g.exec(b, "SET maintenance_work_mem = '256MB'", nil)
	for _, definition := range indexes {
		g.exec(b, definition, nil)
	}
	g.exec(b, "VACUUM ANALYZE", nil)
	g.exec(b, "CHECKPOINT", nil)
	g.size = size
	b.Logf("%d certificates after %s", size, time.Since(start).Round(time.Second))
}
