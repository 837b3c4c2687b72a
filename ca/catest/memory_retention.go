package catest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

func errRecordsChanged() error {
	return fault.New(fault.Conflict, "A record was changed or removed since it was listed, or must be kept")
}

// unlisted reports whether a certificate is in the ledger and a list that must be kept up has not shown it since it ended.
func (m *Memory) unlisted(c *ca.Certificate, now time.Time) bool {
	a := m.authorities[c.IssuerID]
	e, ok := a.ledger[c.Serial]
	if !ok || !m.keptUp(a, now) {
		return false
	}
	for shard := range a.shards {
		if shard != 0 && shard != e.Shard {
			continue
		}
		l := a.newest(ca.ListScope{CAID: a.ID, Shard: shard}, now)
		if l == nil || !l.ThisUpdate.After(c.NotAfter) || l.Sequence < e.Sequence {
			return true
		}
	}
	return false
}

// expired are the certificates of a CA that ended before a time and are not reserved only, in order.
func (m *Memory) expired(caID int64, before time.Time) []*ca.Certificate {
	all := byID(m.certificates, certificateID, func(c *ca.Certificate) bool {
		return c.IssuerID == caID && c.State != ca.Pending && c.NotAfter.Before(instant(before))
	})
	slices.SortStableFunc(all, func(a, b *ca.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return all
}

func beyond(at time.Time, id int64, than ca.RecordPlace) bool {
	return cmp.Or(at.Compare(instant(than.At)), cmp.Compare(id, than.ID)) > 0
}

func retired(l *ca.List, before time.Time) bool {
	return l.State != ca.ListPending && len(l.DER) == 0 && l.NextUpdate.Before(instant(before))
}

func old(e audit.Entry, before time.Time) bool {
	return e.CreatedAt.Before(instant(before)) && e.Action != audit.Retention
}

// Removable implements ca.Store.
func (m *Memory) Removable(ctx context.Context, now, expired, entries time.Time) ([]ca.Removable, error) {
	if err := m.begin(ctx, "Removable"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	all := []ca.Removable{}
	add := func(r ca.Removable) {
		if r.Count+r.Waiting > 0 {
			all = append(all, r)
		}
	}
	authorities := slices.Sorted(maps.Keys(m.authorities))
	for _, id := range authorities {
		r := ca.Removable{Kind: ca.CertificateRecords, CAID: id, CAName: m.authorities[id].Name, Before: expired}
		for _, c := range m.expired(id, expired) {
			m.tally(&r, c, instant(now))
		}
		add(r)
	}
	for _, id := range authorities {
		r := ca.Removable{Kind: ca.ListRecords, CAID: id, CAName: m.authorities[id].Name, Before: expired}
		for _, l := range m.authorities[id].lists {
			if retired(l, expired) {
				tell(&r, l.NextUpdate, 0)
			}
		}
		add(r)
	}
	r := ca.Removable{Kind: ca.AuditRecords, Before: entries}
	for _, e := range m.trail {
		if old(e, entries) {
			tell(&r, e.CreatedAt, len(e.Username)+len(e.Detail)+len(e.RequestID)+len(e.RemoteAddr))
		}
	}
	add(r)
	return all, nil
}

func tell(r *ca.Removable, at time.Time, size int) {
	r.Count++
	r.Bytes += int64(size)
	if r.Oldest.IsZero() || at.Before(r.Oldest) {
		r.Oldest = at
	}
	if at.After(r.Newest) {
		r.Newest = at
	}
}

func (m *Memory) tally(r *ca.Removable, c *ca.Certificate, now time.Time) {
	if m.unlisted(c, now) {
		r.Waiting++
		return
	}
	tell(r, c.NotAfter, len(c.DER)+len(c.TBS)+len(c.SealedKey))
	if len(c.SealedKey) > 0 {
		r.Keys++
	}
	switch c.State {
	case ca.Valid:
		r.Valid++
	case ca.Revoked:
		r.Revoked++
	case ca.Abandoned:
		r.Abandoned++
	}
}

// ExpiredCertificates implements ca.Store.
func (m *Memory) ExpiredCertificates(ctx context.Context, caID int64, now, before time.Time, after ca.RecordPlace, limit int) ([]ca.ExpiredCertificate, error) {
	if err := m.begin(ctx, "ExpiredCertificates"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	all := []ca.ExpiredCertificate{}
	for _, c := range m.expired(caID, before) {
		if len(all) < limit && beyond(c.NotAfter, c.ID, after) && !m.unlisted(c, instant(now)) {
			x := ca.ExpiredCertificate{Certificate: *c, HasKey: len(c.SealedKey) > 0}
			x.SealedKey = nil
			all = append(all, x)
		}
	}
	return all, nil
}

// RetiredLists implements ca.Store.
func (m *Memory) RetiredLists(ctx context.Context, caID int64, before time.Time, limit int) ([]ca.List, error) {
	if err := m.begin(ctx, "RetiredLists"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	all := []ca.List{}
	if a, ok := m.authorities[caID]; ok {
		for _, l := range a.lists {
			if len(all) < limit && retired(l, before) {
				all = append(all, *l)
			}
		}
	}
	return all, nil
}

// OldEntries implements ca.Store.
func (m *Memory) OldEntries(ctx context.Context, before time.Time, after ca.RecordPlace, limit int) ([]audit.Entry, error) {
	if err := m.begin(ctx, "OldEntries"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	all := []audit.Entry{}
	sorted := slices.SortedStableFunc(slices.Values(m.trail), func(a, b audit.Entry) int { return a.CreatedAt.Compare(b.CreatedAt) })
	for _, e := range sorted {
		if len(all) < limit && old(e, before) && beyond(e.CreatedAt, e.ID, after) {
			all = append(all, e)
		}
	}
	return all, nil
}

// RemoveCertificates implements ca.Store.
func (m *Memory) RemoveCertificates(ctx context.Context, k ca.Cut, all []ca.ExpiredCertificate, e audit.Event) error {
	if err := m.begin(ctx, "RemoveCertificates"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, x := range all {
		c, ok := m.certificates[x.ID]
		if !ok || c.IssuerID != k.CAID || !c.UpdatedAt.Equal(x.UpdatedAt) || !c.NotAfter.Before(instant(k.Before)) || m.unlisted(c, instant(k.At)) {
			return errRecordsChanged()
		}
	}
	for _, x := range all {
		delete(m.certificates, x.ID)
		delete(m.authorities[k.CAID].ledger, x.Serial)
		maps.DeleteFunc(m.answers, func(key answerKey, _ ca.SignedAnswer) bool { return key.caID == k.CAID && key.serial == x.Serial })
	}
	m.record(e)
	return nil
}

// RemoveLists implements ca.Store.
func (m *Memory) RemoveLists(ctx context.Context, k ca.Cut, all []ca.List, e audit.Event) error {
	if err := m.begin(ctx, "RemoveLists"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, ok := m.authorities[k.CAID]
	if !ok {
		return errRecordsChanged()
	}
	gone := func(l *ca.List) bool {
		return retired(l, k.Before) && slices.ContainsFunc(all, func(r ca.List) bool { return r.Place() == l.Place() })
	}
	kept := slices.DeleteFunc(slices.Clone(a.lists), gone)
	if len(a.lists)-len(kept) != len(all) {
		return errRecordsChanged()
	}
	a.lists = kept
	m.record(e)
	return nil
}

// RemoveEntries implements ca.Store.
func (m *Memory) RemoveEntries(ctx context.Context, k ca.Cut, all []audit.Entry, e audit.Event) error {
	if err := m.begin(ctx, "RemoveEntries"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	gone := func(x audit.Entry) bool {
		return old(x, k.Before) && slices.ContainsFunc(all, func(r audit.Entry) bool { return r.ID == x.ID })
	}
	kept := slices.DeleteFunc(slices.Clone(m.trail), gone)
	if len(m.trail)-len(kept) != len(all) {
		return errRecordsChanged()
	}
	m.trail = kept
	m.record(e)
	return nil
}
