package keystore

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
)

// wrappingKey is a kind of key that wraps others: how a token makes one, and its length in octets.
type wrappingKey struct {
	name     string
	generate uint
	keyType  uint
	octets   int
	sized    bool // the length is said in the template
}

var (
	aesKey      = &wrappingKey{"AES", pkcs11.CKM_AES_KEY_GEN, pkcs11.CKK_AES, 32, true}
	des3Key     = &wrappingKey{"DES3", pkcs11.CKM_DES3_KEY_GEN, pkcs11.CKK_DES3, 24, false}
	desKey      = &wrappingKey{"DES", pkcs11.CKM_DES_KEY_GEN, pkcs11.CKK_DES, 8, false}
	camelliaKey = &wrappingKey{"Camellia", pkcs11.CKM_CAMELLIA_KEY_GEN, pkcs11.CKK_CAMELLIA, 32, true}
	seedKey     = &wrappingKey{"SEED", pkcs11.CKM_SEED_KEY_GEN, pkcs11.CKK_SEED, 16, false}
	rsaKey      = &wrappingKey{name: "RSA"}
)

// wrapMechanism is a mechanism to wrap with.
type wrapMechanism struct {
	mechanism uint
	name      string
	with      *wrappingKey // nil when Signet cannot use the mechanism, for the reason
	parameter func() any
	reason    string
}

// PKCS#11 3.0 mechanisms that miekg/pkcs11 does not have.
const (
	ckmAESKeyWrapKWP   = 0x210B
	ckmAESKeyWrapPKCS7 = 0x210C
)

// wrapMechanisms are the mechanisms that Signet knows how to wrap with. The first ones are tried in any case: tokens
// have mechanisms that they do not list.
var wrapMechanisms = []wrapMechanism{
	{pkcs11.CKM_AES_KEY_WRAP, "CKM_AES_KEY_WRAP", aesKey, none, ""},
	{pkcs11.CKM_AES_KEY_WRAP_PAD, "CKM_AES_KEY_WRAP_PAD", aesKey, none, ""},
	{ckmAESKeyWrapKWP, "CKM_AES_KEY_WRAP_KWP", aesKey, none, ""},
	{pkcs11.CKM_AES_CBC_PAD, "CKM_AES_CBC_PAD", aesKey, zeros(16), ""},
	{pkcs11.CKM_AES_CBC, "CKM_AES_CBC", aesKey, zeros(16), ""},
	{pkcs11.CKM_AES_ECB, "CKM_AES_ECB", aesKey, none, ""},
	{pkcs11.CKM_AES_GCM, "CKM_AES_GCM", aesKey, gcm, ""},
	{pkcs11.CKM_RSA_PKCS, "CKM_RSA_PKCS", rsaKey, none, ""},
	{pkcs11.CKM_RSA_PKCS_OAEP, "CKM_RSA_PKCS_OAEP", rsaKey, oaep, ""},
	{pkcs11.CKM_RSA_AES_KEY_WRAP, "CKM_RSA_AES_KEY_WRAP", rsaKey, rsaAES, ""},

	{ckmAESKeyWrapPKCS7, "CKM_AES_KEY_WRAP_PKCS7", aesKey, none, ""},
	{pkcs11.CKM_AES_CTR, "CKM_AES_CTR", aesKey, ctr, ""},
	{pkcs11.CKM_AES_CTS, "CKM_AES_CTS", aesKey, zeros(16), ""},
	{pkcs11.CKM_AES_OFB, "CKM_AES_OFB", aesKey, zeros(16), ""},
	{pkcs11.CKM_AES_CFB1, "CKM_AES_CFB1", aesKey, zeros(16), ""},
	{pkcs11.CKM_AES_CFB8, "CKM_AES_CFB8", aesKey, zeros(16), ""},
	{pkcs11.CKM_AES_CFB64, "CKM_AES_CFB64", aesKey, zeros(16), ""},
	{pkcs11.CKM_AES_CFB128, "CKM_AES_CFB128", aesKey, zeros(16), ""},
	{pkcs11.CKM_NSS_AES_KEY_WRAP, "CKM_NSS_AES_KEY_WRAP", aesKey, none, ""},
	{pkcs11.CKM_NSS_AES_KEY_WRAP_PAD, "CKM_NSS_AES_KEY_WRAP_PAD", aesKey, none, ""},
	{pkcs11.CKM_RSA_X_509, "CKM_RSA_X_509", rsaKey, none, ""},
	{pkcs11.CKM_DES3_ECB, "CKM_DES3_ECB", des3Key, none, ""},
	{pkcs11.CKM_DES3_CBC, "CKM_DES3_CBC", des3Key, zeros(8), ""},
	{pkcs11.CKM_DES3_CBC_PAD, "CKM_DES3_CBC_PAD", des3Key, zeros(8), ""},
	{pkcs11.CKM_DES_ECB, "CKM_DES_ECB", desKey, none, ""},
	{pkcs11.CKM_DES_CBC, "CKM_DES_CBC", desKey, zeros(8), ""},
	{pkcs11.CKM_DES_CBC_PAD, "CKM_DES_CBC_PAD", desKey, zeros(8), ""},
	{pkcs11.CKM_CAMELLIA_ECB, "CKM_CAMELLIA_ECB", camelliaKey, none, ""},
	{pkcs11.CKM_CAMELLIA_CBC, "CKM_CAMELLIA_CBC", camelliaKey, zeros(16), ""},
	{pkcs11.CKM_CAMELLIA_CBC_PAD, "CKM_CAMELLIA_CBC_PAD", camelliaKey, zeros(16), ""},
	{pkcs11.CKM_SEED_ECB, "CKM_SEED_ECB", seedKey, none, ""},
	{pkcs11.CKM_SEED_CBC, "CKM_SEED_CBC", seedKey, zeros(16), ""},
	{pkcs11.CKM_SEED_CBC_PAD, "CKM_SEED_CBC_PAD", seedKey, zeros(16), ""},

	{pkcs11.CKM_AES_CCM, "CKM_AES_CCM", nil, none, "Signet has no parameters for it"},
	{pkcs11.CKM_ECDH_AES_KEY_WRAP, "CKM_ECDH_AES_KEY_WRAP", nil, none, "Signet has no parameters for it"},
}

