package store_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"signet/idempotency"
	"signet/store"
)

// BenchmarkIssueRecordWithKey is BenchmarkIssueRecord for requests with an Idempotency-Key, and how that compares to those
// without, by the same clients.
func BenchmarkIssueRecordWithKey(b *testing.B) {
	for _, name := range []string{"SQLite", "PostgreSQL"} {
		for _, clients := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				db := open(b, store.Config{URL: databases[name](b)})
				issuer := validCA(b, db)
				tbs, der := make([]byte, 1000), make([]byte, 1200)
				rand.Read(der)
				var n atomic.Int64
				var made claims
				b.ResetTimer()
				share(b, clients, func() error {
					c := made.of(1, fmt.Sprint(n.Add(1)), "request")
					if _, err := db.ClaimRequest(context.Background(), c); err != nil {
						return err
					}
					return issueRecord(idempotency.With(context.Background(), c), db, issuer, tbs, der)
				})
				b.StopTimer()
				took := b.Elapsed().Seconds()
				b.ReportMetric(float64(b.N)/took, "certificates/s")
				start := time.Now()
				share(b, clients, func() error { return issueRecord(context.Background(), db, issuer, tbs, der) })
				b.ReportMetric(time.Since(start).Seconds()/took, "of-without")
			})
		}
	}
}
