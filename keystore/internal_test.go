package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
)

func TestClassesOfErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err     error
		class   class
		retried bool
		is      error // what callers see
	}{
		{pkcs11.Error(pkcs11.CKR_SESSION_HANDLE_INVALID), classSession, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_SESSION_CLOSED), classSession, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED), classSession, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT), classSession, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN), classLogin, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID), classObject, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_KEY_HANDLE_INVALID), classObject, true, ErrUnavailable},
		{fmt.Errorf("sign: %w", errBadSignature), classObject, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_DEVICE_ERROR), classModule, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_GENERAL_ERROR), classModule, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_VENDOR_DEFINED + 5), classModule, true, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_SESSION_COUNT), classBusy, false, ErrUnavailable},
		{pkcs11.Error(pkcs11.CKR_PIN_INCORRECT), classPIN, false, ErrPIN},
		{pkcs11.Error(pkcs11.CKR_PIN_LOCKED), classPIN, false, ErrPIN},
		{pkcs11.Error(pkcs11.CKR_USER_PIN_NOT_INITIALIZED), classPIN, false, ErrPIN},
		{pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID), classFinal, false, nil},
		{pkcs11.Error(pkcs11.CKR_DATA_LEN_RANGE), classFinal, false, nil},
		{ErrNotFound, classFinal, false, ErrNotFound},
		{errors.Join(fmt.Errorf("x: %w", ErrEvidence), pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)), classFinal, false, ErrEvidence},
		{errors.New("something else"), classFinal, false, nil},
	} {
		got := classOf(c.err)
		if got != c.class || got.retried() != c.retried {
			t.Errorf("%v: class %d, retried %t", c.err, got, got.retried())
		}
		seen := explain("sign", c.err)
		for _, sentinel := range []error{ErrUnavailable, ErrPIN, ErrNotFound, ErrEvidence} {
			if errors.Is(seen, sentinel) != (sentinel == c.is) {
				t.Errorf("%v is shown as %v", c.err, seen)
			}
		}
	}
}

func TestASignatureThatDoesNotVerifyIsNotReleased(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	rawEC := func() []byte {
		r, s, err := ecdsa.Sign(rand.Reader, ec, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	sign := func(opts crypto.SignerOpts) []byte {
		raw, err := rsaKey.Sign(rand.Reader, digest[:], opts)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	for _, c := range []struct {
		name   string
		public publicKey
		opts   crypto.SignerOpts
		raw    []byte
	}{
		{"ECDSA", &ec.PublicKey, crypto.SHA256, rawEC()},
		{"Ed25519", edwards, crypto.Hash(0), ed25519.Sign(edPrivate, digest[:])},
		{"PKCS#1 v1.5", &rsaKey.PublicKey, crypto.SHA256, sign(crypto.SHA256)},
		{"PSS", &rsaKey.PublicKey, pss, sign(pss)},
	} {
		p, err := planFor(c.public, digest[:], c.opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.finish(c.raw); err != nil {
			t.Errorf("%s: the good signature: %v", c.name, err)
		}
		for i := range c.raw {
			bad := bytes.Clone(c.raw)
			bad[i] ^= 0x10
			if released, err := p.finish(bad); !errors.Is(err, errBadSignature) || released != nil {
				t.Errorf("%s: released with byte %d flipped", c.name, i)
			}
		}
		for name, bad := range map[string][]byte{"nothing": nil, "a byte less": c.raw[1:], "two bytes less": c.raw[2:], "zeros": make([]byte, len(c.raw))} {
			if _, err := p.finish(bad); !errors.Is(err, errBadSignature) {
				t.Errorf("%s: %s is released", c.name, name)
			}
		}
	}
}

func TestThePoolPassesPermitsOn(t *testing.T) {
	t.Parallel()
	p := newPool(1)
	first, err := p.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Callers who leave the queue must not take the turn of those who stay.
	ctx, cancel := context.WithCancel(t.Context())
	var left, served sync.WaitGroup
	for range 20 {
		left.Go(func() {
			if permit, err := p.acquire(ctx); err == nil {
				permit.end()
			}
		})
		served.Go(func() {
			permit, err := p.acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			permit.end()
		})
	}
	time.Sleep(5 * time.Millisecond)
	go cancel()
	first.end()
	served.Wait()
	left.Wait()
	if p.used != 0 || len(p.waiters) != 0 {
		t.Errorf("%d permits out, %d callers waiting", p.used, len(p.waiters))
	}
}

func TestThePoolServesInOrder(t *testing.T) {
	t.Parallel()
	p := newPool(1)
	last, err := p.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan int, 20)
	for i := range 20 {
		go func() {
			permit, err := p.acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			served <- i
			permit.end()
		}()
		for queued := 0; queued <= i; { // before the next one comes
			p.mu.Lock()
			queued = len(p.waiters)
			p.mu.Unlock()
		}
	}
	last.end()
	for i := range 20 {
		if got := <-served; got != i {
			t.Fatalf("caller %d was served as number %d", got, i)
		}
	}
}

func TestThePoolShrinksToWhatTheTokenGives(t *testing.T) {
	t.Parallel()
	p := newPool(8)
	var last *permit
	for range 3 {
		var err error
		if last, err = p.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.count(2) // the third C_OpenSession said CKR_SESSION_COUNT
	if !p.shrink() {
		t.Error("two sessions of ours are open, and none is worth waiting for")
	}
	last.end()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third permit of two: %v", err)
	}
	p.shrunk = p.shrunk.Add(-regrow - time.Second)
	if _, err := p.acquire(t.Context()); err != nil {
		t.Errorf("the pool does not grow again: %v", err)
	}
	empty := newPool(8)
	if empty.shrink() {
		t.Error("no session of ours is open: nothing to wait for")
	}
	if _, err := empty.acquire(t.Context()); err != nil {
		t.Errorf("the last permit: %v", err)
	}
}

func TestTheGateLetsNobodyInWhileDrained(t *testing.T) {
	t.Parallel()
	var g gate
	var inside, calls int
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 200 {
				if err := g.enter(context.Background()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				inside++
				calls++
				mu.Unlock()
				mu.Lock()
				inside--
				mu.Unlock()
				g.leave()
			}
		})
	}
	for range 2 {
		wait.Go(func() {
			for range 50 {
				open, err := g.drain(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if inside != 0 {
					t.Errorf("%d calls in flight in a drained module", inside)
				}
				mu.Unlock()
				open()
			}
		})
	}
	wait.Wait()
	if calls != 1600 {
		t.Errorf("%d calls", calls)
	}
}

func TestADrainThatGivesUpOpensTheGate(t *testing.T) {
	t.Parallel()
	var g gate
	if err := g.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := g.drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained with a call in flight: %v", err)
	}
	if err := g.enter(t.Context()); err != nil {
		t.Error(err)
	}
	g.leave()
	g.leave()
	open, err := g.drain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("entered a drained gate: %v", err)
	}
	open()
}

