package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"

	"signet/ca"
	"signet/keystore"
)

// The uses of a key in a token, beside the purposes of package keystore.
const (
	useCA        = "ca"             // a CA signs with it
	useResponder = "ocsp-responder" // the OCSP responder of a CA signs with it
	useClone     = "clone"          // the same key as that of a CA on another token, which fails over to it
	useCopy      = "copy"           // the same key as that of a CA, under a CKA_ID that the CA does not know
	useMismatch  = "mismatch"       // it has the CKA_ID of a CA and is another key
	useLeftover  = "leftover"       // of a CA that was given up or whose key was destroyed, or of its responder
	useUnknown   = "unknown"        // Signet does not know it
	useMissing   = "missing"        // no key at all: a CA's is not there
)

// ownedKey is a key in a token, or a CA's that is missing there.
type ownedKey struct {
	Token string    `json:"token"`
	ID    string    `json:"key_id"` // CKA_ID in hexadecimal
	Label string    `json:"label"`
	Class string    `json:"class"` // "private" or "secret"; "" when missing
	Type  string    `json:"key_type"`
	Size  int       `json:"key_size"` // bits; 0 when the token does not tell
	Use   string    `json:"use"`
	CA    *keyOwner `json:"ca,omitempty"`
}

// keyOwner is the CA that a key belongs to.
type keyOwner struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	State string `json:"state"`

	record ca.CA
}

func ownerOf(c ca.CA) *keyOwner { return &keyOwner{c.ID, c.Name, caState(c), c} }

func (o *keyOwner) String() string { return fmt.Sprintf("CA %d %q, %s", o.ID, o.Name, o.State) }

// caState says in a word or two how a CA is.
func caState(c ca.CA) string {
	words := []string{string(c.State)}
	if c.DeletedAt != nil {
		words[0] = "deleted"
	}
	if c.Proof.Locked != "" && c.DeletedAt == nil {
		words = append(words, "locked")
	}
	if c.KeyDestroyedAt != nil {
		words = append(words, "key destroyed")
	}
	return strings.Join(words, ", ")
}

// words says what the key is.
func (k ownedKey) words() string {
	switch k.Use {
	case useCA:
		return k.CA.String()
	case useResponder:
		return "OCSP responder of " + k.CA.String()
	case useClone:
		return "clone of the key of " + k.CA.String()
	case useCopy:
		return "copy, under another CKA_ID, of the key of " + k.CA.String()
	case useMismatch:
		return "NOT the key of " + k.CA.String() + ", although it has its CKA_ID"
	case useLeftover:
		return "left over from " + k.CA.String()
	case useMissing:
		return "MISSING: the key of " + k.CA.String()
	case useUnknown:
		return "unknown to Signet"
	}
	return "Signet's own: " + k.Use
}

// owners finds the CA that a key belongs to.
type owners struct {
	home       func(ca.CA) string
	all        []ca.CA
	byPublic   map[string][]ca.CA
	byID       map[string][]ca.CA
	responders map[string]responderOwner // by public key
}

// responderOwner is the CA whose OCSP responder a key belongs to.
type responderOwner struct {
	ca     ca.CA
	needed bool
}

func (d *desk) owners(ctx context.Context) (*owners, error) {
	all, err := d.authority.EveryCA(ctx, byOperator)
	if err != nil {
		return nil, err
	}
	responders, err := d.authority.ResponderKeys(ctx, byOperator)
	if err != nil {
		return nil, err
	}
	return ownersOf(d.authority.TokenOf, all, responders), nil
}

// ownersOf indexes the CAs and the keys of their OCSP responders. home names the token with the key of each CA.
func ownersOf(home func(ca.CA) string, all []ca.CA, responders []ca.ResponderKey) *owners {
	o := &owners{home, all, map[string][]ca.CA{}, map[string][]ca.CA{}, map[string]responderOwner{}}
	byCA := map[int64]ca.CA{}
	for _, c := range all {
		byCA[c.ID] = c
		o.byID[string(c.KeyID)] = append(o.byID[string(c.KeyID)], c)
		if len(c.PublicKey) > 0 {
			o.byPublic[string(c.PublicKey)] = append(o.byPublic[string(c.PublicKey)], c)
		}
	}
	for _, k := range responders {
		o.responders[string(k.PublicKey)] = responderOwner{byCA[k.CAID], k.Needed}
	}
	return o
}

