package keystore

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// Generate makes a key pair inside the token with the full non-exportable template, reads its attributes back and signs
// with it.
// Errors: [ErrExists], [ErrUnsupported], [ErrEvidence], [ErrUnavailable].
func (t *Token) Generate(ctx context.Context, s Spec) (crypto.Signer, error) {
	k, err := kindOf(s.Type, s.Size)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	if len(s.ID) == 0 {
		return nil, errors.New("generate key: the CKA_ID is empty")
	}
	made, err := t.generate(ctx, &birth{id: s.ID, class: pkcs11.CKO_PRIVATE_KEY, bar: s.Bar, generate: func(session *session) error {
		var err error
		for _, parameter := range k.parameters {
			err = session.generatePair(k.generate, publicTemplate(s, k, parameter), privateTemplate(s, k))
			if !is(err, unsupported) && !is(err, optionalRefused) {
				break
			}
		}
		return err
	}})
	if err != nil {
		return nil, fmt.Errorf("generate %s %d key: %w", s.Type, s.Size, err)
	}
	return &signer{t, t.remember(made)}, nil
}

// generate makes a key pair, finds it and tries it. A key that is of no use, or that nobody waits for any more, is
// destroyed.
func (t *Token) generate(ctx context.Context, b *birth) (*key, error) {
	return call(ctx, t, operation[*key]{
		name: "generate",
		slow: true,
		lock: t.slot.generating,
		run: func(s *session) (*key, error) {
			if err := b.produce(s); err != nil {
				return nil, err
			}
			generation := t.slot.handles()
			k := &key{id: b.id, bar: b.bar}
			p, err := t.lookup(s, b.id)
			if err == nil {
				k.public = p.public
				k.found.Store(&found{generation, p.private})
			}
			if err == nil && b.prove == nil {
				err = t.try(s, k)
			}
			switch {
			case err == nil:
				return k, nil
			case classOf(err).retried():
				return nil, err
			}
			return nil, errors.Join(fmt.Errorf("%w: it makes keys that are of no use: %w", ErrUnsupported, err), s.destroy(b.id, allKeys))
		},
		late: func(s *session, k *key) { _ = s.destroy(k.id, allKeys) },
	})
}

// birth is a key in the making.
type birth struct {
	id       []byte
	class    int
	bar      Bar
	generate func(*session) error
	prove    func(*session) error // nil: evidence of its class
	begun    bool                 // the id was free, so that whatever it names now is ours
}

// produce generates a key under a free id, and destroys it again when it does not show that it is non-exportable. What a
// failed attempt left behind is removed before the next one.
func (b *birth) produce(s *session) error {
	taken, err := s.find(1, template(pkcs11.CKA_ID, b.id).ToSlice()...)
	switch {
	case err != nil:
		return err
	case len(taken) > 0 && !b.begun:
		return ErrExists
	case len(taken) > 0:
		if err := s.destroy(b.id, allKeys); err != nil {
			return err
		}
	}
	b.begun = true
	err = b.generate(s)
	if is(err, unsupported) {
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err == nil && b.prove != nil {
		err = b.prove(s)
	} else if err == nil {
		err = s.evidence(b.id, b.class, b.bar)
	}
	if err != nil {
		return errors.Join(err, s.destroy(b.id, allKeys))
	}
	return nil
}

// generatePair calls C_GenerateKeyPair, leaving optional attributes out until the token takes the template.
func (s *session) generatePair(mechanism uint, public, private crypto11.AttributeSet) error {
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}
	return reduce(private, s.cleaner(private), func(reduced []*pkcs11.Attribute) error {
		_, _, err := s.GenerateKeyPair(s.handle, m, public.ToSlice(), reduced)
		return err
	})
}

// generateSecret is generatePair for C_GenerateKey.
func (s *session) generateSecret(mechanism uint, secret crypto11.AttributeSet) error {
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}
	return reduce(secret, s.cleaner(secret), func(reduced []*pkcs11.Attribute) error {
		_, err := s.GenerateKey(s.handle, m, reduced)
		return err
	})
}

// cleaner returns what removes the objects with the CKA_ID of the template.
func (s *session) cleaner(set crypto11.AttributeSet) func() error {
	return func() error { return s.destroy(set[crypto11.CkaId].Value, allKeys) }
}

