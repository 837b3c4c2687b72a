package main

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"signet/softhsm/softhsmtest"
)

// BenchmarkDistantToken compares issuance on a token that takes 5 ms for each signature, as a network HSM does, with
// issuance on the same token without the delay: 32 clients, second by second in turns, SQLite.
func BenchmarkDistantToken(b *testing.B) {
	_, faults := softhsmtest.Faulty(b)
	r := newSite(b, "sqlite").start("signet", faults.Env()...)
	r.firstUser()
	request := object{"ca_id": r.createCA("Distant"), "certificate_type": "server", "csr": csr(b, "www.example.com")}
	second := func(delay time.Duration) int {
		faults.Delay("C_Sign", delay)
		var group sync.WaitGroup
		var mu sync.Mutex
		signed := 0
		start := time.Now()
		for range 32 {
			group.Go(func() {
				for time.Since(start) < time.Second {
					status, answer, err := r.do("POST", "/api/v1/certificates/sign-csr", request)
					if err != nil || status != http.StatusCreated {
						b.Errorf("status %d, %v: %s", status, err, answer)
						return
					}
					mu.Lock()
					signed++
					mu.Unlock()
				}
			})
		}
		group.Wait()
		return signed
	}
	second(0)
	near, distant := 0, 0
	for b.Loop() {
		near += second(0)
		distant += second(5 * time.Millisecond)
	}
	b.ReportMetric(float64(near)/float64(b.N), "near/s")
	b.ReportMetric(float64(distant)/float64(b.N), "distant/s")
	b.ReportMetric(float64(distant)/float64(near), "ratio")
	b.ReportMetric(0, "ns/op")
}
