package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

const (
	// responderLease is how long a replica has to make a responder before another one tries.
	responderLease = 30 * time.Second
	// responderWait is how long others wait for it.
	responderWait = 5 * time.Second
	// responderPoll is how often they look.
	responderPoll = 50 * time.Millisecond
	// responderBackdate lets clients with a clock that is behind believe a responder from its first second on.
	responderBackdate = time.Hour
	// outageMargin is how long a responder outlives a declared outage.
	outageMargin = 24 * time.Hour
)

// usable reports whether a responder can sign answers that somebody believes. The zero value cannot.
func (r Responder) usable(now time.Time) bool { return now.Before(r.NotAfter.Add(-lastMinute)) }

// renewal is when a responder is to be renewed: after half of its validity.
func (r Responder) renewal() time.Time { return r.NotBefore.Add(r.NotAfter.Sub(r.NotBefore) / 2) }

// responderEnd is how long the certificate of a new responder would be valid, and whether the latest one is due to be replaced
// by it.
func (a *Authority) responderEnd(c CA, p RevocationPolicy, latest Responder, now time.Time) (end time.Time, due bool) {
	end = wholeSecond(now.Add(a.cfg.OCSP.ResponderValidity))
	needed := latest.renewal().Before(now)
	if covered := p.Outage.Until.Add(outageMargin); now.Before(p.Outage.Until) {
		if covered.After(end) {
			end = wholeSecond(covered.Add(time.Second))
		}
		needed = needed || latest.NotAfter.Before(covered)
	}
	if end.After(c.NotAfter) {
		end = c.NotAfter
	}
	return end, needed && end.After(latest.NotAfter.Add(lastMinute))
}

// renewResponder returns the responder of a CA, certified anew when it is due, or when its key is lost. Of several replicas one
// does it; the others wait only if they have none.
func (a *Authority) renewResponder(ctx context.Context, c CA, p RevocationPolicy, lost bool) (Responder, error) {
	deadline := time.Now().Add(responderWait)
	lease, holder := fmt.Sprintf("responder-%d", c.ID), rand.Text() // not that of the replica, which may try twice at once
	for first := (Responder{}); ; {
		latest, err := a.cfg.Store.LatestResponder(ctx, c.ID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return Responder{}, fmt.Errorf("find OCSP responder of CA %d: %w", c.ID, err)
		}
		if first.ID == 0 {
			first = latest
		}
		now := a.cfg.Now()
		lost = lost && bytes.Equal(latest.KeyID, first.KeyID)
		_, due := a.responderEnd(c, p, latest, now)
		signs, err := a.stillSigns(ctx, c, now)
		if err != nil {
			return Responder{}, err
		}
		switch {
		case latest.usable(now) && !lost && (!due || !signs):
			return latest, nil
		case !signs:
			return Responder{}, errNoResponder
		}
		mine, err := a.cfg.Store.Lease(ctx, lease, holder, responderLease)
		if err != nil {
			return Responder{}, fmt.Errorf("get the lease to certify an OCSP responder: %w", err)
		}
		if mine {
			r, err := a.certifyOnce(ctx, c, p, latest)
			ctx, cancel := finish(ctx, endLeaseTimeout)
			defer cancel()
			return r, errors.Join(err, a.cfg.Store.EndLease(ctx, lease, holder))
		}
		if latest.usable(now) && !lost {
			return latest, nil
		}
		if time.Now().After(deadline) {
			return Responder{}, tryLater("another replica is certifying the OCSP responder of CA %d", c.ID)
		}
		select {
		case <-time.After(responderPoll):
		case <-ctx.Done():
			return Responder{}, ctx.Err()
		}
	}
}

// stillSigns reports whether a CA can certify a responder and should: a deleted one does while its lists are kept up. Nothing is
// signed with a responder in its last minute, which would be certified again for each answer when that of the CA has come.
func (a *Authority) stillSigns(ctx context.Context, c CA, now time.Time) (bool, error) {
	if c.KeyDestroyedAt != nil || !now.Before(c.NotAfter.Add(-lastMinute)) {
		return false, nil
	}
	if c.DeletedAt == nil {
		return true, nil
	}
	scopes, err := a.cfg.Store.ListScopes(ctx, now, c.ID)
	if err != nil {
		return false, fmt.Errorf("look whether CA %d is still needed: %w", c.ID, err)
	}
	return len(scopes) > 0, nil
}

// certifyOnce certifies a responder under the lease, unless that has happened meanwhile.
func (a *Authority) certifyOnce(ctx context.Context, c CA, p RevocationPolicy, before Responder) (Responder, error) {
	ctx, cancel := finish(ctx, responderLease*4/5)
	defer cancel()
	latest, err := a.cfg.Store.LatestResponder(ctx, c.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Responder{}, fmt.Errorf("find OCSP responder of CA %d: %w", c.ID, err)
	}
	if latest.ID != before.ID {
		return latest, nil
	}
	r, err := a.certifyResponder(ctx, c, p, latest)
	if err != nil {
		return Responder{}, fmt.Errorf("certify OCSP responder of CA %d: %w", c.ID, err)
	}
	a.toldResponder(r)
	return r, nil
}

