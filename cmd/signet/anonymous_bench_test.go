package main

import (
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"signet/softhsm/softhsmtest"
)

// BenchmarkRevocationAnonymous is what strangers cost: 64 clients fetch a list and an OCSP answer again and again, after a pause, while
// certificates are issued. One operation is one certificate, in turns without and with them; both p99 are medians over the turns. The signatures
// are those of the token beside the ones of the certificates.
func BenchmarkRevocationAnonymous(b *testing.B) {
	for _, every := range []time.Duration{200 * time.Millisecond, 50 * time.Millisecond} {
		b.Run("every="+every.String(), func(b *testing.B) { strangers(b, every) })
	}
}

func strangers(b *testing.B, every time.Duration) {
	const turns, strangers = 5, 64
	_, faults := softhsmtest.Faulty(b)
	r := newSite(b, "postgres").start("signet", faults.Env()...)
	r.firstUser()
	authority := r.createCA("Anonymous")
	request := object{"ca_id": authority, "certificate_type": "server", "csr": csr(b, "www.example.com")}
	_, leaf := r.sign(authority, "www.example.com")
	issuer := r.caCertificate(authority)
	eventually(b, 10*time.Second, "the responder answers", func() bool {
		status, err := r.ocspStatus(leaf, issuer)
		return err == nil && status == ocsp.Good
	})
	list := r.url + pathOf(leaf.CRLDistributionPoints[0])

	// turn returns the p99 of the certificates of a turn.
	turn := func() time.Duration {
		took := make([]time.Duration, max(b.N/(2*turns), 1))
		for i := range took {
			start := time.Now()
			if status, answer, err := r.do("POST", "/api/v1/certificates/sign-csr", request); err != nil || status != http.StatusCreated {
				b.Fatalf("status %d, %v: %s", status, err, answer)
			}
			took[i] = time.Since(start)
		}
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	var quiet, visited []time.Duration
	requests, signatures := 0, 0
	b.ResetTimer()
	for range turns {
		quiet = append(quiet, turn())

		stop := make(chan struct{})
		var group sync.WaitGroup
		var mu sync.Mutex
		for i := range strangers {
			group.Go(func() {
				time.Sleep(every * time.Duration(i) / strangers)
				tick := time.NewTicker(every)
				defer tick.Stop()
				for {
					select {
					case <-stop:
						return
					case <-tick.C:
					}
					if status, err := r.ocspStatus(leaf, issuer); err != nil || status != ocsp.Good {
						b.Errorf("OCSP status %d, %v", status, err)
					}
					response, err := r.http.Get(list)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, response.Body)
					response.Body.Close()
					mu.Lock()
					requests += 2
					mu.Unlock()
				}
			})
		}
		time.Sleep(2 * every)
		before := faults.Counts().Calls["C_Sign"]
		visited = append(visited, turn())
		signatures += faults.Counts().Calls["C_Sign"] - before - max(b.N/(2*turns), 1)
		close(stop)
		group.Wait()
	}
	slices.Sort(quiet)
	slices.Sort(visited)
	b.ReportMetric(milliseconds(quiet[turns/2]), "p99-alone-ms")
	b.ReportMetric(milliseconds(visited[turns/2]), "p99-with-strangers-ms")
	b.ReportMetric(float64(visited[turns/2])/float64(quiet[turns/2]), "ratio")
	b.ReportMetric(float64(requests), "anonymous-requests")
	b.ReportMetric(float64(signatures), "other-signatures")
}
