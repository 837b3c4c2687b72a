package store_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"signet/audit"
	"signet/ca"
	"signet/store"
)

const many = 30_000 // several blocks, and more than are counted

// manyCertificates are of three issuers, of which one is deleted, four organizations and ten creators. The first two thirds have
// expired, the last ones are the only ones that are called late; a few have 100 more names than others.
const manyCertificates = `
INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id, created_by, serial, der,
	not_before, not_after, state, revoked_at, created_at, updated_at, names)
SELECT 1 + i % 3, 'x', 'CN=x', 'server', 'ec', 256, 1, nullif(i % 5, 0), nullif(i % 11, 0), 'a' || md5(i::text), '\x00',
	'2026-01-01', timestamptz '2026-01-01' + i * interval '1 minute', CASE WHEN i % 20 = 7 THEN 'revoked' ELSE 'valid' END,
	CASE WHEN i % 20 = 7 THEN timestamptz '2026-01-01' END, '2026-01-01', '2026-01-01',
	'host' || i || '.example.com' || CASE WHEN i % 2 = 0 THEN E'\nwww.shop.example' ELSE '' END
		|| CASE WHEN i > 25000 THEN E'\nlate.example' ELSE '' END || CASE WHEN i % 1000 = 3 THEN E'\nzürich_100%.example' ELSE '' END
		|| CASE WHEN i % 400 = 9 THEN (SELECT string_agg(E'\n' || md5((i * 1000 + k)::text) || '.long.example', '') FROM generate_series(1, 100) k) ELSE '' END
FROM generate_series(1, 30000) AS i;
INSERT INTO certificate_counts (issuer_id, organization_id, created_by, state, stripe, n)
SELECT issuer_id, coalesce(organization_id, 0), coalesce(created_by, 0), state, 0, count(*) FROM certificates GROUP BY 1, 2, 3, 4`

type manyRow struct {
	id, issuer       int64
	organization, by *int64
	serial, names    string
	notAfter         time.Time
	state            string
}

func (r manyRow) matches(f ca.CertificateFilter, deleted int64) bool {
	is := func(have, want *int64) bool { return want != nil && have != nil && *have == *want }
	status := r.state
	if status == "valid" && r.notAfter.Before(f.Now) {
		status = "expired"
	}
	return r.issuer != deleted &&
		(f.Scope.All || is(r.organization, f.Scope.OrganizationID) || f.Scope.UserID != 0 && is(r.by, &f.Scope.UserID)) &&
		(f.IssuerID == nil || *f.IssuerID == r.issuer) &&
		(f.Status == "" || f.Status == status) &&
		(f.ExpiresBefore == nil || r.notAfter.Before(*f.ExpiresBefore)) &&
		(f.Serial == "" || f.Serial == r.serial) &&
		(f.Query == "" || f.Query == r.serial || strings.Contains(r.names, f.Query))
}

func TestPagesOfManyAreWhatMatches(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := databases["PostgreSQL"](t)
	db := open(t, store.Config{URL: url})
	for range 3 {
		validCA(t, db)
	}
	const deleted = 3
	if err := db.DeleteCA(ctx, deleted, time.Now(), audit.Event{Action: audit.CADelete}); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if _, err := conn.PgConn().Exec(ctx, manyCertificates+"; ANALYZE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(ctx, "SELECT id, issuer_id, organization_id, created_by, serial, names, not_after, state FROM certificates ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r manyRow, err error) {
		return r, row.Scan(&r.id, &r.issuer, &r.organization, &r.by, &r.serial, &r.names, &r.notAfter, &r.state)
	})
	if err != nil || len(all) != many {
		t.Fatalf("%d certificates, %v", len(all), err)
	}
	t.Run("with the index of names", func(t *testing.T) { pagesOfMany(t, db, all, deleted, scopes...) })
	if total, err := count(t, db, ca.CertificateFilter{Scope: scopes[0], Query: "www.shop"}); err != nil || !total.AtLeast || total.N == 0 {
		t.Errorf("total of a name that half of them have is %+v, %v", total, err)
	}
	if total, err := count(t, db, ca.CertificateFilter{Scope: scopes[0], Status: "expired", Now: time.Now()}); err != nil || total != (ca.Total{N: 10_000, AtLeast: true}) {
		t.Errorf("total of what has expired is %+v, %v", total, err)
	}
	if _, err := conn.Exec(ctx, "DROP INDEX certificates_names"); err != nil {
		t.Fatal(err)
	}
	t.Run("without it", func(t *testing.T) { pagesOfMany(t, open(t, store.Config{URL: url}), all, deleted, scopes[:2]...) })
	if _, err := conn.Exec(ctx, "CREATE INDEX certificates_names ON certificates USING gin (names gin_trgm_ops)"); err != nil {
		t.Fatal(err) // the database may serve another test
	}
}

