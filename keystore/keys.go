package keystore

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// key is a private key in the token, named by its CKA_ID and known by its public key.
type key struct {
	id     []byte
	public publicKey
	bar    Bar
	found  atomic.Pointer[found]
	missed missed
}

// missed is when a key that was there last was not found and put the token in doubt (Unix nanoseconds); 0 since it was
// used.
type missed struct{ atomic.Int64 }

// found is where a key was found last. The handle is void once the login generation has moved on.
type found struct {
	generation uint64
	handle     pkcs11.ObjectHandle
}

// pair is a key pair as it lies in the token.
type pair struct {
	private pkcs11.ObjectHandle
	public  publicKey
}

// lookup finds the key pair with this CKA_ID.
func (t *Token) lookup(s *session, id []byte) (pair, error) {
	private, publics, err := t.objects(s, id)
	switch {
	case err != nil:
		return pair{}, err
	case len(publics) == 0:
		return pair{}, fmt.Errorf("%w: the private key has no public key object beside it", ErrNotFound)
	}
	public, err := s.readPublic(publics[0])
	return pair{private, public}, err
}

// objects finds the private key with this CKA_ID and the public key object beside it, if there is one. Two of either are
// refused: nothing would tell which of them signs.
func (t *Token) objects(s *session, id []byte) (private pkcs11.ObjectHandle, publics []pkcs11.ObjectHandle, err error) {
	privates, err := s.find(2, template(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKA_ID, id).ToSlice()...)
	if err != nil {
		return 0, nil, err
	}
	switch len(privates) {
	case 0:
		return 0, nil, t.absent(s)
	case 2:
		return 0, nil, fmt.Errorf("%w: there are several private keys with it", ErrMismatch)
	}
	publics, err = s.find(2, template(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKA_ID, id).ToSlice()...)
	if err == nil && len(publics) == 2 {
		err = fmt.Errorf("%w: there are several public keys with it", ErrMismatch)
	}
	return privates[0], publics, err
}

// absent tells a key that is not there from one that a session without login cannot see.
func (t *Token) absent(s *session) error {
	if t.slot.login {
		in, err := s.loggedIn()
		if err != nil {
			return err
		}
		if !in {
			return pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
		}
	}
	return ErrNotFound
}

// handle returns the private key's handle: the one found before, while it is good, or a fresh one whose public key
// was compared.
func (t *Token) handle(s *session, k *key) (pkcs11.ObjectHandle, error) {
	generation := t.slot.handles()
	if f := k.found.Load(); f != nil && f.generation == generation {
		return f.handle, nil
	}
	p, err := t.lookup(s, k.id)
	if err != nil {
		return 0, err
	}
	if !p.public.Equal(k.public) {
		return 0, ErrMismatch
	}
	if err := s.prove(p.private, pkcs11.CKO_PRIVATE_KEY, k.bar); err != nil { // whatever happened to it since it was made
		return 0, err
	}
	k.found.Store(&found{generation, p.private})
	return p.private, nil
}

// Signer returns the key with this CKA_ID, after comparing its public key with public (DER SubjectPublicKeyInfo) and
// holding its attributes to the bar. The signer re-finds its key after a reconnect. Errors: [ErrNotFound],
// [ErrMismatch], [ErrEvidence], [ErrUnavailable].
func (t *Token) Signer(ctx context.Context, id, public []byte, bar Bar) (Signer, error) {
	k, err := t.key(ctx, id, public, bar)
	if err != nil {
		return nil, err
	}
	return &signer{t, k}, nil
}

func (t *Token) key(ctx context.Context, id, public []byte, bar Bar) (*key, error) {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("find key %x: read its public key: %w", id, err)
	}
	expected, ok := parsed.(publicKey)
	if !ok {
		return nil, fmt.Errorf("find key %x: %w: %T", id, ErrUnsupported, parsed)
	}
	if k := t.known(id); k != nil && k.public.Equal(expected) && k.bar <= bar {
		return k, nil
	}
	k := &key{id: id, public: expected, bar: bar}
	_, err = call(ctx, t, operation[pkcs11.ObjectHandle]{name: "find", known: t.remembered(id).lost(), run: func(s *session) (pkcs11.ObjectHandle, error) {
		return t.handle(s, k)
	}})
	if err != nil {
		return nil, fmt.Errorf("find key %x: %w", id, err)
	}
	return t.remember(k), nil
}

// remembered returns the key if it was found before.
func (t *Token) remembered(id []byte) *key {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[string(id)]
}

// lost is what tells when the key was missed; nil for no key.
func (k *key) lost() *missed {
	if k == nil {
		return nil
	}
	return &k.missed
}

// known returns the key if its handle is good as far as we know.
func (t *Token) known(id []byte) *key {
	k := t.remembered(id)
	if k == nil {
		return nil
	}
	if f := k.found.Load(); f == nil || f.generation != t.slot.handles() {
		return nil
	}
	return k
}

// remember makes all signers of a key share its handle.
func (t *Token) remember(k *key) *key {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.keys[string(k.id)]; old != nil && old.public.Equal(k.public) && old.bar == k.bar {
		old.found.Store(k.found.Load())
		return old
	}
	t.keys[string(k.id)] = k
	return k
}

// Destroy deletes the key pair with this CKA_ID. Errors: [ErrNotFound], [ErrUnavailable].
func (t *Token) Destroy(ctx context.Context, id []byte) error {
	epoch := t.module.epoch.Load()
	begun := false
	err := t.destroy(ctx, id, &begun)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_FUNCTION_FAILED)) {
		// To tpm2-pkcs11 a key is in use from the first operation that it refused until the library ends.
		drain, cancel := context.WithTimeout(ctx, drainTimeout)
		restart := t.module.restart(drain, epoch)
		cancel()
		if restart == nil {
			err = t.destroy(ctx, id, &begun)
		}
	}
	t.mu.Lock()
	if k := t.keys[string(id)]; k != nil {
		k.found.Store(nil)
		delete(t.keys, string(id))
	}
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("destroy key %x: %w", id, err)
	}
	return nil
}

// destroy deletes the key pair. Once it was there, begun is set, and an attempt that does not find it any more goes on: the
// one before has done its work, whatever it was answered.
func (t *Token) destroy(ctx context.Context, id []byte, begun *bool) error {
	_, err := call(ctx, t, operation[struct{}]{name: "destroy", lock: t.slot.generating, run: func(s *session) (struct{}, error) {
		private, err := s.find(1, template(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKA_ID, id).ToSlice()...)
		if err != nil {
			return struct{}{}, err
		}
		if len(private) == 0 {
			if err := t.absent(s); !*begun || !errors.Is(err, ErrNotFound) {
				return struct{}{}, err
			}
		}
		*begun = true
		return struct{}{}, s.destroy(id, keyPair)
	}})
	return err
}

// The classes of the objects to be destroyed, the private ones first.
var (
	keyPair = []int{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY}
	allKeys = []int{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PUBLIC_KEY}
)

// destroy deletes the objects with this CKA_ID and looks that none is left.
func (s *session) destroy(id []byte, classes []int) error {
	for _, class := range classes {
		wanted := template(pkcs11.CKA_CLASS, class, pkcs11.CKA_ID, id).ToSlice()
		objects, err := s.find(16, wanted...)
		if err != nil {
			return err
		}
		for _, object := range objects {
			if err := s.DestroyObject(s.handle, object); err != nil {
				return fmt.Errorf("destroy object: %w", err)
			}
		}
		left, err := s.find(1, wanted...)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return errors.New("the token kept an object that it said was destroyed")
		}
	}
	return nil
}
