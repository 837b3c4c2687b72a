package keystore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
)

const (
	// kekLabel is the label of the first key-encryption key; that of the nth is "signet-kek-n". The label only finds a
	// key: from then on it is known by its CKA_ID, and it must prove that it cannot leave the token.
	kekLabel = "signet-kek"
	// maxSecrets is how many keys that may decrypt are looked at.
	maxSecrets = 1024
	// maxKEKGeneration is the last generation; the labels of later ones are not read.
	maxKEKGeneration = 999_999
)

// KEKMemory is how long a process goes on sealing under a key-encryption key before it looks for a newer one in the
// token, which another process may have made.
const KEKMemory = 5 * time.Second

// current is the key-encryption key that seals, as the token was at a moment.
type current struct {
	*secret
	generation int
	asOf       time.Time
}

// generationOf reads the label of a key-encryption key.
func generationOf(label string) (generation int, ok bool) {
	if label == kekLabel {
		return 1, true
	}
	number, ok := strings.CutPrefix(label, kekLabel+"-")
	generation, err := strconv.Atoi(number)
	return generation, ok && err == nil && generation > 1 && generation <= maxKEKGeneration && strconv.Itoa(generation) == number
}

func labelOf(generation int) string {
	if generation == 1 {
		return kekLabel
	}
	return kekLabel + "-" + strconv.Itoa(generation)
}

// listedKEK is a key-encryption key as it lies in the token.
type listedKEK struct {
	*secret
	generation int
}

// newest orders key-encryption keys: the one that seals comes first.
func newest(a, b listedKEK) int {
	return cmp.Or(cmp.Compare(b.generation, a.generation), bytes.Compare(a.id, b.id), cmp.Compare(a.class, b.class))
}

// listKEKs lists the key-encryption keys in the token that prove non-exportable, the newest generation first, within
// one the lower CKA_ID first. CA keys do not decrypt, so few objects are looked at.
func (t *Token) listKEKs(ctx context.Context) ([]listedKEK, error) {
	return call(ctx, t, operation[[]listedKEK]{name: "find", run: func(s *session) ([]listedKEK, error) {
		handles := t.slot.handles()
		var all []listedKEK
		seen := 0
		for _, class := range []int{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY} {
			objects, err := s.find(maxSecrets, template(pkcs11.CKA_CLASS, class, pkcs11.CKA_DECRYPT, true).ToSlice()...)
			if err != nil {
				return nil, err
			}
			if len(objects) == maxSecrets {
				return nil, fmt.Errorf("the token has %d keys that decrypt: too many to look for Signet's own among them", maxSecrets)
			}
			for _, object := range objects {
				k, err := s.readKEK(object, class, t.ownBar())
				if err != nil {
					return nil, err
				}
				if k.secret != nil {
					k.found.Store(&found{handles, object})
					all = append(all, k)
				}
			}
			seen += len(objects)
		}
		if seen == 0 {
			if err := t.absent(s); !errors.Is(err, ErrNotFound) {
				return nil, err
			}
		}
		slices.SortFunc(all, newest)
		return all, nil
	}})
}

// readKEK reads one key; that of somebody else has no secret.
func (s *session) readKEK(object pkcs11.ObjectHandle, class int, bar Bar) (listedKEK, error) {
	label, err := s.attribute(object, pkcs11.CKA_LABEL)
	if err != nil {
		if classOf(err).retried() {
			return listedKEK{}, fmt.Errorf("read CKA_LABEL: %w", err)
		}
		return listedKEK{}, nil
	}
	generation, ours := generationOf(string(label))
	if !ours {
		return listedKEK{}, nil
	}
	id, err := s.attribute(object, pkcs11.CKA_ID)
	if err != nil {
		return listedKEK{}, fmt.Errorf("read CKA_ID: %w", err)
	}
	switch err := s.proveKEK(object, class, bar); {
	case errors.Is(err, ErrEvidence), len(id) == 0, len(id) > 255:
		return listedKEK{}, nil // a stranger's key under our label
	case err != nil:
		return listedKEK{}, err
	}
	return listedKEK{&secret{class: class, id: id}, generation}, nil
}

// decryptsOnly is what a key pair that seals must not deny, beside what every key must show.
var decryptsOnly = []claim{
	{pkcs11.CKA_SIGN, false},
	{pkcs11.CKA_UNWRAP, false},
	{pkcs11.CKA_DERIVE, false},
}

