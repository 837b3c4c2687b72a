package softhsmtest

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"signet/keystore"
)

// Every, as the name of a function, is every function that reaches for the token: all but C_Initialize, C_Finalize and
// C_GetInfo. A rule for a function by name is tried before the rule for Every.
const Every = ""

// The layout of struct control in shim/shim.h, in words of 32 bits.
const (
	wordLayout = iota
	wordFunctions
	wordDropped
	wordRemoved
	wordDown
	wordRestarts
	wordLimit
	wordDying
	wordFlipping
	wordOpen
	wordRunning
	wordBlocked
	wordReaped
	wordMostOpen
	wordMostRunning
	wordDied
	wordFlipped
	wordOverlaps
	wordClosedBusy
	wordFinalizedBusy

	firstRow = 32
	layout   = 1
)

// The words of a row: one function.
const (
	rowCalls = iota
	rowFailed
	rowCode
	rowPerMille
	rowLeft
	rowLatency
	rowHang

	rowWords  = 8
	unlimited = 1<<32 - 1
)

// Faults commands a token that breaks, and counts what is done to it. The methods may be called at any time, from any
// goroutine, while the token is used in this process or in another one. Probabilities are per mille; 0 ends a fault.
//
// Two things make SoftHSM2 crash: two calls on one session, and closing or finalizing what is in use. The fault module
// lets neither through; it counts them, and the test fails at its end (see [Counts.Violations]).
//
// A call of C_Sign that asks only for the length of the signature is no signature: it is passed on without fault or
// delay, and not counted.
type Faults struct {
	instance *instance
	token    string
}

// Faulty makes an empty SoftHSM2 token, as [Token] does, behind a module that breaks on command. The module is a copy of
// its own with a token folder of its own: finalizing one does not touch another, so tests with such tokens may be
// parallel, also to tests with a [Token]. The library stays loaded when the test ends, at a cost of some 2 MB.
func Faulty(t testing.TB) (keystore.Config, *Faults) {
	t.Helper()
	i := softhsmInstance(t)
	cfg := i.initToken(t)
	return cfg, i.faults(t, cfg)
}

func (i *instance) faults(t testing.TB, cfg keystore.Config) *Faults {
	f := &Faults{instance: i, token: cfg.Token}
	t.Cleanup(func() {
		f.Clear()
		if c := f.Counts(); c.Violations() > 0 {
			t.Errorf("the token was used in a way that crashes SoftHSM2: %d calls on a session in use, %d sessions closed in use, %d times finalized with calls in flight",
				c.Overlaps, c.ClosedBusy, c.FinalizedBusy)
		}
	})
	return f
}

