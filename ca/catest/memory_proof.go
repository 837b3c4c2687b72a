package catest

import (
	"context"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/evidence"
	"signet/fault"
)

// accepted is what a database keeps of an acceptance.
func accepted(a evidence.Acceptance) evidence.Acceptance {
	if a.At.IsZero() {
		return evidence.Acceptance{Grade: a.Grade, By: a.By, Reason: a.Reason}
	}
	a.At = instant(a.At)
	return a
}

// ProveCA implements ca.Store.
func (m *Memory) ProveCA(ctx context.Context, id int64, was, is ca.KeyProof, d *ca.KeyDrill, events ...audit.Event) error {
	if err := m.begin(ctx, "ProveCA"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, ok := m.authorities[id]
	if !ok || a.State == ca.Abandoned || a.Proof.Grade != was.Grade || a.Proof.Locked != was.Locked || a.Proof.Accepted.Grade != was.Accepted.Grade {
		return fault.New(fault.Conflict, "What is known of the CA's key has changed meanwhile")
	}
	is.Accepted = accepted(is.Accepted)
	if a.Proof != is {
		a.Proof, a.UpdatedAt = is, m.now()
	}
	if d != nil {
		kept := *d
		kept.CAID, kept.At = id, instant(d.At)
		a.drills = append(a.drills, kept)
		a.drills = a.drills[max(0, len(a.drills)-ca.KeptDrills):]
	}
	for _, e := range events {
		m.append(e, id)
	}
	return nil
}

// Drills implements ca.Store.
func (m *Memory) Drills(ctx context.Context, id int64, limit int) ([]ca.KeyDrill, error) {
	if err := m.begin(ctx, "Drills"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	a, ok := m.authorities[id]
	if !ok {
		return nil, nil
	}
	drills := slices.Clone(a.drills)
	slices.Reverse(drills)
	return drills[:min(max(limit, 0), len(drills))], nil
}

// ClaimDrill implements ca.Store.
func (m *Memory) ClaimDrill(ctx context.Context, id int64, before, at time.Time) (bool, error) {
	if err := m.begin(ctx, "ClaimDrill"); err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	a, err := m.visible(id)
	if err != nil || a.DrillClaimedAt != nil && !a.DrillClaimedAt.Before(instant(before)) {
		return false, nil
	}
	at = instant(at)
	a.DrillClaimedAt = &at
	return true, nil
}

// KeyDestroyed implements ca.Store.
func (m *Memory) KeyDestroyed(ctx context.Context, id int64, at time.Time, e audit.Event) error {
	if err := m.begin(ctx, "KeyDestroyed"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, ok := m.authorities[id]
	if !ok || !exists(a.State) || a.KeyDestroyedAt != nil || a.DeletedAt == nil && a.State != ca.Revoked {
		return fault.New(fault.Conflict, "CA is neither deleted nor revoked, or its key was destroyed before")
	}
	at = instant(at)
	a.KeyDestroyedAt, a.UpdatedAt = &at, m.now()
	m.append(e, id)
	return nil
}

// AdoptCA implements ca.Store.
func (m *Memory) AdoptCA(ctx context.Context, c ca.CA, e audit.Event) (ca.CA, error) {
	if err := m.begin(ctx, "AdoptCA"); err != nil {
		return ca.CA{}, err
	}
	defer m.mu.Unlock()
	if err := m.reserveCA(c); err != nil {
		return ca.CA{}, err
	}
	adopted, err := m.completeCA(c.ID, c.Certificate)
	if err != nil {
		return ca.CA{}, err
	}
	m.append(e, c.ID)
	return adopted, nil
}

// EveryCA implements ca.Store.
func (m *Memory) EveryCA(ctx context.Context, p ca.Page) ([]ca.CA, error) {
	if err := m.begin(ctx, "EveryCA"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return values(cut(byID(m.authorities, authorityID, func(*authority) bool { return true }), authorityID, p)), nil
}

// AbandonCA implements ca.Store.
func (m *Memory) AbandonCA(ctx context.Context, id int64, r ca.Revocation, e audit.Event) error {
	if err := m.begin(ctx, "AbandonCA"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, ok := m.authorities[id]
	if !ok || a.State != ca.Pending || a.Serial != "" {
		return fault.New(fault.Conflict, "CA is not pending, or already reserved")
	}
	r.At = instant(r.At)
	a.State, a.Revocation, a.UpdatedAt = ca.Abandoned, r, m.now()
	m.append(e, id)
	return nil
}