const triedInAnyCase = 10

func none() any { return nil }

func zeros(n int) func() any { return func() any { return make([]byte, n) } }

func gcm() any { return pkcs11.NewGCMParams(make([]byte, nonceSize), nil, tagSize*8) }

func oaep() any {
	return pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil)
}

func rsaAES() any {
	return &pkcs11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEPParams: *oaep().(*pkcs11.OAEPParams)}
}

// ctr is CK_AES_CTR_PARAMS: the number of counter bits, and the block that they end (PKCS#11 2.40, section 2.11.1).
func ctr() any {
	bits := pkcs11.NewAttribute(pkcs11.CKA_VALUE_BITS, 128).Value
	return append(bits, make([]byte, 16)...)
}

// wrappings are the mechanisms to attack this token with: what Signet knows and the token lists, what it tries in any
// case, and by number what the token lists for wrapping and Signet does not know.
func (d *drill) wrappings() []wrapMechanism {
	var all []wrapMechanism
	known := map[uint]bool{}
	for i, w := range wrapMechanisms {
		flags, listed := d.mechanisms[w.mechanism]
		known[w.mechanism] = true
		if i < triedInAnyCase || listed && flags&pkcs11.CKF_WRAP != 0 {
			all = append(all, w)
		}
	}
	var others []uint
	for mechanism, flags := range d.mechanisms {
		if flags&pkcs11.CKF_WRAP != 0 && !known[mechanism] {
			others = append(others, mechanism)
		}
	}
	slices.Sort(others)
	for _, m := range others {
		all = append(all, wrapMechanism{m, nameOf(mechanismNames, m), nil, none, "Signet does not know the mechanism"})
	}
	return all
}

// strike wraps the key under attack with a fresh key. Before, it wraps an extractable key the same way: the token's
// answer is about the key under attack only if that works.
func (w wrapMechanism) strike(x *scene) (verdict, error) {
	if w.with == nil {
		return verdict{attackNotApplicable, w.reason}, nil
	}
	key, err := x.toWrapWith(w.with)
	switch {
	case lost(err):
		return verdict{}, err
	case err != nil:
		if dead := x.dead(); dead != nil {
			return verdict{}, dead
		}
		return verdict{attackNotApplicable, fmt.Sprintf("no %s key to wrap with: %s", w.with.name, ckrName(err))}, nil
	}
	control, err := x.toBeWrapped()
	if lost(err) {
		return verdict{}, err
	}
	var trial verdict
	if err == nil {
		if trial, err = x.answer(false, func() error { _, err := w.wrap(x, key, control); return err }); err != nil {
			return verdict{}, err
		}
	}
	works := trial.outcome == attackYielded
	octets := 0
	v, err := x.answer(works, func() (err error) { octets, err = w.wrap(x, key, x.object); return err })
	switch {
	case err != nil:
		return verdict{}, err
	case v.outcome == attackYielded:
		v.result = fmt.Sprintf("%s, %d octets", v.result, octets)
	case v.outcome == attackRefused && !works && !isProtective(v):
		v = verdict{attackNotApplicable, v.result + "; the token does not wrap an extractable key so either"}
	}
	return v, nil
}

