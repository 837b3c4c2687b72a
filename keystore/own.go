package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

const healthLabel = "signet-health"

// Check makes a signature with a dedicated health key and verifies it: slots and sessions look well long after a
// token has stopped working. The first Check of a token makes the key (P-256, or RSA-2048 where there is no EC).
// Errors: [ErrUnavailable]; [ErrNotFound] or [ErrMismatch] when the token is no longer the one that was opened.
func (t *Token) Check(ctx context.Context) error {
	k, err := t.healthKey(ctx)
	if err != nil {
		return fmt.Errorf("check token: %w", err)
	}
	p, err := k.challenge()
	if err == nil {
		_, err = t.signPlan(Impatient(ctx), k, "check", p)
	}
	if err != nil {
		return fmt.Errorf("check token: %w", err)
	}
	return nil
}

// challenge is a signature that nobody needs, of something that was never signed before.
func (k *key) challenge() (plan, error) {
	var hash crypto.Hash
	if _, ok := k.public.(ed25519.PublicKey); !ok {
		hash = crypto.SHA256
	}
	return planForMessage(k.public, random(32), hash)
}

func (t *Token) healthKey(ctx context.Context) (*key, error) {
	if k := t.probeKey(); k != nil { // whoever looks for another key must not make the token look ill
		return k, nil
	}
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if k := t.probeKey(); k != nil {
		return k, nil
	}
	k, err := t.ownKey(ctx, healthLabel, nil)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.probe = k
	t.mu.Unlock()
	return k, nil
}

func (t *Token) probeKey() *key {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.probe
}

// lockMaking makes one goroutine at a time look for, or make, a key of Signet's own.
func (t *Token) lockMaking(ctx context.Context) (done func(), err error) {
	select {
	case t.making <- struct{}{}:
		return func() { <-t.making }, nil
	case <-ctx.Done():
		return nil, unanswered(ctx)
	}
}

// ownKey returns the key pair with this label whose CKA_ID begins with mark and which proves non-exportable, the one with
// the lowest CKA_ID if there are several, after making one if there is none: P-256, or RSA-2048 where there is no EC. The
// label only finds it; from then on the key is known by its id. A token that cannot prove where even a new key was born
// (NSS softokn) is held to the lower bar, and only such a token. The caller has the making lock.
func (t *Token) ownKey(ctx context.Context, label string, mark []byte) (*key, error) {
	for _, bar := range []Bar{BarBorn, BarHeld} {
		ids, err := t.labelled(ctx, label, mark, bar)
		if err == nil && len(ids) == 0 {
			if err = t.makeOwn(ctx, label, mark, bar); err == nil {
				ids, err = t.labelled(ctx, label, mark, bar)
			}
		}
		switch {
		case errors.Is(err, ErrEvidence) && bar == BarBorn:
			continue
		case err != nil:
			return nil, err
		case len(ids) == 0:
			return nil, fmt.Errorf("%w: %q was made and is not found again", ErrNotFound, label)
		}
		p, err := call(ctx, t, operation[pair]{name: "find", run: func(s *session) (pair, error) { return t.lookup(s, ids[0]) }})
		if err != nil {
			return nil, err
		}
		return t.remember(&key{id: ids[0], public: p.public, bar: bar}), nil
	}
	return nil, ErrEvidence
}

func (t *Token) makeOwn(ctx context.Context, label string, mark []byte, bar Bar) error {
	id := append(slices.Clone(mark), random(16-len(mark))...)
	_, err := t.Generate(ctx, Spec{ID: id, Label: label, Type: EC, Size: 256, Bar: bar})
	if errors.Is(err, ErrUnsupported) {
		_, err = t.Generate(ctx, Spec{ID: id, Label: label, Type: RSA, Size: 2048, Bar: bar})
	}
	return err
}

// ownBar is the bar for keys of Signet's own, as far as it is known.
func (t *Token) ownBar() Bar { return Bar(t.bar.Load()) }

// lowered finds out whether this is a token that cannot prove where even a new key was born, and reports whether the bar
// for Signet's own keys is lower than it was. The caller does not have the making lock.
func (t *Token) lowered(ctx context.Context) bool {
	if t.ownBar() == BarHeld {
		return false
	}
	k, err := t.healthKey(ctx)
	if err != nil || k.bar != BarHeld {
		return false
	}
	t.bar.Store(int32(BarHeld))
	return true
}

// labelled lists the CKA_IDs, in order, of the private keys with a label that prove non-exportable.
func (t *Token) labelled(ctx context.Context, label string, mark []byte, bar Bar) ([][]byte, error) {
	return call(ctx, t, operation[[][]byte]{name: "find", run: func(s *session) ([][]byte, error) {
		objects, err := s.find(64, template(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKA_LABEL, label).ToSlice()...)
		if err != nil {
			return nil, err
		}
		if len(objects) == 0 {
			if err := t.absent(s); !errors.Is(err, ErrNotFound) {
				return nil, err
			}
		}
		var ids [][]byte
		for _, object := range objects {
			id, err := s.attribute(object, pkcs11.CKA_ID)
			if err != nil {
				return nil, fmt.Errorf("read CKA_ID: %w", err)
			}
			switch err := s.prove(object, pkcs11.CKO_PRIVATE_KEY, bar); {
			case errors.Is(err, ErrEvidence) || len(id) == 0 || !bytes.HasPrefix(id, mark):
				continue // a stranger's key under our label
			case err != nil:
				return nil, err
			}
			ids = append(ids, id)
		}
		slices.SortFunc(ids, bytes.Compare)
		return ids, nil
	}})
}
