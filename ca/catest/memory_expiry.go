package catest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"signet/ca"
)

// CAExpiries implements ca.Store.
func (m *Memory) CAExpiries(ctx context.Context, now time.Time, within []time.Duration) ([]ca.CAExpiry, error) {
	if err := m.begin(ctx, "CAExpiries"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	now = instant(now)
	all := []ca.CAExpiry{}
	for _, a := range m.authorities {
		if !exists(a.State) {
			continue
		}
		e := ca.CAExpiry{CA: a.CA, Expiring: make([]int64, len(within)), Responder: m.lastResponder(a.ID)}
		e.CA.TBS, e.CA.Certificate = nil, nil
		for _, c := range m.certificates {
			for i, d := range within {
				if a.DeletedAt == nil && c.IssuerID == a.ID && c.State == ca.Valid && !c.NotAfter.Before(now) && !c.NotAfter.After(instant(now.Add(d))) {
					e.Expiring[i]++
				}
			}
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b ca.CAExpiry) int { return cmp.Compare(a.CA.ID, b.CA.ID) })
	return all, nil
}

// Endings implements ca.Store.
func (m *Memory) Endings(ctx context.Context, caID int64, after ca.Ending, until time.Time, limit int) ([]ca.Certificate, error) {
	if err := m.begin(ctx, "Endings"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	place := func(a, b ca.Ending) int { return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.ID, b.ID)) }
	of := func(c ca.Certificate) ca.Ending { return ca.Ending{NotAfter: c.NotAfter, ID: c.ID} }
	after.NotAfter = instant(after.NotAfter)
	all := []ca.Certificate{}
	for _, c := range m.certificates {
		_, err := m.visibleCertificate(c.ID)
		if err == nil && c.IssuerID == caID && c.State == ca.Valid && place(of(*c), after) > 0 && !c.NotAfter.After(instant(until)) {
			found := *c
			found.TBS, found.DER, found.SealedKey = nil, nil, nil
			all = append(all, found)
		}
	}
	slices.SortFunc(all, func(a, b ca.Certificate) int { return place(of(a), of(b)) })
	return all[:min(limit, len(all))], nil
}

// lastResponder is the valid responder that was certified last, as CAExpiries shows it.
func (m *Memory) lastResponder(caID int64) *ca.Responder {
	var last *ca.Responder
	for _, r := range m.responders {
		if r.CAID == caID && r.State == ca.Valid && (last == nil || r.ID > last.ID) {
			last = &r.Responder
		}
	}
	if last == nil {
		return nil
	}
	shown := *last
	shown.TBS, shown.Certificate = nil, nil
	return &shown
}
