package worker_test

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"signet/keystore"
	"signet/keystore/worker"
)

func itoa(n int) string { return strconv.Itoa(n) }

// load signs in so many goroutines until it is stopped. Whatever is neither a valid signature nor ErrUnavailable
// fails the test.
type load struct {
	signed, refused atomic.Int64
	last            atomic.Int64 // when the last signature was made, in nanoseconds since 1970
	stop            func()
}

func sign(t *testing.T, key crypto.Signer, callers int) *load {
	t.Helper()
	l := &load{}
	var stopped atomic.Bool
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for !stopped.Load() {
				switch err := signDigest(key); {
				case err == nil:
					l.signed.Add(1)
					l.last.Store(time.Now().UnixNano())
				case errors.Is(err, keystore.ErrUnavailable):
					l.refused.Add(1)
					time.Sleep(time.Millisecond)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() {
		stopped.Store(true)
		group.Wait()
	})
	t.Cleanup(l.stop)
	return l
}

// back waits until signatures are made again after now, and returns how long that took.
func (l *load) back(t *testing.T) time.Duration {
	t.Helper()
	now := time.Now().UnixNano()
	return await(t, 30*time.Second, "signing again", func() bool { return l.last.Load() > now })
}

func TestAKilledWorkerIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	var lost seen[error]
	cfg := newHome(t).config()
	cfg.Lost = func(cause error, _ time.Duration) { lost.add(cause) }
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	l := sign(t, key, 8)
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGKILL}
	for i, signal := range signals {
		await(t, 30*time.Second, "the load runs", func() bool { return l.signed.Load() > int64(50*(i+1)) && token.PID() != 0 })
		pid := token.PID()
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		await(t, 30*time.Second, "the worker is gone", func() bool { return gone(pid) })
		t.Logf("%v: signing again after %v", signal, l.back(t))
	}
	l.stop()
	if l.refused.Load() > 0 { // each lost signature had its second attempt
		t.Errorf("%d of %d signatures were refused", l.refused.Load(), l.refused.Load()+l.signed.Load())
	}
	if told := lost.list(); len(told) != len(signals) || !strings.Contains(told[0].Error(), "killed") || !strings.Contains(told[1].Error(), "SIGSEGV") {
		t.Errorf("Lost was told %q", told)
	}
}

func TestAStoppedWorkerIsKilledAndReplaced(t *testing.T) {
	t.Parallel()
	cfg := newHome(t).config()
	cfg.Keystore.Timeout = 2 * time.Second
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	l := sign(t, key, 8)
	await(t, 30*time.Second, "the load runs", func() bool { return l.signed.Load() > 50 })
	pid := token.PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	await(t, 30*time.Second, "the hanging worker is gone", func() bool { return gone(pid) })
	if took := time.Since(before); took < time.Second {
		t.Errorf("given up after %v, before the deadline of a call", took)
	}
	t.Logf("signing again %v after the worker was given up", l.back(t))
}

func TestACallHasItsDeadlineWhileTheWorkerHangs(t *testing.T) {
	t.Parallel()
	cfg := newHome(t).config()
	cfg.Keystore.Timeout = 2 * time.Second
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	if err := syscall.Kill(token.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("signing: %v", err)
	}
	if took := time.Since(before); took > 20*time.Second {
		t.Errorf("the caller waited %v", took)
	}
	await(t, 30*time.Second, "signing again", func() bool { return signDigest(key) == nil })
}

// Put back, the folder of a SoftHSM2 token is not seen again until the module is initialized anew.
func TestAModuleThatDoesNotRecoverIsReplaced(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	cfg := home.config()
	cfg.Keystore.Timeout = 2 * time.Second
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	pid := token.PID()
	tokens := home.Dir + "/tokens"
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	await(t, 30*time.Second, "signing fails", func() bool { return signDigest(key) != nil })
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
	took := await(t, 30*time.Second, "signing again", func() bool { return signDigest(key) == nil })
	t.Logf("signing again after %v, by the same worker: %t", took, token.PID() == pid)
}