// certifyResponder makes a responder's key, if it has none, and its certificate, signed by the CA.
func (a *Authority) certifyResponder(ctx context.Context, c CA, p RevocationPolicy, latest Responder) (Responder, error) {
	// 1. Can the CA sign? Not only while it may certify: see refuseLocked.
	ref := c.KeyRef()
	if c.Proof.Locked != "" {
		ref.Accept = evidence.Imported
	}
	issuer, err := a.issuerWith(ctx, c, ref)
	if err == nil {
		err = issuer.Ready()
	}
	if err != nil {
		return Responder{}, fmt.Errorf("look whether the CA can sign: %w", err)
	}

	// 2. The key, in the token of the CA.
	r, key, made, err := a.responderKey(ctx, c, latest)
	if err != nil {
		return Responder{}, err
	}
	discard := func(err error) error {
		if made {
			err = errors.Join(err, a.cfg.Keys.Destroy(ctx, r.Token, r.KeyID))
		}
		return err
	}

	// 3. Build and lint, no CA key.
	now := a.cfg.Now()
	r.NotBefore = wholeSecond(now.Add(-responderBackdate))
	if r.NotBefore.Before(c.NotBefore) {
		r.NotBefore = c.NotBefore
	}
	r.NotAfter, _ = a.responderEnd(c, p, latest, now)
	draft, err := issuer.PrepareResponder(key, r.NotBefore, r.NotAfter)
	if err != nil {
		return Responder{}, discard(fmt.Errorf("prepare certificate: %w", err))
	}
	r.Serial, r.TBS = draft.Serial(), draft.TBS()

	// 4. Durable before the token signs.
	detail := fmt.Sprintf("OCSP responder of CA %d, serial %s, until %s, key %x in token %q",
		c.ID, r.Serial, r.NotAfter.Format(time.RFC3339), r.KeyID, a.TokenOf(CA{Token: r.Token}))
	event := func(action audit.Action) audit.Event {
		return a.event(ctx, policy.Caller{}, action, c.OrganizationID, audit.ResourceCA, &c.ID, detail)
	}
	if r.ID, err = a.cfg.Store.ReserveResponder(ctx, r, event(audit.ResponderReserve)); err != nil {
		return Responder{}, discard(fmt.Errorf("reserve certificate: %w", err))
	}

	// 5. Sign, verify and complete. From here on the responder exists.
	if r.Certificate, err = draft.Sign(); err != nil {
		return Responder{}, discard(fmt.Errorf("sign certificate: %w: %w", errRecorded, err))
	}
	if err := a.cfg.Store.CompleteResponder(ctx, r.ID, r.Certificate, event(audit.ResponderCreate)); err != nil {
		return Responder{}, fmt.Errorf("complete certificate: %w", err)
	}
	r.State, r.TBS = Valid, nil
	return r, nil
}

// errRecorded says that the token was there, and did not do what was announced in the store.
var errRecorded = errors.New("what was recorded did not happen")

// pauses are what follows attempts to certify a responder, or to end its key, that failed. Those that leave records behind become
// rare: each reservation is a serial number in the CRLs to come.
type pauses struct{ lost int }

func (p *pauses) after(err error, shortest time.Duration) time.Duration {
	if !errors.Is(err, errRecorded) {
		return shortest
	}
	p.lost = min(p.lost+1, 6)
	return shortest << p.lost
}

// responderKey is the key of the latest responder, or a new one when there is none or the token has lost it.
func (a *Authority) responderKey(ctx context.Context, c CA, latest Responder) (r Responder, public crypto.PublicKey, made bool, err error) {
	r = Responder{CAID: c.ID, State: Pending}
	if latest.ID != 0 {
		there, err := a.cfg.Keys.Inspect(ctx, KeyRef{Token: latest.Token, ID: latest.KeyID})
		switch {
		case err == nil && bytes.Equal(there.PublicKey, latest.PublicKey):
			r.Token, r.KeyID, r.PublicKey = latest.Token, latest.KeyID, latest.PublicKey
			public, err = x509.ParsePKIXPublicKey(r.PublicKey)
			return r, public, false, err
		case err != nil && !fault.Is(err, fault.NotFound):
			return r, nil, false, fmt.Errorf("look for its key: %w", err)
		}
	}
	r.Token, r.KeyID = c.Token, make([]byte, 16)
	rand.Read(r.KeyID)
	request := KeyRequest{Token: r.Token, ID: r.KeyID, Label: fmt.Sprintf("signet-ocsp-%d", c.ID), Spec: policy.KeySpec{Type: policy.EC, Size: 256}}
	key, err := a.cfg.Keys.Generate(ctx, request)
	if fault.Is(err, fault.Invalid) {
		request.Spec = policy.KeySpec{Type: policy.RSA, Size: 2048}
		key, err = a.cfg.Keys.Generate(ctx, request)
	}
	if err != nil {
		return r, nil, false, fmt.Errorf("generate its key: %w", err)
	}
	r.PublicKey, err = x509.MarshalPKIXPublicKey(key.Public())
	return r, key.Public(), true, err
}

// toldResponder tells who counts on a responder that there is a new one.
func (a *Authority) toldResponder(r Responder) {
	a.ocsp.ahead.nudge(r.CAID)
	if a.cfg.Hooks.Responder != nil {
		a.cfg.Hooks.Responder(r.CAID, r.NotAfter)
	}
}
