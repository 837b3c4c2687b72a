package softhsmtest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

func TestAKilledServerNeedsARestartAndInitialize(t *testing.T) {
	t.Parallel()
	for range 2 { // side by side, in one process
		t.Run("", func(t *testing.T) {
			t.Parallel()
			cfg, server := softhsmtest.Remote(t)
			r := openRaw(t, cfg)
			session := r.login()
			key := r.mustKey(session)
			r.signs(session, key)
			deaf := func(when string) {
				t.Helper()
				_, sign := r.sign(session, key)
				_, slots := r.p.GetSlotList(true)
				_, open := r.p.OpenSession(r.slot, rw)
				for name, err := range map[string]error{"sign": sign, "C_GetSlotList": slots, "C_OpenSession": open} {
					if !is(err, pkcs11.CKR_DEVICE_ERROR) {
						t.Errorf("%s, %s: %v", when, name, err)
					}
				}
			}
			server.Kill()
			deaf("killed")
			server.Restart()
			deaf("restarted")
			if err := r.p.Finalize(); err != nil {
				t.Errorf("finalize: %v", err)
			}
			r.initialize()
			r.works()
		})
	}
}

// The client answers C_Initialize without a server, and then has no slots, even when the server is back.
func TestInitializeWithoutServer(t *testing.T) {
	t.Parallel()
	cfg, server := softhsmtest.Remote(t)
	r := openRaw(t, cfg)
	server.Kill()
	if err := r.p.Finalize(); err != nil {
		t.Errorf("finalize: %v", err)
	}
	if err := r.p.Initialize(); err != nil {
		t.Fatalf("initialize without a server: %v", err)
	}
	for _, when := range []string{"killed", "restarted"} {
		if slots, err := r.p.GetSlotList(true); err != nil || len(slots) != 0 {
			t.Errorf("%s: slots %v, %v", when, slots, err)
		}
		if when == "killed" {
			server.Restart()
		}
	}
	if err := r.p.Finalize(); err != nil {
		t.Errorf("finalize: %v", err)
	}
	r.initialize()
	r.works()
}

func TestAFrozenServerAnswersWhenThawed(t *testing.T) {
	t.Parallel()
	cfg, server := softhsmtest.Remote(t)
	r := openRaw(t, cfg)
	session := r.login()
	key := r.mustKey(session)
	server.Freeze()
	answer := make(chan error)
	go func() {
		_, err := r.sign(session, key)
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Errorf("a frozen server answers: %v", err)
	case <-time.After(100 * time.Millisecond):
		server.Thaw()
		if err := <-answer; err != nil {
			t.Error(err)
		}
	}
}

func TestTheKeystoreWorksOverTheSocket(t *testing.T) {
	t.Parallel()
	cfg, server := softhsmtest.Remote(t)
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := token.Close(); err != nil {
		t.Error(err)
	}
	if n := server.Client.Counts().Calls["C_Sign"]; n == 0 {
		t.Error("the calls of this process are not counted")
	}
	env := server.Env()
	if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "P11_KIT_SERVER_ADDRESS=unix:path=/") }) {
		t.Errorf("the environment of another process is %q", env)
	}
}
