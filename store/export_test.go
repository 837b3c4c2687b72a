package store

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"signet/audit"
	"signet/ca"
)

// MigrationSteps lets the tests of the package's users walk through the versions: it returns the number of versions
// and a function that migrates to one of them.
func (db *DB) MigrationSteps(t *testing.T) (int64, func(version int64)) {
	t.Helper()
	m, err := db.migrator()
	if err != nil {
		t.Fatal(err)
	}
	sources := m.ListSources()
	return sources[len(sources)-1].Version, func(version int64) {
		t.Helper()
		if _, err := m.UpTo(context.Background(), version); err != nil {
			t.Fatal(err)
		}
	}
}

// Exec runs SQL past the interfaces.
func (db *DB) Exec(sql string) error { return db.writer.Exec(sql).Error }

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// InsertVersion1 writes what testdata/version1.sql says, as the first version of the schema had it.
func (db *DB) InsertVersion1(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("testdata/version1.sql")
	if err != nil {
		t.Fatal(err)
	}
	values := strings.NewReplacer("{t}", "1772366400000000", "{true}", "1", "{false}", "0", "{blob}", "x'0102'", "{other}", "x'0304'")
	if db.dialect == onPostgres {
		values = strings.NewReplacer("{t}", "'2026-03-01T12:00:00Z'", "{true}", "true", "{false}", "false", "{blob}", `'\x0102'`, "{other}", `'\x0304'`)
	}
	for _, statement := range strings.SplitAfter(values.Replace(string(text)), ";\n") {
		if err := db.Exec(statement); statement != "" && err != nil {
			t.Fatal(err)
		}
	}
}

// ReplaceVersion1List gives the list of version 1 other octets.
func (db *DB) ReplaceVersion1List(t *testing.T, der []byte) {
	t.Helper()
	if err := db.writer.Exec("UPDATE crls SET der = ?", der).Error; err != nil {
		t.Fatal(err)
	}
}

// Chunks counts the rows that keep the octets of a CA's lists.
func (db *DB) Chunks(t *testing.T, caID int64) (n int64) {
	t.Helper()
	if err := db.writer.Table("crl_chunks").Where("ca_id = ?", caID).Count(&n).Error; err != nil {
		t.Fatal(err)
	}
	return n
}

// CheckVersion1 checks that what InsertVersion1 wrote is read as it was meant.
func (db *DB) CheckVersion1(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	blob := []byte{1, 2}
	c, err := db.CA(ctx, 1)
	if err != nil || c.Name != "Root" || !c.AllowLeafCerts || string(c.Certificate) != string(blob) || !c.NotAfter.Equal(day) {
		t.Errorf("CA is %+v, %v", c, err)
	}
	if c.Token != "" || c.Proof != (ca.KeyProof{}) || c.DrillClaimedAt != nil || c.KeyDestroyedAt != nil {
		t.Errorf("of the key of an older CA it is known: %+v", c)
	}
	leaf, err := db.Certificate(ctx, 1)
	if err != nil || leaf.State != ca.Valid || leaf.Serial != "1f" || string(leaf.SealedKey) != string(blob) {
		t.Errorf("certificate is %+v, %v", leaf, err)
	}
	lost, err := db.Certificate(ctx, 2)
	if err != nil || lost.Revocation != (ca.Revocation{At: day, Reason: 1, Text: "key compromise"}) {
		t.Errorf("revoked certificate is %+v, %v", lost, err)
	}
	if u, err := db.UserByName(ctx, "alice"); err != nil || !u.Active || !u.Capabilities.RevokeCert || u.Capabilities.DeleteCA {
		t.Errorf("user is %+v, %v", u, err)
	}
	if owner, err := db.RefreshTokenOwner(ctx, blob); err != nil || owner != 1 {
		t.Errorf("owner of the refresh token is %d, %v", owner, err)
	}
	entries, total, err := db.AuditLog(ctx, audit.Filter{Limit: 10})
	if err != nil || total.N != 1 || entries[0].Action != audit.CACreate || entries[0].Username != "alice" {
		t.Errorf("audit log is %+v, %v", entries, err)
	}
}

// CheckCounts checks that certificate_counts says what there is.
func (db *DB) CheckCounts(t *testing.T) {
	t.Helper()
	type counter struct {
		IssuerID, OrganizationID, CreatedBy int64
		State                               string
		N                                   int64
	}
	var kept, counted []counter
	err := db.writer.Raw(`SELECT issuer_id, organization_id, created_by, state, sum(n) AS n FROM certificate_counts
		GROUP BY 1, 2, 3, 4 HAVING sum(n) <> 0 ORDER BY 1, 2, 3, 4`).Scan(&kept).Error
	if err != nil {
		t.Fatal(err)
	}
	err = db.writer.Raw(`SELECT issuer_id, coalesce(organization_id, 0) AS organization_id, coalesce(created_by, 0) AS created_by, state, count(*) AS n
		FROM certificates GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`).Scan(&counted).Error
	if err != nil {
		t.Fatal(err)
	}
	if len(counted) == 0 || !slices.Equal(kept, counted) {
		t.Errorf("the counters say %v, there are %v", kept, counted)
	}
}