func TestAWrongPINIsTriedOnce(t *testing.T) {
	t.Parallel()
	var logins atomic.Int64
	cfg := newHome(t).config()
	cfg.Keystore.PIN = "wrong-pin"
	cfg.Keystore.Observe = func(op string, _ time.Duration, _ error) {
		if op == "login" {
			logins.Add(1)
		}
	}
	_, err := worker.Start(t.Context(), cfg)
	if !errors.Is(err, keystore.ErrPIN) || strings.Contains(err.Error(), "wrong-pin") {
		t.Errorf("start: %v", err)
	}
	if n := logins.Load(); n != 1 {
		t.Errorf("%d logins were tried", n)
	}
}

// The PIN changes while the worker runs, and then the worker dies: the next one finds out, and nobody tries again.
func TestAPINThatIsRefusedToTheNextWorkerEndsTheAttempts(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	var logins seen[error]
	cfg := home.config()
	cfg.Keystore.Observe = func(op string, _ time.Duration, err error) {
		if op == "login" {
			logins.add(err)
		}
	}
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	if out, err := home.run("change-pin"); err != nil {
		t.Fatalf("change PIN: %v: %s", err, out)
	}
	if err := syscall.Kill(token.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, 30*time.Second, "the refusal is known", func() bool { return errors.Is(signDigest(key), keystore.ErrPIN) })
	for range 5 {
		if err := token.Check(t.Context()); !errors.Is(err, keystore.ErrPIN) {
			t.Errorf("check: %v", err)
		}
	}
	time.Sleep(time.Second) // longer than any pause between two attempts
	if told := logins.list(); len(told) != 2 || !errors.Is(told[1], keystore.ErrPIN) {
		t.Errorf("logins: %v, want one that succeeds and one that is refused", told)
	}
	if token.PID() != 0 {
		t.Error("there is a worker")
	}
}

func TestAWorkerDiesWithItsServer(t *testing.T) {
	t.Parallel()
	for name, stopped := range map[string]bool{"that serves": false, "that hangs": true} {
		server, pid := newHome(t).startServer(t)
		if stopped {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		if err := server.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = server.Wait() // it was killed
		took := await(t, 10*time.Second, "a worker "+name+" is gone", func() bool { return gone(pid) })
		t.Logf("a worker %s was gone after %v", name, took)
	}
}

func TestAWorkerIgnoresTheSignalsThatItsServerDrainsOn(t *testing.T) {
	t.Parallel()
	token := start(t, newHome(t).config())
	key, _ := generate(t, token, keystore.EC, 256)
	pid := token.PID()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		if err := signDigest(key); err != nil {
			t.Error(err)
		}
	}
	if token.PID() != pid {
		t.Error("it was another worker that signed")
	}
}

func TestASignatureThatDoesNotVerifyIsNeverReleased(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	lie := home.Dir + "/lie"
	cfg := home.config()
	cfg.Env = append(home.env("liar"), "WORKER_TEST_LIE="+lie)
	token := start(t, cfg)
	digest := sha256.Sum256([]byte("message"))
	for _, kind := range []struct {
		keystore.KeyType
		size int
	}{{keystore.EC, 256}, {keystore.RSA, 2048}, {keystore.Ed25519, 256}} {
		key, _ := generate(t, token, kind.KeyType, kind.size)
		var opts crypto.SignerOpts = crypto.SHA256
		if kind.KeyType == keystore.Ed25519 {
			opts = crypto.Hash(0)
		}
		if _, err := key.Sign(nil, digest[:], opts); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(lie, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if signature, err := key.Sign(nil, digest[:], opts); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: released %x, %v", kind.KeyType, signature, err)
		}
		if err := os.Remove(lie); err != nil {
			t.Fatal(err)
		}
		await(t, 30*time.Second, "signing again", func() bool {
			_, err := key.Sign(nil, digest[:], opts)
			return err == nil
		})
	}
}
