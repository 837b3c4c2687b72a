package store_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/policy"
	"signet/store"
)

// BenchmarkIssueRecord is what a certificate costs the store: its reservation and its completion, each durable with
// its audit event, with 1 KB to be signed and a certificate of 1.2 KB.
func BenchmarkIssueRecord(b *testing.B) {
	for _, name := range []string{"SQLite", "PostgreSQL"} {
		for _, clients := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				db := open(b, store.Config{URL: databases[name](b)})
				issuer := validCA(b, db)
				tbs, der := make([]byte, 1000), make([]byte, 1200)
				rand.Read(der)
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				b.ResetTimer()
				for range clients {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if err := issueRecord(db, issuer, tbs, der); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
			})
		}
	}
}

func issueRecord(db *store.DB, issuer int64, tbs, der []byte) error {
	ctx := context.Background()
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
