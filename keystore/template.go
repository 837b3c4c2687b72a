package keystore

import (
	"crypto/elliptic"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// PKCS#11 3.0 numbers that miekg/pkcs11 does not have.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEDDSA               = 0x1057
)

// kind is how PKCS#11 makes and uses keys of one type and size.
type kind struct {
	keyType    uint
	generate   uint   // mechanism of C_GenerateKeyPair
	signing    []uint // CKA_ALLOWED_MECHANISMS: signing, and nothing else
	parameters []any  // alternatives for the attribute below; the first one that the token takes is used
	parameter  uint   // CKA_MODULUS_BITS or CKA_EC_PARAMS
}

var (
	rsaSigning = []uint{
		pkcs11.CKM_RSA_PKCS, pkcs11.CKM_SHA256_RSA_PKCS, pkcs11.CKM_SHA384_RSA_PKCS, pkcs11.CKM_SHA512_RSA_PKCS,
		pkcs11.CKM_RSA_PKCS_PSS, pkcs11.CKM_SHA256_RSA_PKCS_PSS, pkcs11.CKM_SHA384_RSA_PKCS_PSS, pkcs11.CKM_SHA512_RSA_PKCS_PSS,
	}
	ecSigning = []uint{pkcs11.CKM_ECDSA, pkcs11.CKM_ECDSA_SHA256, pkcs11.CKM_ECDSA_SHA384, pkcs11.CKM_ECDSA_SHA512}
	edSigning = []uint{ckmEDDSA}

	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
)

// curves are the named curves (RFC 5480, section 2.1.1.1) by field size.
var curves = map[int]struct {
	curve elliptic.Curve
	oid   asn1.ObjectIdentifier
}{
	256: {elliptic.P256(), asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}},
	384: {elliptic.P384(), asn1.ObjectIdentifier{1, 3, 132, 0, 34}},
	521: {elliptic.P521(), asn1.ObjectIdentifier{1, 3, 132, 0, 35}},
}

// kindOf refuses what is not in the table of [Spec].
func kindOf(t KeyType, size int) (kind, error) {
	switch {
	case t == RSA && (size == 2048 || size == 3072 || size == 4096):
		return kind{pkcs11.CKK_RSA, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, rsaSigning, []any{size}, pkcs11.CKA_MODULUS_BITS}, nil
	case t == EC && curves[size].curve != nil:
		oid, err := asn1.Marshal(curves[size].oid)
		return kind{pkcs11.CKK_EC, pkcs11.CKM_EC_KEY_PAIR_GEN, ecSigning, []any{oid}, pkcs11.CKA_EC_PARAMS}, err
	case t == Ed25519 && size == 256:
		name, err := asn1.MarshalWithParams("edwards25519", "printable") // PKCS#11 3.0, section 2.3.10
		if err != nil {
			return kind{}, err
		}
		oid, err := asn1.Marshal(oidEd25519) // RFC 8410, and PKCS#11 3.1
		return kind{ckkECEdwards, ckmECEdwardsKeyPairGen, edSigning, []any{name, oid}, pkcs11.CKA_EC_PARAMS}, err
	}
	return kind{}, fmt.Errorf("%w: %s %d", ErrUnsupported, t, size)
}

// template builds an attribute set from pairs of an attribute type and its value.
func template(pairs ...any) crypto11.AttributeSet {
	set := crypto11.NewAttributeSet()
	for i := 0; i < len(pairs); i += 2 {
		attribute := uint(pairs[i].(int))
		set[attribute] = pkcs11.NewAttribute(attribute, pairs[i+1])
	}
	return set
}

// privateTemplate says everything explicitly: tokens differ in their defaults, and some defaults are unsafe
// (SoftHSM2: SENSITIVE false, DECRYPT true; NSS: EXTRACTABLE true). CKA_DESTROYABLE is true: the end of a key is an
// audited act, not impossible.
func privateTemplate(s Spec, k kind) crypto11.AttributeSet {
	return template(
		pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY,
		pkcs11.CKA_KEY_TYPE, k.keyType,
		pkcs11.CKA_ID, s.ID,
		pkcs11.CKA_LABEL, s.Label,
		pkcs11.CKA_TOKEN, true,
		pkcs11.CKA_PRIVATE, true,
		pkcs11.CKA_SENSITIVE, true,
		pkcs11.CKA_EXTRACTABLE, false,
		pkcs11.CKA_SIGN, true,
		pkcs11.CKA_SIGN_RECOVER, false,
		pkcs11.CKA_DECRYPT, false,
		pkcs11.CKA_UNWRAP, false,
		pkcs11.CKA_DERIVE, false,
		pkcs11.CKA_WRAP_WITH_TRUSTED, true,
		pkcs11.CKA_MODIFIABLE, false,
		pkcs11.CKA_COPYABLE, false,
		pkcs11.CKA_DESTROYABLE, true,
		pkcs11.CKA_ALLOWED_MECHANISMS, mechanisms(k.signing),
	)
}