// proveKEK fails with [ErrEvidence] unless the token says of the key that it was made there and cannot leave.
func (s *session) proveKEK(object pkcs11.ObjectHandle, class int, bar Bar) error {
	if err := s.prove(object, pkcs11.CKO_SECRET_KEY, bar); err != nil || class == pkcs11.CKO_SECRET_KEY {
		return err
	}
	for _, c := range decryptsOnly {
		value, err := s.attribute(object, c.attribute)
		switch {
		case classOf(err).retried():
			return fmt.Errorf("read %s: %w", attributeName(c.attribute), err)
		case err == nil && len(value) == 1 && (value[0] != 0) != c.want:
			return fmt.Errorf("%w: %s is not %t", ErrEvidence, attributeName(c.attribute), c.want)
		}
	}
	return nil
}

// sealingKey returns the key-encryption key that seals, and makes one in a token that has none. Two processes may
// make one each: both are kept, all take the one with the lower CKA_ID within [KEKMemory], and a sealed secret names
// its own.
func (t *Token) sealingKey(ctx context.Context) (*secret, error) {
	if c := t.kek.Load(); c != nil && time.Since(c.asOf) < KEKMemory {
		return c.secret, nil
	}
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	before := t.kek.Load()
	if before != nil && time.Since(before.asOf) < KEKMemory {
		return before.secret, nil
	}
	c, err := t.lookForKEK(ctx)
	switch {
	case err != nil:
		return nil, err
	case c != nil:
		return c.secret, nil
	case before != nil: // whether it is gone for good tells its use
		return before.secret, nil
	}
	return t.makeKEK(ctx, 1)
}

// lookForKEK asks the token which key-encryption key seals; nil when it has none. The caller has the making lock.
func (t *Token) lookForKEK(ctx context.Context) (*current, error) {
	asOf := time.Now() // a key that is made from now on may be missing
	all, err := t.listKEKs(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	k := all[0].secret
	if before := t.kek.Load(); before != nil && before.class == k.class && bytes.Equal(before.id, k.id) {
		before.found.Store(k.found.Load())
		k = before.secret
	}
	ready, err := t.readyFor(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("use key-encryption key %x: %w", k.id, err)
	}
	return t.sealWith(ready, all[0].generation, asOf), nil
}

func (t *Token) sealWith(k *secret, generation int, asOf time.Time) *current {
	t.rememberSecret(k)
	c := &current{k, generation, asOf}
	t.kek.Store(c)
	return c
}

// unable reports whether an error says that the token cannot seal under this kind of key. CKR_BUFFER_TOO_SMALL is what
// NSS softokn answers to AES-GCM.
func unable(err error) bool {
	return !errors.Is(err, ErrUnavailable) &&
		(errors.Is(err, ErrUnsupported) || is(err, unsupported) || errors.Is(err, pkcs11.Error(pkcs11.CKR_BUFFER_TOO_SMALL)))
}

// replaceSealingKey returns what seals instead of a key that just failed to: the newest one now, or a new one when the
// token is no longer able to use it.
func (t *Token) replaceSealingKey(ctx context.Context, failed *secret, unable bool) (*secret, error) {
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := t.lookForKEK(ctx)
	switch {
	case err != nil:
		return nil, err
	case c == nil:
		return nil, fmt.Errorf("%w: its key-encryption keys are gone", ErrNotFound)
	case unable && bytes.Equal(c.id, failed.id):
		return t.makeKEK(ctx, c.generation+1)
	}
	return c.secret, nil
}

// makeKEK makes the key-encryption key of a generation and seals with it from now on: an AES-256 key where the token
// does AES-GCM, else an RSA pair for OAEP. PKCS#1 v1.5 encryption is not used: who may write to the database would have
// its padding oracle. The caller has the making lock.
func (t *Token) makeKEK(ctx context.Context, generation int) (*secret, error) {
	if generation > maxKEKGeneration {
		return nil, fmt.Errorf("there is no key-encryption key after generation %d", maxKEKGeneration)
	}
	asOf, label := time.Now(), labelOf(generation)
	k, err := t.makeAES(ctx, label)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrPIN) {
		k, err = t.makePairInstead(ctx, label, err)
	}
	if err != nil {
		return nil, fmt.Errorf("make key-encryption key: %w", err)
	}
	return t.sealWith(k, generation, asOf).secret, nil
}

