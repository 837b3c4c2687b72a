package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkSignCSR is the whole way of a request, HTTP and a real token and database included: P-256 CSRs signed by a
// P-256 CA for so many clients with connections of their own, with the module in the server and in a worker.
func BenchmarkSignCSR(b *testing.B) {
	for _, database := range databases {
		for _, clients := range []int{1, 8, 32} {
			for _, mode := range []string{"server", "worker"} {
				s := newSite(b, database, "--pkcs11-worker="+strconv.FormatBool(mode == "worker"))
				r := s.start("signet")
				r.firstUser()
				request := object{"ca_id": r.createCA("Bench"), "certificate_type": "server", "csr": csr(b, "www.example.com")}
				b.Run(fmt.Sprintf("%s/clients=%d/%s", database, clients, mode), func(b *testing.B) { r.signMany(b, clients, request) })
				r.stop(syscall.SIGKILL)
			}
		}
	}
}

func (r *running) signMany(b *testing.B, clients int, request object) {
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var group sync.WaitGroup
	before := r.cpu()
	b.ResetTimer()
	for range clients {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				start := time.Now()
				status, answer, err := r.do("POST", "/api/v1/certificates/sign-csr", request)
				if err != nil || status != http.StatusCreated {
					b.Errorf("status %d, %v: %s", status, err, answer)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64((r.cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// cpu is the processor time that the server and its worker have used, in steps of 10 ms (proc(5): utime and stime, in
// ticks of which Linux has 100 a second).
func (r *running) cpu() (used time.Duration) {
	for _, pid := range []int{r.cmd.Process.Pid, r.worker()} {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // there is no worker
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(string(field))
			if err != nil {
				r.t.Fatal(err)
			}
			used += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return used
}
