package keystore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

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
