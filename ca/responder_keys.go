package ca

import (
	"bytes"
	"context"
	"fmt"

	"signet/fault"
	"signet/policy"
)

// ResponderKey is a key in a token that was made for the OCSP responder of a CA.
type ResponderKey struct {
	CAID      int64
	Token     string // "" is the default one
	ID        []byte // CKA_ID
	PublicKey []byte // DER SubjectPublicKeyInfo
	Needed    bool   // it signs answers, or may have to
}

// ResponderKeys lists the keys that were made for OCSP responders, whatever became of them: superusers and operators only. It
// tells whose the keys in a token are, as [Authority.EveryCA] does.
func (a *Authority) ResponderKeys(ctx context.Context, caller policy.Caller) ([]ResponderKey, error) {
	all, err := a.EveryCA(ctx, caller)
	if err != nil {
		return nil, err
	}
	return a.responderKeys(ctx, all)
}

// responderKeys does the work of ResponderKeys. A key is needed until its last certificate has ended, and beyond if it is the
// one under which the CA would have the next one certified.
func (a *Authority) responderKeys(ctx context.Context, authorities []CA) ([]ResponderKey, error) {
	now := a.cfg.Now()
	goesOn := map[int64]bool{}
	for _, c := range authorities {
		goesOn[c.ID] = c.NeedsKey() && now.Before(c.NotAfter)
	}
	const perPage = 200
	var keys []ResponderKey
	places := map[string]int{}
	latest := map[int64]int{}
	for after := int64(0); ; {
		page, err := a.cfg.Store.Responders(ctx, after, perPage)
		if err != nil {
			return nil, fmt.Errorf("list OCSP responders: %w", err)
		}
		for _, r := range page {
			after = r.ID
			place, known := places[string(r.KeyID)]
			if !known {
				place = len(keys)
				places[string(r.KeyID)] = place
				keys = append(keys, ResponderKey{CAID: r.CAID, Token: r.Token, ID: r.KeyID, PublicKey: r.PublicKey})
			}
			if r.State == Valid {
				latest[r.CAID] = place
			}
			if r.State != Abandoned && !now.After(r.NotAfter) {
				keys[place].Needed = true
			}
		}
		if len(page) < perPage {
			break
		}
	}
	for id, place := range latest {
		keys[place].Needed = keys[place].Needed || goesOn[id]
	}
	return keys, nil
}

// refuseResponders refuses a key that an OCSP responder needs.
func (a *Authority) refuseResponders(ctx context.Context, authorities []CA, token string, public, id []byte) error {
	keys, err := a.responderKeys(ctx, authorities)
	if err != nil {
		return err
	}
	for _, k := range keys {
		same := bytes.Equal(k.PublicKey, public) || a.TokenOf(CA{Token: k.Token}) == token && bytes.Equal(k.ID, id)
		if same && k.Needed {
			return fault.New(fault.Conflict, "key %x in token %q is that of the OCSP responder of CA %d: it ends by itself after the key of the CA was destroyed", id, token, k.CAID)
		}
	}
	return nil
}
