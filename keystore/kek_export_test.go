package keystore

import (
	"context"
	"time"

	"github.com/miekg/pkcs11"
)

// AgeKEK makes the token's memory of its key-encryption key so much older.
func (t *Token) AgeKEK(d time.Duration) {
	c := t.kek.Load()
	t.kek.Store(&current{c.secret, c.generation, c.asOf.Add(-d)})
}

// MakePairKEK makes a key-encryption key of the kind that tokens without AES-GCM get.
func (t *Token) MakePairKEK(ctx context.Context, generation int) ([]byte, error) {
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	k, err := t.makePair(ctx, labelOf(generation), 3072)
	if err != nil {
		return nil, err
	}
	t.sealWith(k, generation, time.Now())
	return k.id, nil
}

// ProveKEK reads the attributes of a key-encryption key pair as each use of it does.
func (t *Token) ProveKEK(ctx context.Context, id []byte) error {
	_, err := call(ctx, t, operation[pkcs11.ObjectHandle]{name: "evidence", run: func(s *session) (pkcs11.ObjectHandle, error) {
		return t.secretHandle(s, &secret{class: pkcs11.CKO_PRIVATE_KEY, id: id})
	}})
	return err
}

// HoldMaking does what somebody does who takes long to look for a key of Signet's own.
func (t *Token) HoldMaking() (release func()) {
	t.making <- struct{}{}
	return func() { <-t.making }
}
