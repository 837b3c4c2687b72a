// Package softhsmtest gives tests throwaway SoftHSM2 tokens, any number of them side by side in one process: plain ones
// ([Token]), some that break on command ([Faulty]), and some in a process that can be killed ([Remote]).
package softhsmtest

import (
	"crypto/rand"
	"os"
	"sync"
	"testing"
	"time"

	"signet/keystore"
	"signet/softhsm"
)

// shared is the folder of all tokens of this process. SoftHSM2 reads its configuration once, when it is initialized,
// so tokens that live at the same time must share it; the last test that leaves removes it.
var shared struct {
	sync.Mutex
	dir    string
	tokens int
}

// Token makes an empty token with a random label and PIN, which is gone when the test ends. Tokens opened on it must
// be closed by then. The deadline of its operations is generous, because test machines are busy.
func Token(t testing.TB) keystore.Config {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.dir == "" {
		dir, err := os.MkdirTemp("", "signet-softhsm-")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
	}
	module, err := softhsm.Use(shared.dir)
	if err != nil {
		t.Fatal(err)
	}
	shared.tokens++
	t.Cleanup(func() { leave(module) })
	cfg := keystore.Config{Module: module, Token: "test-" + rand.Text(), PIN: softhsm.NewPIN(), Timeout: time.Minute}
	if err := keystore.InitToken(t.Context(), cfg, softhsm.NewPIN()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func leave(module string) {
	shared.Lock()
	defer shared.Unlock()
	shared.tokens--
	if shared.tokens == 0 && !keystore.Initialized(module) {
		os.RemoveAll(shared.dir)
		shared.dir = ""
	}
}
