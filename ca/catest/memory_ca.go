package catest

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// keptCRLs is how many lists of a CA are kept; the audit trail names the older ones.
const keptCRLs = 16

// CreateCA implements ca.Store.
func (m *Memory) CreateCA(ctx context.Context, c ca.CA, e audit.Event) (ca.CA, error) {
	if err := m.begin(ctx, "CreateCA"); err != nil {
		return ca.CA{}, err
	}
	defer m.mu.Unlock()
	if c.ParentID != nil && m.authorities[*c.ParentID] == nil {
		return ca.CA{}, fault.New(fault.NotFound, "CA not found")
	}
	c.ID, c.State = int64(len(m.authorities))+1, ca.Pending
	c.PublicKey, c.Serial, c.TBS, c.Certificate = nil, "", nil, nil
	c.Revocation, c.DeletedAt, c.DrillClaimedAt, c.KeyDestroyedAt = ca.Revocation{}, nil, nil, nil
	c.Proof = ca.KeyProof{Accepted: accepted(c.Proof.Accepted)}
	c.NotBefore, c.NotAfter = instant(c.NotBefore), instant(c.NotAfter)
	c.CreatedAt, c.UpdatedAt = m.dates(c.CreatedAt)
	m.authorities[c.ID] = &authority{CA: c}
	m.append(e, c.ID)
	return c, nil
}