// generalErrorTries is how often the whole template is tried when the token gives no reason.
const generalErrorTries = 3

// generalErrorPause lets the accident pass before the next try.
const generalErrorPause = 20 * time.Millisecond

// reduce tries the template with all attributes, then with fewer of the optional ones while the token refuses. The whole
// template is tried again after CKR_GENERAL_ERROR: SoftHSM2 says so about an accident of the moment, NSS about an
// attribute, and an accident must not cost a key its attributes. A token that names a fault in every template has no
// such keys: [ErrUnsupported] (tpm2-pkcs11, RSA-4096: CKR_ATTRIBUTE_VALUE_INVALID).
// clean removes what an attempt may have left behind.
func reduce(set crypto11.AttributeSet, clean func() error, try func([]*pkcs11.Attribute) error) error {
	var err error
	for i, left := range reductions() {
		for range generalErrorTries {
			if err = try(without(set, left)); !is(err, optionalRefused) {
				return err
			}
			if i > 0 || !errors.Is(err, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)) {
				break
			}
			time.Sleep(generalErrorPause)
			if err := clean(); err != nil {
				return err
			}
		}
	}
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)) {
		return err
	}
	return fmt.Errorf("%w: it takes no template: %w", ErrUnsupported, err)
}

// Bar is how much a token must say of a key before it is used.
type Bar int

// The bars.
const (
	// BarBorn: the key was born in the token, never could leave it, and only signs. The zero value.
	BarBorn Bar = iota
	// BarAnyUse: as BarBorn, but the key may decrypt, unwrap or derive as well. For keys made elsewhere, when the operator has
	// accepted that.
	BarAnyUse
	// BarHeld: the key cannot leave the token now. For keys made elsewhere, and for tokens that do not tell where a key was
	// born, when the operator has accepted that.
	BarHeld
)

// held is what the token must say of a key that cannot leave it (PKCS#11 2.40, section 4.9).
var held = []claim{
	{pkcs11.CKA_TOKEN, true},
	{pkcs11.CKA_PRIVATE, true},
	{pkcs11.CKA_SENSITIVE, true},
	{pkcs11.CKA_EXTRACTABLE, false},
}

// born is what it must say, besides, of a key that was made in it and never could leave it.
var born = []claim{
	{pkcs11.CKA_ALWAYS_SENSITIVE, true},
	{pkcs11.CKA_NEVER_EXTRACTABLE, true},
	{pkcs11.CKA_LOCAL, true},
}

// signsOnly is what the token must not deny of a private key that was made here; a token that does not know one of these
// cannot do it.
var signsOnly = []claim{
	{pkcs11.CKA_DECRYPT, false},
	{pkcs11.CKA_UNWRAP, false},
	{pkcs11.CKA_DERIVE, false},
}

// claim is a boolean attribute and the value it shall have.
type claim struct {
	attribute uint
	want      bool
}

// evidence reads back the attributes of the key with this CKA_ID and fails with [ErrEvidence], naming what is
// missing, unless they prove it non-exportable.
func (s *session) evidence(id []byte, class int, bar Bar) error {
	objects, err := s.find(2, template(pkcs11.CKA_CLASS, class, pkcs11.CKA_ID, id).ToSlice()...)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		return ErrNotFound
	}
	for _, object := range objects {
		if err := s.prove(object, class, bar); err != nil {
			return err
		}
	}
	return nil
}

// prove checks the claims that hold for an object of this class.
func (s *session) prove(object pkcs11.ObjectHandle, class int, bar Bar) error {
	claims := held
	if bar != BarHeld {
		claims = slices.Concat(claims, born)
	}
	required := len(claims)
	if bar == BarBorn && class == pkcs11.CKO_PRIVATE_KEY {
		claims = slices.Concat(claims, signsOnly)
	}
	var missing []string
	for i, c := range claims {
		value, err := s.attribute(object, c.attribute)
		known := err == nil && len(value) == 1
		switch {
		case classOf(err).retried():
			return fmt.Errorf("read %s: %w", attributeName(c.attribute), err)
		case !known && i >= required:
		case !known || (value[0] != 0) != c.want:
			missing = append(missing, fmt.Sprintf("%s is not %t", attributeName(c.attribute), c.want))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s", ErrEvidence, strings.Join(missing, ", "))
	}
	return nil
}
