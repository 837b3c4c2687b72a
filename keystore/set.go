package keystore

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// ErrNoToken means that no token of this name is configured.
var ErrNoToken = errors.New("no such token is configured")

// Named is a token under the name that records use for it.
type Named struct {
	Name string
	Config

	// OpenBackend, if set, opens the token instead of [Open].
	OpenBackend func(context.Context, Config) (Backend, error)
}

func (n Named) open(ctx context.Context, cfg Config) (Backend, error) {
	if n.OpenBackend != nil {
		return n.OpenBackend(ctx, cfg)
	}
	t, err := Open(ctx, cfg)
	if err != nil { // or else the interface would hold a nil
		return nil, err
	}
	return t, nil
}

// Set is the configured tokens by name. The first one is the default. A key that several of them hold, as cloned HSMs do,
// signs on its home token while that works, on another one meanwhile, and on its home again afterwards.
type Set struct {
	names  []string
	tokens map[string]Backend
}

// OpenSet opens the tokens. With several, one that is away does not keep the others from serving: it is connected when it
// is there. Errors: those of [Open], naming the token.
func OpenSet(ctx context.Context, all []Named) (*Set, error) {
	s := &Set{tokens: map[string]Backend{}}
	for _, named := range all {
		cfg := named.Config
		cfg.Later = cfg.Later || len(all) > 1
		token, err := named.open(ctx, cfg)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("token %s: %w", named.Name, err), s.Close())
		}
		s.names = append(s.names, named.Name)
		s.tokens[named.Name] = token
	}
	return s, nil
}

// Names lists the tokens, the default one first. The caller owns the copy.
func (s *Set) Names() []string { return slices.Clone(s.names) }

// Backend returns a token by its name; "" is the default one. Errors: [ErrNoToken].
func (s *Set) Backend(name string) (Backend, error) {
	if name == "" && len(s.names) > 0 {
		name = s.names[0]
	}
	if t := s.tokens[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("token %q: %w (there are %q)", name, ErrNoToken, s.names)
}

// Token is [Set.Backend] for a token that this process has opened itself, which can do more. Errors: [ErrNoToken].
func (s *Set) Token(name string) (*Token, error) {
	backend, err := s.Backend(name)
	if err != nil {
		return nil, err
	}
	if t, ok := backend.(*Token); ok {
		return t, nil
	}
	return nil, fmt.Errorf("token %q: %w in this process", name, ErrNoToken)
}

// Close closes every token.
func (s *Set) Close() error {
	var all []error
	for _, name := range s.names {
		if err := s.tokens[name].Close(); err != nil {
			all = append(all, fmt.Errorf("token %s: %w", name, err))
		}
	}
	return errors.Join(all...)
}

// order lists the tokens in which to look: home first, then the others, and those that are away last.
func (s *Set) order(home Backend) []Backend {
	order := []Backend{home}
	for _, name := range s.names {
		if t := s.tokens[name]; t != home {
			order = append(order, t)
		}
	}
	slices.SortStableFunc(order, func(a, b Backend) int {
		switch up, other := a.State().Up, b.State().Up; {
		case up == other:
			return 0
		case up:
			return -1
		}
		return 1
	})
	return order
}

// elsewhere reports whether another token may do what this one could not. A token that holds another key under the id is
// no reason to look elsewhere: it is an alarm.
func elsewhere(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrPIN)
}

// Signer is [Token.Signer] on the token of this name, or, while that one is away or does not have the key, on another
// one that has it. Errors: those of [Token.Signer], and [ErrNoToken].
func (s *Set) Signer(ctx context.Context, name string, id, public []byte, bar Bar) (crypto.Signer, error) {
	home, err := s.Backend(name)
	if err != nil {
		return nil, err
	}
	if len(s.names) == 1 {
		return home.Signer(ctx, id, public, bar)
	}
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("find key %x: read its public key: %w", id, err)
	}
	expected, ok := parsed.(publicKey)
	if !ok {
		return nil, fmt.Errorf("find key %x: %w: %T", id, ErrUnsupported, parsed)
	}
	f := &failover{set: s, home: home, id: id, der: public, public: expected, bar: bar, keys: map[Backend]Signer{}}
	return f, f.try(ctx, func(ctx context.Context, t Backend) error { // one token has it, or there is no such key
		_, err := f.in(ctx, t)
		return err
	})
}

