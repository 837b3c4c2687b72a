package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"
)

// profileDir is where signet-profile leaves its profiles.
const profileDir = "SIGNET_TEST_PROFILES"

// profileMain is signet with profiles of processor, blocking and mutexes, written when it ends.
func profileMain() {
	dir := os.Getenv(profileDir)
	runtime.SetBlockProfileRate(10_000) // one sample per 10 us of blocking
	runtime.SetMutexProfileFraction(5)
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err == nil {
		err = pprof.StartCPUProfile(cpu)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "signet-profile:", err)
		os.Exit(1)
	}
	syscall.Umask(0o077)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	code := 0
	if err := run(ctx, append([]string{"serve"}, os.Args[1:]...), os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "signet-profile:", err)
		code = 1
	}
	pprof.StopCPUProfile()
	for _, name := range []string{"block", "mutex", "allocs"} {
		f, err := os.Create(filepath.Join(dir, name+".pprof"))
		if err == nil {
			err = pprof.Lookup(name).WriteTo(f, 0)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "signet-profile:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// BenchmarkProfile writes profiles of a server that signs CSRs, for go tool pprof, to the folder in SIGNET_TEST_PROFILES. It
// says what the server did meanwhile: profiles make it slower.
func BenchmarkProfile(b *testing.B) {
	root := os.Getenv(profileDir)
	if root == "" {
		b.Skip("SIGNET_TEST_PROFILES names no folder")
	}
	for _, database := range databases {
		for _, clients := range []int{1, mostClients} {
			name := fmt.Sprintf("%s/%dclients", database, clients)
			b.Run(name, func(b *testing.B) {
				dir := filepath.Join(root, name)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					b.Fatal(err)
				}
				s := newSite(b, database)
				s.logToFile(b)
				r := s.start("signet-profile", profileDir+"="+dir)
				r.firstUser()
				t := newTarget(b, r, 0, caKeys[0]).turn(b, clients, profiled)
				r.stop(syscall.SIGTERM)
				b.ReportMetric(t.rate, "certificates/s")
				b.ReportMetric(float64(t.server.Microseconds()), "cpu-us/certificate")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// profiled is long enough for some hundred samples of what takes a hundredth of the time.
const profiled = 10 * time.Second
