package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// aged is longer than a process goes on sealing under a key without looking for a newer one.
const aged = 6 * time.Second

func seal(t *testing.T, token *keystore.Token) (sealed, kek []byte) {
	t.Helper()
	sealed, err := token.Seal(t.Context(), []byte("secret"), []byte("place"))
	if err != nil {
		t.Fatal(err)
	}
	kek, err = keystore.SealedUnder(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return sealed, kek
}

func unseals(t *testing.T, token *keystore.Token, sealed []byte) {
	t.Helper()
	if plaintext, err := token.Unseal(t.Context(), sealed, []byte("place")); err != nil || string(plaintext) != "secret" {
		t.Errorf("unsealed %q, %v", plaintext, err)
	}
}

func rotate(t *testing.T, token *keystore.Token) []byte {
	t.Helper()
	id, err := token.RotateKEK(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTheNextKeyEncryptionKeySealsAndTheOldOnesStillOpen(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	if _, err := token.CurrentKEK(t.Context()); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("the key-encryption key before the first secret: %v", err)
	}
	var all [][]byte
	var sealed [][]byte
	for range 11 { // so that the labels do not sort as their numbers
		s, kek := seal(t, token)
		if slices.ContainsFunc(all, func(id []byte) bool { return bytes.Equal(id, kek) }) {
			t.Errorf("%x seals again", kek)
		}
		all, sealed = append(all, kek), append(sealed, s)
		if next := rotate(t, token); bytes.Equal(next, kek) {
			t.Errorf("the next key is the last one")
		}
	}
	restarted := openAs(t, cfg)
	for _, s := range sealed {
		unseals(t, restarted, s)
	}
	_, kek := seal(t, restarted)
	current, err := token.CurrentKEK(t.Context())
	if err != nil || !bytes.Equal(current, kek) || slices.ContainsFunc(all, func(id []byte) bool { return bytes.Equal(id, kek) }) {
		t.Errorf("a restarted process seals under %x; the token says %x, %v", kek, current, err)
	}
	ids, err := token.KEKs(t.Context())
	slices.Reverse(ids)
	if err != nil || !slices.EqualFunc(ids, append(all, kek), bytes.Equal) {
		t.Errorf("the token has %x, %v; want %x", ids, err, append(all, kek))
	}
}

func TestOtherProcessesNoticeTheNextKeyEncryptionKey(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	other := openAs(t, cfg)
	_, first := seal(t, token)
	if _, kek := seal(t, other); !bytes.Equal(kek, first) {
		t.Fatalf("two processes seal under %x and %x", first, kek)
	}
	next := rotate(t, token)
	if _, kek := seal(t, token); !bytes.Equal(kek, next) {
		t.Errorf("the process that rotated seals under %x, not %x", kek, next)
	}
	if _, kek := seal(t, other); !bytes.Equal(kek, first) {
		t.Errorf("the other one asks the token at every turn")
	}
	other.AgeKEK(aged)
	if _, kek := seal(t, other); !bytes.Equal(kek, next) {
		t.Errorf("the other one did not notice: %x", kek)
	}
}

func TestDestroyingAKeyEncryptionKey(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	other := openAs(t, cfg)
	sealed, old := seal(t, token)
	seal(t, other)
	_, stranger := generate(t, token, keystore.EC, 256)
	next := rotate(t, token)
	for name, id := range map[string][]byte{"a CA key": stranger, "no key": []byte("none"), "nothing": nil} {
		if err := token.DestroyKEK(t.Context(), id); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("destroy %s: %v", name, err)
		}
	}
	if err := token.DestroyKEK(t.Context(), next); err == nil {
		t.Error("the key that seals was destroyed")
	}
	unseals(t, token, sealed)
	if err := token.DestroyKEK(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	for _, who := range []*keystore.Token{token, other, openAs(t, cfg)} {
		if _, err := who.Unseal(t.Context(), sealed, []byte("place")); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("unsealed after the end of its key: %v", err)
		}
	}
	// The other process still believes in the old key, and seals all the same.
	if s, kek := seal(t, other); !bytes.Equal(kek, next) {
		t.Errorf("sealed under %x, want %x", kek, next)
	} else {
		unseals(t, token, s)
	}
	if err := signDigest(mustSigner(t, token, stranger)); err != nil {
		t.Errorf("the CA key: %v", err)
	}
}

func TestATokenWhoseKeyEncryptionKeysAreGoneGetsNoNewOne(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	_, kek := seal(t, token)
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		objects, err := find(p, s, pkcs11.CKO_SECRET_KEY, kek)
		if err != nil || len(objects) != 1 {
			t.Fatalf("found %d keys, %v", len(objects), err)
		}
		return p.DestroyObject(s, objects[0])
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := token.Seal(t.Context(), nil, nil); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("sealed: %v", err)
		}
		token.AgeKEK(aged)
	}
}

