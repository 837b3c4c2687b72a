package tokentest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// patience is how long a daemon may take to start on a busy machine.
const patience = 30 * time.Second

// daemon is a process that ends with the test, and with the test binary whatever ends that.
type daemon struct {
	process *os.Process
	ended   chan struct{}
	log     string // path
}

// start runs the command in the background, with its output in dir.
func start(t testing.TB, dir string, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{ended: make(chan struct{}), log: filepath.Join(dir, filepath.Base(cmd.Path)+".log")}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that started the process (PR_SET_PDEATHSIG): keep it, and afterwards give
		// it back, as other processes may have been started from it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(d.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ends is in the log
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	d.process = cmd.Process
	t.Cleanup(d.stop)
	return d
}

// stop kills the process and its children: nothing that they hold outlives the test.
func (d *daemon) stop() {
	_ = syscall.Kill(-d.process.Pid, syscall.SIGKILL) // it may have ended already
	<-d.ended
}

// await waits until the daemon is ready and reports whether it got there.
func (d *daemon) await(ready func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if ready() {
			return true
		}
		select {
		case <-d.ended:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return false
}

// listens reports whether somebody accepts connections there.
func listens(network, address string) bool {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

func (d *daemon) output() []byte {
	out, err := os.ReadFile(d.log)
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(out)
}
