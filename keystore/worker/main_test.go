package worker_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/keystore/worker"
	"signet/softhsm"
)

// role is a variable of the environment that makes the test binary one of the other processes.
const role = "WORKER_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "worker":
		err = worker.Main(context.Background())
	case "liar":
		err = worker.Lie(os.Getenv("WORKER_TEST_LIE"))
	case "init":
		err = initToken()
	case "change-pin":
		err = changePIN()
	case "server":
		err = beServer()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// home is a SoftHSM2 token in a folder of its own, so that no other test disturbs it.
type home struct {
	Dir string
	Cfg keystore.Config
}

// newHome makes a token in another process: this one never loads the module, which is the point of the package.
func newHome(t testing.TB) home {
	t.Helper()
	module, err := softhsm.Find()
	if err != nil {
		t.Fatal(err)
	}
	h := home{t.TempDir(), keystore.Config{Module: module, Token: "test", PIN: softhsm.NewPIN(), Timeout: time.Minute}}
	if out, err := h.run("init"); err != nil {
		t.Fatalf("make token: %v: %s", err, out)
	}
	return h
}

func (h home) env(as string) []string {
	return append(os.Environ(), "SOFTHSM2_CONF="+h.Dir+"/softhsm2.conf", role+"="+as)
}

// command is this binary in another role, told of the token on its standard input.
func (h home) command(as string) *exec.Cmd {
	var in bytes.Buffer
	if err := gob.NewEncoder(&in).Encode(h); err != nil {
		panic(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stdin = h.env(as), &in
	return cmd
}

func (h home) run(as string, env ...string) ([]byte, error) {
	cmd := h.command(as)
	cmd.Env = append(cmd.Env, env...)
	return cmd.CombinedOutput()
}

// clone copies the token, as the makers of HSMs clone theirs.
func (h home) clone(t testing.TB) home {
	t.Helper()
	c := home{t.TempDir(), h.Cfg}
	if _, err := softhsm.Use(c.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(c.Dir+"/tokens", os.DirFS(h.Dir+"/tokens")); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return c
}

// takeAway makes the token disappear; putBack brings it back.
func (h home) takeAway(t testing.TB) { h.move(t, "/tokens", "/away") }
func (h home) putBack(t testing.TB)  { h.move(t, "/away", "/tokens") }

func (h home) move(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(h.Dir+from, h.Dir+to); err != nil {
		t.Fatal(err)
	}
}

func (h home) config() worker.Config {
	return worker.Config{Keystore: h.Cfg, Program: os.Args[0], Env: h.env("worker")}
}

func readHome() (h home, err error) {
	return h, gob.NewDecoder(os.Stdin).Decode(&h)
}

func initToken() error {
	h, err := readHome()
	if err != nil {
		return err
	}
	if _, err := softhsm.Use(h.Dir); err != nil {
		return err
	}
	return keystore.InitToken(context.Background(), h.Cfg, softhsm.NewPIN())
}

// changePIN gives the token another PIN.
func changePIN() error {
	h, err := readHome()
	if err != nil {
		return err
	}
	p := pkcs11.New(h.Cfg.Module)
	if err := p.Initialize(); err != nil {
		return err
	}
	slots, err := p.GetSlotList(true)
	if err != nil {
		return err
	}
	session, err := p.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	next := os.Getenv("WORKER_TEST_PIN")
	if next == "" {
		next = softhsm.NewPIN()
	}
	return p.SetPIN(session, h.Cfg.PIN, next)
}

// beServer starts a worker, prints its process id and waits to be killed.
func beServer() error {
	h, err := readHome()
	if err != nil {
		return err
	}
	token, err := worker.Start(context.Background(), h.config())
	if err != nil {
		return err
	}
	fmt.Println(token.PID())
	select {}
}

// startServer runs beServer and returns it with the process id of its worker.
func (h home) startServer(t *testing.T) (server *exec.Cmd, pid int) {
	t.Helper()
	server = h.command("server")
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &pid); err != nil || pid == 0 {
		t.Fatalf("the server printed %q", line)
	}
	return server, pid
}

// start opens the token in a worker, which is gone when the test ends.
func start(t testing.TB, cfg worker.Config) *worker.Token {
	t.Helper()
	token, err := worker.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	return token
}

// generate makes a key and returns it with its CKA_ID.
func generate(t testing.TB, token *worker.Token, kind keystore.KeyType, size int) (crypto.Signer, []byte) {
	t.Helper()
	id := make([]byte, 16)
	rand.Read(id)
	key, err := token.Generate(t.Context(), keystore.Spec{ID: id, Label: t.Name(), Type: kind, Size: size})
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func signDigest(key crypto.Signer) error {
	digest := sha256.Sum256([]byte("message"))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	return verify(key.Public(), digest[:], signature, crypto.SHA256)
}

// await polls, as nothing tells a process that another one has ended.
func await(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// gone reports whether no such process runs; one that is dead and not reaped by its parent counts as gone.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	after := bytes.LastIndexByte(stat, ')')
	return after >= 0 && len(stat) > after+2 && stat[after+2] == 'Z'
}

// seen collects what a callback is told.
type seen[T any] struct {
	mu  sync.Mutex
	all []T
}

func (s *seen[T]) add(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, v)
}

func (s *seen[T]) list() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]T(nil), s.all...)
}
