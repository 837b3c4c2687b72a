package keystore

import (
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// What an attack is made on.
const (
	onKey    = "key"
	onCanary = "canary"
)

// attack is one way to get at a private key. strike fails only when the session was lost.
type attack struct {
	name, call, target string
	strike             func(*scene) (verdict, error)
}

// privateParts are the attributes that hold private key material (PKCS#11 2.40, sections 2.1.3 and 2.3.4).
var privateParts = map[KeyType][]uint{
	RSA: {
		pkcs11.CKA_VALUE, pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1, pkcs11.CKA_PRIME_2,
		pkcs11.CKA_EXPONENT_1, pkcs11.CKA_EXPONENT_2, pkcs11.CKA_COEFFICIENT,
	},
	EC:      {pkcs11.CKA_VALUE},
	Ed25519: {pkcs11.CKA_VALUE},
}

var privatePartNames = map[uint]string{
	pkcs11.CKA_VALUE: "CKA_VALUE", pkcs11.CKA_PRIVATE_EXPONENT: "CKA_PRIVATE_EXPONENT",
	pkcs11.CKA_PRIME_1: "CKA_PRIME_1", pkcs11.CKA_PRIME_2: "CKA_PRIME_2",
	pkcs11.CKA_EXPONENT_1: "CKA_EXPONENT_1", pkcs11.CKA_EXPONENT_2: "CKA_EXPONENT_2", pkcs11.CKA_COEFFICIENT: "CKA_COEFFICIENT",
}

// weakness is a boolean attribute and the value that protects the key less.
type weakness = claim

// weaknesses are what a key must not be turned into, and what a copy of it must not be.
var weaknesses = []weakness{
	{pkcs11.CKA_EXTRACTABLE, true},
	{pkcs11.CKA_SENSITIVE, false},
	{pkcs11.CKA_WRAP_WITH_TRUSTED, false},
	{pkcs11.CKA_MODIFIABLE, true},
	{pkcs11.CKA_COPYABLE, true},
	{pkcs11.CKA_PRIVATE, false},
	{pkcs11.CKA_DECRYPT, true},
	{pkcs11.CKA_UNWRAP, true},
	{pkcs11.CKA_DERIVE, true},
	{pkcs11.CKA_SIGN_RECOVER, true},
}

// copies are the weaker templates that C_CopyObject is asked for. A session object is no weaker by itself; it is asked
// for because a token may be more lax about one.
var copies = []weakness{
	{pkcs11.CKA_EXTRACTABLE, true},
	{pkcs11.CKA_SENSITIVE, false},
	{pkcs11.CKA_PRIVATE, false},
	{pkcs11.CKA_MODIFIABLE, true},
	{pkcs11.CKA_TOKEN, false},
}

// keyAttacks do no harm to the key when they succeed.
func (d *drill) keyAttacks() []attack {
	var all []attack
	for _, part := range privateParts[d.keyType] {
		all = append(all, attack{"read-" + privatePartNames[part], "C_GetAttributeValue", onKey, reading(part)})
	}
	for _, w := range d.wrappings() {
		all = append(all, attack{"wrap-" + w.name, "C_WrapKey", onKey, w.strike})
	}
	return append(all, d.uses()...)
}

// canaryAttacks change the key when they succeed. The order is that of an attacker: first what might unlock the rest, then
// reading and wrapping once more. A token whose attributes change while the key still does not come out (tpm2-pkcs11, for
// which they are notes) shows both.
func (d *drill) canaryAttacks() []attack {
	var all []attack
	for _, w := range weaknesses {
		all = append(all, setting(w))
	}
	for _, w := range copies {
		all = append(all, copying(w))
	}
	for _, part := range privateParts[d.keyType] {
		all = append(all, attack{"read-again-" + privatePartNames[part], "C_GetAttributeValue", onCanary, reading(part)})
	}
	for _, w := range d.wrappings() {
		all = append(all, attack{"wrap-again-" + w.name, "C_WrapKey", onCanary, w.strike})
	}
	return all
}

func reading(part uint) func(*scene) (verdict, error) {
	return func(x *scene) (verdict, error) {
		octets := 0
		v, err := x.answer(false, func() error {
			value, err := x.attribute(x.object, part)
			octets = len(value)
			clear(value)
			return err
		})
		switch {
		case v.result == ckrName(pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)): // no such attribute: nothing was refused
			v.outcome = attackNotApplicable
		case v.outcome == attackYielded && octets == 0:
			v = verdict{attackRefused, "CKR_OK, but no value"}
		case v.outcome == attackYielded:
			v.result = fmt.Sprintf("%s, %d octets", v.result, octets)
		}
		return v, err
	}
}