// failover is a key that may be in several tokens, as a [crypto.Signer].
type failover struct {
	set     *Set
	home    Backend
	id, der []byte
	public  publicKey
	bar     Bar

	mu   sync.Mutex
	keys map[Backend]Signer
}

// Public implements [crypto.Signer].
func (f *failover) Public() crypto.PublicKey { return f.public }

// Ready is [signer.Ready] for a key that may be in several tokens: one that is there and has the key is enough.
func (f *failover) Ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), f.home.Timeout()/2)
	defer cancel()
	for _, t := range f.set.order(f.home) {
		if !t.State().Up {
			continue
		}
		if _, err := f.in(Impatient(ctx), t); err == nil {
			return nil
		}
	}
	return f.home.Await(context.Background())
}

// in returns the key as it lies in a token, looked up once.
func (f *failover) in(ctx context.Context, t Backend) (Signer, error) {
	f.mu.Lock()
	k := f.keys[t]
	f.mu.Unlock()
	if k != nil {
		return k, nil
	}
	k, err := t.Signer(ctx, f.id, f.der, f.bar)
	if err == nil {
		f.mu.Lock()
		f.keys[t] = k
		f.mu.Unlock()
	}
	return k, err
}

// Sign implements [crypto.Signer] as the signer of one token does.
func (f *failover) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return f.sign(Request{Input: digest, Opts: opts})
}

// SignMessage implements [crypto.MessageSigner] as the signer of one token does.
func (f *failover) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return f.sign(Request{Input: message, Message: true, Opts: opts})
}

// SignUnverified is [Signer.SignUnverified].
func (f *failover) SignUnverified(message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return f.sign(Request{Input: message, Message: true, Opts: opts, Unverified: true})
}

func (f *failover) sign(r Request) (signature []byte, err error) {
	err = f.try(context.Background(), func(ctx context.Context, t Backend) error {
		k, err := f.in(ctx, t)
		if err == nil {
			signature, err = k.SignRequest(ctx, r)
		}
		return err
	})
	return signature, err
}

// try does something on the first token that can; all but the last are given no time to come back, and half of their
// deadline if they hang. When none can, the home token says why. All of it takes no longer than the home token alone may.
func (f *failover) try(ctx context.Context, do func(ctx context.Context, t Backend) error) error {
	ctx, cancel := context.WithTimeout(ctx, f.home.Timeout())
	defer cancel()
	order := f.set.order(f.home)
	var why error
	for i, t := range order {
		limited, cancel := ctx, context.CancelFunc(func() {})
		if i < len(order)-1 {
			limited, cancel = context.WithTimeout(Impatient(ctx), t.Timeout()/2)
		}
		err := do(limited, t)
		cancel()
		if err == nil || !elsewhere(err) {
			return err
		}
		if t == f.home {
			why = err
		}
	}
	if errors.Is(why, ErrUnavailable) {
		return do(ctx, f.home)
	}
	return why
}

// Seal is [Token.Seal] on the default token, or on another one while that is away.
func (s *Set) Seal(ctx context.Context, plaintext, aad []byte) (sealed []byte, err error) {
	err = s.first(func(t Backend) error {
		sealed, err = t.Seal(ctx, plaintext, aad)
		return err
	})
	return sealed, err
}

// Unseal is [Token.Unseal] on the token that has the key-encryption key.
func (s *Set) Unseal(ctx context.Context, sealed, aad []byte) (plaintext []byte, err error) {
	err = s.first(func(t Backend) error {
		plaintext, err = t.Unseal(ctx, sealed, aad)
		return err
	})
	return plaintext, err
}

// first does something on the first token that can, the default one if possible, whose error it is when none can.
func (s *Set) first(do func(Backend) error) error {
	home := s.tokens[s.names[0]]
	var why error
	for _, t := range s.order(home) {
		err := do(t)
		if err == nil || !elsewhere(err) {
			return err
		}
		if t == home {
			why = err
		}
	}
	return why
}
