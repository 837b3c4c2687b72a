package softhsmtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"signet/keystore"
	"signet/softhsm"
)

// Server is a SoftHSM2 token in a process that can be killed: `p11-kit server`, reached over a socket. It serves each
// client process from a child of its own, which dies with it.
type Server struct {
	// Client commands and counts the calls of this process, in front of the socket. A signet in another process goes
	// without.
	Client *Faults

	t       testing.TB
	token   *instance // what the server serves
	client  *instance
	label   string
	library string // p11-kit-client.so
	socket  string

	process *os.Process // nil while it is killed
	ended   chan struct{}
}

// Remote makes an empty token and a server for it, which ends with the test.
//
// p11-kit's client reads P11_KIT_SERVER_ADDRESS when its C_GetFunctionList is called, once for each library that is
// loaded and never again. The variable is one for the process, so this process uses a copy of the client of its own, in
// which it is fixed: any number of servers may be used side by side. A server that is restarted has the same address.
func Remote(t testing.TB) (keystore.Config, *Server) {
	t.Helper()
	library, err := findClient()
	if err != nil {
		t.Fatal(err)
	}
	token := softhsmInstance(t)
	cfg := token.initToken(t)
	s := &Server{t: t, token: token, client: newInstance(t, library), label: cfg.Token, library: library, socket: token.path("socket")}
	s.client.write(t, "env", s.address()+"\n")
	s.client.write(t, "pin", cfg.PIN+"\n")
	cfg.Module = s.client.module()
	t.Cleanup(s.Kill)
	s.Restart()
	s.Client = s.client.faults(t, cfg)
	return cfg, s
}

func findClient() (string, error) {
	for _, pattern := range []string{"/usr/lib/*-linux-gnu*/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11"} {
		if found, err := filepath.Glob(filepath.Join(pattern, "p11-kit-client.so")); err == nil && len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errors.New("p11-kit-client.so is not installed: apt-get install -y p11-kit p11-kit-modules")
}

func (s *Server) address() string { return "P11_KIT_SERVER_ADDRESS=unix:path=" + s.socket }

// Env is what makes a signet in another process use the token, through p11-kit's own client.
func (s *Server) Env() []string {
	return append(environment(s.library, s.label, s.client.path("pin")), s.address())
}

// Kill ends the server and its children at once (SIGKILL). Clients see CKR_DEVICE_ERROR from every call, also after a
// Restart, until C_Finalize and C_Initialize. Killing a dead server does nothing.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	s.signal(syscall.SIGKILL)
	<-s.ended
	s.process = nil
}

// Freeze stops the server and its children, so that calls hang until Thaw.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

// signal reaches the children, too: all are one process group.
func (s *Server) signal(signal syscall.Signal) {
	if s.process == nil {
		s.t.Fatal("the token server is not running")
	}
	_ = syscall.Kill(-s.process.Pid, signal) // it may have ended by itself
}

// Restart starts the server where it was killed, and waits until it answers. A running one is killed first.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		log, _ := os.ReadFile(s.token.path("log")) // there may be none
		s.t.Fatalf("start the token server: %v\n%s", err, log)
	}
}

func (s *Server) start() error {
	module, err := softhsm.Find()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(s.socket); err != nil { // a killed server leaves it
		return err
	}
	log, err := os.Create(s.token.path("log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("p11-kit", "server", "--foreground", "--provider", module, "--name", s.socket, "pkcs11:token="+s.label)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+s.token.path("softhsm2.conf"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s.ended = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()         // the kernel ends the server with the thread that started it
		defer runtime.UnlockOSThread() // a thread that ends takes along what else was started from it
		defer close(s.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it ends by a signal, or its log says why
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.process = cmd.Process
	return s.await()
}

func (s *Server) await() error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		connection, err := net.Dial("unix", s.socket)
		if err == nil {
			return connection.Close()
		}
		select {
		case <-s.ended:
			return fmt.Errorf("it ended: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return errors.New("no answer within a minute")
}
