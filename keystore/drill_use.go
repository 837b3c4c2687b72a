package keystore

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/asn1"
	"math/big"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// uses are attempts to make a signing key decrypt, unwrap with attributes of the attacker's choice, or derive. They leave
// nothing behind, so that the key itself is asked.
func (d *drill) uses() []attack {
	switch public := d.public.(type) {
	case *rsa.PublicKey:
		var all []attack
		for _, m := range rsaDecryptions {
			all = append(all,
				attack{"decrypt-" + m.name, "C_DecryptInit", onKey, d.decrypting(public, m)},
				attack{"unwrap-" + m.name, "C_UnwrapKey", onKey, d.unwrapping(m.mechanism, m.parameter, func() ([]byte, error) { return m.encrypt(public) })},
			)
		}
		return all
	case *ecdsa.PublicKey:
		return append(d.derivations(ecdhPeer(public)), d.keyWrapUse())
	case ed25519.PublicKey:
		return append(d.derivations(x25519Peer), d.keyWrapUse())
	}
	return nil
}

// keyWrapUse hands a wrapped secret to a key that is no AES key: the token must see that.
func (d *drill) keyWrapUse() attack {
	wrapped := func() ([]byte, error) { return random(40), nil }
	return attack{"unwrap-CKM_AES_KEY_WRAP", "C_UnwrapKey", onKey, d.unwrapping(pkcs11.CKM_AES_KEY_WRAP, none, wrapped)}
}

// rsaDecryption is a mechanism to decrypt and to unwrap with, and how to make something for it.
type rsaDecryption struct {
	mechanism uint
	name      string
	parameter func() any
	encrypt   func(*rsa.PublicKey) ([]byte, error)
}

var rsaDecryptions = []rsaDecryption{
	{pkcs11.CKM_RSA_PKCS, "CKM_RSA_PKCS", none, encryptPKCS1},
	{pkcs11.CKM_RSA_PKCS_OAEP, "CKM_RSA_PKCS_OAEP", oaep, func(public *rsa.PublicKey) ([]byte, error) {
		return rsa.EncryptOAEP(sha1.New(), rand.Reader, public, random(32), nil)
	}},
	{pkcs11.CKM_RSA_X_509, "CKM_RSA_X_509", none, encryptPKCS1},
}

// encryptPKCS1 encrypts 32 random octets (RFC 8017, section 7.2.1). To RSA without padding they are a number like any.
func encryptPKCS1(public *rsa.PublicKey) ([]byte, error) {
	padded := random(public.Size())
	for i := range padded {
		padded[i] |= 1 // no zeros in the padding
	}
	padded[0], padded[1], padded[len(padded)-33] = 0, 2, 0
	m := new(big.Int).SetBytes(padded)
	return m.Exp(m, big.NewInt(int64(public.E)), public.N).FillBytes(padded), nil
}

// decrypting goes on to C_Decrypt where C_DecryptInit says yes: some tokens look at the key only then.
func (d *drill) decrypting(public *rsa.PublicKey, m rsaDecryption) func(*scene) (verdict, error) {
	return func(x *scene) (verdict, error) {
		ciphertext, err := m.encrypt(public)
		if err != nil {
			return verdict{attackNotApplicable, err.Error()}, nil
		}
		return d.using(x, m.mechanism, pkcs11.CKF_DECRYPT, func() error {
			err := x.DecryptInit(x.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(m.mechanism, m.parameter())}, x.object)
			if err != nil {
				return err
			}
			plaintext, err := x.Decrypt(x.handle, ciphertext)
			clear(plaintext)
			return err
		})
	}
}

// unwrapping asks for a key that the attacker can read.
func (d *drill) unwrapping(mechanism uint, parameter func() any, wrap func() ([]byte, error)) func(*scene) (verdict, error) {
	return func(x *scene) (verdict, error) {
		wrapped, err := wrap()
		if err != nil {
			return verdict{attackNotApplicable, err.Error()}, nil
		}
		return d.using(x, mechanism, pkcs11.CKF_UNWRAP, func() error {
			m := []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, parameter())}
			object, err := x.UnwrapKey(x.handle, m, x.object, wrapped, readableSecret(pkcs11.CKK_AES).ToSlice())
			if err == nil {
				_ = x.DestroyObject(x.handle, object)
			}
			return err
		})
	}
}

// derivations try each mechanism with the peer's point bare and in DER: tokens differ in what they take.
func (d *drill) derivations(peer func() ([]byte, error)) []attack {
	var all []attack
	for _, m := range []struct {
		mechanism uint
		name      string
	}{{pkcs11.CKM_ECDH1_DERIVE, "CKM_ECDH1_DERIVE"}, {pkcs11.CKM_ECDH1_COFACTOR_DERIVE, "CKM_ECDH1_COFACTOR_DERIVE"}} {
		all = append(all, attack{"derive-" + m.name, "C_DeriveKey", onKey, func(x *scene) (verdict, error) {
			point, err := peer()
			if err != nil {
				return verdict{attackNotApplicable, err.Error()}, nil
			}
			der, err := asn1.Marshal(point)
			if err != nil {
				return verdict{attackNotApplicable, err.Error()}, nil
			}
			return x.answer(d.offers(m.mechanism, pkcs11.CKF_DERIVE), func() error {
				err := x.derive(m.mechanism, point)
				if err != nil && !lost(err) && !is(err, protective) {
					err = x.derive(m.mechanism, der)
				}
				return err
			})
		}})
	}
	return all
}

func (x *scene) derive(mechanism uint, point []byte) error {
	parameter := pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, point)
	wanted := append(readableSecret(pkcs11.CKK_GENERIC_SECRET).ToSlice(), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32))
	object, err := x.DeriveKey(x.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, parameter)}, x.object, wanted)
	if err == nil {
		_ = x.DestroyObject(x.handle, object)
	}
	return err
}

// readableSecret is a template for what comes out of the attack: a session key whose value may be read.
func readableSecret(keyType int) crypto11.AttributeSet {
	return template(
		pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY, pkcs11.CKA_KEY_TYPE, keyType, pkcs11.CKA_TOKEN, false,
		pkcs11.CKA_SENSITIVE, false, pkcs11.CKA_EXTRACTABLE, true,
	)
}

// offers reports that the token lists the mechanism for this use.
func (d *drill) offers(mechanism, use uint) bool { return d.mechanisms[mechanism]&use != 0 }

// using judges a use of the key. CKR_KEY_TYPE_INCONSISTENT is what NSS says about an RSA key that may not be used so, and
// no word about its type when the mechanism is for RSA keys.
func (d *drill) using(x *scene, mechanism, use uint, attempt func() error) (verdict, error) {
	offered := d.offers(mechanism, use)
	v, err := x.answer(offered, attempt)
	if unsuited := ckrName(pkcs11.Error(pkcs11.CKR_KEY_TYPE_INCONSISTENT)); v.result == unsuited && offered && d.keyType == RSA {
		v.outcome = attackRefused
	}
	return v, err
}

// ecdhPeer makes a key pair on the curve of the key under attack and returns its public point, uncompressed.
func ecdhPeer(public *ecdsa.PublicKey) func() ([]byte, error) {
	return func() ([]byte, error) {
		own, err := public.ECDH()
		if err != nil {
			return nil, err
		}
		peer, err := own.Curve().GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return peer.PublicKey().Bytes(), nil
	}
}

func x25519Peer() ([]byte, error) {
	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return peer.PublicKey().Bytes(), nil
}
