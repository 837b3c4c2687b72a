package ca

import (
	"context"
	"fmt"
	"slices"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// maxChain is the longest chain of CAs that may be made, root included. OpenSSL follows 100 certificates.
const maxChain = 32

// CA returns a CA that the caller may read.
func (a *Authority) CA(ctx context.Context, caller policy.Caller, id int64) (CA, error) {
	c, err := a.cfg.Store.CA(ctx, id)
	if err != nil {
		return CA{}, fmt.Errorf("find CA: %w", err)
	}
	return c, a.allow(policy.Allow(caller, policy.Read, c.object()))
}

// CAs lists the CAs that the caller may read and counts them all.
func (a *Authority) CAs(ctx context.Context, caller policy.Caller, p Page) ([]CA, int64, error) {
	return a.cfg.Store.CAs(ctx, scopeOf(caller), p)
}

// Chain returns the CA first and its root last.
func (a *Authority) Chain(ctx context.Context, caller policy.Caller, id int64) ([]CA, error) {
	c, err := a.CA(ctx, caller, id)
	if err != nil {
		return nil, err
	}
	return a.chainOf(ctx, c)
}

func (a *Authority) chainOf(ctx context.Context, c CA) ([]CA, error) {
	return chainOf(ctx, c, a.cfg.Store.PublicCA)
}

// chainOf finds the CAs above one by their ids.
func chainOf(ctx context.Context, c CA, find func(context.Context, int64) (CA, error)) ([]CA, error) {
	chain := []CA{c}
	for c.ParentID != nil {
		if len(chain) > maxChain {
			return nil, fmt.Errorf("chain of CA %d has no end", chain[0].ID)
		}
		parent, err := find(ctx, *c.ParentID)
		if err != nil {
			return nil, fmt.Errorf("find issuer of CA %d: %w", c.ID, err)
		}
		chain = append(chain, parent)
		c = parent
	}
	return chain, nil
}

// revokedAmong refuses when one of the CAs is revoked: nothing below it validates.
func revokedAmong(chain []CA) error {
	for _, c := range chain {
		if c.State == Revoked {
			return &policy.Violation{Reasons: []string{fmt.Sprintf("CA %d is revoked, and with it every CA below it", c.ID)}}
		}
	}
	return nil
}

// Children lists the CAs certified by this one that the caller may read.
func (a *Authority) Children(ctx context.Context, caller policy.Caller, id int64) ([]CA, error) {
	if _, err := a.CA(ctx, caller, id); err != nil {
		return nil, err
	}
	children, err := a.cfg.Store.Children(ctx, id)
	return slices.DeleteFunc(children, func(c CA) bool { return policy.Allow(caller, policy.Read, c.object()) != nil }), err
}

// DeleteCA hides a CA and its certificates from every authenticated call. Rows, key and audit trail stay; its public
// CRL and certificate stay served.
func (a *Authority) DeleteCA(ctx context.Context, caller policy.Caller, id int64) error {
	c, err := a.cfg.Store.CA(ctx, id)
	if err != nil {
		return fmt.Errorf("find CA: %w", err)
	}
	if err := a.allow(policy.Allow(caller, policy.DeleteCA, c.object())); err != nil {
		return err
	}
	e := a.event(ctx, caller, audit.CADelete, c.OrganizationID, audit.ResourceCA, &c.ID,
		fmt.Sprintf("CA %q, serial %s; its key stays in the token", c.Name, c.Serial))
	if err := a.cfg.Store.DeleteCA(ctx, id, a.cfg.Now(), e); err != nil {
		return fmt.Errorf("delete CA: %w", err)
	}
	return nil
}

// RefuseCAKey answers a request for a CA's private key: always an error, NotFound or Forbidden, and the refusal is
// audited.
func (a *Authority) RefuseCAKey(ctx context.Context, caller policy.Caller, id int64) error {
	c, err := a.cfg.Store.CA(ctx, id)
	if err != nil {
		return fmt.Errorf("find CA: %w", err)
	}
	e := a.event(ctx, caller, audit.CAExportPrivateKey, c.OrganizationID, audit.ResourceCA, &c.ID,
		"refused: the key is non-exportable")
	if err := a.cfg.Store.Record(ctx, e); err != nil {
		return fmt.Errorf("record refusal: %w", err)
	}
	a.refused("permission")
	return fault.New(fault.Forbidden, "The private key of CA %d is non-exportable: it was generated inside a PKCS#11 token and cannot leave it", id)
}

// Certificates lists the certificates that match and that the caller may read, and counts them. Scope and Now of the
// filter are filled in here.
func (a *Authority) Certificates(ctx context.Context, caller policy.Caller, f CertificateFilter, p Page) ([]Certificate, Total, error) {
	f.Scope, f.Now = scopeOf(caller), a.cfg.Now()
	return a.cfg.Store.Certificates(ctx, f, p)
}

// Certificate returns a certificate that the caller may read.
func (a *Authority) Certificate(ctx context.Context, caller policy.Caller, id int64) (Certificate, error) {
	c, err := a.cfg.Store.Certificate(ctx, id)
	if err != nil {
		return Certificate{}, fmt.Errorf("find certificate: %w", err)
	}
	return c, a.allow(policy.Allow(caller, policy.Read, c.object()))
}

// CertificateChain returns a certificate and its issuers, root last.
func (a *Authority) CertificateChain(ctx context.Context, caller policy.Caller, id int64) (Certificate, []CA, error) {
	c, err := a.Certificate(ctx, caller, id)
	if err != nil {
		return Certificate{}, nil, err
	}
	issuer, err := a.cfg.Store.PublicCA(ctx, c.IssuerID)
	if err != nil {
		return Certificate{}, nil, fmt.Errorf("find issuer of certificate %d: %w", id, err)
	}
	chain, err := a.chainOf(ctx, issuer)
	return c, chain, err
}

// AuditLog lists the audit entries that the caller may read, newest first, and counts them: a superuser reads
// everything, an admin what concerns the own organization, or only the own acts when without one.
func (a *Authority) AuditLog(ctx context.Context, caller policy.Caller, f audit.Filter) ([]audit.Entry, Total, error) {
	f.OrganizationID, f.OwnUserID = nil, nil
	switch {
	case caller.Role == policy.RoleSuperuser, caller.Operator:
	case caller.Role == policy.RoleAdmin && caller.OrganizationID != nil:
		f.OrganizationID = caller.OrganizationID
	case caller.Role == policy.RoleAdmin:
		f.OwnUserID = &caller.UserID
	default:
		return nil, Total{}, a.allow(policy.ErrDenied)
	}
	return a.cfg.Store.AuditLog(ctx, f)
}

// PublicCA finds a CA by its slug, for relying parties. Deleted CAs are found too.
func (a *Authority) PublicCA(ctx context.Context, slug string) (CA, error) {
	notFound := fault.New(fault.NotFound, "CA not found")
	id, ok := slugID(slug)
	if !ok {
		return CA{}, notFound
	}
	release, err := take(ctx, a.ocsp.looking)
	if err != nil {
		return CA{}, err
	}
	defer release()
	c, err := a.cfg.Store.PublicCA(ctx, id)
	if fault.Is(err, fault.NotFound) || err == nil && Slug(c.Name, c.ID) != slug {
		return CA{}, notFound
	}
	if err != nil {
		return CA{}, fmt.Errorf("find CA by slug: %w", err)
	}
	return c, nil
}