var orgOne, orgTwo = int64(1), int64(2)

var scopes = []ca.Scope{{All: true}, {UserID: 7, OrganizationID: &orgTwo}, {UserID: 9}, {OrganizationID: &orgOne}, {UserID: 99}}

func count(t *testing.T, db *store.DB, f ca.CertificateFilter) (ca.Total, error) {
	_, total, err := db.Certificates(t.Context(), f, ca.Page{Limit: 1})
	return total, err
}

func pagesOfMany(t *testing.T, db *store.DB, all []manyRow, deleted int64, scopes ...ca.Scope) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	one := int64(1)
	late, week := start.Add(20_000*time.Minute), start.Add(20_100*time.Minute)
	for _, scope := range scopes {
		for _, issuer := range []*int64{nil, &one, &deleted} {
			for _, f := range []ca.CertificateFilter{
				{}, {Status: "valid"}, {Status: "expired"}, {Status: "revoked"}, {ExpiresBefore: &week}, {Status: "valid", ExpiresBefore: &week},
				{Status: "revoked", ExpiresBefore: &week}, {Query: "www.shop"}, {Query: "host77"}, {Query: "host777.example.com"}, {Query: "late"},
				{Query: "t7"}, {Query: "none.such"}, {Query: "com.example"}, {Query: "_100%."}, {Query: "zürich"}, {Query: "777.e", Status: "valid"},
				{Query: "www.shop", Status: "revoked"}, {Query: "late", Status: "expired"}, {Query: all[4].serial},
				{Query: "long.example"}, {Query: "long.example", Status: "expired"}, {Query: "münchen"}, {Query: "zürich_100"}, {Serial: all[10].serial},
			} {
				f.Scope, f.IssuerID, f.Now = scope, issuer, late
				var want []int64
				for _, r := range all {
					if r.matches(f, deleted) {
						want = append(want, r.id)
					}
				}
				for _, p := range []ca.Page{{Limit: 100}, {Limit: 3, Skip: 7}, {Limit: 1000, After: all[rand.IntN(len(all))].id}, {Limit: 2, After: all[20_000].id, Skip: 1}} {
					checkPage(t, db, f, p, want)
				}
			}
		}
	}
}

func checkPage(t *testing.T, db *store.DB, f ca.CertificateFilter, p ca.Page, want []int64) {
	t.Helper()
	got, total, err := db.Certificates(t.Context(), f, p)
	if err != nil {
		t.Fatal(err)
	}
	page := want
	for len(page) > 0 && page[0] <= p.After {
		page = page[1:]
	}
	page = page[min(p.Skip, len(page)):]
	page = page[:min(p.Limit, len(page))]
	found := []int64{}
	for _, c := range got {
		found = append(found, c.ID)
	}
	name := fmt.Sprintf("scope %+v issuer %v status %q query %q before %v page %+v", f.Scope, f.IssuerID, f.Status, f.Query, f.ExpiresBefore, p)
	if !slices.Equal(found, page) {
		t.Errorf("%s: %d certificates, want %d: %.40v instead of %.40v", name, len(found), len(page), found, page)
	}
	n := int64(len(want))
	if total.AtLeast && (total.N > n || total.N < int64(len(found))) || !total.AtLeast && total.N != n {
		t.Errorf("%s: total %+v, want %d", name, total, n)
	}
}

