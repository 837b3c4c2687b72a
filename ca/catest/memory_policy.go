package catest

import (
	"context"
	"time"

	"signet/audit"
	"signet/ca"
)

// RevocationPolicy implements ca.Store.
func (m *Memory) RevocationPolicy(ctx context.Context, caID int64) (ca.RevocationPolicy, error) {
	if err := m.begin(ctx, "RevocationPolicy"); err != nil {
		return ca.RevocationPolicy{}, err
	}
	defer m.mu.Unlock()
	if a, ok := m.authorities[caID]; ok {
		return a.policy, nil
	}
	return ca.RevocationPolicy{}, nil
}

// RevocationPolicies implements ca.Store.
func (m *Memory) RevocationPolicies(ctx context.Context) (map[int64]ca.RevocationPolicy, error) {
	if err := m.begin(ctx, "RevocationPolicies"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	all := map[int64]ca.RevocationPolicy{}
	for id, a := range m.authorities {
		if !a.policy.UpdatedAt.IsZero() {
			all[id] = a.policy
		}
	}
	return all, nil
}

// SetRevocationPolicy implements ca.Store.
func (m *Memory) SetRevocationPolicy(ctx context.Context, caID int64, p ca.RevocationPolicy, e audit.Event) error {
	if err := m.begin(ctx, "SetRevocationPolicy"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, err := m.visible(caID)
	if err != nil {
		return err
	}
	for _, d := range []*time.Duration{&p.CRLValidity, &p.CRLRefresh, &p.CRLOverlap, &p.OCSPValidity} {
		*d = d.Truncate(time.Second)
	}
	if p.Outage != (ca.Outage{}) {
		p.Outage = ca.Outage{From: instant(p.Outage.From), Until: instant(p.Outage.Until)}
	}
	p.UpdatedAt = m.now()
	a.policy = p
	for shard := 1; shard <= p.Shards; shard++ {
		if _, open := a.shards[shard]; !open {
			a.shards[shard] = 0
		}
	}
	m.append(e, caID)
	return nil
}

// lease is who has something, and until when.
type lease struct {
	holder string
	ends   time.Time
}

// Lease implements ca.Store.
func (m *Memory) Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	if err := m.begin(ctx, "Lease"); err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	now := m.now()
	if l, ok := m.leases[name]; ok && l.holder != holder && !l.ends.Before(now) {
		return false, nil
	}
	m.leases[name] = lease{holder: holder, ends: now.Add(ttl)}
	return true, nil
}

// EndLease implements ca.Store.
func (m *Memory) EndLease(ctx context.Context, name, holder string) error {
	if err := m.begin(ctx, "EndLease"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.leases[name].holder == holder {
		delete(m.leases, name)
	}
	return nil
}
