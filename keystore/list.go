package keystore

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// maxListed is how many objects of one class List reads.
const maxListed = 10_000

// Entry is a key object in the token.
type Entry struct {
	ID     []byte // CKA_ID; may be empty, and several keys may share one
	Label  string // CKA_LABEL
	Class  string // "private" or "secret"
	Type   string // a [KeyType], "aes", "des3", "generic-secret", or the CKA_KEY_TYPE in hexadecimal
	Size   int    // bits; 0 when the token does not tell
	Public crypto.PublicKey
	Own    Purpose // what Signet keeps the key for; "" when it is not Signet's own
}

// keyTypeWords are the key types as Entry shows them.
var keyTypeWords = map[uint]string{
	pkcs11.CKK_RSA: string(RSA), pkcs11.CKK_EC: string(EC), ckkECEdwards: string(Ed25519),
	pkcs11.CKK_AES: "aes", pkcs11.CKK_DES3: "des3", pkcs11.CKK_GENERIC_SECRET: "generic-secret",
}

// List reads every private and secret key object in the token, whoever made it; Public is nil where the token has no
// public key for a private one that Signet can read. It fails rather than leave keys out when there are more than
// 10,000 objects of one class. Errors: [ErrUnavailable].
func (t *Token) List(ctx context.Context) ([]Entry, error) {
	all, err := call(ctx, t, operation[[]Entry]{name: "list", slow: true, run: t.list})
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return all, nil
}

func (t *Token) list(s *session) ([]Entry, error) {
	publics, err := s.publicObjects()
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, class := range []int{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY} {
		objects, err := s.ofClass(class)
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			e, err := s.entry(object, class, publics)
			if err != nil {
				return nil, err
			}
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		if err := t.absent(s); !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	return all, nil
}

func (s *session) ofClass(class int) ([]pkcs11.ObjectHandle, error) {
	objects, err := s.find(maxListed+1, template(pkcs11.CKA_CLASS, class).ToSlice()...)
	if err == nil && len(objects) > maxListed {
		err = fmt.Errorf("the token holds more than %d objects of one class", maxListed)
	}
	return objects, err
}

// publicObjects indexes the public key objects by CKA_ID: to look for each one by itself would make the token go through
// all its objects every time.
func (s *session) publicObjects() (map[string][]pkcs11.ObjectHandle, error) {
	objects, err := s.ofClass(pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return nil, err
	}
	byID := map[string][]pkcs11.ObjectHandle{}
	for _, object := range objects {
		id, err := s.attribute(object, pkcs11.CKA_ID)
		if lost(err) {
			return nil, fmt.Errorf("read CKA_ID: %w", err)
		}
		byID[string(id)] = append(byID[string(id)], object)
	}
	return byID, nil
}

func (s *session) entry(object pkcs11.ObjectHandle, class int, publics map[string][]pkcs11.ObjectHandle) (Entry, error) {
	e := Entry{Class: "secret"}
	if class == pkcs11.CKO_PRIVATE_KEY {
		e.Class = "private"
	}
	var raw [4][]byte
	for i, attribute := range []uint{pkcs11.CKA_ID, pkcs11.CKA_LABEL, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_VALUE_LEN} {
		if class == pkcs11.CKO_PRIVATE_KEY && attribute == pkcs11.CKA_VALUE_LEN {
			continue
		}
		value, err := s.attribute(object, attribute)
		if lost(err) {
			return Entry{}, err
		}
		raw[i] = value
	}
	e.ID, e.Label, e.Type = raw[0], string(raw[1]), nameOf(keyTypeWords, number(raw[2]))
	own, err := s.purposeOf(object, class, e)
	if err != nil {
		return Entry{}, err
	}
	e.Own = own
	if class == pkcs11.CKO_SECRET_KEY {
		if n := number(raw[3]); n != pkcs11.CK_UNAVAILABLE_INFORMATION {
			e.Size = int(n) * 8
		}
		return e, nil
	}
	public, err := s.publicOfPrivate(object)
	if err == nil && public == nil && len(publics[string(e.ID)]) == 1 && len(e.ID) > 0 {
		public, err = s.readPublic(publics[string(e.ID)][0])
	}
	if lost(err) {
		return Entry{}, err
	}
	if err == nil && public != nil {
		e.Public = public
		_, e.Size = describe(public)
	}
	return e, nil
}
