package main

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkKeysAhead is a burst of 200 certificates of a P-256 CA for RSA-2048 keys that the server makes, wanted by 32
// clients at once after a minute in which it had nothing else to do, and the same without keys made ahead. It says how many
// keys that minute was good for.
func BenchmarkKeysAhead(b *testing.B) {
	const burst, clients = 200, 32
	for _, limit := range []int{256, 0} {
		r := newSite(b, "postgres", "--keys-ahead", strconv.Itoa(limit)).start("signet")
		r.firstUser()
		path := fmt.Sprintf("/api/v1/certificates/?ca_id=%d", r.createCA("Burst"))
		request := object{"common_name": "www.example.com", "subject_dn": "CN=www.example.com", "certificate_type": "server"}
		b.Run(fmt.Sprintf("ahead=%d", limit), func(b *testing.B) {
			var took []time.Duration
			made := 0
			for b.Loop() {
				b.StopTimer()
				if limit > 0 {
					for end := time.Now().Add(time.Minute); time.Now().Before(end) && r.metric(keysAhead) < limit; {
						time.Sleep(2 * time.Second) // to ask is a request too
					}
				}
				made = r.metric(keysAhead)
				b.StartTimer()
				took = append(took, r.burst(b, path, request, burst, clients)...)
			}
			slices.Sort(took)
			b.ReportMetric(float64(made), "keys-ahead")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
		r.stop(syscall.SIGTERM)
	}
}

// burst sends n requests, so many at a time, and returns how long each took.
func (r *running) burst(b *testing.B, path string, request object, n, clients int) []time.Duration {
	b.Helper()
	took := make([]time.Duration, n)
	var next atomic.Int64
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				start := time.Now()
				status, answer, err := r.do("POST", path, request)
				if err != nil || status != http.StatusCreated {
					b.Errorf("status %d, %v: %s", status, err, answer)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	group.Wait()
	return took
}
