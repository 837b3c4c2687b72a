package catest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// RevocationStates implements ca.Store.
func (m *Memory) RevocationStates(ctx context.Context) ([]ca.RevocationState, error) {
	if err := m.begin(ctx, "RevocationStates"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var all []ca.RevocationState
	for _, a := range byID(m.authorities, authorityID, func(a *authority) bool { return a.shards != nil }) {
		all = append(all, ca.RevocationState{CAID: a.ID, Sequence: a.sequence, CRLNumber: a.crlNumber})
	}
	return all, nil
}

// entries are the ledger's that pass, in the order of their changes.
func (m *Memory) entries(caID int64, pass func(*ca.RevokedEntry) bool) []ca.RevokedEntry {
	var out []ca.RevokedEntry
	if a, ok := m.authorities[caID]; ok {
		for _, e := range a.ledger {
			if pass(e) {
				out = append(out, *e)
			}
		}
	}
	slices.SortFunc(out, func(a, b ca.RevokedEntry) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return out
}

// ChangedSerials implements ca.Store.
func (m *Memory) ChangedSerials(ctx context.Context, caID, after int64, limit int) ([]ca.RevokedEntry, error) {
	if err := m.begin(ctx, "ChangedSerials"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	all := m.entries(caID, func(e *ca.RevokedEntry) bool { return e.Sequence > after })
	return all[:min(max(limit, 0), len(all))], nil
}

// RevokedEntries implements ca.Store.
func (m *Memory) RevokedEntries(ctx context.Context, caID int64, shard int, changedAfter int64, notExpiredAt time.Time) iter.Seq2[ca.RevokedEntry, error] {
	return func(yield func(ca.RevokedEntry, error) bool) {
		if err := m.begin(ctx, "RevokedEntries"); err != nil {
			yield(ca.RevokedEntry{}, err)
			return
		}
		all := m.entries(caID, func(e *ca.RevokedEntry) bool {
			return (shard == 0 || e.Shard == shard) && e.Sequence > changedAfter && !e.NotAfter.Before(instant(notExpiredAt))
		})
		m.mu.Unlock()
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// ListScopes implements ca.Store.
func (m *Memory) ListScopes(ctx context.Context, now time.Time, caIDs ...int64) ([]ca.ScopeState, error) {
	if err := m.begin(ctx, "ListScopes"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	now = instant(now)
	var all []ca.ScopeState
	for _, a := range byID(m.authorities, authorityID, func(a *authority) bool {
		return m.keptUp(a, now) && (len(caIDs) == 0 || slices.Contains(caIDs, a.ID))
	}) {
		for _, shard := range slices.Sorted(maps.Keys(a.shards)) {
			for _, delta := range []bool{false, true} {
				s := ca.ScopeState{ListScope: ca.ListScope{CAID: a.ID, Shard: shard, Delta: delta}, Changed: a.shards[shard]}
				s.Current, s.Last = withoutDER(a.newest(s.ListScope, now)), withoutDER(a.newest(s.ListScope, time.Time{}))
				if !delta || s.Last != nil {
					all = append(all, s)
				}
			}
		}
	}
	return all, nil
}

// keptUp reports whether the lists of a CA must be kept up.
func (m *Memory) keptUp(a *authority, now time.Time) bool {
	return exists(a.State) && a.KeyDestroyedAt == nil && !a.NotAfter.Before(now) && (a.DeletedAt == nil || m.hasUnexpired(a.ID, now))
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

func withoutDER(l *ca.List) *ca.List {
	if l == nil {
		return nil
	}
	bare := *l
	bare.DER = nil
	return &bare
}

// newest is the published list of a scope with the latest thisUpdate that is not after now; zero: of any.
func (a *authority) newest(s ca.ListScope, now time.Time) *ca.List {
	var newest *ca.List
	for _, l := range a.lists {
		if l.ListScope == s && l.State == ca.ListPublished && (now.IsZero() || !l.ThisUpdate.After(now)) &&
			(newest == nil || !l.ThisUpdate.Before(newest.ThisUpdate)) {
			newest = l
		}
	}
	return newest
}

// hasScope refuses a list of a CA that does not exist, or of a shard that was never opened.
func (m *Memory) hasScope(s ca.ListScope) (*authority, error) {
	a, err := m.public(s.CAID)
	if err != nil {
		return nil, err
	}
	if _, ok := a.shards[s.Shard]; !ok {
		return nil, fault.New(fault.NotFound, "CRL not found")
	}
	return a, nil
}

// BeginList implements ca.Store.
func (m *Memory) BeginList(ctx context.Context, s ca.ListScope, at time.Time) (ca.List, error) {
	if err := m.begin(ctx, "BeginList"); err != nil {
		return ca.List{}, err
	}
	defer m.mu.Unlock()
	a, err := m.hasScope(s)
	if err != nil {
		return ca.List{}, err
	}
	begun := ca.List{ListScope: s, Number: a.crlNumber + 1, State: ca.ListPending, Attempts: 1,
		ThisUpdate: instant(at), NextUpdate: instant(at), Sequence: a.sequence}
	if p := a.pending(); p != nil {
		begun.Attempts += p.Attempts
		*p = begun
	} else {
		a.lists = append(a.lists, &begun)
	}
	return begun, nil
}

// pending is the list that was begun and not completed; there is one at most, and it is the last.
func (a *authority) pending() *ca.List {
	if n := len(a.lists); n > 0 && a.lists[n-1].State == ca.ListPending {
		return a.lists[n-1]
	}
	return nil
}

// CompleteLists implements ca.Store.
func (m *Memory) CompleteLists(ctx context.Context, lists []ca.List, e audit.Event) error {
	if err := m.begin(ctx, "CompleteLists"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if len(lists) == 0 || slices.ContainsFunc(lists, func(l ca.List) bool { return l.CAID != lists[0].CAID || l.Number != lists[0].Number }) {
		return errors.New("complete lists: they are not of one number")
	}
	var a *authority
	for _, l := range lists {
		var err error
		if a, err = m.hasScope(l.ListScope); err != nil {
			return err
		}
		if p := a.pending(); p == nil || p.Number != l.Number {
			return fault.New(fault.Conflict, "CRL number is not the next one any more")
		}
	}
	begun := *a.pending()
	a.lists = a.lists[:len(a.lists)-1]
	a.crlNumber = begun.Number
	now := instant(m.Now())
	if begun.ThisUpdate.Before(now) {
		now = begun.ThisUpdate
	}
	for _, l := range lists {
		sum := sha256.Sum256(l.DER)
		l.State, l.Attempts, l.Size, l.SHA256 = ca.ListPublished, begun.Attempts, int64(len(l.DER)), sum[:]
		l.ThisUpdate, l.NextUpdate, l.DER = instant(l.ThisUpdate), instant(l.NextUpdate), bytes.Clone(l.DER)
		a.replaced(l, now)
		a.lists = append(a.lists, &l)
	}
	slices.SortFunc(a.lists, func(a, b *ca.List) int { return cmp.Compare(a.Place(), b.Place()) })
	m.append(e, begun.CAID)
	return nil
}

// replaced does to the older lists of a scope what a new one means for them: those of a later time are withdrawn, and
// the DER of those before the one that it follows is dropped.
func (a *authority) replaced(by ca.List, now time.Time) {
	var come []*ca.List
	for _, l := range a.lists {
		switch {
		case l.ListScope != by.ListScope || l.State != ca.ListPublished:
		case l.ThisUpdate.After(by.ThisUpdate):
			l.State, l.DER = ca.ListWithdrawn, nil
		case !l.ThisUpdate.After(now):
			come = append(come, l)
		}
	}
	if kept := keptLists; len(come) > 0 {
		if !by.ThisUpdate.After(now) {
			kept--
		}
		for _, l := range come[:max(0, len(come)-kept)] {
			l.DER = nil
		}
	}
}

// keptLists is how many lists of a scope whose time has come keep their DER: a reader's clock may be behind.
const keptLists = 2

// CurrentList implements ca.Store.
func (m *Memory) CurrentList(ctx context.Context, s ca.ListScope, now time.Time) (list ca.List, until time.Time, err error) {
	if err := m.begin(ctx, "CurrentList"); err != nil {
		return ca.List{}, time.Time{}, err
	}
	defer m.mu.Unlock()
	a, ok := m.authorities[s.CAID]
	if !ok {
		return ca.List{}, time.Time{}, fault.New(fault.NotFound, "CRL not found")
	}
	now = instant(now)
	current := a.newest(s, now)
	if current == nil || len(current.DER) == 0 {
		return ca.List{}, time.Time{}, fault.New(fault.NotFound, "CRL not found")
	}
	for _, l := range a.lists {
		if l.ListScope == s && l.State == ca.ListPublished && l.ThisUpdate.After(now) && (until.IsZero() || l.ThisUpdate.Before(until)) {
			until = l.ThisUpdate
		}
	}
	return *current, until, nil
}

// Lists implements ca.Store.
func (m *Memory) Lists(ctx context.Context, caID int64, p ca.Page) ([]ca.List, int64, error) {
	if err := m.begin(ctx, "Lists"); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	a, ok := m.authorities[caID]
	if !ok {
		return nil, 0, nil
	}
	var page []ca.List
	skip := p.Skip
	for _, l := range slices.Backward(a.lists) {
		switch {
		case p.After > 0 && l.Place() >= p.After:
		case skip > 0:
			skip--
		case len(page) < p.Limit:
			page = append(page, *withoutDER(l))
		}
	}
	return page, int64(len(a.lists)), nil
}
