package keystore_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"signet/keystore"
)

// TestKeysResist attacks keys with everything that a logged-in user of the token can call. An attack that the token
// does not refuse is a failure of the template.
func TestKeysResist(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	for _, k := range []struct {
		kind keystore.KeyType
		size int
	}{{keystore.RSA, 2048}, {keystore.EC, 256}, {keystore.Ed25519, 256}} {
		key, id := generate(t, token, k.kind, k.size)
		err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
			found, err := find(p, s, pkcs11.CKO_PRIVATE_KEY, id)
			if err != nil || len(found) != 1 {
				return fmt.Errorf("found %d keys: %w", len(found), err)
			}
			for name, yielded := range attack(t, p, s, found[0]) {
				if yielded {
					t.Errorf("%s %d yields to: %s", k.kind, k.size, name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if k.kind != keystore.Ed25519 {
			if err := signDigest(key); err != nil {
				t.Errorf("%s %d after the attacks: %v", k.kind, k.size, err)
			}
		}
		if err := token.Evidence(t.Context(), id); err != nil {
			t.Errorf("%s %d after the attacks: %v", k.kind, k.size, err)
		}
	}
}

// attack returns, by name, whether the key yielded.
func attack(t *testing.T, p *pkcs11.Ctx, s pkcs11.SessionHandle, key pkcs11.ObjectHandle) map[string]bool {
	t.Helper()
	yielded := map[string]bool{}
	for _, part := range privateParts {
		_, err := p.GetAttributeValue(s, key, []*pkcs11.Attribute{pkcs11.NewAttribute(part, nil)})
		yielded[fmt.Sprintf("read of attribute 0x%x", part)] = err == nil
	}
	changes := map[string]*pkcs11.Attribute{
		"EXTRACTABLE on":        pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
		"SENSITIVE off":         pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		"PRIVATE off":           pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		"WRAP_WITH_TRUSTED off": pkcs11.NewAttribute(pkcs11.CKA_WRAP_WITH_TRUSTED, false),
		"MODIFIABLE on":         pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, true),
		"COPYABLE on":           pkcs11.NewAttribute(pkcs11.CKA_COPYABLE, true),
		"DECRYPT on":            pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		"UNWRAP on":             pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true),
		"DERIVE on":             pkcs11.NewAttribute(pkcs11.CKA_DERIVE, true),
		"another label":         pkcs11.NewAttribute(pkcs11.CKA_LABEL, "other"),
		"another id":            pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{1}),
	}
	for name, change := range changes {
		yielded["set "+name] = p.SetAttributeValue(s, key, []*pkcs11.Attribute{change}) == nil
		_, err := p.CopyObject(s, key, []*pkcs11.Attribute{change})
		yielded["copy with "+name] = err == nil
	}
	_, err := p.CopyObject(s, key, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
	yielded["copy into the session"] = err == nil
	for name, mechanism := range wrappings {
		_, err := p.WrapKey(s, []*pkcs11.Mechanism{mechanism}, wrapper(t, p, s), key)
		yielded["wrap with "+name] = err == nil
	}
	decrypts := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)}
	yielded["decrypt"] = p.DecryptInit(s, decrypts, key) == nil
	peer := pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, make([]byte, 65))
	_, err = p.DeriveKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, peer)}, key, nil)
	yielded["derive"] = err == nil
	return yielded
}

var wrappings = map[string]*pkcs11.Mechanism{
	"AES_KEY_WRAP":     pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP, nil),
	"AES_KEY_WRAP_PAD": pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil),
	"AES_CBC_PAD":      pkcs11.NewMechanism(pkcs11.CKM_AES_CBC_PAD, make([]byte, 16)),
}

// wrapper makes a fresh AES key that may wrap, as an attacker would. It wraps an extractable key: otherwise a
// refusal would say nothing of ours.
func wrapper(t *testing.T, p *pkcs11.Ctx, s pkcs11.SessionHandle) pkcs11.ObjectHandle {
	t.Helper()
	aes := func(extractable bool) pkcs11.ObjectHandle {
		key, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
			pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, extractable),
		})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	wrapping := aes(false)
	if _, err := p.WrapKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, wrapping, aes(true)); err != nil {
		t.Fatalf("the attacker's key does not wrap at all: %v", err)
	}
	return wrapping
}

// TestTheKeyEncryptionKeyResists does the same to the key that seals.
func TestTheKeyEncryptionKeyResists(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	sealed, err := token.Seal(t.Context(), []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	id := sealed[2 : 2+int(sealed[1])]
	err = token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		found, err := find(p, s, pkcs11.CKO_SECRET_KEY, id)
		if err != nil || len(found) != 1 {
			return fmt.Errorf("found %d keys: %w", len(found), err)
		}
		for name, yielded := range attack(t, p, s, found[0]) {
			if yielded {
				t.Errorf("the key-encryption key yields to: %s", name)
			}
		}
		if _, err := p.WrapKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, found[0], found[0]); err == nil {
			t.Error("the key-encryption key wraps")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := token.Unseal(t.Context(), sealed, nil); err != nil || string(plain) != "secret" {
		t.Errorf("after the attacks: %q, %v", plain, err)
	}
}

func TestAnotherProcessCannotRelabel(t *testing.T) { // not parallel, see elsewhere
	token, cfg := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	if _, err := elsewhere(t, cfg, "relabel", id); err == nil {
		t.Error("another process changed the label of the key")
	}
	if err := signDigest(key); err != nil {
		t.Error(err)
	}
}

func TestDestroyLeavesNothing(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	key, id := generate(t, token, keystore.EC, 256)
	other, _ := generate(t, token, keystore.EC, 256)
	if err := token.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if n := count(t, token, id); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	if err := signDigest(key); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a destroyed key signs: %v", err)
	}
	if err := token.Destroy(t.Context(), id); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("destroyed twice: %v", err)
	}
	if err := signDigest(other); err != nil {
		t.Errorf("another key after the destruction: %v", err)
	}
}