// ReserveCA implements ca.Store.
func (m *Memory) ReserveCA(ctx context.Context, c ca.CA, e audit.Event) error {
	if err := m.begin(ctx, "ReserveCA"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if err := m.reserveCA(c); err != nil {
		return err
	}
	m.append(e, c.ID)
	return nil
}

func (m *Memory) reserveCA(c ca.CA) error {
	a, ok := m.authorities[c.ID]
	if !ok || a.State != ca.Pending || a.Serial != "" {
		return fault.New(fault.Conflict, "CA is not pending, or already reserved")
	}
	if a.ParentID != nil {
		switch parent := m.authorities[*a.ParentID]; {
		case parent.State != ca.Valid || parent.DeletedAt != nil:
			return fault.New(fault.Conflict, "CA %d is revoked or deleted", *a.ParentID)
		case parent.Proof.Locked != "":
			return fault.New(fault.Conflict, "CA %d is locked", *a.ParentID)
		case m.serialTaken(*a.ParentID, c.Serial):
			return fault.New(fault.Conflict, "Serial number is already in use")
		}
	}
	for _, other := range m.authorities {
		if other.State != ca.Abandoned && bytes.Equal(other.PublicKey, c.PublicKey) {
			return fault.New(fault.Conflict, "Public key is already in use")
		}
	}
	a.SubjectDN, a.PublicKey, a.Serial, a.TBS, a.ValidDays = c.SubjectDN, c.PublicKey, c.Serial, c.TBS, c.ValidDays
	a.NotBefore, a.NotAfter, a.PathLength = instant(c.NotBefore), instant(c.NotAfter), c.PathLength
	a.UpdatedAt = m.now()
	return nil
}

// CompleteCA implements ca.Store.
func (m *Memory) CompleteCA(ctx context.Context, id int64, der []byte, e audit.Event) (ca.CA, error) {
	if err := m.begin(ctx, "CompleteCA"); err != nil {
		return ca.CA{}, err
	}
	defer m.mu.Unlock()
	c, err := m.completeCA(id, der)
	if err != nil {
		return ca.CA{}, err
	}
	m.append(e, id)
	return c, nil
}

func (m *Memory) completeCA(id int64, der []byte) (ca.CA, error) {
	a, ok := m.authorities[id]
	if !ok || a.State != ca.Pending || a.Serial == "" {
		return ca.CA{}, fault.New(fault.Conflict, "CA is not reserved, or already completed")
	}
	a.State, a.Certificate, a.TBS, a.UpdatedAt = ca.Valid, der, nil, m.now()
	if a.ParentID != nil {
		m.authorities[*a.ParentID].AllowLeafCerts = false
	}
	return a.CA, nil
}

// CA implements ca.Store.
func (m *Memory) CA(ctx context.Context, id int64) (ca.CA, error) {
	if err := m.begin(ctx, "CA"); err != nil {
		return ca.CA{}, err
	}
	defer m.mu.Unlock()
	a, err := m.visible(id)
	if err != nil {
		return ca.CA{}, err
	}
	return a.CA, nil
}

// PublicCA implements ca.Store.
func (m *Memory) PublicCA(ctx context.Context, id int64) (ca.CA, error) {
	if err := m.begin(ctx, "PublicCA"); err != nil {
		return ca.CA{}, err
	}
	defer m.mu.Unlock()
	a, err := m.public(id)
	if err != nil {
		return ca.CA{}, err
	}
	return a.CA, nil
}

func (m *Memory) inScope(s ca.Scope, more func(*authority) bool) []*authority {
	return byID(m.authorities, authorityID, func(a *authority) bool {
		return exists(a.State) && a.DeletedAt == nil && inScope(s, a.OrganizationID, a.CreatedBy) && more(a)
	})
}

// CAs implements ca.Store.
func (m *Memory) CAs(ctx context.Context, s ca.Scope, p ca.Page) ([]ca.CA, int64, error) {
	if err := m.begin(ctx, "CAs"); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	all := m.inScope(s, func(*authority) bool { return true })
	return values(cut(all, authorityID, p)), int64(len(all)), nil
}

// CAsByName implements ca.Store.
func (m *Memory) CAsByName(ctx context.Context, s ca.Scope, name string) ([]ca.CA, error) {
	if err := m.begin(ctx, "CAsByName"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return values(m.inScope(s, func(a *authority) bool { return a.Name == name })), nil
}

// Children implements ca.Store.
func (m *Memory) Children(ctx context.Context, id int64) ([]ca.CA, error) {
	if err := m.begin(ctx, "Children"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return values(m.inScope(ca.Scope{All: true}, func(a *authority) bool { return a.ParentID != nil && *a.ParentID == id })), nil
}

// RevokeCA implements ca.Store.
func (m *Memory) RevokeCA(ctx context.Context, id int64, r ca.Revocation, e audit.Event) (ca.CA, error) {
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
	case a.State == ca.Revoked:
		return ca.CA{}, fault.New(fault.Conflict, "CA is already revoked")
	}
	r.At = instant(r.At)
	a.State, a.Revocation, a.UpdatedAt = ca.Revoked, r, m.now()
	m.authorities[*a.ParentID].sequence++
	m.append(e, id)
	return a.CA, nil
}

// DeleteCA implements ca.Store.
func (m *Memory) DeleteCA(ctx context.Context, id int64, at time.Time, e audit.Event) error {
	if err := m.begin(ctx, "DeleteCA"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, err := m.visible(id)
	if err != nil {
		return err
	}
	for _, child := range m.authorities {
		if child.ParentID != nil && *child.ParentID == id && child.DeletedAt == nil && child.State != ca.Abandoned {
			return fault.New(fault.Conflict, "CA has child CAs; delete them first")
		}
	}
	at = instant(at)
	a.DeletedAt, a.UpdatedAt = &at, m.now()
	m.append(e, id)
	return nil
}

// Abandon implements ca.Store.
func (m *Memory) Abandon(ctx context.Context, before, now time.Time) (int, error) {
	if err := m.begin(ctx, "Abandon"); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	ended := ca.Revocation{At: instant(now), Text: "never completed"}
	n := 0
	for _, c := range byID(m.certificates, certificateID, func(c *ca.Certificate) bool {
		return c.State == ca.Pending && c.CreatedAt.Before(instant(before))
	}) {
		c.State, c.Revocation, c.UpdatedAt = ca.Abandoned, ended, m.now()
		m.authorities[c.IssuerID].sequence++
		m.record(audit.Event{Action: audit.CertAbandon, OrganizationID: c.OrganizationID, ResourceType: audit.ResourceCertificate,
			ResourceID: &c.ID, Detail: "reservation of serial " + c.Serial + " was never completed"})
		n++
	}
	for _, a := range byID(m.authorities, authorityID, func(a *authority) bool {
		return a.State == ca.Pending && a.CreatedAt.Before(instant(before))
	}) {
		a.State, a.Revocation, a.UpdatedAt = ca.Abandoned, ended, m.now()
		if a.ParentID != nil {
			m.authorities[*a.ParentID].sequence++
		}
		m.record(audit.Event{Action: audit.CAAbandon, OrganizationID: a.OrganizationID, ResourceType: audit.ResourceCA,
			ResourceID: &a.ID, Detail: "reservation of serial " + a.Serial + " was never completed"})
		n++
	}
	return n, nil
}

// StaleCRLs implements ca.Store.
func (m *Memory) StaleCRLs(ctx context.Context, endsBefore, now time.Time) ([]int64, error) {
	if err := m.begin(ctx, "StaleCRLs"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var ids []int64
	for _, a := range byID(m.authorities, authorityID, func(a *authority) bool { return exists(a.State) && a.KeyDestroyedAt == nil && !a.NotAfter.Before(now) }) {
		latest, ok := a.latest()
		stale := !ok || latest.Sequence < a.sequence || latest.NextUpdate.Before(endsBefore)
		if stale && (a.DeletedAt == nil || m.hasUnexpired(a.ID, now)) {
			ids = append(ids, a.ID)
		}
	}
	return ids, nil
}

// hasUnexpired reports whether anything the CA signed, or may have signed, has not expired.
func (m *Memory) hasUnexpired(id int64, now time.Time) bool {
	for _, c := range m.certificates {
		if c.IssuerID == id && !c.NotAfter.Before(now) {
			return true
		}
	}
	for _, a := range m.authorities {
		if a.ParentID != nil && *a.ParentID == id && a.Serial != "" && !a.NotAfter.Before(now) {
			return true
		}
	}
	return false
}

func (a *authority) latest() (ca.CRL, bool) {
	if len(a.crls) == 0 {
		return ca.CRL{}, false
	}
	return slices.MaxFunc(a.crls, func(a, b ca.CRL) int { return cmp.Compare(a.Number, b.Number) }), true
}

// BeginCRL implements ca.Store.
func (m *Memory) BeginCRL(ctx context.Context, caID int64) (ca.CRL, error) {
	if err := m.begin(ctx, "BeginCRL"); err != nil {
		return ca.CRL{}, err
	}
	defer m.mu.Unlock()
	a, err := m.public(caID)
	if err != nil {
		return ca.CRL{}, err
	}
	a.crlNumber++
	return ca.CRL{CAID: caID, Number: a.crlNumber, Sequence: a.sequence}, nil
}

// RevokedSerials implements ca.Store.
func (m *Memory) RevokedSerials(ctx context.Context, caID int64, notExpiredAt time.Time) ([]ca.RevokedSerial, error) {
	if err := m.begin(ctx, "RevokedSerials"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var out []ca.RevokedSerial
	add := func(s ca.State, serial string, notAfter time.Time, r ca.Revocation) {
		if (s == ca.Revoked || s == ca.Abandoned) && serial != "" && !notAfter.Before(notExpiredAt) {
			out = append(out, ca.RevokedSerial{Serial: serial, At: r.At, Reason: r.Reason})
		}
	}
	for _, c := range m.certificates {
		if c.IssuerID == caID {
			add(c.State, c.Serial, c.NotAfter, c.Revocation)
		}
	}
	for _, a := range m.authorities {
		if a.ParentID != nil && *a.ParentID == caID {
			add(a.State, a.Serial, a.NotAfter, a.Revocation)
		}
	}
	slices.SortFunc(out, func(a, b ca.RevokedSerial) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Serial, b.Serial))
	})
	return out, nil
}

// CompleteCRL implements ca.Store.
func (m *Memory) CompleteCRL(ctx context.Context, c ca.CRL, e audit.Event) error {
	if err := m.begin(ctx, "CompleteCRL"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, err := m.public(c.CAID)
	if err != nil {
		return err
	}
	if c.Number < 1 || c.Number > a.crlNumber || slices.ContainsFunc(a.crls, func(o ca.CRL) bool { return o.Number == c.Number }) {
		return fault.New(fault.Conflict, "CRL number was not reserved, or is already in use")
	}
	c.ThisUpdate, c.NextUpdate = instant(c.ThisUpdate), instant(c.NextUpdate)
	a.crls = append(slices.DeleteFunc(a.crls, func(o ca.CRL) bool { return o.Number <= c.Number-keptCRLs }), c)
	m.append(e, c.CAID)
	return nil
}

// LatestCRL implements ca.Store.
func (m *Memory) LatestCRL(ctx context.Context, caID int64) (ca.CRL, error) {
	if err := m.begin(ctx, "LatestCRL"); err != nil {
		return ca.CRL{}, err
	}
	defer m.mu.Unlock()
	if a, ok := m.authorities[caID]; ok {
		if latest, ok := a.latest(); ok {
			return latest, nil
		}
	}
	return ca.CRL{}, fault.New(fault.NotFound, "CRL not found")
}
