package keystore_test

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// abandoned is faulty for a token that still has calls in flight when it is closed, which is an error of Close.
func abandoned(t *testing.T, change func(*keystore.Config)) (*keystore.Token, *softhsmtest.Faults, crypto.Signer) {
	t.Helper()
	cfg, faults := softhsmtest.Faulty(t)
	cfg.Timeout = time.Second
	if change != nil {
		change(&cfg)
	}
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = token.Close() })
	key, _ := generate(t, token, keystore.EC, 256)
	if err := token.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	return token, faults, key
}

// goneAway waits until the circuit breaker is open.
func goneAway(t *testing.T, token *keystore.Token) {
	t.Helper()
	for start := time.Now(); token.State().Up; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("the circuit breaker does not open")
		}
	}
}

// The module answers again, but not what it was asked before.
func TestALostAnswerDoesNotKeepTheTokenAway(t *testing.T) {
	t.Parallel()
	token, faults, key := abandoned(t, nil)
	faults.Delay("C_Sign", 12*time.Second)
	if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("a signature that takes longer than its deadline: %v", err)
	}
	goneAway(t, token)
	faults.Delay("C_Sign", 0)
	for start := time.Now(); signDigest(key) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 6*time.Second {
			t.Fatal("the token stays away: its recovery waits for an answer that was lost")
		}
	}
}

// Closing wipes the PIN. What the recovery has begun must not log in with what is left.
func TestCloseDuringARecoveryTriesNoPIN(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var logins []error
	token, faults, key := abandoned(t, func(c *keystore.Config) {
		c.Patience = 100 * time.Millisecond
		c.Observe = func(op string, _ time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			if op == "login" {
				logins = append(logins, err)
			}
		}
	})
	faults.Disconnect()
	if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("sign on a token that is away: %v", err)
	}
	resume := faults.Hang("C_OpenSession")
	faults.Reconnect()
	for start := time.Now(); faults.Counts().Blocked == 0; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("the recovery does not open a session")
		}
	}
	if err := token.Close(); err == nil {
		t.Error("closed with a call in flight, and no error")
	}
	mu.Lock()
	before := len(logins)
	mu.Unlock()
	resume()
	time.Sleep(300 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if after := logins[before:]; len(after) > 0 {
		t.Errorf("logins after Close: %v", after)
	}
}

func TestCloseIsNotKeptByAModuleThatHangs(t *testing.T) {
	t.Parallel()
	for _, function := range []string{"C_Initialize", "C_Finalize"} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			token, faults, key := abandoned(t, func(c *keystore.Config) { c.Patience = 100 * time.Millisecond })
			resume := faults.Hang(function)
			defer resume()
			faults.Disconnect()
			_ = signDigest(key)
			for start := time.Now(); faults.Counts().Blocked == 0; time.Sleep(time.Millisecond) {
				if time.Since(start) > 5*time.Second {
					t.Fatal("the module is not restarted")
				}
			}
			closed := make(chan error, 1)
			go func() { closed <- token.Close() }()
			select {
			case <-closed:
			case <-time.After(4 * time.Second):
				t.Error("Close does not end, with a deadline of a second")
			}
		})
	}
}

func TestASlotThatIsGoneIsAnOutage(t *testing.T) {
	t.Parallel()
	_, faults, key := faulty(t, nil)
	s := startSigners(t, key)
	s.more(50, 10*time.Second)
	faults.Fail("C_OpenSession", pkcs11.CKR_SLOT_ID_INVALID, 1000)
	faults.DropSessions()
	time.Sleep(500 * time.Millisecond)
	faults.Clear()
	s.more(50, 10*time.Second)
	if failures := s.stop(); len(failures) > 0 {
		t.Errorf("%d signatures failed, the first with %v", len(failures), failures[0])
	}
}

