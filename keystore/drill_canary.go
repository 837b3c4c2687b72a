package keystore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
)

const canaryLabel = "signet-canary"

// errUnlike is a canary that says nothing of the key, because its attributes are not those of the key.
var errUnlike = errors.New("the canary is not like the key")

// canaryTries is how many canaries are made when they are not like the key: under load SoftHSM2 may refuse a template or
// misread an attribute once.
const canaryTries = 3

// mirrored are the attributes of privateTemplate that a canary takes over from the key under attack, so that it stands
// for a key with other attributes as well. A key made by Generate has all of them from privateTemplate.
var mirrored = []uint{
	pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_SIGN, pkcs11.CKA_SIGN_RECOVER,
	pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE, pkcs11.CKA_WRAP_WITH_TRUSTED, pkcs11.CKA_MODIFIABLE,
	pkcs11.CKA_COPYABLE, pkcs11.CKA_ALLOWED_MECHANISMS,
}

// onCanary makes a canary, has it attacked and destroys it. Others must not generate keys meanwhile.
func (d *drill) onCanary(ctx context.Context, s *session, l *ledger) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := sweepCanaries(s); err != nil {
		return err
	}
	if l.concluded() == len(l.attacks) {
		return nil // only the canary was left of an earlier try
	}
	for range canaryTries {
		if err = d.attackCanary(ctx, s, l); !errors.Is(err, errUnlike) {
			return err
		}
		key, err := d.token.anyPair(s, d.id)
		if err != nil {
			return err
		}
		if err := d.mirror(s, key.private); err != nil {
			return err
		}
	}
	return err
}

// mirror reads the attributes that a canary takes over.
func (d *drill) mirror(s *session, key pkcs11.ObjectHandle) error {
	d.raw = map[uint][]byte{}
	for _, attribute := range mirrored {
		value, known, err := s.told(key, attribute)
		if err != nil {
			return err
		}
		if known {
			d.raw[attribute] = value
		}
	}
	return nil
}

// attackCanary attacks one canary.
func (d *drill) attackCanary(ctx context.Context, s *session, l *ledger) (err error) {
	id := newCanaryID()
	d.setLeft(true)
	defer func() {
		gone := s.destroy(id, allKeys)
		d.setLeft(gone != nil)
		err = errors.Join(err, gone)
	}()
	if err := d.makeCanary(s, id); err != nil {
		return err
	}
	found, err := s.find(1, template(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKA_ID, id).ToSlice()...)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return d.token.absent(s)
	}
	if err := d.compare(s, found[0]); err != nil {
		return err
	}
	return d.strike(ctx, s, found[0], l)
}

func (d *drill) makeCanary(s *session, id []byte) error {
	spec := Spec{ID: id, Label: canaryLabel, Type: d.keyType, Size: d.size}
	if spec.Type == RSA {
		spec.Size = 2048 // what protects the key does not depend on its length
	}
	k, err := kindOf(spec.Type, spec.Size)
	if err != nil {
		return err
	}
	private := privateTemplate(spec, k)
	for attribute, value := range d.raw {
		private[attribute] = pkcs11.NewAttribute(attribute, value)
		if len(value) == 0 {
			private.Unset(attribute)
		}
	}
	for _, parameter := range k.parameters {
		err = s.generatePair(k.generate, publicTemplate(spec, k, parameter), private)
		if !is(err, unsupported) && !is(err, optionalRefused) {
			break
		}
	}
	return err
}

// compare fails with errUnlike when the token shows an attribute of the key and another value of it on the canary.
func (d *drill) compare(s *session, canary pkcs11.ObjectHandle) error {
	var unlike []string
	for _, attribute := range mirrored {
		want, shown := d.raw[attribute]
		value, known, err := s.told(canary, attribute)
		switch {
		case err != nil:
			return err
		case shown && known && !bytes.Equal(value, want):
			unlike = append(unlike, attributeName(attribute))
		}
	}
	if len(unlike) > 0 {
		return fmt.Errorf("%w: %s", errUnlike, strings.Join(unlike, ", "))
	}
	return nil
}

// The CKA_ID of a canary: a mark, Unix seconds (4 octets, big-endian), the process that made it and a random part (3
// octets each). Mark and label together tell a canary from a key that somebody labelled so.
var (
	canaryMark    = []byte("canary")
	canaryProcess = random(3)
)

// canaryAge is how long a canary of another process is left alone: it may be under attack.
const canaryAge = 2 * time.Minute

func newCanaryID() []byte {
	born := binary.BigEndian.AppendUint32(nil, uint32(time.Now().Unix()))
	return slices.Concat(canaryMark, born, canaryProcess, random(3))
}

// isLeftover reports that the id is that of a canary that nobody attacks any more. The caller holds the lock under which
// canaries of this process live.
func isLeftover(id []byte, now time.Time) bool {
	if len(id) != 16 || !bytes.HasPrefix(id, canaryMark) {
		return false
	}
	born := time.Unix(int64(binary.BigEndian.Uint32(id[6:])), 0)
	return bytes.Equal(id[10:13], canaryProcess) || now.Sub(born).Abs() > canaryAge
}

// sweepCanaries destroys what drills that were cut short have left.
func sweepCanaries(s *session) error {
	leftover := map[string]bool{}
	for _, class := range keyPair {
		objects, err := s.find(64, template(pkcs11.CKA_CLASS, class, pkcs11.CKA_LABEL, canaryLabel).ToSlice()...)
		if err != nil {
			return err
		}
		for _, object := range objects {
			id, err := s.attribute(object, pkcs11.CKA_ID)
			if err != nil {
				return fmt.Errorf("read CKA_ID: %w", err)
			}
			if isLeftover(id, time.Now()) {
				leftover[string(id)] = true
			}
		}
	}
	for id := range leftover {
		if err := s.destroy([]byte(id), keyPair); err != nil {
			return err
		}
	}
	return nil
}

// bury destroys the canary that a round could not destroy, also when the caller has gone.
func (d *drill) bury(ctx context.Context) error {
	d.mu.Lock()
	left := d.left
	d.mu.Unlock()
	if !left {
		return nil
	}
	_, err := call(context.WithoutCancel(ctx), d.token, operation[struct{}]{
		name: "drill", lock: d.token.slot.generating,
		run: func(s *session) (struct{}, error) { return struct{}{}, sweepCanaries(s) },
	})
	return err
}

func (d *drill) setLeft(left bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = left
}
