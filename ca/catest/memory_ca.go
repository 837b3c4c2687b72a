package catest

import (
	"bytes"
	"context"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

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
	m.authorities[c.ID] = &authority{CA: c, ledger: map[string]*ca.RevokedEntry{}}
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
	a.shards = map[int]int64{0: 0}
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