// SoftHSM2 finds no key when its folder was away for a moment: all callers see that at once, and soon again.
func TestAFolderThatWasAwayCostsNoSignature(t *testing.T) {
	t.Parallel()
	cfg, _ := softhsmtest.Faulty(t)
	cfg.Timeout = 10 * time.Second
	token := openAs(t, cfg)
	key, _ := generate(t, token, keystore.EC, 256)
	if err := token.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(filepath.Dir(cfg.Module), "tokens")
	s := startSigners(t, key)
	s.more(50, 10*time.Second)
	for range 3 {
		if err := os.Rename(tokens, tokens+".away"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		if err := os.Rename(tokens+".away", tokens); err != nil {
			t.Fatal(err)
		}
		s.more(200, 10*time.Second)
	}
	if failures := s.stop(); len(failures) > 0 {
		t.Errorf("%d signatures failed, the first with %v", len(failures), failures[0])
	}
}

func TestADistantTokenThatNeedsInitializeCostsNoSignature(t *testing.T) {
	t.Parallel()
	_, faults, key := faulty(t, nil)
	faults.Delay(softhsmtest.Every, 50*time.Millisecond)
	s := startSigners(t, key)
	s.more(16, 20*time.Second)
	faults.Disconnect()
	time.Sleep(700 * time.Millisecond)
	faults.Reconnect()
	s.more(16, 20*time.Second)
	if failures := s.stop(); len(failures) > 0 {
		t.Errorf("%d signatures failed, the first with %v", len(failures), failures[0])
	}
}

// With another token configured, which does not have the key, the deadline of one token is still the deadline.
func TestAHangInASetKeepsTheDeadline(t *testing.T) {
	t.Parallel()
	first, faults := softhsmtest.Faulty(t)
	second, _ := softhsmtest.Faulty(t)
	first.Timeout, second.Timeout = 4*time.Second, 4*time.Second
	set := openSet(t, []keystore.Named{{Name: "first", Config: first}, {Name: "second", Config: second}})
	home, err := set.Token("first")
	if err != nil {
		t.Fatal(err)
	}
	made, id := generate(t, home, keystore.EC, 256)
	key, err := set.Signer(t.Context(), "first", id, mustDER(t, made.Public()), keystore.BarBorn)
	if err != nil {
		t.Fatal(err)
	}
	resume := faults.Hang("C_Sign")
	defer resume()
	start := time.Now()
	if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("sign while the token hangs: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a signature with a deadline of four seconds took %s", took)
	}
}

func TestASetStartsBesideAModuleThatDoesNotInitialize(t *testing.T) {
	t.Parallel()
	first, _ := softhsmtest.Faulty(t)
	second, faults := softhsmtest.Faulty(t)
	faults.Fail("C_Initialize", pkcs11.CKR_DEVICE_ERROR, 1000)
	set := openSet(t, []keystore.Named{{Name: "first", Config: first}, {Name: "second", Config: second}})
	token, err := set.Token("second")
	if err != nil {
		t.Fatal(err)
	}
	faults.Clear()
	for start := time.Now(); token.Check(t.Context()) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("it is not connected when it is there")
		}
	}
}

// An attempt that fails may have destroyed the private key: the next one goes on with the rest, and does not say that
// there was no such key.
func TestAKeyIsDestroyedWholeOnATokenThatErrs(t *testing.T) {
	t.Parallel()
	token, faults, _ := faulty(t, nil)
	for range 8 {
		_, id := generate(t, token, keystore.EC, 256)
		faults.Fail("C_DestroyObject", pkcs11.CKR_DEVICE_ERROR, 500)
		err := token.Destroy(t.Context(), id)
		faults.Clear()
		if err != nil {
			t.Fatal(err)
		}
		err = token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
			if err := p.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id)}); err != nil {
				return err
			}
			left, _, err := p.FindObjects(s, 2)
			if len(left) > 0 {
				t.Errorf("%d objects are left", len(left))
			}
			return errors.Join(err, p.FindObjectsFinal(s))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What the token says of a key decides on its grade, and a low grade locks a CA: a call that fails for no reason is not an
