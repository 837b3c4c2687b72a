package main

import (
	"context"
	"crypto"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"signet/api"
	"signet/audit"
	"signet/ca"
	"signet/idempotency"
	"signet/store/pgtest"
)

// TestMain puts programs in PATH that are made of this test binary: signet, which is main itself; signet-crash, which is the
// same server with a hole to fall into; signet-profile, which writes profiles; and signet-minimal, the yardstick of the
// benchmarks.
func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){
		"signet": main, "signet-crash": crashMain, "signet-profile": profileMain, "signet-minimal": minimalMain,
	})
}

// suite runs the tests, not the other programs.
type suite struct{ m *testing.M }

// Run implements [testscript.TestingM].
func (s suite) Run() int {
	// The tests here wait for processes more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	return pgtest.Run(s.m)
}

// The environment of signet-crash.
const (
	crashFile  = "SIGNET_TEST_CRASH" // names a file; once it exists, it holds a step: "before Reserve", "after Sign"
	crashClock = "SIGNET_TEST_CLOCK" // how far the server's clock is ahead
)

// crashMain is the command serve of a process that kills itself at a step.
func crashMain() {
	syscall.Umask(0o077)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := parseServe(os.Args[1:])
	ahead, clockErr := time.ParseDuration(os.Getenv(crashClock))
	p := &program{
		config: config, stdout: os.Stdout, stderr: os.Stderr,
		now:        func() time.Time { return time.Now().Add(ahead) },
		wrapStore:  func(s ca.Store) ca.Store { return crashStore{Store: s} },
		wrapKeys:   func(k ca.Keys) ca.Keys { return crashKeys{Keys: k} },
		wrapClaims: func(c api.Claims) api.Claims { return crashClaims{Claims: c} },
	}
	if err = errors.Join(err, clockErr); err == nil {
		err = p.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "signet-crash:", err)
		os.Exit(1)
	}
}

// step kills the process, as a power cut would, when it is the one to crash at.
func step(when, name string) {
	if at, err := os.ReadFile(os.Getenv(crashFile)); err == nil && string(at) == when+" "+name {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal ends every thread; none may go on until it arrives
	}
}

// around calls f between two steps.
func around[T any](name string, f func() (T, error)) (T, error) {
	step("before", name)
	value, err := f()
	step("after", name)
	return value, err
}

func around0(name string, f func() error) error {
	_, err := around(name, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

type crashStore struct{ ca.Store }

func (s crashStore) CreateCA(ctx context.Context, c ca.CA, e audit.Event) (ca.CA, error) {
	return around("CreateCA", func() (ca.CA, error) { return s.Store.CreateCA(ctx, c, e) })
}

func (s crashStore) ReserveCA(ctx context.Context, c ca.CA, e audit.Event) error {
	return around0("ReserveCA", func() error { return s.Store.ReserveCA(ctx, c, e) })
}

func (s crashStore) CompleteCA(ctx context.Context, id int64, der []byte, e audit.Event) (ca.CA, error) {
	return around("CompleteCA", func() (ca.CA, error) { return s.Store.CompleteCA(ctx, id, der, e) })
}

func (s crashStore) Reserve(ctx context.Context, c ca.Certificate, e audit.Event) (int64, error) {
	return around("Reserve", func() (int64, error) { return s.Store.Reserve(ctx, c, e) })
}

func (s crashStore) Complete(ctx context.Context, id int64, der, sealed []byte, e audit.Event) (ca.Certificate, error) {
	return around("Complete", func() (ca.Certificate, error) { return s.Store.Complete(ctx, id, der, sealed, e) })
}

func (s crashStore) Revoke(ctx context.Context, id int64, r ca.Revocation, replaces []int, e audit.Event) (ca.Certificate, error) {
	return around("Revoke", func() (ca.Certificate, error) { return s.Store.Revoke(ctx, id, r, replaces, e) })
}

func (s crashStore) BeginList(ctx context.Context, scope ca.ListScope, at time.Time) (ca.List, error) {
	return around("BeginList", func() (ca.List, error) { return s.Store.BeginList(ctx, scope, at) })
}

func (s crashStore) CompleteLists(ctx context.Context, lists []ca.List, e audit.Event) error {
	return around0("CompleteLists", func() error { return s.Store.CompleteLists(ctx, lists, e) })
}

type crashClaims struct{ api.Claims }

func (c crashClaims) ClaimRequest(ctx context.Context, claim idempotency.Claim) (int64, error) {
	return around("ClaimRequest", func() (int64, error) { return c.Claims.ClaimRequest(ctx, claim) })
}

type crashKeys struct{ ca.Keys }

func (k crashKeys) Generate(ctx context.Context, r ca.KeyRequest) (crypto.Signer, error) {
	key, err := around("Generate", func() (crypto.Signer, error) { return k.Keys.Generate(ctx, r) })
	return crashSigner{key}, err
}

func (k crashKeys) Signer(ctx context.Context, r ca.KeyRef) (crypto.Signer, error) {
	key, err := k.Keys.Signer(ctx, r)
	return crashSigner{key}, err
}

type crashSigner struct{ crypto.Signer }

func (s crashSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return around("Sign", func() ([]byte, error) { return s.Signer.Sign(rand, digest, opts) })
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("SIGNET_PASSWORD_COST", "4")
			env.Setenv("SIGNET_KEYS_AHEAD", "0")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": scriptExits, "await": scriptAwait, "getenv": scriptGetenv,
		},
	})
}

// scriptExits is "exits CODE COMMAND ARGS…": the command ends with exactly this exit code.
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS...")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// scriptAwait is "await FILE REGEXP": waits until a line of the file matches.
func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	pattern := regexp.MustCompile("(?m)" + args[1])
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if data, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && pattern.Match(data) {
			return
		}
	}
	data, _ := os.ReadFile(ts.MkAbs(args[0]))
	ts.Fatalf("%s never matched %q:\n%s", args[0], args[1], data)
}

// scriptGetenv is "getenv VARIABLE FILE REGEXP": sets a variable to what the first group matches in the file.
func scriptGetenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: getenv VARIABLE FILE REGEXP")
	}
	match := regexp.MustCompile("(?m)" + args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if match == nil {
		ts.Fatalf("%s does not match %q", args[1], args[2])
	}
	ts.Setenv(args[0], strings.TrimSpace(match[1]))
}
