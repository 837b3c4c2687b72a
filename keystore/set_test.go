package keystore_test

import (
	"crypto"
	"errors"
	"testing"
	"time"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// clones are two tokens with the same keys, as a maker's cloning procedure leaves them, and a set of both.
type clones struct {
	set        *keystore.Set
	home, away *softhsmtest.Faults
	key        crypto.Signer
	id         []byte
	sealed     []byte
}

func cloned(t *testing.T) *clones {
	t.Helper()
	cfg, home := softhsmtest.Faulty(t)
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	key, id := generate(t, token, keystore.EC, 256)
	if err := token.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealed, err := token.Seal(t.Context(), []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	twin, away := home.Clone(t)
	cfg.Timeout, twin.Timeout = 2*time.Second, 2*time.Second
	cfg.Patience, twin.Patience = 500*time.Millisecond, 500*time.Millisecond
	set := openSet(t, []keystore.Named{{Name: "home", Config: cfg}, {Name: "away", Config: twin}})
	signer, err := set.Signer(t.Context(), "home", id, mustDER(t, key.Public()), keystore.BarBorn)
	if err != nil {
		t.Fatal(err)
	}
	return &clones{set: set, home: home, away: away, key: signer, id: id, sealed: sealed}
}

func openSet(t *testing.T, all []keystore.Named) *keystore.Set {
	t.Helper()
	set, err := keystore.OpenSet(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}

// signedOn counts the signatures that f makes on each token.
func (c *clones) signedOn(f func()) (home, away int) {
	before, beforeAway := c.home.Counts().Calls["C_Sign"], c.away.Counts().Calls["C_Sign"]
	f()
	return c.home.Counts().Calls["C_Sign"] - before, c.away.Counts().Calls["C_Sign"] - beforeAway
}

func TestAClonedKeyFailsOverAndBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		damage, mend func(*softhsmtest.Faults)
	}{
		{"removed", (*softhsmtest.Faults).Remove, (*softhsmtest.Faults).Restore},
		{"in need of C_Initialize", (*softhsmtest.Faults).Disconnect, (*softhsmtest.Faults).Reconnect},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := cloned(t)
			sign := func() {
				if err := signDigest(c.key); err != nil {
					t.Errorf("sign: %v", err)
				}
			}
			if home, away := c.signedOn(sign); home != 1 || away != 0 {
				t.Errorf("%d signatures at home, %d elsewhere, want 1 and none", home, away)
			}
			s := startSigners(t, c.key)
			s.more(20, 5*time.Second)
			test.damage(c.home)
			s.more(200, 10*time.Second)
			home, err := c.set.Token("home")
			if err != nil {
				t.Fatal(err)
			}
			for start := time.Now(); home.State().Up && time.Since(start) < 5*time.Second; {
				time.Sleep(time.Millisecond)
			}
			if _, away := c.signedOn(func() { s.more(20, 5*time.Second) }); away < 10 { // eight are in flight when the counting starts
				t.Errorf("%d of 20 signatures on the clone while the home token is away", away)
			}
			if err := c.key.(interface{ Ready() error }).Ready(); err != nil {
				t.Errorf("not ready while the clone is there: %v", err)
			}
			if plaintext, err := c.set.Unseal(t.Context(), c.sealed, nil); err != nil || string(plaintext) != "secret" {
				t.Errorf("unseal on the clone: %q, %v", plaintext, err)
			}
			test.mend(c.home)
			for start := time.Now(); !home.State().Up; time.Sleep(time.Millisecond) {
				if time.Since(start) > 5*time.Second {
					t.Fatal("the home token does not come back")
				}
			}
			if failures := s.stop(); len(failures) > 0 {
				t.Errorf("%d signatures failed, the first with %v", len(failures), failures[0])
			}
			if home, away := c.signedOn(sign); home != 1 || away != 0 {
				t.Errorf("afterwards %d signatures at home, %d elsewhere, want 1 and none", home, away)
			}
		})
	}
}

func TestAHangAtHomeIsLeftForTheClone(t *testing.T) {
	t.Parallel()
	c := cloned(t)
	resume := c.home.Hang("C_Sign")
	defer resume()
	start := time.Now()
	if err := signDigest(c.key); err != nil || time.Since(start) > 2*time.Second {
		t.Errorf("sign while the home token hangs: %v after %s, want half of its deadline", err, time.Since(start))
	}
}

func TestASetStartsWhileOneTokenIsAway(t *testing.T) {
	t.Parallel()
	first, _ := softhsmtest.Faulty(t)
	second, faults := softhsmtest.Faulty(t)
	faults.Remove()
	set := openSet(t, []keystore.Named{{Name: "first", Config: first}, {Name: "second", Config: second}})
	token, err := set.Token("second")
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Check(t.Context()); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("check a token that is away: %v", err)
	}
	faults.Restore()
	for start := time.Now(); token.Check(t.Context()) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("it is not connected when it is there")
		}
	}
}

func TestASetRefuses(t *testing.T) {
	t.Parallel()
	first, _ := softhsmtest.Faulty(t)
	second, _ := softhsmtest.Faulty(t)
	set := openSet(t, []keystore.Named{{Name: "first", Config: first}, {Name: "second", Config: second}})
	one, _ := set.Token("first")
	two, _ := set.Token("second")
	id := []byte("the same id")
	key, err := one.Generate(t.Context(), keystore.Spec{ID: id, Type: keystore.EC, Size: 256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Generate(t.Context(), keystore.Spec{ID: id, Type: keystore.EC, Size: 256}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, token string
		id          []byte
		want        error
	}{
		{"a token that is not configured", "third", id, keystore.ErrNoToken},
		{"another key under the id, although a second token has the right one", "second", id, keystore.ErrMismatch},
		{"a key that no token has", "first", []byte("no such id"), keystore.ErrNotFound},
	} {
		if _, err := set.Signer(t.Context(), c.token, c.id, mustDER(t, key.Public()), keystore.BarBorn); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	wrong := second
	wrong.PIN = "wrong-pin"
	if _, err := keystore.OpenSet(t.Context(), []keystore.Named{{Name: "first", Config: first}, {Name: "second", Config: wrong}}); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("a set with a wrong PIN: %v", err)
	}
}
