package keystore_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"

	"signet/keystore"
)

func TestListTellsSignetsOwnKeysFromOthers(t *testing.T) {
	t.Parallel()
	token, _ := open(t)
	if err := token.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := token.Attester(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := token.Seal(t.Context(), []byte("secret"), nil); err != nil {
		t.Fatal(err)
	}
	generate(t, token, keystore.EC, 256)
	labelled := func(label string) func(crypto11.AttributeSet) {
		return func(set crypto11.AttributeSet) {
			set[pkcs11.CKA_LABEL] = pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)
		}
	}
	if err := token.GenerateWith(t.Context(), []byte("no mark"), labelled("signet-attestation")); err != nil {
		t.Fatal(err)
	}
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error { // may leave
		if err := generateExtractable([]byte("loose"), true)(p, s); err != nil {
			return err
		}
		found, err := find(p, s, pkcs11.CKO_PRIVATE_KEY, []byte("loose"))
		if err != nil {
			return err
		}
		return p.SetAttributeValue(s, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "signet-health")})
	}); err != nil {
		t.Fatal(err)
	}
	all, err := token.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		got = append(got, e.Class+" "+string(e.Own))
	}
	slices.Sort(got)
	want := []string{"private ", "private ", "private ", "private attestation", "private health", "secret key-encryption"}
	if !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

func TestAKeyThatCanDoMoreThanSignNeedsALowerBar(t *testing.T) {
	t.Parallel()
	token, cfg := open(t)
	id := []byte("signs and decrypts")
	if err := token.Raw(t.Context(), func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		_, _, err := p.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)},
			[]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
				pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, 2048), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
			},
			[]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
				pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	public, err := token.PublicKey(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for bar, fits := range map[keystore.Bar]bool{keystore.BarBorn: false, keystore.BarAnyUse: true, keystore.BarHeld: true} {
		key, err := openAs(t, cfg).Signer(t.Context(), id, mustDER(t, public), bar)
		switch {
		case !fits && !errors.Is(err, keystore.ErrEvidence):
			t.Errorf("bar %d: %v", bar, err)
		case fits && err != nil:
			t.Errorf("bar %d: %v", bar, err)
		case fits:
			if err := signDigest(key); err != nil {
				t.Errorf("bar %d: %v", bar, err)
			}
		}
	}
}