func (t *Token) makePairInstead(ctx context.Context, label string, why error) (*secret, error) {
	for _, bits := range []int{3072, 2048} {
		k, err := t.makePair(ctx, label, bits)
		if err == nil {
			return k, nil
		}
		why = errors.Join(why, err)
		if !errors.Is(err, ErrUnsupported) {
			break
		}
	}
	return nil, why
}

// makeAES makes an AES-256 key, after a session object of the same kind has shown that the token does AES-GCM with it:
// a key under our label that cannot seal would mislead every other process.
func (t *Token) makeAES(ctx context.Context, label string) (*secret, error) {
	id := random(16)
	if _, err := call(ctx, t, operation[struct{}]{name: "generate", lock: t.slot.generating, run: func(s *session) (struct{}, error) {
		return struct{}{}, s.tryGCM(id)
	}}); err != nil {
		return nil, fmt.Errorf("try AES-GCM: %w", err)
	}
	b := &birth{id: id, class: pkcs11.CKO_SECRET_KEY, bar: t.ownBar(), generate: func(s *session) error {
		return s.generateSecret(pkcs11.CKM_AES_KEY_GEN, secretTemplate(id, label))
	}}
	if _, err := call(ctx, t, operation[struct{}]{name: "generate", lock: t.slot.generating, run: func(s *session) (struct{}, error) {
		return struct{}{}, b.produce(s)
	}}); err != nil {
		return nil, fmt.Errorf("make AES-256 key: %w", err)
	}
	return &secret{class: pkcs11.CKO_SECRET_KEY, id: id}, nil
}

// tryGCM seals and opens something under a key that lives as long as the attempt.
func (s *session) tryGCM(id []byte) error {
	fleeting := secretTemplate(id, "")
	fleeting[pkcs11.CKA_TOKEN] = pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)
	var key pkcs11.ObjectHandle
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}
	if err := reduce(fleeting, func() error { return nil }, func(reduced []*pkcs11.Attribute) (err error) {
		key, err = s.GenerateKey(s.handle, m, reduced)
		return err
	}); err != nil {
		return err
	}
	want := random(dataKeySize)
	w, err := s.encryptGCM(key, random(nonceSize), want, []byte("aad"))
	if err == nil {
		var got []byte
		if got, err = s.decryptGCM(key, w.iv, w.wrapped, []byte("aad")); err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%w: its AES-GCM does not open what it sealed", ErrUnsupported)
		}
	}
	return errors.Join(err, s.DestroyObject(s.handle, key))
}

// RotateKEK makes the next generation of the key-encryption key and returns its CKA_ID. From now on this process seals
// under it, and others from [KEKMemory] later at the latest. What was sealed before stays as it is: see [Token.DestroyKEK].
// Errors: [ErrUnsupported], [ErrUnavailable].
func (t *Token) RotateKEK(ctx context.Context) (id []byte, err error) {
	t.lowered(ctx)
	done, err := t.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	all, err := t.listKEKs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list key-encryption keys: %w", err)
	}
	generation := 1
	if len(all) > 0 {
		generation = all[0].generation + 1
	}
	k, err := t.makeKEK(ctx, generation)
	if err != nil {
		return nil, err
	}
	return slices.Clone(k.id), nil
}

// CurrentKEK returns the CKA_ID of the key-encryption key that seals, as the token says now. Errors: [ErrNotFound]
// when nothing was sealed yet, [ErrUnavailable].
func (t *Token) CurrentKEK(ctx context.Context) ([]byte, error) {
	ids, err := t.KEKs(ctx)
	switch {
	case err != nil:
		return nil, err
	case len(ids) == 0:
		return nil, fmt.Errorf("find key-encryption key: %w", ErrNotFound)
	}
	return ids[0], nil
}

// KEKs lists the CKA_IDs of the key-encryption keys in the token, the one that seals first. Errors: [ErrUnavailable].
func (t *Token) KEKs(ctx context.Context) ([][]byte, error) {
	t.lowered(ctx)
	all, err := t.listKEKs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list key-encryption keys: %w", err)
	}
	var ids [][]byte
	for _, k := range all {
		ids = append(ids, k.id)
	}
	return ids, nil
}
