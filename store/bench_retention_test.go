package store_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/ca"
	"signet/policy"
	"signet/store"
)

// BenchmarkIssueWhileRemoving is what is left to issuance while retention removes some of 100,000 certificates of 1.2 KB: 32 clients
// issue all the time, and removal is turned on and off, as a busy machine is not the same for long. Run it with -benchtime 1x.
func BenchmarkIssueWhileRemoving(b *testing.B) {
	const expired, clients, pairs, window = 100_000, 32, 11, 2 * time.Second
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
				remove := func(ctx context.Context) (removed int64) {
					done, err := authority.Retain(ctx, operator, ca.RetentionPolicy{Expired: ca.MinRetention}, nil)
					if err != nil && ctx.Err() == nil {
						b.Error(err)
					}
					for _, r := range done {
						removed += r.Count
					}
					return removed
				}
				var alone, meanwhile, removed int64
				var ratios []float64
				for range pairs {
					before := issued.Load()
					time.Sleep(window)
					between := issued.Load()
					ctx, cancel := context.WithTimeout(b.Context(), window)
					removed += remove(ctx)
					<-ctx.Done()
					cancel()
					after := issued.Load()
					alone, meanwhile = alone+between-before, meanwhile+after-between
					ratios = append(ratios, float64(after-between)/float64(between-before))
				}
				close(stop)
				wg.Wait()
				slices.Sort(ratios)
				perSecond := func(n int64) float64 { return float64(n) / (pairs * window.Seconds()) }
				b.ReportMetric(perSecond(alone), "alone/s")
				b.ReportMetric(perSecond(meanwhile), "meanwhile/s")
				b.ReportMetric(ratios[len(ratios)/2], "median-ratio")
				b.ReportMetric(perSecond(removed), "removed/s")
			}
		})
	}
}
