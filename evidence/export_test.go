package evidence

import (
	"crypto"
	"crypto/rand"
	"testing"
)

// Forge signs a statement as it is, with claims for machines that may be of another one. It is what somebody does who
// has a key and this source code.
func Forge(t testing.TB, s, machines Statement, key crypto.Signer) []byte {
	t.Helper()
	statement, err := encodeStatement(s)
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := encodeTBS(machines, statement)
	if err != nil {
		t.Fatal(err)
	}
	a, err := algorithmOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	signature, err := key.Sign(rand.Reader, a.digest(tbs), a.hash)
	if err != nil {
		t.Fatal(err)
	}
	der, err := encodeEvidence(tbs, s.AttestationKey.PublicKey, a, a.canonical(signature))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Complete is what [Sign] would sign.
func (s Statement) Complete() Statement { return s.complete() }