func setting(w weakness) attack {
	name := attributeName(w.attribute)
	return attack{"set-" + name, "C_SetAttributeValue", onCanary, func(x *scene) (verdict, error) {
		before, known, err := x.flag(x.object, w.attribute)
		if err != nil {
			return verdict{}, err
		}
		if known && before == w.want {
			return already(w), nil
		}
		v, err := x.answer(false, func() error {
			return x.SetAttributeValue(x.handle, x.object, []*pkcs11.Attribute{pkcs11.NewAttribute(w.attribute, w.want)})
		})
		if err != nil {
			return verdict{}, err
		}
		after, known, err := x.flag(x.object, w.attribute) // whatever it said
		switch {
		case err != nil:
			return verdict{}, err
		case known && after == w.want:
			return verdict{attackYielded, v.result + ", and the attribute changed"}, nil
		case v.outcome != attackYielded:
			return v, nil
		case known:
			return verdict{attackRefused, v.result + ", but the attribute did not change"}, nil
		}
		return verdict{attackInconclusive, v.result + ", and the attribute cannot be read"}, nil
	}}
}

// already says that there is nothing to attack. The attributes of the key are judged by themselves, and what this one
// permits by the attacks that make use of it.
func already(w weakness) verdict {
	return verdict{attackNotApplicable, fmt.Sprintf("%s is %t already", attributeName(w.attribute), w.want)}
}

// copying asks for a weaker copy, and looks at the original as well: NSS answers with the handle of the original and
// changes that. A copy that is no weaker than the original is a refusal to weaken it.
func copying(w weakness) attack {
	return attack{"copy-" + attributeName(w.attribute), "C_CopyObject", onCanary, func(x *scene) (verdict, error) {
		before, err := x.flags(x.object)
		if err != nil {
			return verdict{}, err
		}
		if is, known := before[w.attribute]; known && is == w.want {
			return already(w), nil
		}
		copied := x.object
		v, err := x.answer(false, func() (err error) {
			copied, err = x.CopyObject(x.handle, x.object, []*pkcs11.Attribute{pkcs11.NewAttribute(w.attribute, w.want)})
			return err
		})
		if err != nil {
			return verdict{}, err
		}
		original, err := x.flags(x.object)
		if err != nil {
			return verdict{}, err
		}
		if weaker := weakened(before, original); len(weaker) > 0 {
			return verdict{attackYielded, v.result + ", and the original changed: " + strings.Join(weaker, ", ")}, nil
		}
		switch {
		case v.outcome != attackYielded:
			return v, nil
		case copied == x.object:
			return verdict{attackRefused, v.result + ", but with the handle of the original, which did not change"}, nil
		}
		return x.judgeCopy(w, before, copied, v)
	}}
}

// judgeCopy compares the copy with what the original was, and destroys it.
func (x *scene) judgeCopy(w weakness, before map[uint]bool, copied pkcs11.ObjectHandle, v verdict) (verdict, error) {
	after, err := x.flags(copied)
	_ = x.DestroyObject(x.handle, copied) // what stays goes with the canary, whose CKA_ID it has
	if err != nil {
		return verdict{}, err
	}
	if weaker := weakened(before, after); len(weaker) > 0 {
		return verdict{attackYielded, v.result + ", and the copy is weaker: " + strings.Join(weaker, ", ")}, nil
	}
	if _, known := after[w.attribute]; !known && w.attribute != pkcs11.CKA_TOKEN {
		return verdict{attackInconclusive, v.result + ", and the copy cannot be read"}, nil
	}
	return verdict{attackRefused, v.result + ", but the copy is no weaker"}, nil
}

// flags reads the weaknesses of an object. What the token does not tell is left out.
func (x *scene) flags(object pkcs11.ObjectHandle) (map[uint]bool, error) {
	flags := map[uint]bool{}
	for _, w := range weaknesses {
		is, known, err := x.flag(object, w.attribute)
		if err != nil {
			return nil, err
		}
		if known {
			flags[w.attribute] = is
		}
	}
	return flags, nil
}

// flag reads a boolean attribute, if the token tells it.
func (s *session) flag(object pkcs11.ObjectHandle, attribute uint) (is, known bool, err error) {
	value, known, err := s.told(object, attribute)
	if !known || len(value) != 1 {
		return false, false, err
	}
	return value[0] != 0, true, nil
}

// told reads an attribute. It fails only when session or token were lost: an accident of the moment must not pass for an
// attribute that the token does not tell.
func (s *session) told(object pkcs11.ObjectHandle, attribute uint) (value []byte, known bool, err error) {
	value, err = s.attribute(object, attribute)
	if lost(err) || s.broken(object, err) != nil {
		return nil, false, fmt.Errorf("read %s: %w", attributeName(attribute), err)
	}
	return value, err == nil, nil
}

// weakened names what after has become and before was not.
func weakened(before, after map[uint]bool) []string {
	var names []string
	for _, w := range weaknesses {
		was, known := before[w.attribute]
		is, told := after[w.attribute]
		if known && told && was != is && is == w.want {
			names = append(names, fmt.Sprintf("%s is %t", attributeName(w.attribute), is))
		}
	}
	return names
}