// Clone makes a second token with the same keys, label and PIN, as the token is on disk now, behind a module of its own.
func (f *Faults) Clone(t testing.TB) (keystore.Config, *Faults) {
	t.Helper()
	i := softhsmInstance(t)
	pin, err := os.ReadFile(f.instance.path("pin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(i.path("tokens"), os.DirFS(f.instance.path("tokens"))); err != nil {
		t.Fatal(err)
	}
	i.write(t, "pin", string(pin))
	cfg := keystore.Config{Module: i.module(), Token: f.token, PIN: string(pin[:len(pin)-1]), Timeout: time.Minute}
	return cfg, i.faults(t, cfg)
}

// Env is what makes a signet in another process use the token. The faults are commanded from here all the same.
func (f *Faults) Env() []string {
	return environment(f.instance.module(), f.token, f.instance.path("pin"))
}

func environment(module, token, pinFile string) []string {
	return []string{"SIGNET_PKCS11_MODULE=" + module, "SIGNET_PKCS11_TOKEN=" + token, "SIGNET_PKCS11_PIN_FILE=" + pinFile}
}

func (f *Faults) set(word int, value uint32) { atomic.StoreUint32(&f.instance.control[word], value) }

func (f *Faults) add(word int) { atomic.AddUint32(&f.instance.control[word], 1) }

func (f *Faults) get(word int) int { return int(atomic.LoadUint32(&f.instance.control[word])) }

// row is the first word of a function's row.
func (f *Faults) row(function string) int {
	n, ok := f.instance.shim.functions[function]
	if !ok {
		panic(fmt.Sprintf("softhsmtest: %q is no PKCS#11 function", function))
	}
	return firstRow + n*rowWords
}

// DropSessions ends every session that is open now. The login goes with them, as when an application closes its last
// session, and so do the handles of private objects. Calls that are in the token at this moment still succeed.
func (f *Faults) DropSessions() { f.add(wordDropped) }

// DieAtSign makes a session end at C_SignInit and at C_Sign with a probability. One signature is two chances to die.
func (f *Faults) DieAtSign(perMille int) { f.set(wordDying, uint32(perMille)) }

// Fail makes a function answer ckr with a probability, until it is called again with another one. CKR_OK is the answer of
// a function that pretends: it did nothing.
func (f *Faults) Fail(function string, ckr uint, perMille int) {
	f.rule(function, ckr, perMille, unlimited)
}

// FailNext makes the next n calls of a function answer ckr.
func (f *Faults) FailNext(function string, ckr uint, n int) { f.rule(function, ckr, 1000, uint32(n)) }

func (f *Faults) rule(function string, ckr uint, perMille int, left uint32) {
	row := f.row(function)
	f.set(row+rowLeft, 0) // no rule while it changes
	f.set(row+rowCode, uint32(ckr))
	f.set(row+rowPerMille, uint32(perMille))
	f.set(row+rowLeft, left)
}

// Remove takes the token away until Restore: its sessions end, calls on a session answer CKR_DEVICE_REMOVED and calls on
// the slot CKR_TOKEN_NOT_PRESENT, and C_GetSlotList shows no slot with a token. The library keeps working.
func (f *Faults) Remove() {
	f.set(wordRemoved, 1)
	f.DropSessions()
}

// Restore brings the token back. New sessions work at once.
func (f *Faults) Restore() { f.set(wordRemoved, 0) }

// Disconnect loses the token until Reconnect and a C_Finalize and C_Initialize after it: till then every call answers
// CKR_DEVICE_ERROR, as the library of a network HSM or p11-kit does whose server was restarted. C_Initialize itself
// succeeds meanwhile, and does not help.
func (f *Faults) Disconnect() {
	f.set(wordDown, 1)
	f.add(wordRestarts)
	f.DropSessions()
}

// Reconnect makes the token reachable for a library that is initialized from now on.
func (f *Faults) Reconnect() {
	f.add(wordRestarts)
	f.set(wordDown, 0)
}

// LimitSessions makes C_OpenSession answer CKR_SESSION_COUNT when n sessions are open, while the token says that it has
// no limit. Sessions above the limit that are open stay open; 0 lifts it.
func (f *Faults) LimitSessions(n int) { f.set(wordLimit, uint32(n)) }

// Delay makes each call of a function take longer, rounded to microseconds.
func (f *Faults) Delay(function string, by time.Duration) {
	f.set(f.row(function)+rowLatency, uint32(by.Microseconds()))
}

// Hang makes calls of a function wait, before they do anything, until resume is called; then they go on as if they came
// at that moment. Counts tells how many wait.
func (f *Faults) Hang(function string) (resume func()) {
	word := f.row(function) + rowHang
	f.set(word, 1)
	return func() { f.set(word, 0) }
}

// FlipBits flips a bit in signatures with a probability.
func (f *Faults) FlipBits(perMille int) { f.set(wordFlipping, uint32(perMille)) }

// Clear ends all faults. What is gone stays gone: sessions that were dropped, and a connection that was lost until
// C_Initialize.
func (f *Faults) Clear() {
	for _, word := range []int{wordLimit, wordDying, wordFlipping} {
		f.set(word, 0)
	}
	for name := range f.instance.shim.functions {
		row := f.row(name)
		for _, word := range []int{rowLeft, rowLatency, rowHang} {
			f.set(row+word, 0)
		}
	}
	f.Restore()
	if f.get(wordDown) != 0 {
		f.Reconnect()
	}
}
