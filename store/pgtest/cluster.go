package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	superuser    = "signet"
	startupLimit = time.Minute
	stopLimit    = 30 * time.Second
)

// cluster is a running server.
type cluster struct {
	dir    string // holds data, socket and log
	server *os.Process
	ended  chan struct{}
}

// startCluster makes a cluster and waits until it answers.
func startCluster() (*cluster, error) {
	dir, err := os.MkdirTemp("", "signet-pg-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	c := &cluster{dir: dir, ended: make(chan struct{})}
	if err := c.boot(); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func (c *cluster) boot() error {
	initdb, err := find("initdb")
	if err != nil {
		return err
	}
	postgres, err := find("postgres")
	if err != nil {
		return err
	}
	credential, err := unprivileged(c.dir)
	if err != nil {
		return err
	}
	data := filepath.Join(c.dir, "data")
	// The new files need no fsync: who loses power here starts again.
	err = run(credential, c.dir, initdb, "-D", data, "-U", superuser, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	if err != nil {
		return err
	}
	err = c.serve(credential, postgres, "-D", data, "-k", c.dir, "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700",
		"-c", "max_connections=300", "-c", "timezone=UTC")
	if err != nil {
		return err
	}
	return c.await()
}

// find looks for a program of the server in PATH and where Debian keeps it, newest version first.
func find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	paths, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if err != nil || len(paths) == 0 {
		return "", fmt.Errorf("%s not found: these tests need a PostgreSQL server (apt-get install postgresql)", program)
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4]) // what is no number comes last
		return n
	}
	return slices.MaxFunc(paths, func(a, b string) int { return version(a) - version(b) }), nil
}

// unprivileged gives the folder to the user who is to run the server, because the server refuses to be root. Nil
// means the current user.
func unprivileged(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("find an unprivileged user: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read user id: %w", err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read group id: %w", err)
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, fmt.Errorf("give folder away: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func run(credential *syscall.Credential, dir, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startupLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w\n%s", filepath.Base(program), err, out)
	}
	return nil
}

// serve starts the server. The kernel ends it when the thread that started it ends (PR_SET_PDEATHSIG), so that thread
// is kept waiting for it: it ends with this process and not before.
func (c *cluster) serve(credential *syscall.Credential, program string, args ...string) error {
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // a thread that ends takes along what else was started from it
		defer close(c.ended)
		err := cmd.Start()
		log.Close() // the server has its own descriptor
		c.server = cmd.Process
		started <- err
		if err == nil {
			cmd.Wait() // how it ends is in the log
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	return nil
}

// await waits until the server answers.
func (c *cluster) await() error {
	deadline := time.Now().Add(startupLimit)
	for {
		err := c.exec("postgres", "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("the server ended while starting:\n%s", c.log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not answer: %w\n%s", err, c.log())
		}
	}
}

func (c *cluster) log() []byte {
	text, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(text)
}

// stop ends the server and removes everything.
func (c *cluster) stop() error {
	var err error
	if c.server != nil {
		// Nothing is worth a checkpoint: immediate shutdown.
		if err = c.server.Signal(syscall.SIGQUIT); errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
		select {
		case <-c.ended:
		case <-time.After(stopLimit):
			err = errors.Join(fmt.Errorf("the server did not stop within %v", stopLimit), c.server.Kill())
		}
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
