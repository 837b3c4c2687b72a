package store_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"signet/audit"
	"signet/ca"
	"signet/policy"
	"signet/store"
)

// BenchmarkIssueRecord is what a certificate costs the store: its reservation and its completion, each durable with
// its audit event, with 1 KB to be signed and a certificate of 1.2 KB. With PostgreSQL it says how that compares to raw inserts
// by the same clients: one row with the same octets and one event in a group commit, without index or question.
func BenchmarkIssueRecord(b *testing.B) {
	for _, name := range []string{"SQLite", "PostgreSQL"} {
		for _, clients := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				url := databases[name](b)
				db := open(b, store.Config{URL: url})
				issuer := validCA(b, db)
				tbs, der := make([]byte, 1000), make([]byte, 1200)
				rand.Read(der)
				b.ResetTimer()
				share(b, clients, func() error { return issueRecord(context.Background(), db, issuer, tbs, der) })
				b.StopTimer()
				took := b.Elapsed().Seconds()
				b.ReportMetric(float64(b.N)/took, "certificates/s")
				if name == "PostgreSQL" {
					raw, octets := newRawWriter(b, url), append(tbs, der...)
					start := time.Now()
					share(b, clients, func() error { return raw.insert(octets) })
					b.ReportMetric(time.Since(start).Seconds()/took, "of-raw")
				}
			})
		}
	}
}

// share has so many clients do something b.N times together.
func share(b *testing.B, clients int, do func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// rawWriter inserts what waits in one statement, and nothing else.
type rawWriter struct{ rows chan rawRow }

type rawRow struct {
	octets []byte
	done   chan error
}

func newRawWriter(b *testing.B, url string) rawWriter {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err == nil {
		_, err = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS raw_rows (octets bytea); CREATE TABLE IF NOT EXISTS raw_events (detail text)")
	}
	if err != nil {
		b.Fatal(err)
	}
	w := rawWriter{make(chan rawRow, 64)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for first := range w.rows {
			group, octets, details := []rawRow{first}, [][]byte{first.octets}, []string{strings.Repeat("d", 300)}
			for len(w.rows) > 0 {
				r := <-w.rows
				group, octets, details = append(group, r), append(octets, r.octets), append(details, details[0])
			}
			_, err := conn.Exec(ctx, `WITH r AS (INSERT INTO raw_rows SELECT unnest($1::bytea[]))
				INSERT INTO raw_events SELECT unnest($2::text[])`, octets, details)
			for _, r := range group {
				r.done <- err
			}
		}
	}()
	b.Cleanup(func() {
		close(w.rows)
		<-ended
		if err := conn.Close(ctx); err != nil {
			b.Error(err)
		}
	})
	return w
}

func (w rawWriter) insert(octets []byte) error {
	done := make(chan error, 1)
	w.rows <- rawRow{octets, done}
	return <-done
}

func issueRecord(ctx context.Context, db *store.DB, issuer int64, tbs, der []byte) error {
	serial := make([]byte, 16)
	rand.Read(serial)
	user, organization := int64(1), int64(1)
	event := audit.Event{Action: audit.CertReserve, UserID: &user, Username: "alice", OrganizationID: &organization,
		ResourceType: audit.ResourceCertificate, Detail: "server certificate for host.example, serial 0123456789abcdef, 365 days",
		RequestID: "0123456789abcdef", RemoteAddr: "192.0.2.1"}
	now := time.Now()
	id, err := db.Reserve(ctx, ca.Certificate{
		IssuerID: issuer, CommonName: "host.example", SubjectDN: "CN=host.example,O=Example", Type: policy.Server,
		KeyType: policy.EC, KeySize: 256, ValidDays: 365, OrganizationID: &organization, CreatedBy: &user,
		Serial: hex.EncodeToString(serial), TBS: tbs, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
	}, event)
	if err != nil {
		return err
	}
	event.Action = audit.CertCreate
	_, err = db.Complete(ctx, id, der, nil, event)
	return err
}

// validCA makes a root CA and returns its id.
func validCA(t testing.TB, db *store.DB) int64 {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	ctx, now := context.Background(), time.Now()
	event := audit.Event{Action: audit.CACreate, ResourceType: audit.ResourceCA}
	c, err := db.CreateCA(ctx, ca.CA{Name: "Root", SubjectDN: "CN=Root", KeyType: policy.EC, KeySize: 256, ValidDays: 3650,
		AllowLeafCerts: true, KeyID: key[:16], NotBefore: now, NotAfter: now.AddDate(10, 0, 0)}, event)
	if err != nil {
		t.Fatal(err)
	}
	c.PublicKey, c.Serial, c.TBS = key, hex.EncodeToString(key[16:]), []byte("to be signed")
	if err := db.ReserveCA(ctx, c, event); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CompleteCA(ctx, c.ID, []byte("certificate"), event); err != nil {
		t.Fatal(err)
	}
	return c.ID
}
