package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTheServerOutlivesAFloodThatTakesItsFileDescriptors(t *testing.T) {
	t.Parallel()
	r := newSite(t, "sqlite").start("signet")
	r.firstUser()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	few := uint64(len(files) + 20)
	if err := unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: few, Max: few}, nil); err != nil {
		t.Fatal(err)
	}
	// More connections than the server may open, all kept for another request, which never comes.
	for i := range 100 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, get("/healthz")); err != nil {
			t.Fatal(err)
		}
		if got := status(conn); got != http.StatusOK {
			t.Fatalf("connection %d: status %d", i+1, got)
		}
	}
	if code := r.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d:\n%s", code, r.stderr)
	}
}
