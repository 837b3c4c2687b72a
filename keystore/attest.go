package keystore

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

const attestationLabel = "signet-attestation"

// attestationMark begins the CKA_ID of an attestation key. Keys of CAs have random ids, so that a label is not all that
// keeps one of them from attesting itself.
var attestationMark = []byte("attest")

// Attester returns the key in the token that signs evidence about the other keys, and never certificates. The first
// Attester of a token makes the key (P-256, or RSA-2048 where there is no EC), with the same template as any; of
// several, which processes may have made at the same time, it is the one with the lowest CKA_ID. Errors:
// [ErrUnsupported], [ErrEvidence], [ErrUnavailable].
func (t *Token) Attester(ctx context.Context) (crypto.Signer, error) {
	s, err := t.attester(ctx)
	if err != nil {
		return nil, fmt.Errorf("find attestation key: %w", err)
	}
	return s, nil
}

func (t *Token) attester(ctx context.Context) (crypto.Signer, error) {
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	id, err := t.attestationID(ctx)
	if err != nil {
		return nil, err
	}
	if id == nil {
		spec := Spec{ID: append(slices.Clone(attestationMark), random(10)...), Label: attestationLabel, Type: EC, Size: 256}
		_, err := t.Generate(ctx, spec)
		if errors.Is(err, ErrUnsupported) {
			spec.Type, spec.Size = RSA, 2048
			_, err = t.Generate(ctx, spec)
		}
		if err != nil {
			return nil, err
		}
		if id, err = t.attestationID(ctx); err != nil {
			return nil, err
		}
	}
	if id == nil {
		return nil, fmt.Errorf("%w: %q was made and is not found again", ErrNotFound, attestationLabel)
	}
	p, err := call(ctx, t, operation[pair]{name: "find", run: func(s *session) (pair, error) { return t.lookup(s, id) }})
	if err != nil {
		return nil, err
	}
	return &signer{t, t.remember(&key{id: id, public: p.public})}, nil
}

// attestationID returns the CKA_ID of the attestation key, or nil.
func (t *Token) attestationID(ctx context.Context) ([]byte, error) {
	ids, err := t.labelled(ctx, pkcs11.CKO_PRIVATE_KEY, attestationLabel)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(ids, func(id []byte) bool { return bytes.HasPrefix(id, attestationMark) })
	if i < 0 {
		return nil, nil
	}
	return ids[i], nil
}
