package keystore

import (
	"encoding/hex"
	"fmt"

	"github.com/miekg/pkcs11"
)

// readable are the attributes that Attributes reads, and how their values are shown.
var readable = []struct {
	attribute uint
	name      string
	show      func([]byte) any
}{
	{pkcs11.CKA_CLASS, "CKA_CLASS", named(classNames)},
	{pkcs11.CKA_KEY_TYPE, "CKA_KEY_TYPE", named(keyTypeNames)},
	{pkcs11.CKA_LABEL, "CKA_LABEL", func(v []byte) any { return string(v) }},
	{pkcs11.CKA_ID, "CKA_ID", func(v []byte) any { return hex.EncodeToString(v) }},
	{pkcs11.CKA_TOKEN, "CKA_TOKEN", boolean},
	{pkcs11.CKA_PRIVATE, "CKA_PRIVATE", boolean},
	{pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE", boolean},
	{pkcs11.CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE", boolean},
	{pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", boolean},
	{pkcs11.CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE", boolean},
	{pkcs11.CKA_LOCAL, "CKA_LOCAL", boolean},
	{pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE", boolean},
	{pkcs11.CKA_COPYABLE, "CKA_COPYABLE", boolean},
	{pkcs11.CKA_DESTROYABLE, "CKA_DESTROYABLE", boolean},
	{pkcs11.CKA_SIGN, "CKA_SIGN", boolean},
	{pkcs11.CKA_SIGN_RECOVER, "CKA_SIGN_RECOVER", boolean},
	{pkcs11.CKA_DECRYPT, "CKA_DECRYPT", boolean},
	{pkcs11.CKA_UNWRAP, "CKA_UNWRAP", boolean},
	{pkcs11.CKA_DERIVE, "CKA_DERIVE", boolean},
	{pkcs11.CKA_WRAP_WITH_TRUSTED, "CKA_WRAP_WITH_TRUSTED", boolean},
	{pkcs11.CKA_ALWAYS_AUTHENTICATE, "CKA_ALWAYS_AUTHENTICATE", boolean},
	{pkcs11.CKA_KEY_GEN_MECHANISM, "CKA_KEY_GEN_MECHANISM", named(mechanismNames)},
	{pkcs11.CKA_ALLOWED_MECHANISMS, "CKA_ALLOWED_MECHANISMS", mechanismList},
}

var (
	classNames   = map[uint]string{pkcs11.CKO_PUBLIC_KEY: "CKO_PUBLIC_KEY", pkcs11.CKO_PRIVATE_KEY: "CKO_PRIVATE_KEY", pkcs11.CKO_SECRET_KEY: "CKO_SECRET_KEY"}
	keyTypeNames = map[uint]string{pkcs11.CKK_RSA: "CKK_RSA", pkcs11.CKK_EC: "CKK_EC", ckkECEdwards: "CKK_EC_EDWARDS", pkcs11.CKK_AES: "CKK_AES"}

	mechanismNames = map[uint]string{
		pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN: "CKM_RSA_PKCS_KEY_PAIR_GEN",
		pkcs11.CKM_EC_KEY_PAIR_GEN:       "CKM_EC_KEY_PAIR_GEN",
		ckmECEdwardsKeyPairGen:           "CKM_EC_EDWARDS_KEY_PAIR_GEN",
		pkcs11.CKM_RSA_PKCS:              "CKM_RSA_PKCS",
		pkcs11.CKM_SHA256_RSA_PKCS:       "CKM_SHA256_RSA_PKCS",
		pkcs11.CKM_SHA384_RSA_PKCS:       "CKM_SHA384_RSA_PKCS",
		pkcs11.CKM_SHA512_RSA_PKCS:       "CKM_SHA512_RSA_PKCS",
		pkcs11.CKM_RSA_PKCS_PSS:          "CKM_RSA_PKCS_PSS",
		pkcs11.CKM_SHA256_RSA_PKCS_PSS:   "CKM_SHA256_RSA_PKCS_PSS",
		pkcs11.CKM_SHA384_RSA_PKCS_PSS:   "CKM_SHA384_RSA_PKCS_PSS",
		pkcs11.CKM_SHA512_RSA_PKCS_PSS:   "CKM_SHA512_RSA_PKCS_PSS",
		pkcs11.CKM_ECDSA:                 "CKM_ECDSA",
		pkcs11.CKM_ECDSA_SHA256:          "CKM_ECDSA_SHA256",
		pkcs11.CKM_ECDSA_SHA384:          "CKM_ECDSA_SHA384",
		pkcs11.CKM_ECDSA_SHA512:          "CKM_ECDSA_SHA512",
		ckmEDDSA:                         "CKM_EDDSA",
	}
)

// attributes reads what the token says of a key, by PKCS#11 attribute name. Values are bool; string for labels, names of
// constants (in hexadecimal when unknown) and the CKA_ID (in hexadecimal); and []string for CKA_ALLOWED_MECHANISMS. What
// the token does not answer is left out.
func (s *session) attributes(object pkcs11.ObjectHandle) (map[string]any, error) {
	read := map[string]any{}
	for _, r := range readable {
		value, err := s.attribute(object, r.attribute)
		switch c := classOf(err); {
		case c == classSession || c == classLogin || c == classObject:
			return nil, fmt.Errorf("read %s: %w", r.name, err)
		case s.broken(object, err) != nil:
			return nil, fmt.Errorf("read %s: %w", r.name, err)
		case err == nil && len(value) > 0: // CKR_DEVICE_ERROR too may mean "unknown": p11-kit, CKA_ALLOWED_MECHANISMS
			read[r.name] = r.show(value)
		}
	}
	return read, nil
}

func attributeName(attribute uint) string {
	for _, r := range readable {
		if r.attribute == attribute {
			return r.name
		}
	}
	return fmt.Sprintf("attribute 0x%x", attribute)
}

func boolean(value []byte) any { return value[0] != 0 }

func named(names map[uint]string) func([]byte) any {
	return func(value []byte) any { return nameOf(names, number(value)) }
}

func nameOf(names map[uint]string, n uint) string {
	if name, ok := names[n]; ok {
		return name
	}
	return fmt.Sprintf("0x%x", n)
}

func mechanismList(value []byte) any {
	size := len(mechanisms([]uint{0}))
	all := []string{}
	for ; len(value) >= size; value = value[size:] {
		all = append(all, nameOf(mechanismNames, number(value[:size])))
	}
	return all
}