// attribute that the token does not know.
func TestAnAccidentTakesNoAttributeAway(t *testing.T) {
	t.Parallel()
	cfg, faults := softhsmtest.Faulty(t)
	cfg.Timeout, cfg.Patience = 10*time.Second, 100*time.Millisecond
	token := openAs(t, cfg)
	_, id := generate(t, token, keystore.EC, 256)
	want, err := token.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	faults.Fail("C_GetAttributeValue", pkcs11.CKR_DEVICE_ERROR, 20)
	for range 50 {
		if got, err := token.Inspect(t.Context(), id); err != nil || !reflect.DeepEqual(got.Attributes, want.Attributes) {
			t.Fatalf("now %v, %v", got.Attributes, err)
		}
	}
	faults.Fail("C_GetAttributeValue", pkcs11.CKR_DEVICE_ERROR, 1000)
	if got, err := token.Inspect(t.Context(), id); !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("from a token that is broken: %v, %v", got, err)
	}
}

func TestAFolderThatWasAwayCostsNoSecret(t *testing.T) {
	t.Parallel()
	cfg, _ := softhsmtest.Faulty(t)
	cfg.Timeout = 10 * time.Second
	token := openAs(t, cfg)
	if err := token.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealed, err := token.Seal(t.Context(), []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Unseal(t.Context(), sealed, nil); err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(filepath.Dir(cfg.Module), "tokens")
	stop := make(chan struct{})
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var err error
				if i%2 == 0 {
					_, err = token.Seal(t.Context(), []byte("secret"), nil)
				} else {
					_, err = token.Unseal(t.Context(), sealed, nil)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		if err := os.Rename(tokens, tokens+".away"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		if err := os.Rename(tokens+".away", tokens); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond)
	close(stop)
	group.Wait()
}

// A restart on behalf of a token that is away waits for the calls in flight, and everybody waits for it: not again and again
// while one of them takes long.
func TestALongCallBesideATokenThatIsAwayDoesNotKeepTheOthers(t *testing.T) {
	t.Parallel()
	cfg, faults := softhsmtest.Faulty(t)
	cfg.Timeout = 10 * time.Second
	tokens := filepath.Join(filepath.Dir(cfg.Module), "tokens")
	mine, err := os.ReadDir(tokens)
	if err != nil {
		t.Fatal(err)
	}
	away := cfg
	away.Token = "away"
	if err := keystore.InitToken(t.Context(), away, "12345678"); err != nil {
		t.Fatal(err)
	}
	token, gone := openAs(t, cfg), openAs(t, away)
	for _, both := range []*keystore.Token{token, gone} {
		if err := both.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	key, _ := generate(t, token, keystore.EC, 256)
	s := startSigners(t, key)
	counted := func() int {
		before := s.count()
		time.Sleep(2 * time.Second)
		return s.count() - before
	}
	usual := counted()
	faults.Delay("C_GenerateKeyPair", 5*time.Second)
	var making sync.WaitGroup
	making.Go(func() { generate(t, token, keystore.EC, 256) })
	folders, err := os.ReadDir(tokens)
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if folder.Name() != mine[0].Name() {
			if err := os.RemoveAll(filepath.Join(tokens, folder.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	for start := time.Now(); gone.State().Up; time.Sleep(10 * time.Millisecond) {
		_ = gone.Check(t.Context())
		if time.Since(start) > 10*time.Second {
			t.Fatal("the circuit breaker of the other token does not open")
		}
	}
	if meanwhile := counted(); meanwhile < usual/5 {
		t.Errorf("%d signatures while a key was made, %d before", meanwhile, usual)
	}
	making.Wait()
	if failures := s.stop(); len(failures) > 0 {
		t.Errorf("%d signatures failed, the first with %v", len(failures), failures[0])
	}
}
