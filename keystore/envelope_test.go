package keystore

import (
	"bytes"
	"testing"
)

// FuzzUnseal takes apart and opens what a stranger may have written into the database. Nothing may panic, and what
// parses must be the same bytes again.
func FuzzUnseal(f *testing.F) {
	e := envelope{
		kek: []byte("kek"), iv: bytes.Repeat([]byte{1}, nonceSize),
		wrapped: bytes.Repeat([]byte{2}, wrappedSize), nonce: bytes.Repeat([]byte{3}, nonceSize),
	}
	dataKey := bytes.Repeat([]byte{4}, dataKeySize)
	sealed, err := e.seal(dataKey, []byte("secret"), []byte("aad"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add([]byte{})
	f.Add([]byte{sealVersion})
	f.Add([]byte{sealVersion, 0})
	f.Add([]byte{sealVersion, 255, 1})
	f.Add(append([]byte{2}, sealed[1:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseEnvelope(b)
		if err != nil {
			return
		}
		if again := append(got.header(), got.ciphertext...); !bytes.Equal(again, b) {
			t.Errorf("%x parses as %x", b, again)
		}
		plaintext, err := got.open(dataKey, []byte("aad"))
		if (err == nil) != bytes.Equal(b, sealed) {
			t.Errorf("%x opens to %q, %v", b, plaintext, err)
		}
	})
}

func TestTheSealedFormIsStable(t *testing.T) {
	t.Parallel()
	e := envelope{kek: []byte{0xaa, 0xbb}, iv: make([]byte, nonceSize), wrapped: make([]byte, wrappedSize), nonce: make([]byte, nonceSize)}
	sealed, err := e.seal(make([]byte, dataKeySize), []byte("s"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []byte{1, 2, 0xaa, 0xbb}; !bytes.HasPrefix(sealed, want) || len(sealed) != 4+12+48+12+1+16 {
		t.Errorf("sealed form %x", sealed)
	}
}
