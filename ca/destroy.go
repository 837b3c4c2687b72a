package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// DestroyKey ends the key of a CA that is deleted or revoked, for good: superusers and operators only. The trail says
// that it is going to happen before it does, and afterwards what came of it; the token is asked again whether the key
// is gone. From then on the CA signs nothing, no CRL either; its OCSP responder answers until its own certificate ends, and
// then its key is destroyed too. Called again after a crash it finishes the ceremony.
func (a *Authority) DestroyKey(ctx context.Context, caller policy.Caller, id int64) (CA, error) {
	c, err := a.cfg.Store.PublicCA(ctx, id)
	if err != nil {
		return CA{}, fmt.Errorf("find CA: %w", err)
	}
	if err := a.allow(policy.AllowSuperuser(caller)); err != nil {
		return CA{}, err
	}
	switch {
	case c.KeyDestroyedAt != nil:
		return CA{}, a.refuseLocked(c)
	case c.DeletedAt == nil && c.State != Revoked:
		return CA{}, fault.New(fault.Conflict, "CA %d is in use: delete or revoke it before its key is destroyed", id)
	}
	ctx, cancel := finish(ctx, issueTimeout)
	defer cancel()
	event := func(detail string) audit.Event {
		return a.event(ctx, caller, audit.CAKeyDestroy, c.OrganizationID, audit.ResourceCA, &c.ID,
			fmt.Sprintf("%s: CA %q, token %q, CKA_ID %x", detail, c.Name, a.TokenOf(c), c.KeyID))
	}
	if err := a.cfg.Store.Record(ctx, event("key is to be destroyed")); err != nil {
		return CA{}, fmt.Errorf("record intent: %w", err)
	}
	a.forget(id)
	result, err := a.destroy(ctx, c)
	if err != nil {
		err = a.refuse(fmt.Errorf("destroy key of CA %d: %w", id, err))
		return CA{}, errors.Join(err, a.cfg.Store.Record(ctx, event("key was not destroyed")))
	}
	now := a.cfg.Now()
	if err := a.cfg.Store.KeyDestroyed(ctx, id, now, event(result)); err != nil {
		return CA{}, fmt.Errorf("record destroyed key: %w", err)
	}
	c.KeyDestroyedAt = &now
	return c, nil
}

// destroy destroys a key in every token that holds it, as cloned ones do, and looks again. Nothing is destroyed before all
// tokens were asked, and never another key that has the CKA_ID by now.
func (a *Authority) destroy(ctx context.Context, c CA) (result string, err error) {
	home := a.TokenOf(c)
	holders := []string{home} // whatever is left of the key there goes too
	for _, token := range a.cfg.Keys.Tokens() {
		key, err := a.cfg.Keys.Inspect(ctx, KeyRef{Token: token, ID: c.KeyID})
		same := err == nil && bytes.Equal(key.PublicKey, c.PublicKey)
		switch {
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return "", fmt.Errorf("look for the key in token %s: %w", token, err)
		case token == home && !same && c.PublicKey != nil:
			return "", fault.New(fault.Conflict, "token %q has another key under the CKA_ID of CA %d", token, c.ID)
		case token != home && same:
			holders = append(holders, token)
		}
	}
	result = "key was gone already"
	for _, token := range holders {
		switch err := a.cfg.Keys.Destroy(ctx, token, c.KeyID); {
		case err == nil:
			if result = "key destroyed; the token has it no more"; len(holders) > 1 {
				result = fmt.Sprintf("key destroyed; the tokens %s have it no more", strings.Join(holders, ", "))
			}
		case !fault.Is(err, fault.NotFound):
			return "", err
		}
		_, err := a.cfg.Keys.Inspect(ctx, KeyRef{Token: token, ID: c.KeyID})
		switch {
		case err == nil:
			return "", errors.New("the token still has the key that it said was destroyed")
		case !fault.Is(err, fault.NotFound):
			return "", fmt.Errorf("look whether the key is gone: %w", err)
		}
	}
	return result, nil
}
