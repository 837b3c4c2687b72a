package store_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/store"
)

// revoked makes a CA of which so many certificates are revoked, all on one list.
func revoked(b *testing.B, db *store.DB, n int) int64 {
	b.Helper()
	issuer := validCA(b, db)
	for _, sql := range []string{
		`INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, serial, der, not_before, not_after,
			state, revoked_at, revocation_reason, created_at, updated_at)
		SELECT %[1]d, 'host.example', 'CN=host.example', 'server', 'ec', 256, 365, md5(i::text), '\x00', now(), now() + interval '1 year',
			'revoked', now(), 1, now(), now() FROM generate_series(1, %[2]d) i`,
		`INSERT INTO revocations (ca_id, serial, sequence, revoked_at, reason, not_after)
		SELECT %[1]d, md5(i::text), i, now(), 1, now() + interval '1 year' FROM generate_series(1, %[2]d) i`,
		`UPDATE revocation_state SET sequence = %[2]d WHERE ca_id = %[1]d`,
	} {
		if err := db.Exec(fmt.Sprintf(sql, issuer, n)); err != nil {
			b.Fatal(err)
		}
	}
	for _, sql := range []string{"VACUUM ANALYZE certificates", "VACUUM ANALYZE revocations", "CHECKPOINT"} {
		if err := db.Exec(sql); err != nil {
			b.Fatal(err)
		}
	}
	return issuer
}

// revocable makes so many valid certificates and returns the id of the first; the others follow.
func revocable(b *testing.B, db *store.DB, issuer int64, n int) int64 {
	b.Helper()
	err := db.Exec(fmt.Sprintf(`INSERT INTO certificates (issuer_id, common_name, subject_dn, type, key_type, key_size, valid_days, serial, der,
			not_before, not_after, state, created_at, updated_at)
		SELECT %d, 'host.example', 'CN=host.example', 'server', 'ec', 256, 365, replace(gen_random_uuid()::text, '-', ''), '\x00', now(), now() + interval '1 year',
			'valid', now(), now() FROM generate_series(1, %d) i`, issuer, n))
	if err != nil {
		b.Fatal(err)
	}
	made, _, err := db.Certificates(context.Background(), ca.CertificateFilter{Scope: ca.Scope{All: true}}, ca.Page{Limit: 1})
	if err != nil {
		b.Fatal(err)
	}
	return made[0].ID
}

// BenchmarkRevoke is what a revocation costs the store when so many others are in the ledger. The clients all revoke
// certificates of one CA, whose sequence they wait for.
func BenchmarkRevoke(b *testing.B) {
	for _, rows := range []int{10_000, 100_000, 1_000_000} {
		b.Run("ledger="+strconv.Itoa(rows), func(b *testing.B) { benchmarkRevoke(b, rows) })
	}
}

func benchmarkRevoke(b *testing.B, rows int) {
	db := open(b, store.Config{URL: databases["PostgreSQL"](b)})
	first := revocable(b, db, validCA(b, db), 1)
	issuer := revoked(b, db, rows)
	next := first + int64(rows) + 1
	for _, clients := range []int{1, 32} {
		b.Run("clients="+strconv.Itoa(clients), func(b *testing.B) {
			revocable(b, db, issuer, b.N)
			ids := make(chan int64, b.N)
			for range b.N {
				ids <- next
				next++
			}
			close(ids)
			var mu sync.Mutex
			var took []time.Duration
			b.ResetTimer()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for id := range ids {
						start := time.Now()
						_, err := db.Revoke(context.Background(), id, ca.Revocation{At: start, Reason: 1}, nil,
							audit.Event{Action: audit.CertRevoke, ResourceType: audit.ResourceCertificate, Detail: "serial 00112233, reason code 1"})
						if err != nil {
							b.Error(err)
							return
						}
						mu.Lock()
						took = append(took, time.Since(start))
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "revocations/s")
		})
	}
}

// BenchmarkRevokedEntries is what a list takes from the store, and the heap that it needs on the way.
func BenchmarkRevokedEntries(b *testing.B) {
	for _, rows := range []int{10_000, 100_000, 1_000_000} {
		b.Run(strconv.Itoa(rows), func(b *testing.B) {
			db := open(b, store.Config{URL: databases["PostgreSQL"](b)})
			issuer := revoked(b, db, rows)
			var peak, m runtime.MemStats
			b.ResetTimer()
			for b.Loop() {
				n := 0
				for _, err := range db.RevokedEntries(context.Background(), issuer, 0, -1, time.Now()) {
					if err != nil {
						b.Fatal(err)
					}
					if n++; n%10_000 == 0 {
						if runtime.ReadMemStats(&m); m.HeapAlloc > peak.HeapAlloc {
							peak = m
						}
					}
				}
				if n != rows {
					b.Fatalf("%d entries, want %d", n, rows)
				}
			}
			b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(peak.HeapAlloc)/1e6, "MB-peak")
		})
	}
}
