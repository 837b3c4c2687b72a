package worker_test

import (
	"context"
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
	"signet/softhsm"
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
	var states seen[keystore.State]
	cfg := newHome(t).config()
	cfg.Keystore.Changed = states.add
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
	told := states.list()
	if len(told) != 2*len(signals) {
		t.Fatalf("Changed was told %+v, want away and back for each signal", told)
	}
	for i, state := range told {
		if state.Up != (i%2 == 1) || state.Recoveries != (i+1)/2 || state.Up && (state.Outage <= 0 || state.Outage > 20*time.Second) {
			t.Errorf("change %d is %+v", i, state)
		}
	}
	if !strings.Contains(told[0].Cause.Error(), "killed") || !strings.Contains(told[2].Cause.Error(), "SIGSEGV") || keystore.Reason(told[0].Cause) != "its process ended" {
		t.Errorf("the causes are %q and %q", told[0].Cause, told[2].Cause)
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

func TestACallOutlivesAFrozenWorkerOrEndsInTime(t *testing.T) {
	t.Parallel()
	cfg := newHome(t).config()
	cfg.Keystore.Timeout = 2 * time.Second
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	if err := syscall.Kill(token.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := token.Check(limited); !errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("checking, with a deadline of its own: %v", err)
	}
	before := time.Now()
	if err := signDigest(key); err != nil && !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("signing: %v", err)
	}
	if took := time.Since(before); took > 20*time.Second {
		t.Errorf("the caller waited %v", took)
	}
	await(t, 30*time.Second, "signing again", func() bool { return signDigest(key) == nil })
}

// Put back, the folder of a SoftHSM2 token is not seen again until the module is initialized anew: the keystore in the
// worker does that, and the worker stays.
func TestTheKeystoreInTheWorkerHealsItself(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	var states seen[keystore.State]
	cfg := home.config()
	cfg.Keystore.Changed = states.add
	cfg.Keystore.Patience = 100 * time.Millisecond
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	pid := token.PID()
	home.takeAway(t)
	await(t, 30*time.Second, "the token is away", func() bool { return signDigest(key) != nil && !token.State().Up })
	home.putBack(t)
	took := await(t, 30*time.Second, "signing again", func() bool { return signDigest(key) == nil })
	t.Logf("signing again after %v", took)
	if token.PID() != pid {
		t.Error("it is another worker that signs")
	}
	await(t, 10*time.Second, "the parent knows that the token is back", func() bool { return token.State().Up })
	if told := states.list(); len(told) != 2 || told[0].Up || !told[1].Up || told[1].Recoveries == 0 {
		t.Errorf("Changed was told %+v", told)
	}
}

func TestANewWorkerStaysAwayFromAnotherToken(t *testing.T) {
	t.Parallel()
	home, other := newHome(t), newHome(t) // of the same label
	cfg := home.config()
	cfg.Keystore.Patience = 100 * time.Millisecond
	cfg.Keystore.PINSource = func() (string, error) { return other.Cfg.PIN, nil }
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	home.takeAway(t)
	if err := os.Rename(other.Dir+"/tokens", home.Dir+"/tokens"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(token.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, 30*time.Second, "the other token is recognized", func() bool {
		state := token.State()
		return !state.Up && strings.Contains(state.Cause.Error(), "another token")
	})
	if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("signing meanwhile: %v", err)
	}
}

func TestReadyWaitsForTheNextWorker(t *testing.T) {
	t.Parallel()
	token := start(t, newHome(t).config())
	key, _ := generate(t, token, keystore.EC, 256)
	ready := key.(keystore.Signer)
	if err := syscall.Kill(token.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, 10*time.Second, "the loss is known", func() bool { return token.State().Recoveries > 0 || !token.State().Up })
	if err := ready.Ready(); err != nil {
		t.Errorf("not ready within patience: %v", err)
	}
}

// A cloned token signs while the home token's worker has nothing to sign with.
func TestWorkersStandInForEachOther(t *testing.T) {
	t.Parallel()
	original := newHome(t)
	first := start(t, original.config())
	key, id := generate(t, first, keystore.EC, 256)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	clone := original.clone(t)
	open := func(h home) func(context.Context, keystore.Config) (keystore.Backend, error) {
		return func(ctx context.Context, cfg keystore.Config) (keystore.Backend, error) {
			c := h.config()
			c.Keystore = cfg
			return worker.Start(ctx, c)
		}
	}
	set, err := keystore.OpenSet(t.Context(), []keystore.Named{
		{Name: "home", Config: original.Cfg, OpenBackend: open(original)}, {Name: "clone", Config: clone.Cfg, OpenBackend: open(clone)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	if _, err := set.Token("home"); !errors.Is(err, keystore.ErrNoToken) {
		t.Errorf("a token in another process is handed out as one of this process: %v", err)
	}
	signer, err := set.Signer(t.Context(), "home", id, der(t, key.Public()), keystore.BarBorn)
	if err != nil {
		t.Fatal(err)
	}
	at, err := set.Backend("home")
	if err != nil {
		t.Fatal(err)
	}
	l := sign(t, signer, 4)
	await(t, 30*time.Second, "the load runs", func() bool { return l.signed.Load() > 50 })
	original.takeAway(t)
	await(t, 30*time.Second, "the home token is away", func() bool { return !at.State().Up })
	before := l.signed.Load()
	await(t, 30*time.Second, "the clone signs", func() bool { return l.signed.Load() > before+50 })
	original.putBack(t)
	await(t, 30*time.Second, "the home token is back", func() bool { return at.State().Up })
	l.stop()
	if l.refused.Load() > 0 {
		t.Errorf("%d signatures were refused", l.refused.Load())
	}
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

// An operator who changes the PIN changes the file, too: the next worker is told, and the old PIN is tried once.
func TestANewPINIsReadFromItsSource(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	var logins seen[error]
	cfg := home.config()
	cfg.Keystore.Observe = func(op string, _ time.Duration, err error) {
		if op == "login" {
			logins.add(err)
		}
	}
	next := softhsm.NewPIN()
	cfg.Keystore.PINSource = func() (string, error) { return next, nil }
	token := start(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	if out, err := home.run("change-pin", "WORKER_TEST_PIN="+next); err != nil {
		t.Fatalf("change PIN: %v: %s", err, out)
	}
	if err := syscall.Kill(token.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, 30*time.Second, "signing again", func() bool { return signDigest(key) == nil })
	if told := logins.list(); len(told) != 3 || !errors.Is(told[1], keystore.ErrPIN) || told[2] != nil {
		t.Errorf("logins: %v, want one that succeeds, one that is refused, and one that succeeds", told)
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
