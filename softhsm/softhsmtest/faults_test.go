package softhsmtest_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

func faulty(t testing.TB) (*raw, *softhsmtest.Faults) {
	t.Helper()
	cfg, faults := softhsmtest.Faulty(t)
	r := openRaw(t, cfg)
	faults.ResetCounts()
	return r, faults
}

func TestWithoutFaultsItIsATokenLikeAnyOther(t *testing.T) {
	t.Parallel()
	for range 3 { // side by side, in one process
		t.Run("", func(t *testing.T) {
			t.Parallel()
			cfg, faults := softhsmtest.Faulty(t)
			token, err := keystore.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range []keystore.Spec{
				{ID: []byte("rsa"), Type: keystore.RSA, Size: 2048},
				{ID: []byte("ec"), Type: keystore.EC, Size: 384},
				{ID: []byte("ed"), Type: keystore.Ed25519, Size: 256},
			} {
				if _, err := token.Generate(t.Context(), spec); err != nil {
					t.Errorf("%s: %v", spec.Type, err)
				}
			}
			sealed, err := token.Seal(t.Context(), []byte("secret"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := token.Unseal(t.Context(), sealed, nil); err != nil || string(plain) != "secret" {
				t.Errorf("unsealed %q, %v", plain, err)
			}
			if err := token.Close(); err != nil {
				t.Error(err)
			}
			if c := faults.Counts(); len(c.Failed) > 0 || c.Open != 0 || c.Running != 0 || c.Died != 0 || c.Flipped != 0 {
				t.Errorf("without faults, something was counted: %+v", c)
			}
		})
	}
}

func TestDroppedSessionsAreDeadAndTheLoginIsGone(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	old := []pkcs11.SessionHandle{r.login(), r.session(), r.session()}
	key := r.mustKey(old[0])
	if n := faults.Counts().Open; n != len(old) {
		t.Errorf("%d sessions are open, want %d", n, len(old))
	}
	faults.DropSessions()
	if n := faults.Counts().Open; n != 0 {
		t.Errorf("%d sessions are open after all were dropped", n)
	}
	for _, session := range old {
		if _, err := r.sign(session, key); err != invalid {
			t.Errorf("sign on a dropped session: %v", err)
		}
		if err := r.p.CloseSession(session); err != invalid {
			t.Errorf("close a dropped session: %v", err)
		}
	}
	session := r.session()
	if _, err := r.key(session); err != errNoKey {
		t.Errorf("without a new login: %v", err)
	}
	if err := r.p.Login(session, pkcs11.CKU_USER, r.cfg.PIN); err != nil {
		t.Fatalf("the old login is not gone: %v", err)
	}
	if _, err := r.sign(session, key); !is(err, pkcs11.CKR_KEY_HANDLE_INVALID) && !is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
		t.Errorf("the handle of the key from before: %v", err)
	}
	r.signs(session, r.mustKey(session))
}

func TestSessionsDieOneByOne(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	keep := r.login()
	key := r.mustKey(keep)
	faults.DieAtSign(200)
	const signatures = 300
	for range signatures {
		session := r.session()
		if _, err := r.sign(session, key); err == nil {
			if err := r.p.CloseSession(session); err != nil {
				t.Fatal(err)
			}
		} else if err != invalid {
			t.Fatal(err)
		} else if _, err := r.p.GetSessionInfo(session); err != invalid {
			t.Fatalf("a session that died lives: %v", err)
		}
	}
	faults.DieAtSign(0)
	if n := faults.Counts().Died; n < signatures/5 || n > signatures*3/5 { // 36 % are expected
		t.Errorf("%d of %d sessions died at two chances of 20 %%", n, signatures)
	}
	r.signs(keep, key) // and its login is still there
	if n := faults.Counts().Open; n != 1 {
		t.Errorf("%d sessions are open, want 1", n)
	}
}

func TestAFunctionFails(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	session := r.login()
	key := r.mustKey(session)

	faults.FailNext("C_SignInit", pkcs11.CKR_GENERAL_ERROR, 2)
	for i := range 3 {
		if _, err := r.sign(session, key); is(err, pkcs11.CKR_GENERAL_ERROR) != (i < 2) {
			t.Errorf("signature %d: %v", i, err)
		}
	}
	faults.Fail("C_Sign", pkcs11.CKR_VENDOR_DEFINED+7, 1000)
	if _, err := r.sign(session, key); !is(err, pkcs11.CKR_VENDOR_DEFINED+7) {
		t.Errorf("C_Sign: %v", err)
	}
	faults.Clear()
	if _, err := r.p.Sign(session, digest[:]); err != nil { // what was begun is still there
		t.Error(err)
	}
	faults.ResetCounts()
	faults.Fail("C_SignInit", pkcs11.CKR_DEVICE_ERROR, 100)
	for range 500 {
		if _, err := r.sign(session, key); err != nil && !is(err, pkcs11.CKR_DEVICE_ERROR) {
			t.Fatal(err)
		}
	}
	c := faults.Counts()
	if n := c.Failed["C_SignInit"]; n < 20 || n > 100 {
		t.Errorf("%d of 500 calls failed at 10 %%", n)
	}
	if c.Calls["C_SignInit"] != 500 || c.Calls["C_Sign"] != 500-c.Failed["C_SignInit"] || c.Calls[softhsmtest.Every] != c.Calls["C_SignInit"]+c.Calls["C_Sign"] {
		t.Errorf("counted %v", c.Calls)
	}
}

func TestEveryFunctionFails(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	session := r.login()
	faults.Fail(softhsmtest.Every, pkcs11.CKR_DEVICE_ERROR, 1000)
	_, open := r.p.OpenSession(r.slot, rw)
	_, slots := r.p.GetSlotList(true)
	_, find := r.key(session)
	for name, err := range map[string]error{"C_OpenSession": open, "C_GetSlotList": slots, "C_FindObjectsInit": find, "C_CloseSession": r.p.CloseSession(session)} {
		if !is(err, pkcs11.CKR_DEVICE_ERROR) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.p.GetInfo(); err != nil {
		t.Errorf("C_GetInfo, which needs no token: %v", err)
	}
	faults.Clear()
	r.signs(session, r.mustKey(session))
}

func TestTheTokenIsRemovedAndComesBack(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	session := r.login()
	key := r.mustKey(session)
	faults.Remove()
	if _, err := r.sign(session, key); !is(err, pkcs11.CKR_DEVICE_REMOVED) {
		t.Errorf("sign: %v", err)
	}
	if _, err := r.p.OpenSession(r.slot, rw); !is(err, pkcs11.CKR_TOKEN_NOT_PRESENT) {
		t.Errorf("open a session: %v", err)
	}
	if _, err := r.p.GetTokenInfo(r.slot); !is(err, pkcs11.CKR_TOKEN_NOT_PRESENT) {
		t.Errorf("token info: %v", err)
	}
	if slots, err := r.p.GetSlotList(true); err != nil || len(slots) != 0 {
		t.Errorf("slots with a token: %v, %v", slots, err)
	}
	if slots, err := r.p.GetSlotList(false); err != nil || len(slots) == 0 {
		t.Errorf("slots: %v, %v", slots, err)
	}
	if info, err := r.p.GetSlotInfo(r.slot); err != nil || info.Flags&pkcs11.CKF_TOKEN_PRESENT != 0 {
		t.Errorf("slot info: %+v, %v", info, err)
	}
	faults.Restore()
	if _, err := r.sign(session, key); err != invalid {
		t.Errorf("sign on the session from before: %v", err)
	}
	r.works()
}

func TestALostConnectionNeedsInitialize(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	dead := func(when string) {
		t.Helper()
		_, slots := r.p.GetSlotList(true)
		_, open := r.p.OpenSession(r.slot, rw)
		_, info := r.p.GetInfo()
		for name, err := range map[string]error{"C_GetSlotList": slots, "C_OpenSession": open, "C_GetInfo": info} {
			if !is(err, pkcs11.CKR_DEVICE_ERROR) {
				t.Errorf("%s: %s: %v", when, name, err)
			}
		}
	}
	again := func() {
		t.Helper()
		if err := r.p.Finalize(); err != nil {
			t.Fatal(err)
		}
		if err := r.p.Initialize(); err != nil {
			t.Fatal(err)
		}
	}
	r.login()
	faults.Disconnect()
	dead("while it is lost")
	again()
	dead("initialized while it was lost")
	faults.Reconnect()
	dead("back, and not initialized anew")
	again()
	r.works()
}

func TestAHiddenLimitOfSessions(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	faults.LimitSessions(3)
	var open []pkcs11.SessionHandle
	for range 3 {
		open = append(open, r.session())
	}
	if _, err := r.p.OpenSession(r.slot, rw); !is(err, pkcs11.CKR_SESSION_COUNT) {
		t.Errorf("the fourth session: %v", err)
	}
	info, err := r.p.GetTokenInfo(r.slot)
	if err != nil || info.MaxSessionCount != pkcs11.CK_EFFECTIVELY_INFINITE || info.MaxRwSessionCount != pkcs11.CK_EFFECTIVELY_INFINITE {
		t.Errorf("the token tells its limit: %+v, %v", info, err)
	}
	if err := r.p.CloseSession(open[0]); err != nil {
		t.Fatal(err)
	}
	r.session()
	faults.DropSessions()
	r.session() // dead sessions do not count
	if c := faults.Counts(); c.Open != 1 || c.MostOpen != 3 {
		t.Errorf("%d sessions are open and %d were, want 1 and 3", c.Open, c.MostOpen)
	}
	faults.LimitSessions(0)
	for range 10 {
		r.session()
	}
}

func TestCallsTakeLonger(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	session := r.login()
	key := r.mustKey(session)
	for _, c := range []struct {
		function string
		want     time.Duration
	}{
		{"C_Sign", 30 * time.Millisecond},
		{softhsmtest.Every, 60 * time.Millisecond}, // C_SignInit and C_Sign
	} {
		faults.Delay(c.function, 30*time.Millisecond)
		start := time.Now()
		r.signs(session, key)
		if took := time.Since(start); took < c.want {
			t.Errorf("%q: a signature took %v, want %v or more", c.function, took, c.want)
		}
		faults.Clear()
	}
}

func TestCallsHangUntilResumed(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	sessions := []pkcs11.SessionHandle{r.login(), r.session(), r.session()}
	key := r.mustKey(sessions[0])
	resume := faults.Hang("C_Sign")
	var wait sync.WaitGroup
	answers := make([]error, 2)
	for i := range answers {
		wait.Go(func() { _, answers[i] = r.sign(sessions[i], key) })
	}
	eventually(t, "two calls wait", func() bool { return faults.Counts().Blocked == 2 })
	if _, err := r.p.GetSessionInfo(sessions[2]); err != nil {
		t.Errorf("other functions answer meanwhile: %v", err)
	}
	if c := faults.Counts(); c.Running != 2 || c.MostRunning != 3 {
		t.Errorf("%d calls run and %d ran at once, want 2 and 3", c.Running, c.MostRunning)
	}
	resume()
	wait.Wait()
	for _, err := range answers {
		if err != nil {
			t.Error(err)
		}
	}
	if c := faults.Counts(); c.Blocked != 0 || c.Running != 0 {
		t.Errorf("%d calls still wait, %d run", c.Blocked, c.Running)
	}
}

func TestSessionsDroppedUnderAHangDoNotWaitForIt(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	session := r.login()
	key := r.mustKey(session)
	resume := faults.Hang("C_Sign")
	answer := make(chan error)
	go func() {
		_, err := r.sign(session, key)
		answer <- err
	}()
	eventually(t, "a call waits", func() bool { return faults.Counts().Blocked == 1 })
	faults.DropSessions()
	fresh := r.login() // the old login went although a call hangs
	resume()
	if err := <-answer; err != invalid {
		t.Errorf("the call that hung on a dropped session: %v", err)
	}
	r.signs(fresh, r.mustKey(fresh))
}

func TestSignaturesAreFlipped(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	session := r.login()
	key := r.mustKey(session)
	faults.FlipBits(500)
	bad := 0
	for range 100 {
		signature, err := r.sign(session, key)
		if err != nil {
			t.Fatal(err)
		}
		if !r.valid(signature) {
			bad++
		}
	}
	if bad < 20 || bad > 80 || faults.Counts().Flipped != bad {
		t.Errorf("%d of 100 signatures are invalid at 50 %%, %d are counted", bad, faults.Counts().Flipped)
	}
}

func TestMisuseIsCountedAndNothingCrashes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		misuse func(r *raw, busy pkcs11.SessionHandle) error
		want   softhsmtest.Counts
	}{
		{"a second call on the session", func(r *raw, busy pkcs11.SessionHandle) error {
			_, err := r.p.GetSessionInfo(busy)
			return err
		}, softhsmtest.Counts{Overlaps: 1}},
		{"the session is closed", func(r *raw, busy pkcs11.SessionHandle) error { return r.p.CloseSession(busy) },
			softhsmtest.Counts{ClosedBusy: 1}},
		{"all sessions are closed", func(r *raw, _ pkcs11.SessionHandle) error { return r.p.CloseAllSessions(r.slot) },
			softhsmtest.Counts{ClosedBusy: 1}},
		{"the module is finalized", func(r *raw, _ pkcs11.SessionHandle) error { return r.p.Finalize() },
			softhsmtest.Counts{FinalizedBusy: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, faults := faulty(t)
			session := r.login()
			key := r.mustKey(session)
			resume := faults.Hang("C_Sign")
			answer := make(chan error)
			go func() {
				_, err := r.sign(session, key)
				answer <- err
			}()
			eventually(t, "a call waits", func() bool { return faults.Counts().Blocked == 1 })
			if err := c.misuse(r, session); err != nil {
				t.Error(err)
			}
			got := faults.Counts()
			if got.Overlaps != c.want.Overlaps || got.ClosedBusy != c.want.ClosedBusy || got.FinalizedBusy != c.want.FinalizedBusy || got.Violations() != 1 {
				t.Errorf("counted %+v, want %+v", got, c.want)
			}
			resume()
			if err := <-answer; (err == nil) != (c.want.Overlaps > 0) {
				t.Errorf("the call that was in flight: %v", err)
			}
			faults.ResetCounts()
		})
	}
}

