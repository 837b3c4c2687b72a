package ca_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/ca"
	"signet/policy"
)

// sealing is a token that seals and unseals, or does not.
type sealing struct {
	*tokenKeys
	sealed atomic.Int32 // attempts
	away   atomic.Bool
}

func (k *sealing) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	k.sealed.Add(1)
	if k.away.Load() {
		return nil, errAway
	}
	return k.tokenKeys.Seal(ctx, plaintext, aad)
}

// ahead is an authority that makes keys ahead.
type ahead struct {
	*world
	keys       *sealing
	busy       atomic.Bool
	hits, miss atomic.Int32

	mu   sync.Mutex
	kept map[int]int
}

func newAhead(t *testing.T, limit int) *ahead {
	t.Helper()
	w := newWorld(t)
	a := &ahead{keys: &sealing{tokenKeys: w.keys}, kept: map[int]int{}}
	a.world = w.replica(func(c *ca.Config) {
		c.Keys, c.KeysAhead, c.Quiet = a.keys, limit, func() bool { return !a.busy.Load() }
		c.Hooks.LeafKey = func(ahead bool) {
			if ahead {
				a.hits.Add(1)
			} else {
				a.miss.Add(1)
			}
		}
		c.Hooks.KeysAhead = func(size, n int) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.kept[size] = n
		}
	})
	return a
}

// count is how many keys of the size are there.
func (a *ahead) count(size int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kept[size]
}

func (a *ahead) awaitKeys(t *testing.T, size, n int) {
	t.Helper()
	eventually(t, time.Minute, "keys are made ahead", func() bool { return a.count(size) == n })
}

// replaceKEK makes the token forget what everything was sealed under, and seal under something else.
func (a *ahead) replaceKEK(t *testing.T) {
	t.Helper()
	old, err := a.keys.token.CurrentKEK(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.keys.token.RotateKEK(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.keys.token.DestroyKEK(t.Context(), old); err != nil {
		t.Fatal(err)
	}
}

// issueRSA issues a certificate for a key of the size, and checks that the key is that of the certificate, as answered and as
// kept. It returns the public key.
func (a *ahead) issueRSA(t *testing.T, issuer int64, size int) string {
	t.Helper()
	r := serverRequest(issuer)
	r.Key = policy.KeySpec{Type: policy.RSA, Size: size}
	got, err := a.Issue(t.Context(), acmeAdmin, r)
	if err != nil {
		t.Error(err)
		return ""
	}
	block, _ := pem.Decode(got.PrivateKeyPEM)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Error(err)
		return ""
	}
	public := parse(t, got.DER).PublicKey
	if !private.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
		t.Error("the key is not that of the certificate")
	}
	if _, kept, err := a.PrivateKey(t.Context(), acmeAdmin, got.ID); err != nil || !slices.Equal(kept, got.PrivateKeyPEM) {
		t.Errorf("another key is kept, or none: %v", err)
	}
	return string(parse(t, got.DER).RawSubjectPublicKeyInfo)
}

func TestAKeyMadeAheadIsUsedOnce(t *testing.T) {
	t.Parallel()
	a := newAhead(t, 6)
	root := a.createCA(t, acmeAdmin, nil)
	a.run(t)
	a.awaitKeys(t, 2048, 6)
	a.busy.Store(true)
	var group sync.WaitGroup
	var keys sync.Map
	for range 8 {
		group.Go(func() {
			if _, twice := keys.LoadOrStore(a.issueRSA(t, root.ID, 2048), true); twice {
				t.Error("a key is used twice")
			}
		})
	}
	group.Wait()
	if a.hits.Load() != 6 || a.miss.Load() != 2 || a.count(2048) != 0 {
		t.Errorf("%d keys were there and %d were not; %d are left", a.hits.Load(), a.miss.Load(), a.count(2048))
	}
	a.busy.Store(false)
	a.awaitKeys(t, 2048, 6)
}