// InsertPending writes reservations as version 4 of the schema had them: pending certificates, made at noon.
func (db *DB) InsertPending(t *testing.T, caID int64, serials ...string) {
	t.Helper()
	for _, serial := range serials {
		err := db.writer.Table("certificates").Create(map[string]any{"issuer_id": caID, "common_name": "pending.example", "subject_dn": "CN=pending.example",
			"type": "server", "key_type": "ec", "key_size": 256, "valid_days": 1, "serial": serial, "tbs": []byte{3}, "not_before": at(day),
			"not_after": at(day.AddDate(0, 0, 1)), "state": "pending", "created_at": at(day), "updated_at": at(day)}).Error
		if err != nil {
			t.Fatal(err)
		}
	}
}

// InsertPendingResponder writes the reservation of a responder's certificate, made at noon.
func (db *DB) InsertPendingResponder(t *testing.T, caID int64, serial string) {
	t.Helper()
	err := db.writer.Table("ocsp_responders").Create(map[string]any{"ca_id": caID, "token": "", "key_id": []byte{1}, "public_key": []byte{2},
		"serial": serial, "tbs": []byte{3}, "not_before": at(day), "not_after": at(day.AddDate(0, 0, 14)), "state": "pending", "created_at": at(day)}).Error
	if err != nil {
		t.Fatal(err)
	}
}

// Pragma returns a setting of the writing connection.
func (db *DB) Pragma(t *testing.T, name string) string {
	t.Helper()
	var value string
	if err := db.pools[0].QueryRow("PRAGMA " + name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// ExecAll runs SQL past the interfaces, in one transaction.
func (db *DB) ExecAll(statements ...string) error {
	return db.writer.Transaction(func(tx *gorm.DB) error {
		for _, s := range statements {
			if err := tx.Exec(s).Error; err != nil {
				return err
			}
		}
		return nil
	})
}

// Pause does nothing for a while between two statements of a transaction.
func (db *DB) Pause(ctx context.Context, d time.Duration) error {
	return db.write(ctx, "Pause", func(tx *gorm.DB) error {
		time.Sleep(d)
		return tx.Exec("SELECT 1").Error
	})
}

// CutSQL announces a removal as of a time.
func (db *DB) CutSQL(kind string, first, last, count int, when, before time.Time) string {
	moment := func(t time.Time) string { return fmt.Sprint(t.UnixMicro()) }
	sum := "zeroblob(32)"
	if db.dialect == onPostgres {
		moment = func(t time.Time) string { return "'" + t.UTC().Format(time.RFC3339Nano) + "'" }
		sum = `decode(repeat('00', 32), 'hex')`
	}
	authority := "NULL"
	if kind != "audit_log" {
		authority = "1"
	}
	return fmt.Sprintf(`INSERT INTO retention_cuts (created_at, kind, ca_id, first_id, last_id, count, before, sha256, archive)
		VALUES (%s, '%s', %s, %d, %d, %d, %s, %s, '')`, moment(when), kind, authority, first, last, count, moment(before), sum)
}

// InsertExpired writes certificates that ended a year ago, a hundred in a second.
func (db *DB) InsertExpired(t testing.TB, caID int64, n int) {
	t.Helper()
	numbers := fmt.Sprintf("WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %d)", n)
	serial, der, end := "lower(hex(randomblob(16)))", "randomblob(1200)", "CAST(? AS bigint) + n * 10000"
	if db.dialect == onPostgres {
		numbers = fmt.Sprintf("WITH numbers AS (SELECT generate_series(1, %d) AS n)", n)
		serial, der = "md5(random()::text || n)", "decode(repeat(md5(random()::text), 75), 'hex')"
		end = "CAST(? AS timestamptz) + n * interval '10 milliseconds'"
	}
	ended := at(time.Now().AddDate(-1, 0, 0))
	err := db.writer.Exec(`INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, der, not_before, not_after, state, created_at, updated_at)
		`+numbers+` SELECT CAST(? AS bigint), 'host.example', 'CN=host.example', 'server', 'ec', 256, 365, 1, 1, `+serial+`, 'host.example', `+der+`,
			?, `+end+`, 'valid', ?, ? FROM numbers`, caID, ended, ended, ended, ended).Error
	if err == nil && db.dialect == onSQLite { // where ids come from
		err = db.ExecAll("DELETE FROM sqlite_sequence WHERE name = 'reservations'",
			"INSERT INTO sqlite_sequence (name, seq) SELECT 'reservations', max(id) FROM certificates")
	} else if err == nil { // as autovacuum would in a minute
		err = db.Exec("ANALYZE certificates")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// InsertReserved writes reservations that were made at a time.
func (db *DB) InsertReserved(t testing.TB, caID int64, n int, made time.Time) {
	t.Helper()
	numbers, tbs := fmt.Sprintf("WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %d)", n), "randomblob(900)"
	if db.dialect == onPostgres {
		numbers, tbs = fmt.Sprintf("WITH numbers AS (SELECT generate_series(1, %d) AS n)", n), "decode(repeat(md5(random()::text), 56), 'hex')"
	}
	err := db.writer.Exec(`INSERT INTO reservations (id, issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, organization_id,
			created_by, serial, names, crl_shard, tbs, not_before, not_after, created_at)
		`+numbers+` SELECT n, CAST(? AS bigint), 'host.example', 'CN=host.example', 'server', 'ec', 256, 365, 1, 1, CAST(n AS text), 'host.example', 0, `+tbs+`,
			?, ?, ? FROM numbers`, caID, at(made), at(made.AddDate(1, 0, 0)), at(made)).Error
	if err != nil {
		t.Fatal(err)
	}
}
