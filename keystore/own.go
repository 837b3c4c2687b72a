package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
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
	digest := sha256.Sum256(random(32))
	s := &signer{t, k}
	p, err := planFor(k.public, digest[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("check token: %w", err)
	}
	if _, err := call(ctx, t, operation[[]byte]{name: "check", run: func(session *session) ([]byte, error) {
		return s.sign(session, p)
	}}); err != nil {
		return fmt.Errorf("check token: %w", err)
	}
	return nil
}

func (t *Token) healthKey(ctx context.Context) (*key, error) {
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if t.health != nil {
		return t.health, nil
	}
	id, err := t.ownKey(ctx, pkcs11.CKO_PRIVATE_KEY, healthLabel, func(id []byte) error {
		_, err := t.Generate(ctx, Spec{ID: id, Label: healthLabel, Type: EC, Size: 256})
		if errors.Is(err, ErrUnsupported) {
			_, err = t.Generate(ctx, Spec{ID: id, Label: healthLabel, Type: RSA, Size: 2048})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	p, err := call(ctx, t, operation[pair]{name: "find", run: func(s *session) (pair, error) { return t.lookup(s, id) }})
	if err != nil {
		return nil, err
	}
	t.health = t.remember(&key{id: id, public: p.public})
	return t.health, nil
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

// ownKey returns the CKA_ID of the key with this label that proves non-exportable, the lowest if there are several,
// after making one if there is none. The label only finds it; from then on the key is known by its id.
func (t *Token) ownKey(ctx context.Context, class int, label string, produce func(id []byte) error) ([]byte, error) {
	ids, err := t.labelled(ctx, class, label)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		if err := produce(random(16)); err != nil {
			return nil, err
		}
		if ids, err = t.labelled(ctx, class, label); err != nil {
			return nil, err
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w: %q was made and is not found again", ErrNotFound, label)
	}
	return ids[0], nil
}

// labelled lists the CKA_IDs, in order, of the keys with a label that prove non-exportable.
func (t *Token) labelled(ctx context.Context, class int, label string) ([][]byte, error) {
	return call(ctx, t, operation[[][]byte]{name: "find", run: func(s *session) ([][]byte, error) {
		objects, err := s.find(64, template(pkcs11.CKA_CLASS, class, pkcs11.CKA_LABEL, label).ToSlice()...)
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
			switch err := s.prove(object, class); {
			case errors.Is(err, ErrEvidence) || len(id) == 0:
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
