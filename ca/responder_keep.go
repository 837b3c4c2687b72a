package ca

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

const (
	// responderInterval is how often the responders of all CAs are looked after.
	responderInterval = time.Minute
	// responderBusy is how many are at once: the CAs may be in several tokens, one of which does not answer.
	responderBusy = 4
)

// keptResponder is when the responder of a CA is looked after next.
type keptResponder struct {
	next    time.Time
	policy  time.Time // UpdatedAt of the one in effect
	pauses  pauses
	failing alarm
}

// keepResponders certifies a responder for every new CA, renews those that are due, and ends the keys of those whose CA has
// none any more, until ctx ends.
func (a *Authority) keepResponders(ctx context.Context) {
	all := map[int64]*keptResponder{}
	failing := alarm{task: "responder"}
	every(ctx, time.Second, func() {
		a.followNames(ctx)
		if !a.leads() {
			return
		}
		states, err := a.cfg.Store.RevocationStates(ctx)
		if err != nil {
			if ctx.Err() == nil {
				failing.raise(a, fmt.Errorf("list CAs: %w", err))
			}
			return
		}
		failing.end()
		slots := make(chan struct{}, responderBusy)
		var work sync.WaitGroup
		for _, s := range states {
			k := all[s.CAID]
			if k == nil {
				k = &keptResponder{failing: alarm{task: "responder"}}
				all[s.CAID] = k
			}
			p, err := a.policyOf(ctx, s.CAID)
			if err != nil || a.cfg.Now().Before(k.next) && p.UpdatedAt.Equal(k.policy) {
				continue
			}
			slots <- struct{}{}
			work.Go(func() {
				defer func() { <-slots }()
				a.keepResponder(ctx, s.CAID, p, k)
			})
		}
		work.Wait()
	})
}

func (a *Authority) keepResponder(ctx context.Context, caID int64, p RevocationPolicy, k *keptResponder) {
	limited, cancel := context.WithTimeout(ctx, responderLease)
	defer cancel()
	err := a.lookAfterResponder(limited, caID, p)
	switch {
	case err == nil:
		k.failing.end()
		k.pauses = pauses{}
		k.next, k.policy = a.cfg.Now().Add(responderInterval), p.UpdatedAt
	case ctx.Err() == nil:
		k.failing.raise(a, err)
		k.next = a.cfg.Now().Add(k.pauses.after(err, responderInterval/10))
		k.policy = p.UpdatedAt
	}
}

// lookAfterResponder does for the responder of one CA what is due.
func (a *Authority) lookAfterResponder(ctx context.Context, caID int64, p RevocationPolicy) error {
	c, err := a.cfg.Store.PublicCA(ctx, caID)
	if err != nil {
		return fmt.Errorf("find CA %d: %w", caID, err)
	}
	latest, err := a.cfg.Store.LatestResponder(ctx, caID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("find OCSP responder of CA %d: %w", caID, err)
	}
	now := a.cfg.Now()
	if c.KeyDestroyedAt != nil {
		if latest.ID != 0 && now.After(latest.NotAfter) {
			return a.endResponder(ctx, c, latest)
		}
		return nil
	}
	if _, due := a.responderEnd(c, p, latest, now); !due {
		return nil
	}
	r, err := a.renewResponder(ctx, c, p, false)
	if errors.Is(err, errNoResponder) { // nobody asks any more
		return nil
	}
	if err != nil {
		return err
	}
	if s := (*a.ocsp.known.Load())[Slug(c.Name, c.ID)]; s != nil && r.ID != latest.ID {
		s.signs.Store(nil)
	}
	return nil
}

// endResponder destroys the key of a responder that has signed its last answer: that of its CA was destroyed in a ceremony, and
// this one stayed as long as it could tell relying parties what had become of the certificates.
func (a *Authority) endResponder(ctx context.Context, c CA, r Responder) error {
	key, err := a.cfg.Keys.Inspect(ctx, KeyRef{Token: r.Token, ID: r.KeyID})
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the key of the OCSP responder of CA %d: %w", c.ID, err)
	}
	event := func(detail string) audit.Event {
		return a.event(ctx, policy.Caller{}, audit.KeyDestroy, c.OrganizationID, audit.ResourceCA, &c.ID,
			fmt.Sprintf("%s: OCSP responder of CA %d %q, token %q, CKA_ID %x", detail, c.ID, c.Name, a.TokenOf(CA{Token: r.Token}), key.ID))
	}
	if err := a.cfg.Store.Record(ctx, event("key is to be destroyed")); err != nil {
		return fmt.Errorf("record intent: %w", err)
	}
	result, err := a.destroy(ctx, CA{ID: c.ID, Token: r.Token, KeyID: r.KeyID, PublicKey: r.PublicKey})
	if err != nil {
		err = fmt.Errorf("destroy key of the OCSP responder of CA %d: %w: %w", c.ID, errRecorded, err)
		return errors.Join(err, a.cfg.Store.Record(ctx, event("key was not destroyed")))
	}
	if err := a.cfg.Store.Record(ctx, event(result)); err != nil {
		return fmt.Errorf("record destroyed key: %w", err)
	}
	return nil
}
