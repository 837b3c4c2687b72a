package ca_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/ca"
)

func BenchmarkStatus(b *testing.B) {
	w := newWorld(b)
	root := w.createCA(b, superuser, nil)
	leaf, err := w.Issue(b.Context(), superuser, serverRequest(root.ID))
	if err != nil {
		b.Fatal(err)
	}
	r, slug := plain(b, root, leaf.Serial), slugOf(root)
	w.ask(b, root, r)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.Status(b.Context(), slug, r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkIssueBesideOCSP issues one certificate after the other while 64 clients ask as fast as they can.
func BenchmarkIssueBesideOCSP(b *testing.B) {
	for _, tt := range []struct {
		name    string
		clients int
		ask     func(client, i int, r *ca.StatusRequest)
	}{
		{"alone", 0, nil},
		{"without nonce", 64, func(int, int, *ca.StatusRequest) {}},
		{"with nonces", 64, func(client, i int, r *ca.StatusRequest) {
			r.Nonce = fmt.Appendf(nil, "%d-%d", client, i)
			r.Client = fmt.Sprint("192.0.2.", client)
		}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			w := newWorld(b).replica(func(c *ca.Config) {
				c.Now = time.Now
				c.OCSP.ClientRate, c.OCSP.ClientBurst = 5, 20
			})
			root := w.createCA(b, superuser, nil)
			leaf, err := w.Issue(b.Context(), superuser, serverRequest(root.ID))
			if err != nil {
				b.Fatal(err)
			}
			r := plain(b, root, leaf.Serial)
			w.ask(b, root, r)
			before := w.signed(b, root)
			ctx, stop := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			var asked atomic.Int64
			for client := range tt.clients {
				wg.Go(func() {
					mine := r
					for i := 0; ctx.Err() == nil; i++ {
						tt.ask(client, i, &mine)
						_, _ = w.Status(ctx, slugOf(root), mine)
						asked.Add(1)
						time.Sleep(10 * time.Millisecond) // the network
					}
				})
			}
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				start := time.Now()
				if _, err := w.Issue(b.Context(), superuser, serverRequest(root.ID)); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			stop()
			wg.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(asked.Load())/b.Elapsed().Seconds(), "asked/s")
			b.ReportMetric(float64(w.signed(b, root)-before), "signed")
		})
	}
}
