package keystore

import (
	"context"
	"crypto"
	"fmt"
	"time"
)

const attestationLabel = "signet-attestation"

// attestationMark begins the CKA_ID of an attestation key. Keys of CAs have random ids, so that a label is not all that
// keeps one of them from attesting itself.
var attestationMark = []byte("attest")

// attester is the key that signs evidence, as the token was at a moment. To look for it takes the token long, and the
// keys that seal and that tell its health wait meanwhile: it is done as seldom as for the key that seals.
type attester struct {
	key  *key
	asOf time.Time
}

func (t *Token) attesterNow() *attester {
	if a := t.attest.Load(); a != nil && time.Since(a.asOf) < KEKMemory {
		return a
	}
	return nil
}

// Attester returns the key in the token that signs evidence about the other keys, and never certificates, and its
// CKA_ID. The first Attester of a token makes the key (P-256, or RSA-2048 where there is no EC), with the same template
// as any; of several, which processes may have made at the same time, it is the one with the lowest CKA_ID, within
// [KEKMemory]. Errors: [ErrUnsupported], [ErrEvidence], [ErrUnavailable].
func (t *Token) Attester(ctx context.Context) (_ crypto.Signer, id []byte, err error) {
	a := t.attesterNow()
	if a == nil {
		if a, err = t.lookForAttester(ctx); err != nil {
			return nil, nil, fmt.Errorf("find attestation key: %w", err)
		}
	}
	return &signer{t, a.key}, a.key.id, nil
}

func (t *Token) lookForAttester(ctx context.Context) (*attester, error) {
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if a := t.attesterNow(); a != nil {
		return a, nil
	}
	asOf := time.Now()
	k, err := t.ownKey(ctx, attestationLabel, attestationMark)
	if err != nil {
		return nil, err
	}
	a := &attester{k, asOf}
	t.attest.Store(a)
	return a, nil
}
