package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet/evidence"
	"signet/softhsm/softhsmtest"
)

// worker is the process id of the server's token worker, 0 while there is none.
func (r *running) worker() int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		after := stat[bytes.LastIndexByte(stat, ')')+1:]
		var state string
		var parent int
		if _, err := fmt.Sscan(string(after), &state, &parent); err != nil || parent != r.cmd.Process.Pid || state == "Z" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			r.t.Fatal(err)
		}
		return pid
	}
	return 0
}

// another waits for a worker that is not the one with this process id.
func (r *running) another(pid int, within time.Duration) int {
	r.t.Helper()
	for start := time.Now(); time.Since(start) < within; time.Sleep(5 * time.Millisecond) {
		if next := r.worker(); next != 0 && next != pid {
			return next
		}
	}
	r.t.Fatalf("no other worker than %d within %s:\n%s", pid, within, r.stderr)
	return 0
}

// alive reports whether the process runs. One that nobody has reaped yet does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func TestAKilledWorkerIsReplacedUnderTheServer(t *testing.T) {
	t.Parallel()
	r, l := faultyServer(t, nil, "--pkcs11-worker")
	pid := r.another(0, time.Second)
	for range 5 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		pid = r.another(pid, 10*time.Second)
		l.more(20, 10*time.Second)
		l.mu.Lock()
		t.Logf("20 certificates %s after the kill, %d of %d refused", time.Since(killed), l.refused, l.refused+len(l.signed))
		l.mu.Unlock()
	}
	if first := l.more(50, 10*time.Second); first > promptly {
		t.Errorf("signing again after %s, want a moment", first)
	}
	l.verify(t)
	away, back := strings.Count(r.stderr.String(), "the token is away"), strings.Count(r.stderr.String(), "the token is back")
	if away != 5 || back != 5 {
		t.Errorf("the log has %d losses and %d returns, want 5 each:\n%s", away, back, r.stderr)
	}
	r.stop(syscall.SIGKILL)
	for start := time.Now(); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("the worker %d outlives its server", pid)
		}
	}
}

func TestAnOrderlyEndTakesTheWorkerAlong(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sqlite", "--pkcs11-worker")
	r := s.start("signet")
	pid := r.another(0, time.Second)
	if code := r.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d:\n%s", code, r.stderr)
	}
	if alive(pid) {
		t.Error("the worker outlives its server")
	}
}

// Calls that never return hold sessions and threads of their process for ever, and forbid C_Finalize.
func TestAWorkerWhoseModuleHangsIsReplaced(t *testing.T) {
	t.Parallel()
	_, faults := softhsmtest.Faulty(t)
	r, l := faultyServer(t, faults.Env(), "--pkcs11-worker", "--pkcs11-timeout", "3s")
	pid := r.another(0, time.Second)
	resume := faults.Hang("C_Sign")
	hung := time.Now()
	r.another(pid, 20*time.Second)
	t.Logf("the worker was replaced %s after its module began to hang", time.Since(hung))
	if alive(pid) {
		t.Error("the worker that hangs is still there")
	}
	resume()
	if first := l.more(20, 10*time.Second); first > promptly {
		t.Errorf("signing again %s after the hang, want a moment", first)
	}
	l.verify(t)
	if l.slowest > 9*time.Second {
		t.Errorf("a request took %s", l.slowest)
	}
	if !strings.Contains(r.stderr.String(), "the module hangs") {
		t.Errorf("the log does not name the hang:\n%s", r.stderr)
	}
}

func TestKeysAreProvenThroughTheWorker(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sqlite", "--pkcs11-worker")
	r := s.start("signet")
	r.firstUser()
	ca := r.createCA("Far")
	for range 2 {
		document := r.raw(http.StatusOK, "GET", fmt.Sprintf("/api/v1/cas/%d/key-evidence?nonce=00112233445566778899aabbccddeeff", ca), nil)
		report, err := evidence.Verify(document, evidence.Options{Nonce: "00112233445566778899aabbccddeeff", Now: time.Now(), CACertificate: r.caCertificate(ca).Raw})
		if err != nil || report.Grade != evidence.Drilled {
			t.Errorf("the evidence is %q, %v", report.Grade, err)
		}
		if err := syscall.Kill(r.another(0, time.Second), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	drill := r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/cas/%d/key-drill", ca), nil)
	if drill["grade"] != "drilled" {
		t.Errorf("the drill says %v", drill)
	}
}
