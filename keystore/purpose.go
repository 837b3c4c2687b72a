package keystore

import (
	"bytes"
	"errors"

	"github.com/miekg/pkcs11"
)

// Purpose is what Signet keeps a key of its own for.
type Purpose string

// The purposes. The zero value is a key that is not Signet's own: that of a CA, or of somebody else.
const (
	ForHealth        Purpose = "health"         // signs to show that the token does
	ForAttestation   Purpose = "attestation"    // signs evidence
	ForKeyEncryption Purpose = "key-encryption" // seals the private keys of leaf certificates
	ForDrill         Purpose = "canary"         // of a drill that is under way or was cut short; the next one destroys it
)

// purposeOf tells what Signet keeps a key for. A key under a label of Signet's that can leave the token is a stranger's:
// Signet itself does not use it either.
func (s *session) purposeOf(object pkcs11.ObjectHandle, class int, e Entry) (Purpose, error) {
	p := purposeByName(e.Label, e.ID)
	if p == "" || p == ForDrill {
		return p, nil
	}
	switch err := s.prove(object, class, BarHeld); {
	case errors.Is(err, ErrEvidence):
		return "", nil
	case err != nil:
		return "", err
	}
	return p, nil
}

func purposeByName(label string, id []byte) Purpose {
	_, kek := generationOf(label)
	switch {
	case kek:
		return ForKeyEncryption
	case label == healthLabel:
		return ForHealth
	case label == attestationLabel && bytes.HasPrefix(id, attestationMark):
		return ForAttestation
	case label == canaryLabel && bytes.HasPrefix(id, canaryMark):
		return ForDrill
	}
	return ""
}
