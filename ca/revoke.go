package ca

import (
	"context"
	"fmt"
	"time"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// Revoke ends a certificate before its time. The CRL follows: usually before Revoke returns, otherwise within about
// a second once the token signs.
func (a *Authority) Revoke(ctx context.Context, caller policy.Caller, id int64, reason string) (Certificate, error) {
	c, err := a.cfg.Store.Certificate(ctx, id)
	if err != nil {
		return Certificate{}, fmt.Errorf("find certificate: %w", err)
	}
	if err := a.allow(policy.Allow(caller, policy.RevokeCert, c.object())); err != nil {
		return Certificate{}, err
	}
	r, err := a.revocation(reason)
	if err != nil {
		return Certificate{}, err
	}
	e := a.event(ctx, caller, audit.CertRevoke, c.OrganizationID, audit.ResourceCertificate, &c.ID,
		fmt.Sprintf("serial %s, issuer CA %d, reason code %d, %q", c.Serial, c.IssuerID, r.Reason, r.Text))
	if c, err = a.cfg.Store.Revoke(ctx, id, r, nil, e); err != nil {
		return Certificate{}, fmt.Errorf("revoke certificate: %w", err)
	}
	a.revoked(ctx, c.IssuerID, r)
	return c, nil
}

// RevokeCA revokes an intermediate CA: it stops issuing, and its parent's CRL says so. A root has no issuer that
// could revoke it.
func (a *Authority) RevokeCA(ctx context.Context, caller policy.Caller, id int64, reason string) (CA, error) {
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
	r, err := a.revocation(reason)
	if err != nil {
		return CA{}, err
	}
	e := a.event(ctx, caller, audit.CARevoke, c.OrganizationID, audit.ResourceCA, &c.ID,
		fmt.Sprintf("serial %s, issuer CA %d, reason code %d, %q", c.Serial, *c.ParentID, r.Reason, r.Text))
	if c, err = a.cfg.Store.RevokeCA(ctx, id, r, nil, e); err != nil {
		return CA{}, fmt.Errorf("revoke CA: %w", err)
	}
	a.revoked(ctx, *c.ParentID, r)
	return c, nil
}

func (a *Authority) revocation(reason string) (Revocation, error) {
	if len(reason) > MaxReasonText {
		return Revocation{}, fault.New(fault.Invalid, "reason must have at most %d bytes", MaxReasonText)
	}
	return Revocation{At: a.cfg.Now().UTC().Truncate(time.Second), Reason: ReasonCode(reason), Text: reason}, nil
}

func (a *Authority) revoked(ctx context.Context, issuerID int64, r Revocation) {
	if a.cfg.Hooks.Revoked != nil {
		a.cfg.Hooks.Revoked(r.Reason)
	}
	a.publish(ctx, ListScope{CAID: issuerID})
}