func TestAStrangersKeyUnderOurLabelDoesNotSeal(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		_, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte("stranger")),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, "signet-kek-7"), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
		})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	sealed, kek := seal(t, token)
	if string(kek) == "stranger" {
		t.Error("sealed under a key that may leave the token")
	}
	unseals(t, openAs(t, cfg), sealed)
}

func TestAKeyPairSealsWhereAESDoesNot(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	v1, first := seal(t, token)
	id, err := token.MakePairKEK(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	sealed, kek := seal(t, token)
	if sealed[0] != 2 || !bytes.Equal(kek, id) {
		t.Fatalf("version %d under %x, want 2 under %x", sealed[0], kek, id)
	}
	for _, who := range []*keystore.Token{token, openAs(t, cfg)} {
		unseals(t, who, sealed)
		unseals(t, who, v1)
		if s, kek := seal(t, who); !bytes.Equal(kek, id) || bytes.Equal(s, sealed) {
			t.Errorf("sealed under %x, want %x", kek, id)
		}
	}
	for i := 0; i < len(sealed); i += 1 + i/40*11 { // every byte of the head, and some of what follows
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		if _, err := token.Unseal(t.Context(), changed, []byte("place")); !errors.Is(err, keystore.ErrSealed) && !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := token.Unseal(t.Context(), sealed[:i], []byte("place")); !errors.Is(err, keystore.ErrSealed) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := token.Unseal(t.Context(), sealed, []byte("elsewhere")); !errors.Is(err, keystore.ErrSealed) {
		t.Errorf("another place: %v", err)
	}
	if _, err := openAs(t, softhsmtest.Token(t)).Unseal(t.Context(), sealed, []byte("place")); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("another token: %v", err)
	}
	if next := rotate(t, token); bytes.Equal(next, id) {
		t.Error("the next key is the last one")
	}
	for _, old := range [][]byte{first, id} {
		if err := token.DestroyKEK(t.Context(), old); err != nil {
			t.Error(err)
		}
	}
	if err := token.ProveKEK(t.Context(), id); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("the pair that was destroyed: %v", err)
	}
}

// Whoever is logged in may put another public key beside the private one. Nothing is ever encrypted to it.
func TestNothingIsSealedToAnotherPublicKey(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	id, err := token.MakePairKEK(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	sealed, _ := seal(t, token)
	thief, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		objects, err := find(p, s, pkcs11.CKO_PUBLIC_KEY, id)
		if err != nil || len(objects) != 1 {
			t.Fatalf("found %d public keys, %v", len(objects), err)
		}
		if err := p.DestroyObject(s, objects[0]); err != nil {
			return err
		}
		_, err = p.CreateObject(s, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS, thief.N.Bytes()), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	unseals(t, token, sealed)
	if s, err := openAs(t, cfg).Seal(t.Context(), []byte("secret"), nil); err == nil {
		t.Errorf("sealed to a thief: %x", s)
	}
}

func mustSigner(t *testing.T, token *keystore.Token, id []byte) crypto.Signer {
	t.Helper()
	public, err := token.PublicKey(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.Signer(t.Context(), id, mustDER(t, public), keystore.BarBorn)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