func TestOtherSizesAreMadeAheadOnceTheyAreAskedFor(t *testing.T) {
	t.Parallel()
	a := newAhead(t, 1)
	root := a.createCA(t, acmeAdmin, nil)
	a.run(t)
	a.awaitKeys(t, 2048, 1)
	if a.count(3072) != 0 {
		t.Error("a key of 3072 bits is made that nobody asked for")
	}
	a.issueRSA(t, root.ID, 3072)
	a.awaitKeys(t, 3072, 1)
	a.issueRSA(t, root.ID, 3072)
	if a.hits.Load() != 1 {
		t.Errorf("%d keys had been made ahead", a.hits.Load())
	}
	a.awaitKeys(t, 3072, 1)
	a.clock.advance(2 * time.Hour)
	a.issueRSA(t, root.ID, 2048)
	a.awaitKeys(t, 3072, 0)
}

func TestAKeyWhosePrivateHalfNobodyKeepsComesFromThoseMadeAhead(t *testing.T) {
	t.Parallel()
	a := newAhead(t, 1)
	root := a.createCA(t, acmeAdmin, nil)
	a.run(t)
	a.awaitKeys(t, 2048, 1)
	r := serverRequest(root.ID)
	r.Key, r.KeepKey = policy.KeySpec{Type: policy.RSA, Size: 2048}, false
	got, err := a.Issue(t.Context(), acmeAdmin, r)
	if err != nil || got.PrivateKeyPEM != nil || got.SealedKey != nil || a.hits.Load() != 1 {
		t.Errorf("%d keys were there, %d octets are kept: %v", a.hits.Load(), len(got.SealedKey), err)
	}
}

func TestKeysMadeAheadEndWithTheProcess(t *testing.T) {
	t.Parallel()
	a := newAhead(t, 2)
	root := a.createCA(t, acmeAdmin, nil)
	stop := a.run(t)
	a.awaitKeys(t, 2048, 2)
	stop()
	if n := a.count(2048); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	a.issueRSA(t, root.ID, 2048)
	if a.hits.Load() != 0 {
		t.Error("a key was left")
	}
	a.run(t)
	a.awaitKeys(t, 2048, 2)
}

func TestKeysAreMadeOnlyWhileThereIsNothingElseToDo(t *testing.T) {
	t.Parallel()
	a := newAhead(t, 1)
	a.busy.Store(true)
	a.run(t)
	time.Sleep(300 * time.Millisecond)
	if n := a.keys.sealed.Load(); n != 0 {
		t.Errorf("%d keys were made", n)
	}
	a.busy.Store(false)
	a.awaitKeys(t, 2048, 1)
}

func TestKeysAheadWaitForTheToken(t *testing.T) {
	t.Parallel()
	a := newAhead(t, 2)
	a.keys.away.Store(true)
	a.run(t)
	for reported := false; !reported; {
		select {
		case err := <-a.failed:
			reported = strings.HasPrefix(err.Error(), "keys-ahead: ")
		case <-time.After(time.Minute):
			t.Fatal("nobody is told")
		}
	}
	time.Sleep(300 * time.Millisecond)
	if n := a.keys.sealed.Load(); n > 3 || a.count(2048) != 0 {
		t.Errorf("%d attempts, %d keys", n, a.count(2048))
	}
	a.keys.away.Store(false)
	a.awaitKeys(t, 2048, 2)
}

func TestKeysAheadThatTheTokenNoLongerOpensAreReplaced(t *testing.T) {
	t.Parallel()
	a := newAhead(t, 3)
	root := a.createCA(t, acmeAdmin, nil)
	a.run(t)
	a.awaitKeys(t, 2048, 3)
	a.busy.Store(true)
	a.replaceKEK(t)
	a.issueRSA(t, root.ID, 2048)
	if a.hits.Load() != 0 || a.miss.Load() != 1 || a.count(2048) != 0 {
		t.Errorf("%d keys opened, %d did not; %d are left", a.hits.Load(), a.miss.Load(), a.count(2048))
	}
	a.busy.Store(false)
	a.awaitKeys(t, 2048, 3)
	a.issueRSA(t, root.ID, 2048)
	if a.hits.Load() != 1 {
		t.Error("the new keys do not open")
	}
}