// isProtective reports that the answer alone is enough of a refusal.
func isProtective(v verdict) bool {
	for ckr := range protective {
		if v.result == ckrName(ckr) {
			return true
		}
	}
	return false
}

// wrap returns how many octets came out, and keeps none of them.
func (w wrapMechanism) wrap(x *scene, with, key pkcs11.ObjectHandle) (int, error) {
	parameter := w.parameter()
	if p, ok := parameter.(*pkcs11.GCMParams); ok {
		defer p.Free()
	}
	wrapped, err := x.WrapKey(x.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(w.mechanism, parameter)}, with, key)
	clear(wrapped)
	return len(wrapped), err
}

// made is a session object of ours, or why there is none.
type made struct {
	object pkcs11.ObjectHandle
	err    error
}

// toWrapWith returns the wrapping key of this kind, made on first use.
func (x *scene) toWrapWith(k *wrappingKey) (pkcs11.ObjectHandle, error) {
	return x.once(k, func() (pkcs11.ObjectHandle, error) {
		if k == rsaKey {
			return x.makeRSA()
		}
		return x.makeSecret(k, template(pkcs11.CKA_WRAP, true).ToSlice())
	})
}

// toBeWrapped returns an AES key that may be wrapped.
func (x *scene) toBeWrapped() (pkcs11.ObjectHandle, error) {
	return x.once(nil, func() (pkcs11.ObjectHandle, error) {
		return x.makeSecret(aesKey, template(pkcs11.CKA_EXTRACTABLE, true, pkcs11.CKA_SENSITIVE, false).ToSlice())
	})
}

func (x *scene) once(k *wrappingKey, make func() (pkcs11.ObjectHandle, error)) (pkcs11.ObjectHandle, error) {
	m, ok := x.keys[k]
	if !ok {
		m.object, m.err = make()
		x.keys[k] = m
	}
	return m.object, m.err
}

// makeSecret generates a secret session key; a token that makes none may take one from outside.
func (x *scene) makeSecret(k *wrappingKey, more []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	set := append(template(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY, pkcs11.CKA_KEY_TYPE, k.keyType, pkcs11.CKA_TOKEN, false).ToSlice(), more...)
	generated := set
	if k.sized {
		generated = append(slices.Clone(set), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, k.octets))
	}
	object, err := x.GenerateKey(x.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(k.generate, nil)}, generated)
	if err == nil || lost(err) {
		return object, err
	}
	return x.CreateObject(x.handle, append(slices.Clone(set), pkcs11.NewAttribute(pkcs11.CKA_VALUE, random(k.octets))))
}

// makeRSA brings in the public half of a key pair, as an attacker who holds the other half would. The private half is
// dropped where it was made.
func (x *scene) makeRSA() (pkcs11.ObjectHandle, error) {
	n, err := wrappingModulus()
	if err != nil {
		return 0, err
	}
	object, err := x.CreateObject(x.handle, template(
		pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA, pkcs11.CKA_TOKEN, false,
		pkcs11.CKA_WRAP, true, pkcs11.CKA_MODULUS, n.Bytes(), pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1},
	).ToSlice())
	if err == nil || lost(err) {
		return object, err
	}
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)}
	public, private, err := x.GenerateKeyPair(x.handle, m, template(
		pkcs11.CKA_TOKEN, false, pkcs11.CKA_WRAP, true, pkcs11.CKA_MODULUS_BITS, 2048, pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1},
	).ToSlice(), template(pkcs11.CKA_TOKEN, false, pkcs11.CKA_PRIVATE, true, pkcs11.CKA_UNWRAP, true).ToSlice())
	if err == nil {
		_ = x.DestroyObject(x.handle, private)
	}
	return public, err
}

// wrappingModulus is that of an RSA-2048 key (e = 65537), made once in the life of the process.
var wrappingModulus = sync.OnceValues(func() (*big.Int, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return key.N, nil
})
