package keystore

import (
	"context"
	"crypto"
	"fmt"
)

const attestationLabel = "signet-attestation"

// attestationMark begins the CKA_ID of an attestation key. Keys of CAs have random ids, so that a label is not all that
// keeps one of them from attesting itself.
var attestationMark = []byte("attest")

// Attester returns the key in the token that signs evidence about the other keys, and never certificates, and its
// CKA_ID. The first Attester of a token makes the key (P-256, or RSA-2048 where there is no EC), with the same template
// as any; of several, which processes may have made at the same time, it is the one with the lowest CKA_ID. Errors:
// [ErrUnsupported], [ErrEvidence], [ErrUnavailable].
func (t *Token) Attester(ctx context.Context) (_ crypto.Signer, id []byte, err error) {
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("find attestation key: %w", err)
	}
	defer done()
	k, err := t.ownKey(ctx, attestationLabel, attestationMark)
	if err != nil {
		return nil, nil, fmt.Errorf("find attestation key: %w", err)
	}
	return &signer{t, k}, k.id, nil
}
