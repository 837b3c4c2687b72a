package keystore_test

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

func TestUnsealReversesSeal(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	for _, c := range []struct {
		name           string
		plaintext, aad []byte
	}{
		{"a private key", bytes.Repeat([]byte("key"), 800), []byte("certificate/7")},
		{"nothing", nil, []byte("certificate/7")},
		{"no aad", []byte("secret"), nil},
		{"neither", nil, nil},
		{"a megabyte", make([]byte, 1<<20), nil},
	} {
		sealed, err := token.Seal(t.Context(), c.plaintext, c.aad)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(c.plaintext) > 3 && bytes.Contains(sealed, c.plaintext[:4]) && c.name != "a megabyte" {
			t.Errorf("%s: the plaintext shows", c.name)
		}
		again, err := token.Seal(t.Context(), c.plaintext, c.aad)
		if err != nil || bytes.Equal(sealed, again) {
			t.Errorf("%s: sealed twice alike, %v", c.name, err)
		}
		other := openAs(t, cfg) // as after a restart
		if plaintext, err := other.Unseal(t.Context(), sealed, c.aad); err != nil || !bytes.Equal(plaintext, c.plaintext) {
			t.Errorf("%s: unsealed %d bytes, %v", c.name, len(plaintext), err)
		}
	}
}

func TestUnsealRefuses(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	sealed, err := token.Seal(t.Context(), []byte("secret"), []byte("place"))
	if err != nil {
		t.Fatal(err)
	}
	stranger := openAs(t, softhsmtest.Token(t))
	if _, err := stranger.Unseal(t.Context(), sealed, []byte("place")); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("another token: %v", err)
	}
	for name, aad := range map[string][]byte{"no aad": nil, "another aad": []byte("plac"), "a longer aad": []byte("place!")} {
		if _, err := token.Unseal(t.Context(), sealed, aad); !errors.Is(err, keystore.ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := token.Unseal(t.Context(), append(slices.Clone(sealed), 0), []byte("place")); !errors.Is(err, keystore.ErrSealed) {
		t.Errorf("a byte more: %v", err)
	}
	for i := range sealed {
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		// A changed CKA_ID names no key; everything else is authenticated.
		if _, err := token.Unseal(t.Context(), changed, []byte("place")); !errors.Is(err, keystore.ErrSealed) && !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := token.Unseal(t.Context(), sealed[:i], []byte("place")); !errors.Is(err, keystore.ErrSealed) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if plaintext, err := token.Unseal(t.Context(), sealed, []byte("place")); err != nil || string(plaintext) != "secret" {
		t.Errorf("after all that: %q, %v", plaintext, err)
	}
}

func TestKeyEncryptionKeysOfTwoProcessesCoexist(t *testing.T) {
	t.Parallel()
	cfg := softhsmtest.Token(t)
	first, second := openAs(t, cfg), openAs(t, cfg)
	var sealed [2][]byte
	var wait sync.WaitGroup
	for i, token := range []*keystore.Token{first, second} {
		wait.Go(func() {
			var err error
			if sealed[i], err = token.Seal(t.Context(), []byte("secret"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for i, token := range []*keystore.Token{second, first} {
		if plaintext, err := token.Unseal(t.Context(), sealed[i], nil); err != nil || string(plaintext) != "secret" {
			t.Errorf("what the other one sealed: %q, %v", plaintext, err)
		}
	}
	third := openAs(t, cfg)
	for range 2 {
		again, err := third.Seal(t.Context(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if id := again[2 : 2+int(again[1])]; bytes.Compare(id, sealed[0][2:2+len(id)]) > 0 || bytes.Compare(id, sealed[1][2:2+len(id)]) > 0 {
			t.Errorf("a later process seals under %x, which is not the lowest id", id)
		}
	}
}

func TestTwoSecretKeysUnderOneIDAreRefused(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	sealed, err := token.Seal(t.Context(), []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	id := sealed[2 : 2+int(sealed[1])]
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		_, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := openAs(t, cfg).Unseal(t.Context(), sealed, nil); !errors.Is(err, keystore.ErrMismatch) {
		t.Errorf("two keys under the id of the key-encryption key: %v", err)
	}
}
