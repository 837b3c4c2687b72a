package store_test

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/ca"
	"signet/policy"
	"signet/store"
)

// BenchmarkIssueWhileRemoving is what issuance is left with while retention removes 100,000 certificates of 1.2 KB, in one run:
// 32 clients before and meanwhile. Run it with -benchtime 1x.
func BenchmarkIssueWhileRemoving(b *testing.B) {
	const expired, clients = 100_000, 32
	for _, name := range []string{"SQLite", "PostgreSQL"} {
		b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
			db := open(b, store.Config{URL: databases[name](b)})
			issuer := validCA(b, db)
			tbs, der := make([]byte, 1000), make([]byte, 1200)
			rand.Read(der)
			authority := ca.New(ca.Config{Store: db, Now: time.Now})
			operator := policy.Caller{Username: "operator", Operator: true}
			for range b.N {
				db.InsertExpired(b, issuer, expired)
				var issued atomic.Int64
				stop := make(chan struct{})
				var wg sync.WaitGroup
				for range clients {
					wg.Go(func() {
						for {
							select {
							case <-stop:
								return
							default:
							}
							if err := issueRecord(b.Context(), db, issuer, tbs, der); err != nil {
								b.Error(err)
								return
							}
							issued.Add(1)
						}
					})
				}
				rate := func(wait func()) float64 {
					start, before := time.Now(), issued.Load()
					wait()
					return float64(issued.Load()-before) / time.Since(start).Seconds()
				}
				time.Sleep(time.Second)
				alone := rate(func() { time.Sleep(5 * time.Second) })
				start := time.Now()
				meanwhile := rate(func() {
					removed, err := authority.Retain(b.Context(), operator, ca.RetentionPolicy{Expired: ca.MinRetention}, nil)
					if err != nil || len(removed) != 1 || removed[0].Count != expired {
						b.Errorf("removed %+v, %v", removed, err)
					}
				})
				took := time.Since(start)
				after := rate(func() { time.Sleep(5 * time.Second) })
				close(stop)
				wg.Wait()
				b.ReportMetric(alone, "before/s")
				b.ReportMetric(meanwhile, "meanwhile/s")
				b.ReportMetric(after, "after/s")
				b.ReportMetric(expired/took.Seconds(), "removed/s")
			}
		})
	}
}