func TestTheBoundRespectsTheToken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		configured  int
		rw, all     uint
		least, most int
	}{
		{3, pkcs11.CK_EFFECTIVELY_INFINITE, pkcs11.CK_UNAVAILABLE_INFORMATION, 3, 3},
		{0, pkcs11.CK_EFFECTIVELY_INFINITE, pkcs11.CK_EFFECTIVELY_INFINITE, 4, 1 << 20},
		{100, 7, 10, 7, 7},
		{100, 10, 7, 7, 7},
		{-1, 1, 1, 1, 1},
	} {
		if n := bound(c.configured, pkcs11.TokenInfo{MaxRwSessionCount: c.rw, MaxSessionCount: c.all}); n < c.least || n > c.most {
			t.Errorf("configured %d, token %d and %d: %d", c.configured, c.rw, c.all, n)
		}
	}
}

func TestReductionsLeaveTheProofAlone(t *testing.T) {
	t.Parallel()
	k, err := kindOf(EC, 256)
	if err != nil {
		t.Fatal(err)
	}
	set := privateTemplate(Spec{ID: []byte{1}, Label: "x"}, k)
	for i, left := range reductions() {
		reduced := without(set, left)
		if len(reduced) != len(set)-len(left) {
			t.Errorf("reduction %d: %d attributes of %d, less %d", i, len(reduced), len(set), len(left))
		}
		for _, must := range []uint{pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_PRIVATE, pkcs11.CKA_TOKEN, pkcs11.CKA_SIGN, pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE} {
			if !slices.ContainsFunc(reduced, func(a *pkcs11.Attribute) bool { return a.Type == must }) {
				t.Errorf("reduction %d leaves out attribute 0x%x", i, must)
			}
		}
	}
}

func TestTokensThatRefuseOptionalAttributesGetATemplateWithout(t *testing.T) {
	t.Parallel()
	has := func(template []*pkcs11.Attribute, attribute uint) bool {
		return slices.ContainsFunc(template, func(a *pkcs11.Attribute) bool { return a.Type == attribute })
	}
	k, _ := kindOf(EC, 256)
	for _, c := range []struct {
		name     string
		unknown  []uint
		says     pkcs11.Error
		accepted bool
	}{
		{"knows all", nil, 0, true},
		{"opencryptoki", []uint{pkcs11.CKA_ALLOWED_MECHANISMS}, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, true},
		{"NSS", []uint{pkcs11.CKA_COPYABLE, pkcs11.CKA_DESTROYABLE, pkcs11.CKA_ALLOWED_MECHANISMS}, pkcs11.CKR_GENERAL_ERROR, true},
		{"an old one", []uint{pkcs11.CKA_WRAP_WITH_TRUSTED}, pkcs11.CKR_TEMPLATE_INCONSISTENT, true},
		{"knows none", []uint{pkcs11.CKA_ALLOWED_MECHANISMS, pkcs11.CKA_COPYABLE, pkcs11.CKA_WRAP_WITH_TRUSTED, pkcs11.CKA_MODIFIABLE}, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, true},
		{"does not know SENSITIVE", []uint{pkcs11.CKA_SENSITIVE}, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, false},
		{"has no such curve", []uint{pkcs11.CKA_ID}, pkcs11.CKR_MECHANISM_INVALID, false},
	} {
		tries := 0
		err := reduce(privateTemplate(Spec{ID: []byte{1}}, k), func() error { return nil }, func(template []*pkcs11.Attribute) error {
			tries++
			for _, attribute := range c.unknown {
				if has(template, attribute) {
					return c.says
				}
			}
			return nil
		})
		if (err == nil) != c.accepted || errors.Is(err, ErrUnsupported) != (!c.accepted && c.says == pkcs11.CKR_ATTRIBUTE_TYPE_INVALID) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.says == pkcs11.CKR_MECHANISM_INVALID && tries != 1 {
			t.Errorf("%s: tried %d times", c.name, tries)
		}
	}
}

