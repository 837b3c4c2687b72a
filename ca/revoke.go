package ca

import (
	"context"
	"fmt"
	"time"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// RevokeRequest is why a certificate is revoked.
type RevokeRequest struct {
	Reason         string     // free text that may name a CRLReason; see [ReasonCode]
	InvalidityDate *time.Time // since when the key must be suspected (RFC 5280, section 5.3.2); nil: not known
}

// Revoke ends a certificate before its time, or suspends it for the reason certificateHold. What is revoked already can only be
// revoked for a stronger reason: keyCompromise, cACompromise and aACompromise replace every other, and whatever is final
// replaces a hold; otherwise Conflict. OCSP answers and lists follow within about a second once the token signs.
func (a *Authority) Revoke(ctx context.Context, caller policy.Caller, id int64, req RevokeRequest) (Certificate, error) {
	c, err := a.cfg.Store.Certificate(ctx, id)
	if err != nil {
		return Certificate{}, fmt.Errorf("find certificate: %w", err)
	}
	if err := a.allow(policy.Allow(caller, policy.RevokeCert, c.object())); err != nil {
		return Certificate{}, err
	}
	r, err := a.revocation(req)
	if err != nil {
		return Certificate{}, err
	}
	e := a.event(ctx, caller, audit.CertRevoke, c.OrganizationID, audit.ResourceCertificate, &c.ID, r.describe(c.Serial, c.IssuerID))
	if c, err = a.cfg.Store.Revoke(ctx, id, r, replacedBy(r.Reason), e); err != nil {
		return Certificate{}, fmt.Errorf("revoke certificate: %w", err)
	}
	a.revoked(r)
	a.changedHere(c.IssuerID, c.CRLShard, c.Serial)
	return c, nil
}

// RevokeCA revokes an intermediate CA as Revoke does a certificate: it stops issuing, and so does what is below it. A root has no
// issuer that could revoke it, and no CA can be on hold.
func (a *Authority) RevokeCA(ctx context.Context, caller policy.Caller, id int64, req RevokeRequest) (CA, error) {
	c, err := a.cfg.Store.CA(ctx, id)
	if err != nil {
		return CA{}, fmt.Errorf("find CA: %w", err)
	}
	if err := a.allow(policy.Allow(caller, policy.RevokeCert, c.object())); err != nil {
		return CA{}, err
	}
	if c.IsRoot() {
		return CA{}, fault.New(fault.Invalid, "CA %d is a root: it has no issuer that could revoke it; remove it from the trust stores and delete it", id)
	}
	r, err := a.revocation(req)
	if err != nil {
		return CA{}, err
	}
	if r.Reason == certificateHold {
		return CA{}, fault.New(fault.Invalid, "a CA cannot be on hold: whatever was signed with its key meanwhile would become valid with it; revoke it for another reason")
	}
	e := a.event(ctx, caller, audit.CARevoke, c.OrganizationID, audit.ResourceCA, &c.ID, r.describe(c.Serial, *c.ParentID))
	if c, err = a.cfg.Store.RevokeCA(ctx, id, r, replacedBy(r.Reason), e); err != nil {
		return CA{}, fmt.Errorf("revoke CA: %w", err)
	}
	a.revoked(r)
	a.changedHere(*c.ParentID, 0, c.Serial)
	return c, nil
}

// Release makes a certificate valid again that is on hold. Conflict when it is not. The text says why, for the trail.
func (a *Authority) Release(ctx context.Context, caller policy.Caller, id int64, text string) (Certificate, error) {
	c, err := a.cfg.Store.Certificate(ctx, id)
	if err != nil {
		return Certificate{}, fmt.Errorf("find certificate: %w", err)
	}
	if err := a.allow(policy.Allow(caller, policy.RevokeCert, c.object())); err != nil {
		return Certificate{}, err
	}
	if err := checkReasonText(text); err != nil {
		return Certificate{}, err
	}
	e := a.event(ctx, caller, audit.CertRelease, c.OrganizationID, audit.ResourceCertificate, &c.ID,
		fmt.Sprintf("serial %s, issuer CA %d, %q", c.Serial, c.IssuerID, text))
	if c, err = a.cfg.Store.Release(ctx, id, wholeSecond(a.cfg.Now()), e); err != nil {
		return Certificate{}, fmt.Errorf("release certificate: %w", err)
	}
	a.changedHere(c.IssuerID, c.CRLShard, c.Serial)
	return c, nil
}

func (a *Authority) revocation(req RevokeRequest) (Revocation, error) {
	if err := checkReasonText(req.Reason); err != nil {
		return Revocation{}, err
	}
	if namesRemoval(req.Reason) {
		return Revocation{}, fault.New(fault.Invalid, "removeFromCRL is no reason to revoke: release the certificate that is on hold")
	}
	r := Revocation{At: wholeSecond(a.cfg.Now()), Reason: ReasonCode(req.Reason), Text: req.Reason}
	if req.InvalidityDate == nil {
		return r, nil
	}
	r.InvalidityDate = wholeSecond(*req.InvalidityDate)
	switch {
	case r.InvalidityDate.After(a.cfg.Now()):
		return Revocation{}, fault.New(fault.Invalid, "invalidity_date must not be in the future")
	case r.InvalidityDate.Before(earliestInvalidity):
		return Revocation{}, fault.New(fault.Invalid, "invalidity_date must not be before %s", earliestInvalidity.Format(time.RFC3339))
	}
	return r, nil
}

// earliestInvalidity is before any key could be compromised.
var earliestInvalidity = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)

func checkReasonText(text string) error {
	if len(text) > MaxReasonText {
		return fault.New(fault.Invalid, "reason must have at most %d bytes", MaxReasonText)
	}
	return nil
}

func (r Revocation) describe(serial string, issuerID int64) string {
	detail := fmt.Sprintf("serial %s, issuer CA %d, reason code %d, %q", serial, issuerID, r.Reason, r.Text)
	if !r.InvalidityDate.IsZero() {
		detail += ", invalid since " + r.InvalidityDate.Format(time.RFC3339)
	}
	return detail
}

func (a *Authority) revoked(r Revocation) {
	if a.cfg.Hooks.Revoked != nil {
		a.cfg.Hooks.Revoked(r.Reason)
	}
}