// publicTemplate leaves to the token what a public key is good for: nobody needs it in there, and tpm2-pkcs11 takes
// CKA_VERIFY for the right of the private key to decrypt, which contradicts privateTemplate.
func publicTemplate(s Spec, k kind, parameter any) crypto11.AttributeSet {
	set := template(
		pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY,
		pkcs11.CKA_KEY_TYPE, k.keyType,
		pkcs11.CKA_ID, s.ID,
		pkcs11.CKA_LABEL, s.Label,
		pkcs11.CKA_TOKEN, true,
		int(k.parameter), parameter,
	)
	if k.keyType == pkcs11.CKK_RSA {
		set[pkcs11.CKA_PUBLIC_EXPONENT] = pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	}
	return set
}

// secretTemplate is an AES-256 key that encrypts and decrypts inside the token, and no more.
func secretTemplate(id []byte, label string) crypto11.AttributeSet {
	return template(
		pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY,
		pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES,
		pkcs11.CKA_VALUE_LEN, 32,
		pkcs11.CKA_ID, id,
		pkcs11.CKA_LABEL, label,
		pkcs11.CKA_TOKEN, true,
		pkcs11.CKA_PRIVATE, true,
		pkcs11.CKA_SENSITIVE, true,
		pkcs11.CKA_EXTRACTABLE, false,
		pkcs11.CKA_ENCRYPT, true,
		pkcs11.CKA_DECRYPT, true,
		pkcs11.CKA_WRAP, false,
		pkcs11.CKA_UNWRAP, false,
		pkcs11.CKA_SIGN, false,
		pkcs11.CKA_VERIFY, false,
		pkcs11.CKA_DERIVE, false,
		pkcs11.CKA_WRAP_WITH_TRUSTED, true,
		pkcs11.CKA_MODIFIABLE, false,
		pkcs11.CKA_COPYABLE, false,
		pkcs11.CKA_DESTROYABLE, true,
		pkcs11.CKA_ALLOWED_MECHANISMS, mechanisms([]uint{pkcs11.CKM_AES_GCM}),
	)
}

// mechanisms is the value of CKA_ALLOWED_MECHANISMS: an array of CK_MECHANISM_TYPE.
func mechanisms(all []uint) []byte {
	var b []byte
	for _, m := range all {
		b = append(b, pkcs11.NewAttribute(pkcs11.CKA_MECHANISM_TYPE, m).Value...)
	}
	return b
}

// optional are the attributes that a token may not know, by what is left out together. What is left out is missing
// from the template only: the attributes that make a key non-exportable are read back in any case.
var optional = [][]uint{
	{pkcs11.CKA_ALLOWED_MECHANISMS},
	{pkcs11.CKA_COPYABLE, pkcs11.CKA_DESTROYABLE},
	{pkcs11.CKA_WRAP_WITH_TRUSTED},
	{pkcs11.CKA_MODIFIABLE},
}

// reductions are the ways to leave optional attributes out: nothing, one class, then more and more classes. The two
// classes that NSS does not know come before the other single ones, because it notices only after it has found the primes.
func reductions() [][]uint {
	ways := [][]uint{nil, optional[0], slices.Concat(optional[:2]...)}
	ways = append(ways, optional[1:]...)
	for n := 3; n <= len(optional); n++ {
		ways = append(ways, slices.Concat(optional[:n]...))
	}
	return ways
}

// without returns the template less these attributes.
func without(set crypto11.AttributeSet, left []uint) []*pkcs11.Attribute {
	reduced := set.Copy()
	for _, attribute := range left {
		reduced.Unset(attribute)
	}
	return reduced.ToSlice()
}
