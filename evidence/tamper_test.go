package evidence_test

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"testing"

	"signet/evidence"
)

// small is a statement with little in it: the tests below verify it once for each of its octets.
func small(t testing.TB, attester crypto.PublicKey) evidence.Statement {
	t.Helper()
	d := drill(refusedRead)
	s := statement(t, attester)
	s.CA, s.Drill, s.Signet, s.Nonce = evidence.CA{ID: 1}, &d, "", ""
	s.Key.Token, s.AttestationKey.Token = evidence.Token{}, evidence.Token{}
	s.Key.Attributes = map[string]any{"CKA_SENSITIVE": true, "CKA_EXTRACTABLE": false}
	s.AttestationKey.Attributes = nil
	return s
}

func mustRefuse(t *testing.T, data []byte, how string, at int) {
	t.Helper()
	_, err := evidence.Verify(data, evidence.Options{Now: signedAt})
	if err == nil {
		t.Fatalf("accepted: %s at octet %d", how, at)
	}
	if refusal := new(evidence.Error); !errors.As(err, &refusal) || refusal.Reason == "" {
		t.Fatalf("%s at octet %d: no reason: %v", how, at, err)
	}
}

// Each octet with one of its eight bits, which one rotates: all bits of all octets take minutes under the race
// detector, and two octets of one kind are treated alike.
func TestEveryFlippedOctetIsRefused(t *testing.T) {
	t.Parallel()
	s := small(t, seeded("attester").Public())
	for form, data := range map[string][]byte{"JSON": sign(t, s, seeded("attester")), "DER": signDER(t, s, seeded("attester"))} {
		// The JSON holds the DER in base64, each character of which is six bits of it.
		inner := bytes.Index(data, []byte(`"evidence": "`))
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			for i := range data {
				if inner > 0 && i > inner+100 && i < len(data)-100 && i%64 != 0 {
					continue
				}
				changed := slices.Clone(data)
				changed[i] ^= 1 << (i % 8)
				mustRefuse(t, changed, fmt.Sprintf("bit %d flipped", i%8), i)
			}
		})
	}
}

// The algorithms share everything but the signature, so that is all octets of the last part of the DER, where the
// signature is, and a sample of the rest.
func TestEveryFlippedOctetOfASignatureIsRefused(t *testing.T) {
	t.Parallel()
	for name, key := range signers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := signDER(t, small(t, key.Public()), key)
			for i := range data {
				if fromEnd := len(data) - i; fromEnd > 280 && i%61 != 0 {
					continue
				}
				changed := slices.Clone(data)
				changed[i] ^= 1 << (i % 8)
				mustRefuse(t, changed, fmt.Sprintf("bit %d flipped", i%8), i)
			}
		})
	}
}

func TestATruncatedOrExtendedDocumentIsRefused(t *testing.T) {
	t.Parallel()
	s := small(t, seeded("attester").Public())
	for form, data := range map[string][]byte{"JSON": sign(t, s, seeded("attester")), "DER": signDER(t, s, seeded("attester"))} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			for i := range data {
				if i < 20 || len(data)-i < 20 || i%31 == 0 {
					mustRefuse(t, data[:i], "cut off", i)
				}
				if i%31 == 0 {
					mustRefuse(t, slices.Delete(slices.Clone(data), i, i+1), "one octet less", i)
					mustRefuse(t, slices.Insert(slices.Clone(data), i, ' '), "one octet more", i)
				}
			}
			for _, more := range []string{"\n", " ", "\x00", "{}", "0"} {
				mustRefuse(t, append(slices.Clone(data), more...), fmt.Sprintf("%q more", more), len(data))
			}
			mustRefuse(t, append(slices.Clone(data), data...), "the whole twice", len(data))
		})
	}
}

// What an editor, a proxy or a clever person does to JSON and what means the same to a lenient reader.
func TestJSONOfTheSameMeaningIsRefused(t *testing.T) {
	t.Parallel()
	s := statement(t, seeded("attester").Public())
	s.Nonce = ""
	good := sign(t, s, seeded("attester"))
	for _, c := range []struct{ name, old, new string }{
		{"a field in another case", `"nonce"`, `"Nonce"`},
		{"a field twice", `"nonce": "",`, `"nonce": "", "nonce": "",`},
		{"a field twice, the first one other", `"nonce": "",`, `"nonce": "x", "nonce": "",`},
		{"a field nobody knows", `"nonce": "",`, `"nonce": "", "note": "",`},
		{"a missing field that is empty", `"nonce": "",`, ``},
		{"null for empty", `"nonce": "",`, `"nonce": null,`},
		{"an escaped letter", `"drilled"`, `"drille\u0064"`},
		{"another time zone", `T12:00:00Z`, `T12:00:00+00:00`},
		{"another number", `"size": 255`, `"size": 2.55e2`},
		{"Windows line ends", "\n", "\r\n"},
		{"tabs", "  ", "\t"},
		{"a line end in base64", `"evidence": "MI`, `"evidence": "MI\n`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			changed := bytes.ReplaceAll(good, []byte(c.old), []byte(c.new))
			if bytes.Equal(changed, good) {
				t.Fatal("the case changes nothing")
			}
			mustRefuse(t, changed, c.name, 0)
		})
	}
}
