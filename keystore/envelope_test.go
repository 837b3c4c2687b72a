package keystore

import (
	"bytes"
	"testing"
)

var (
	exampleAES = envelope{
		version: sealVersion, kek: []byte("kek"), iv: bytes.Repeat([]byte{1}, nonceSize),
		wrapped: bytes.Repeat([]byte{2}, wrappedSize), nonce: bytes.Repeat([]byte{3}, nonceSize),
	}
	exampleRSA = envelope{
		version: sealVersionRSA, kek: []byte("kek"), hash: hashSHA1,
		wrapped: bytes.Repeat([]byte{2}, minModulusSize), nonce: bytes.Repeat([]byte{3}, nonceSize),
	}
)

// FuzzUnseal takes apart and opens what a stranger may have written into the database. Nothing may panic, and what
// parses must be the same bytes again.
func FuzzUnseal(f *testing.F) {
	dataKey := bytes.Repeat([]byte{4}, dataKeySize)
	var sealed [][]byte
	for _, e := range []envelope{exampleAES, exampleRSA} {
		s, err := e.seal(dataKey, []byte("secret"), []byte("aad"))
		if err != nil {
			f.Fatal(err)
		}
		sealed = append(sealed, s)
		f.Add(s)
		f.Add(s[:len(s)-1])
		f.Add(append([]byte{s[0] ^ 3}, s[1:]...))
	}
	f.Add([]byte{})
	f.Add([]byte{sealVersion})
	f.Add([]byte{sealVersion, 0})
	f.Add([]byte{sealVersionRSA, 255, 1})
	f.Add([]byte{sealVersionRSA, 1, 1, hashSHA256, 255, 255})
	f.Add(append([]byte{3}, sealed[0][1:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseEnvelope(b)
		if err != nil {
			return
		}
		if again := append(got.header(), got.ciphertext...); !bytes.Equal(again, b) {
			t.Errorf("%x parses as %x", b, again)
		}
		plaintext, err := got.open(dataKey, []byte("aad"))
		if (err == nil) != (bytes.Equal(b, sealed[0]) || bytes.Equal(b, sealed[1])) {
			t.Errorf("%x opens to %q, %v", b, plaintext, err)
		}
	})
}

func TestTheSealedFormIsStable(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		e      envelope
		prefix []byte
		size   int
	}{
		"version 1": {exampleAES, []byte{1, 3, 'k', 'e', 'k', 1, 1}, 5 + 12 + 48 + 12 + 1 + 16},
		"version 2": {exampleRSA, []byte{2, 3, 'k', 'e', 'k', 2, 1, 0, 2, 2}, 5 + 3 + 256 + 12 + 1 + 16},
	} {
		sealed, err := test.e.seal(make([]byte, dataKeySize), []byte("s"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(sealed, test.prefix) || len(sealed) != test.size {
			t.Errorf("%s: sealed form of %d bytes: %x", name, len(sealed), sealed)
		}
	}
}

func TestTheLabelSaysTheGeneration(t *testing.T) {
	t.Parallel()
	for label, want := range map[string]int{
		"signet-kek": 1, "signet-kek-2": 2, "signet-kek-10": 10, "signet-kek-999999": 999_999,
		"signet-kek-1": 0, "signet-kek-0": 0, "signet-kek-": 0, "signet-kek--2": 0, "signet-kek-02": 0, "signet-kek-+2": 0,
		"signet-kek-1000000": 0, "signet-kek-99999999999999999999": 0, "signet-kek2": 0, "": 0, "2": 0,
	} {
		got, ok := generationOf(label)
		if ok != (want > 0) || ok && (got != want || labelOf(got) != label) {
			t.Errorf("%q: generation %d, %t; want %d", label, got, ok, want)
		}
	}
}
