package evidence_test

import (
	"bytes"
	"testing"

	"signet/evidence"
)

// fuzz feeds strangers' bytes to Verify. Whatever it accepts says the same again when it is signed anew with the same
// deterministic key: there is no second form of a document.
func fuzz(f *testing.F, form string, again func(testing.TB, evidence.Statement) []byte) {
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := evidence.Verify(data, evidence.Options{Now: signedAt})
		if err != nil {
			if reason(err) == "" || err.Error() == "" {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if ours := evidence.Fingerprint(spki(t, seeded("attester").Public())); r.AttestationKey != ours || r.Form != form {
			return
		}
		if !bytes.Equal(again(t, r.Statement), data) {
			t.Fatal("accepted in a form that is not the one form")
		}
	})
}

func FuzzVerifyJSON(f *testing.F) {
	key := seeded("attester")
	document := sign(f, small(f, key.Public()), key)
	f.Add(document)
	f.Add(sign(f, statement(f, key.Public()), key))
	f.Add(bytes.ReplaceAll(document, []byte("  "), nil))
	f.Add([]byte("{}"))
	fuzz(f, "JSON", func(t testing.TB, s evidence.Statement) []byte { return sign(t, s, key) })
}

func FuzzVerifyDER(f *testing.F) {
	key := seeded("attester")
	f.Add(signDER(f, small(f, key.Public()), key))
	f.Add(signDER(f, statement(f, key.Public()), key))
	f.Add([]byte{0x30, 0x80, 0, 0})
	fuzz(f, "DER", func(t testing.TB, s evidence.Statement) []byte { return signDER(t, s, key) })
}