func TestACertificateWithAThousandNamesIsKeptAndFound(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		c := draft(validCA(t, db))
		for range 1000 { // which no compression makes shorter
			c.Names += fmt.Sprintf("%016x%016x%016x.example\n", rand.Uint64(), rand.Uint64(), rand.Uint64())
		}
		c.Names += "last.example"
		id, err := db.Reserve(ctx, c, reserved)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Complete(ctx, id, []byte("certificate"), nil, audit.Event{Action: audit.CertCreate}); err != nil {
			t.Fatal(err)
		}
		f := ca.CertificateFilter{Scope: ca.Scope{All: true}, Query: "last.example"}
		checkPage(t, db, f, ca.Page{Limit: 10}, []int64{id})
	})
}

func TestRecordsAreLeftOutToTheLast(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		id, err := db.Reserve(ctx, draft(validCA(t, db)), reserved)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Complete(ctx, id, []byte("certificate"), nil, audit.Event{Action: audit.CertCreate}); err != nil {
			t.Fatal(err)
		}
		for _, f := range []ca.CertificateFilter{{}, {Status: "valid"}, {Query: "example"}, {Query: "e"}, {Serial: "ff"}} {
			f.Scope = ca.Scope{All: true}
			if all, _, err := db.Certificates(ctx, f, ca.Page{Limit: 10, Skip: math.MaxInt}); err != nil || len(all) > 0 {
				t.Errorf("%+v: %d certificates, %v", f, len(all), err)
			}
		}
		if all, total, err := db.AuditLog(ctx, audit.Filter{Limit: 10, Skip: math.MaxInt}); err != nil || len(all) > 0 || total.N == 0 {
			t.Errorf("%d entries of %+v, %v", len(all), total, err)
		}
	})
}

// Clocks of replicas differ, so that ids and times have not the same order.
const crookedTrail = `
INSERT INTO audit_log (created_at, action, user_id, username, organization_id, resource_type, resource_id, detail, request_id, remote_addr)
SELECT timestamptz '2026-01-01' + (i - 7 * (i % 3)) * interval '1 second', CASE WHEN i % 2 = 0 THEN 'cert_create' ELSE 'cert_reserve' END,
	i % 4, 'u', i % 3, 'certificate', i / 2, '', '', '' FROM generate_series(1, 10100) AS i`

func TestTheTrailIsReadByTime(t *testing.T) {
	t.Parallel()
	db := open(t, store.Config{URL: databases["PostgreSQL"](t)})
	if err := db.Exec(crookedTrail); err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name   string
		filter audit.Filter
		want   int
		total  audit.Total
	}{
		{"everything", audit.Filter{}, 10_100, audit.Total{N: 10_000, AtLeast: true}},
		{"an action", audit.Filter{Action: audit.CertCreate}, 5050, audit.Total{N: 5050}},
		{"a period", audit.Filter{Since: start.Add(1000 * time.Second), Until: start.Add(1999 * time.Second)}, 999, audit.Total{N: 999}},
		{"a certificate", audit.Filter{ResourceType: "certificate", ResourceID: &orgTwo}, 2, audit.Total{N: 2}},
		{"an organization or the own", audit.Filter{OrganizationID: &orgOne, OwnUserID: &orgTwo}, 5051, audit.Total{N: 5051}},
	} {
		seen := map[int64]bool{}
		var last audit.Entry
		for f := row.filter; ; f.BeforeID = last.ID {
			f.Limit = 900
			page, total, err := db.AuditLog(t.Context(), f)
			if err != nil || total != row.total {
				t.Fatalf("%s: total %+v, %v", row.name, total, err)
			}
			for _, e := range page {
				if seen[e.ID] || last.ID != 0 && (e.CreatedAt.After(last.CreatedAt) || e.CreatedAt.Equal(last.CreatedAt) && e.ID > last.ID) {
					t.Fatalf("%s: entry %d of %v after %d of %v", row.name, e.ID, e.CreatedAt, last.ID, last.CreatedAt)
				}
				seen[e.ID], last = true, e
			}
			if len(page) < f.Limit {
				break
			}
		}
		if len(seen) != row.want {
			t.Errorf("%s: %d entries, want %d", row.name, len(seen), row.want)
		}
	}
}