func TestAnAccidentDoesNotCostAKeyItsAttributes(t *testing.T) {
	t.Parallel()
	k, _ := kindOf(EC, 256)
	whole := privateTemplate(Spec{ID: []byte{1}}, k)
	tries, cleaned := 0, 0
	err := reduce(whole, func() error { cleaned++; return nil }, func(template []*pkcs11.Attribute) error {
		if tries++; tries < generalErrorTries {
			return pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)
		}
		if len(template) != len(whole) {
			t.Errorf("the key was made with %d of %d attributes", len(template), len(whole))
		}
		return nil
	})
	if err != nil || cleaned != tries-1 {
		t.Fatalf("%v after %d tries, cleaned up %d times", err, tries, cleaned)
	}
}

func TestPublicKeysOfTokens(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, p224 := mustMarshal(t, curves[256].oid), mustMarshal(t, asn1.ObjectIdentifier{1, 3, 132, 0, 33})
	for _, c := range []struct {
		name  string
		parse func() (publicKey, error)
		want  publicKey // nil is refused
	}{
		{"a point in an OCTET STRING", func() (publicKey, error) { return parseEC(p256, mustMarshal(t, point)) }, &key.PublicKey},
		{"a bare point", func() (publicKey, error) { return parseEC(p256, point) }, &key.PublicKey},
		{"an Ed25519 point in an OCTET STRING", func() (publicKey, error) { return parseEdwards(mustMarshal(t, []byte(edwards))) }, edwards},
		{"a bare Ed25519 point", func() (publicKey, error) { return parseEdwards(edwards) }, edwards},
		{"a point off the curve", func() (publicKey, error) {
			off := bytes.Clone(point)
			off[64] ^= 1
			return parseEC(p256, off)
		}, nil},
		{"a point of another curve", func() (publicKey, error) { return parseEC(mustMarshal(t, curves[384].oid), point) }, nil},
		{"a curve we do not use", func() (publicKey, error) { return parseEC(p224, point) }, nil},
		{"explicit curve parameters", func() (publicKey, error) { return parseEC([]byte{0x30, 0}, point) }, nil},
		{"no point", func() (publicKey, error) { return parseEC(p256, nil) }, nil},
		{"a short Ed25519 point", func() (publicKey, error) { return parseEdwards(edwards[:31]) }, nil},
		{"RSA of 512 bits", func() (publicKey, error) { return parseRSA(bytes.Repeat([]byte{0xff}, 64), []byte{1, 0, 1}) }, nil},
		{"RSA with exponent 1", func() (publicKey, error) { return parseRSA(bytes.Repeat([]byte{0xff}, 256), []byte{1}) }, nil},
		{"RSA with an exponent of 64 bits", func() (publicKey, error) {
			return parseRSA(bytes.Repeat([]byte{0xff}, 256), bytes.Repeat([]byte{1}, 8))
		}, nil},
	} {
		got, err := c.parse()
		switch {
		case c.want == nil && err == nil:
			t.Errorf("%s is accepted", c.name)
		case c.want != nil && (err != nil || !got.Equal(c.want)):
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func mustMarshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// FuzzPublicKey reads public keys out of what a token may answer.
func FuzzPublicKey(f *testing.F) {
	p256, _ := asn1.Marshal(curves[256].oid)
	f.Add(p256, append([]byte{4, 65, 4}, make([]byte, 64)...))
	f.Add([]byte{0x13, 0}, make([]byte, 32))
	f.Add(bytes.Repeat([]byte{0xff}, 256), []byte{1, 0, 1})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, parse := range []func() (publicKey, error){
			func() (publicKey, error) { return parseEC(a, b) },
			func() (publicKey, error) { return parseEdwards(b) },
			func() (publicKey, error) { return parseRSA(a, b) },
		} {
			if key, err := parse(); err == nil && !key.Equal(key) {
				t.Errorf("%x, %x: a key that is not itself", a, b)
			}
		}
	})
}
