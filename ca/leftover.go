package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

// EveryCA lists the CAs in every state, deleted ones too, by id: superusers and operators only. It tells whose the keys
// in a token are.
func (a *Authority) EveryCA(ctx context.Context, caller policy.Caller) ([]CA, error) {
	if err := a.allow(policy.AllowSuperuser(caller)); err != nil {
		return nil, err
	}
	const perPage = 200
	var all []CA
	for page := (Page{Limit: perPage}); ; {
		found, err := a.cfg.Store.EveryCA(ctx, page)
		if err != nil {
			return nil, fmt.Errorf("list every CA: %w", err)
		}
		all = append(all, found...)
		if len(found) < perPage {
			return all, nil
		}
		page.After = found[len(found)-1].ID
	}
}

// NeedsKey reports whether the CA has a use for its key, or will have: it has neither been given up nor lost its key
// in a ceremony.
func (c CA) NeedsKey() bool { return c.State != Abandoned && c.KeyDestroyedAt == nil }

// DestroyLeftover ends a key pair that is no CA's, for good, and returns what the token says afterwards: superusers and
// operators only. A key that a CA needs is refused, whichever of CKA_ID and public key tells; so is one whose public key
// cannot be read, because nobody could tell. What is a key of Signet's own, the caller must know. The trail has the
// intent, then the result.
func (a *Authority) DestroyLeftover(ctx context.Context, caller policy.Caller, tokenName string, id []byte) (result string, err error) {
	if err := a.allow(policy.AllowSuperuser(caller)); err != nil {
		return "", err
	}
	token, err := a.token(tokenName)
	if err != nil {
		return "", a.refuse(err)
	}
	key, err := a.cfg.Keys.Inspect(ctx, KeyRef{Token: token, ID: id})
	if err != nil {
		return "", a.refuse(fmt.Errorf("inspect key %x: %w", id, err))
	}
	if err := a.refuseOwned(ctx, caller, token, key); err != nil {
		return "", err
	}
	ctx, cancel := finish(ctx, issueTimeout)
	defer cancel()
	event := func(detail string) audit.Event {
		return a.event(ctx, caller, audit.KeyDestroy, nil, "", nil, fmt.Sprintf("%s: %s-%d, label %q, token %q, CKA_ID %x, public key %s",
			detail, key.Type, key.Size, key.Label, token, id, evidence.Fingerprint(key.PublicKey)))
	}
	if err := a.cfg.Store.Record(ctx, event("key that is no CA's is to be destroyed")); err != nil {
		return "", fmt.Errorf("record intent: %w", err)
	}
	result, err = a.destroy(ctx, CA{Token: token, KeyID: id})
	if err != nil {
		err = a.refuse(fmt.Errorf("destroy key %x: %w", id, err))
		return "", errors.Join(err, a.cfg.Store.Record(ctx, event("key was not destroyed")))
	}
	if err := a.cfg.Store.Record(ctx, event(result)); err != nil {
		return "", fmt.Errorf("record destroyed key: %w", err)
	}
	return result, nil
}

// refuseOwned refuses a key that some CA needs, or its OCSP responder.
func (a *Authority) refuseOwned(ctx context.Context, caller policy.Caller, token string, key evidence.Key) error {
	all, err := a.EveryCA(ctx, caller)
	if err != nil {
		return err
	}
	for _, c := range all {
		same := bytes.Equal(c.PublicKey, key.PublicKey) || a.TokenOf(c) == token && bytes.Equal(c.KeyID, key.ID)
		if same && c.NeedsKey() {
			return fault.New(fault.Conflict, "key %x in token %q is that of CA %d %q: delete or revoke the CA, then destroy its key as the CA's", key.ID, token, c.ID, c.Name)
		}
	}
	return a.refuseResponders(ctx, all, token, key.PublicKey, key.ID)
}