// identify tells whose a private key is, by CKA_ID and public key (DER; nil: not known).
func (o *owners) identify(token string, id, public []byte) (use string, owner *keyOwner) {
	rank := map[string]int{useCA: 5, useMismatch: 4, useClone: 3, useCopy: 2, useLeftover: 1}
	consider := func(c ca.CA, found string) {
		if !c.NeedsKey() {
			found = useLeftover
		}
		if rank[found] > rank[use] {
			use, owner = found, ownerOf(c)
		}
	}
	for _, c := range o.byPublic[string(public)] {
		switch sameID := string(c.KeyID) == string(id); {
		case sameID && o.home(c) == token:
			consider(c, useCA)
		case sameID:
			consider(c, useClone)
		default:
			consider(c, useCopy)
		}
	}
	for _, c := range o.byID[string(id)] {
		switch {
		case o.home(c) != token || len(public) > 0 && string(c.PublicKey) == string(public):
		case len(c.PublicKey) == 0: // being made
			consider(c, useCA)
		default:
			consider(c, useMismatch)
		}
	}
	if r, known := o.responders[string(public)]; known && (use == "" || use == useLeftover) {
		if r.needed {
			return useResponder, ownerOf(r.ca)
		}
		return useLeftover, ownerOf(r.ca)
	}
	if use == "" {
		return useUnknown, nil
	}
	return use, owner
}

// name describes an object in a token.
func (o *owners) name(token string, e keystore.Entry) ownedKey {
	k := ownedKey{Token: token, ID: hex.EncodeToString(e.ID), Label: e.Label, Class: e.Class, Type: e.Type, Size: e.Size, Use: string(e.Own)}
	switch {
	case e.Class != "private" && e.Own == "":
		k.Use = useUnknown
	case e.Own == "":
		k.Use, k.CA = o.identify(token, e.ID, derOf(e.Public))
	}
	return k
}

func derOf(public crypto.PublicKey) []byte {
	if public == nil {
		return nil
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil
	}
	return der
}

// missing lists the CAs of a token whose key is not among those that were found there.
func (o *owners) missing(token string, found []ownedKey) (all []ownedKey) {
	there := map[int64]bool{}
	for _, k := range found {
		if k.Use == useCA {
			there[k.CA.ID] = true
		}
	}
	for _, c := range o.all {
		if o.home(c) == token && c.NeedsKey() && c.State != ca.Pending && !there[c.ID] {
			all = append(all, ownedKey{
				Token: token, ID: hex.EncodeToString(c.KeyID), Type: string(c.KeyType), Size: c.KeySize, Use: useMissing, CA: ownerOf(c),
			})
		}
	}
	return all
}

// find names the private key with this CKA_ID, NotFound when the token has none.
func (d *desk) find(ctx context.Context, tokenName string, id []byte) (ownedKey, error) {
	token, name, err := d.token(tokenName)
	if err != nil {
		return ownedKey{}, err
	}
	owners, err := d.owners(ctx)
	if err != nil {
		return ownedKey{}, err
	}
	all, err := token.List(ctx)
	if err != nil {
		return ownedKey{}, err
	}
	var found []ownedKey
	for _, e := range all {
		if string(e.ID) == string(id) {
			found = append(found, owners.name(name, e))
		}
	}
	switch {
	case len(found) == 0:
		return ownedKey{}, fmt.Errorf("token %q has no key %x: signet key list shows what it has", name, id)
	case len(found) > 1:
		return ownedKey{}, fmt.Errorf("token %q has %d keys with CKA_ID %x, so that it names none of them: give one another id with the token's own tools", name, len(found), id)
	case found[0].Class != "private":
		return ownedKey{}, fmt.Errorf("key %x in token %q is a secret key (%s): only private keys can be shown, drilled, adopted or destroyed here", id, name, found[0].words())
	}
	return found[0], nil
}
