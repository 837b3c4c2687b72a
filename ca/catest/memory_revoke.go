package catest

import (
	"context"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// certificateHold is the CRLReason that can be taken back (RFC 5280, section 5.3.1).
const certificateHold = 6

// change enters a serial number in the ledger, or changes what it says.
func (a *authority) change(e ca.RevokedEntry) {
	a.sequence++
	e.Sequence = a.sequence
	a.ledger[e.Serial] = &e
	a.shards[e.Shard] = a.sequence
}

func certificateEntry(c *ca.Certificate) ca.RevokedEntry {
	return ca.RevokedEntry{Serial: c.Serial, Shard: c.CRLShard, At: c.Revocation.At, Reason: c.Revocation.Reason,
		InvalidityDate: c.Revocation.InvalidityDate, NotAfter: c.NotAfter}
}

func authorityEntry(a *authority) ca.RevokedEntry {
	return ca.RevokedEntry{Serial: a.Serial, At: a.Revocation.At, Reason: a.Revocation.Reason,
		InvalidityDate: a.Revocation.InvalidityDate, NotAfter: a.NotAfter}
}

// ended is what a record says of its end, after r. It reports whether r may be the end.
func ended(s ca.State, was, r ca.Revocation, replaces []int) (ca.Revocation, bool) {
	r.At = instant(r.At)
	if !r.InvalidityDate.IsZero() {
		r.InvalidityDate = instant(r.InvalidityDate)
	}
	if s == ca.Valid {
		return r, true
	}
	r.At = was.At
	if r.InvalidityDate.IsZero() {
		r.InvalidityDate = was.InvalidityDate
	}
	return r, slices.Contains(replaces, was.Reason)
}

// Revoke implements ca.Store.
func (m *Memory) Revoke(ctx context.Context, id int64, r ca.Revocation, replaces []int, e audit.Event) (ca.Certificate, error) {
	if err := m.begin(ctx, "Revoke"); err != nil {
		return ca.Certificate{}, err
	}
	defer m.mu.Unlock()
	c, err := m.visibleCertificate(id)
	if err != nil {
		return ca.Certificate{}, err
	}
	r, ok := ended(c.State, c.Revocation, r, replaces)
	if !ok {
		return ca.Certificate{}, fault.New(fault.Conflict, "Certificate is already revoked")
	}
	c.State, c.Revocation, c.UpdatedAt = ca.Revoked, r, m.now()
	m.authorities[c.IssuerID].change(certificateEntry(c))
	m.append(e, id)
	return *c, nil
}

// RevokeCA implements ca.Store.
func (m *Memory) RevokeCA(ctx context.Context, id int64, r ca.Revocation, replaces []int, e audit.Event) (ca.CA, error) {
	if err := m.begin(ctx, "RevokeCA"); err != nil {
		return ca.CA{}, err
	}
	defer m.mu.Unlock()
	a, err := m.visible(id)
	switch {
	case err != nil:
		return ca.CA{}, err
	case a.ParentID == nil:
		return ca.CA{}, fault.New(fault.Conflict, "A root CA cannot be revoked")
	}
	r, ok := ended(a.State, a.Revocation, r, replaces)
	if !ok {
		return ca.CA{}, fault.New(fault.Conflict, "CA is already revoked")
	}
	a.State, a.Revocation, a.UpdatedAt = ca.Revoked, r, m.now()
	m.authorities[*a.ParentID].change(authorityEntry(a))
	m.append(e, id)
	return a.CA, nil
}

// Release implements ca.Store.
func (m *Memory) Release(ctx context.Context, id int64, at time.Time, e audit.Event) (ca.Certificate, error) {
	if err := m.begin(ctx, "Release"); err != nil {
		return ca.Certificate{}, err
	}
	defer m.mu.Unlock()
	c, err := m.visibleCertificate(id)
	if err != nil {
		return ca.Certificate{}, err
	}
	if c.State != ca.Revoked || c.Revocation.Reason != certificateHold {
		return ca.Certificate{}, fault.New(fault.Conflict, "Certificate is not on hold")
	}
	entry := certificateEntry(c)
	entry.Released = true
	m.authorities[c.IssuerID].change(entry)
	c.State, c.Revocation, c.UpdatedAt = ca.Valid, ca.Revocation{}, instant(at)
	m.append(e, id)
	return *c, nil
}

// Abandon implements ca.Store.
func (m *Memory) Abandon(ctx context.Context, before, now time.Time) (int, error) {
	if err := m.begin(ctx, "Abandon"); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	before = instant(before)
	end := ca.Revocation{At: instant(now), Text: "never completed"}
	n := 0
	abandon := func(action audit.Action, resource string, id int64, organization *int64, serial string) {
		m.record(audit.Event{Action: action, OrganizationID: organization, ResourceType: resource, ResourceID: &id,
			Detail: "reservation of serial " + serial + " was never completed"})
		n++
	}
	for _, c := range byID(m.certificates, certificateID, func(c *ca.Certificate) bool {
		return c.State == ca.Pending && c.CreatedAt.Before(before)
	}) {
		c.State, c.Revocation, c.UpdatedAt = ca.Abandoned, end, m.now()
		m.authorities[c.IssuerID].change(certificateEntry(c))
		abandon(audit.CertAbandon, audit.ResourceCertificate, c.ID, c.OrganizationID, c.Serial)
	}
	for _, a := range byID(m.authorities, authorityID, func(a *authority) bool {
		return a.State == ca.Pending && a.CreatedAt.Before(before)
	}) {
		a.State, a.Revocation, a.UpdatedAt = ca.Abandoned, end, m.now()
		if a.ParentID != nil && a.Serial != "" {
			m.authorities[*a.ParentID].change(authorityEntry(a))
		}
		abandon(audit.CAAbandon, audit.ResourceCA, a.ID, a.OrganizationID, a.Serial)
	}
	for _, r := range byID(m.responders, responderID, func(r *responder) bool {
		return r.State == ca.Pending && r.createdAt.Before(before)
	}) {
		r.State = ca.Abandoned
		issuer := m.authorities[r.CAID]
		issuer.change(ca.RevokedEntry{Serial: r.Serial, At: end.At, NotAfter: r.NotAfter})
		abandon(audit.ResponderAbandon, audit.ResourceCA, r.CAID, issuer.OrganizationID, r.Serial)
	}
	return n, nil
}

func responderID(r *responder) int64 { return r.ID }
