package main

import (
	"fmt"
	"maps"
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
// keys that minute was good for. The first burst after the start also pays for the connections to database and token: its
// 99th percentile is told apart. For comparison, the same burst follows with keys on P-256, which take no time to make.
func BenchmarkKeysAhead(b *testing.B) {
	const burst, clients = 200, 32
	for _, limit := range []int{256, 0} {
		r := newSite(b, "postgres", "--keys-ahead", strconv.Itoa(limit)).start("signet")
		r.firstUser()
		path := fmt.Sprintf("/api/v1/certificates/?ca_id=%d", r.createCA("Burst"))
		request := object{"common_name": "www.example.com", "subject_dn": "CN=www.example.com", "certificate_type": "server"}
		ec := object{"key_type": "ec", "key_size": 256}
		maps.Copy(ec, request)
		fill := func() (made int) {
			for end := time.Now().Add(time.Minute); limit > 0 && time.Now().Before(end); time.Sleep(2 * time.Second) { // to ask is a request too
				if made = r.metric(keysAhead); made == limit {
					break
				}
			}
			return made
		}
		b.Run(fmt.Sprintf("ahead=%d", limit), func(b *testing.B) {
			fill()
			first := r.burst(b, path, request, burst, clients)
			var took, easy []time.Duration
			made := 0
			for b.Loop() {
				b.StopTimer()
				made = fill()
				b.StartTimer()
				took = append(took, r.burst(b, path, request, burst, clients)...)
				b.StopTimer()
				easy = append(easy, r.burst(b, path, ec, burst, clients)...)
				b.StartTimer()
			}
			b.ReportMetric(float64(made), "keys-ahead")
			b.ReportMetric(percentile(first, 99), "first-p99-ms")
			b.ReportMetric(percentile(took, 50), "p50-ms")
			b.ReportMetric(percentile(took, 99), "p99-ms")
			b.ReportMetric(percentile(easy, 99), "ec-p99-ms")
		})
		r.stop(syscall.SIGTERM)
	}
}

// percentile is in milliseconds. It sorts took.
func percentile(took []time.Duration, percent int) float64 {
	slices.Sort(took)
	return float64(took[len(took)*percent/100].Microseconds()) / 1000
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
