package catest

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"signet/ca"
	"signet/notify"
)

var _ notify.Store = (*Memory)(nil)

// notices are what operators are told, and how far the searches for it came.
type notices struct {
	last     int64     // id
	all      []*notice // by id
	searched map[string]time.Time
}

type notice struct {
	notify.Event
	due    time.Time
	closed bool // delivered or given up
}

// Notices are those that are kept, in the order in which they were added.
func (m *Memory) Notices() []notify.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []notify.Event
	for _, n := range m.notices.all {
		all = append(all, n.Event)
	}
	return all
}

// AddNotices implements ca.Store.
func (m *Memory) AddNotices(ctx context.Context, all []ca.Notice) error {
	if err := m.begin(ctx, "AddNotices"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	data := make([]string, len(all))
	for i, n := range all {
		encoded, err := json.Marshal(n.Data)
		if err != nil {
			return err
		}
		data[i] = string(encoded)
	}
	for i, n := range all {
		if slices.ContainsFunc(m.notices.all, func(known *notice) bool { return known.Key == n.Key }) {
			continue
		}
		m.notices.last++
		created := instant(n.CreatedAt)
		m.notices.all = append(m.notices.all, &notice{due: created, Event: notify.Event{
			ID: m.notices.last, Key: n.Key, Type: string(n.Kind), Data: data[i], CreatedAt: created}})
	}
	return nil
}

// NoticedUntil implements ca.Store.
func (m *Memory) NoticedUntil(ctx context.Context, search string) (time.Time, error) {
	if err := m.begin(ctx, "NoticedUntil"); err != nil {
		return time.Time{}, err
	}
	defer m.mu.Unlock()
	return m.notices.searched[search], nil
}

// SetNoticedUntil implements ca.Store.
func (m *Memory) SetNoticedUntil(ctx context.Context, search string, until time.Time) error {
	if err := m.begin(ctx, "SetNoticedUntil"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.notices.searched == nil {
		m.notices.searched = map[string]time.Time{}
	}
	if until = instant(until); until.After(m.notices.searched[search]) {
		m.notices.searched[search] = until
	}
	return nil
}

// ClaimEvents implements notify.Store.
func (m *Memory) ClaimEvents(ctx context.Context, now, until time.Time, limit int) ([]notify.Event, error) {
	if err := m.begin(ctx, "ClaimEvents"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var due []*notice
	for _, n := range m.notices.all {
		if !n.closed && !n.due.After(instant(now)) {
			due = append(due, n)
		}
	}
	slices.SortStableFunc(due, func(a, b *notice) int { return a.due.Compare(b.due) })
	var claimed []notify.Event
	for _, n := range due[:min(limit, len(due))] {
		n.due, n.Attempts = instant(until), n.Attempts+1
		claimed = append(claimed, n.Event)
	}
	return claimed, nil
}

// EventDelivered implements notify.Store.
func (m *Memory) EventDelivered(ctx context.Context, id int64, _ time.Time) error {
	return m.endAttempt(ctx, "EventDelivered", id, func(n *notice) { n.closed = true })
}

// EventFailed implements notify.Store.
func (m *Memory) EventFailed(ctx context.Context, id int64, next time.Time, _ string) error {
	return m.endAttempt(ctx, "EventFailed", id, func(n *notice) { n.due = instant(next) })
}

// EventGivenUp implements notify.Store.
func (m *Memory) EventGivenUp(ctx context.Context, id int64, _ time.Time, _ string) error {
	return m.endAttempt(ctx, "EventGivenUp", id, func(n *notice) { n.closed = true })
}

func (m *Memory) endAttempt(ctx context.Context, method string, id int64, outcome func(*notice)) error {
	if err := m.begin(ctx, method); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, n := range m.notices.all {
		if n.ID == id && !n.closed {
			outcome(n)
		}
	}
	return nil
}

// DropEvents implements notify.Store.
func (m *Memory) DropEvents(ctx context.Context, createdBefore time.Time, limit int) (int, error) {
	if err := m.begin(ctx, "DropEvents"); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	before := len(m.notices.all)
	m.notices.all = slices.DeleteFunc(m.notices.all, func(n *notice) bool {
		old := n.closed && n.CreatedAt.Before(instant(createdBefore)) && limit > 0
		if old {
			limit--
		}
		return old
	})
	return before - len(m.notices.all), nil
}
