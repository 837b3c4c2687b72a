package worker_test

import (
	"crypto"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"signet/keystore"
)

// cpuOf is the processor time that a process has used (CPUCLOCK_SCHED of Linux's process clocks).
func cpuOf(pid int) time.Duration {
	var t syscall.Timespec
	_, _, _ = syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|2), uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}

// BenchmarkSign compares the keystore in this process with the same keystore in a worker, in signatures and in
// processor time of both processes.
func BenchmarkSign(b *testing.B) {
	home := newHome(b)
	b.Setenv("SOFTHSM2_CONF", home.Dir+"/softhsm2.conf")
	near, err := keystore.Open(b.Context(), home.Cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer near.Close()
	far := start(b, home.config())
	for _, k := range []struct {
		name string
		kind keystore.KeyType
		size int
		hash crypto.Hash
	}{{"P-256", keystore.EC, 256, crypto.SHA256}, {"RSA-2048", keystore.RSA, 2048, crypto.SHA256}, {"Ed25519", keystore.Ed25519, 256, 0}} {
		remote, id := generate(b, far, k.kind, k.size)
		local, err := near.Signer(b.Context(), id, der(b, remote.Public()), keystore.BarBorn)
		if err != nil {
			b.Fatal(err)
		}
		for _, callers := range []int{1, 8, 32} {
			name := fmt.Sprintf("%s/callers=%d", k.name, callers)
			b.Run(name+"/in-process", func(b *testing.B) { signMany(b, local, k.hash, callers, os.Getpid()) })
			b.Run(name+"/worker", func(b *testing.B) { signMany(b, remote, k.hash, callers, os.Getpid(), far.PID()) })
		}
	}
}

func signMany(b *testing.B, key crypto.Signer, hash crypto.Hash, callers int, pids ...int) {
	digest := sha256.Sum256([]byte("message"))
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var group sync.WaitGroup
	var cpu time.Duration
	for _, pid := range pids {
		cpu -= cpuOf(pid)
	}
	b.ResetTimer()
	for range callers {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				start := time.Now()
				if _, err := key.Sign(nil, digest[:], hash); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	group.Wait()
	b.StopTimer()
	for _, pid := range pids {
		cpu += cpuOf(pid)
	}
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}