// All at once, from eight goroutines: whatever a call answers, the process lives and the token works afterwards.
func TestAStormOfFaultsLeavesAWorkingToken(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	faults.DieAtSign(50)
	faults.Fail(softhsmtest.Every, pkcs11.CKR_DEVICE_ERROR, 20)
	faults.LimitSessions(6)
	faults.FlipBits(100)
	end := time.Now().Add(2 * time.Second)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for time.Now().Before(end) {
				session, err := r.p.OpenSession(r.slot, rw)
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				_ = r.p.Login(session, pkcs11.CKU_USER, r.cfg.PIN) // somebody else may have
				if key, err := r.key(session); err == nil {
					_, _ = r.sign(session, key)
				}
				_ = r.p.CloseSession(session)
			}
		})
	}
	for time.Now().Before(end) {
		faults.DropSessions()
		time.Sleep(100 * time.Millisecond)
		faults.Remove()
		time.Sleep(50 * time.Millisecond)
		faults.Restore()
	}
	wait.Wait()
	faults.Clear()
	faults.DropSessions()
	c := faults.Counts()
	if c.MostOpen > 6 || c.Running != 0 || c.Calls["C_Sign"] == 0 || c.Died == 0 || c.Failed[softhsmtest.Every] == 0 {
		t.Errorf("counted %+v", c)
	}
	r.works()
}

func TestACloneHasTheSameKeyAndDiesAlone(t *testing.T) {
	t.Parallel()
	r, faults := faulty(t)
	cfg, others := faults.Clone(t)
	if cfg.Token != r.cfg.Token || cfg.PIN != r.cfg.PIN || cfg.Module == r.cfg.Module {
		t.Errorf("the clone of %s in %s is %s in %s", r.cfg.Token, r.cfg.Module, cfg.Token, cfg.Module)
	}
	clone := &raw{t: t, p: pkcs11.New(cfg.Module), cfg: cfg, public: r.public}
	clone.initialize()
	defer clone.p.Finalize()
	faults.Disconnect()
	clone.works()
	if n := others.Counts().Calls["C_Sign"]; n != 1 {
		t.Errorf("the clone counts %d signatures, want 1", n)
	}
}

func TestUnknownFunctionsAreRefused(t *testing.T) {
	t.Parallel()
	_, faults := softhsmtest.Faulty(t)
	defer func() {
		if problem := fmt.Sprint(recover()); problem != `softhsmtest: "C_Sing" is no PKCS#11 function` {
			t.Errorf("got %q", problem)
		}
	}()
	faults.Hang("C_Sing")
}
