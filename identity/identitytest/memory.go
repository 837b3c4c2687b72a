// Package identitytest tests what identity needs from a store: an in-memory identity.Store for the tests of others,
// and the contract suite that it, SQLite and PostgreSQL all pass.
package identitytest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"signet/audit"
	"signet/fault"
	"signet/identity"
)

// Memory is an identity.Store in memory. It keeps the same promises as the database, except durability.
type Memory struct {
	// Now dates audit entries and updates; New sets it to time.Now.
	Now func() time.Time
	// Fail, if set, is called with the name of each Store method before it does anything; its error ends the call.
	// Set it before the store is shared.
	Fail func(method string) error

	mu               sync.Mutex
	hadUser          bool
	bootstrap        []byte
	lastUser         int64
	lastOrganization int64
	users            map[int64]identity.User
	organizations    map[int64]identity.Organization
	refresh          map[string]*refreshToken // by hash
	revoked          map[string]time.Time     // jti -> when its token expires
	created          []creation
	trail            []audit.Entry
}

type refreshToken struct {
	identity.RefreshToken
	spent bool // used or revoked
}

// creation says that a user created an object of an organization, or of none.
type creation struct{ user, organization int64 }

var _ identity.Store = (*Memory)(nil)

// New returns an empty store.
func New() *Memory {
	return &Memory{
		Now: time.Now, users: map[int64]identity.User{}, organizations: map[int64]identity.Organization{},
		refresh: map[string]*refreshToken{}, revoked: map[string]time.Time{},
	}
}

// begin starts a call: it takes the lock unless the call is to fail.
func (m *Memory) begin(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Fail != nil {
		if err := m.Fail(method); err != nil {
			return err
		}
	}
	m.mu.Lock()
	return nil
}

func (m *Memory) now() time.Time { return instant(m.Now()) }

// instant is what a database keeps of a time.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// after is now, or the next instant after t if that is later: an update is never invisible in UpdatedAt.
func (m *Memory) after(t time.Time) time.Time {
	if now := m.now(); now.After(t) {
		return now
	}
	return t.Add(time.Microsecond)
}

func (m *Memory) append(e audit.Event, id int64) {
	if e.ResourceID == nil {
		e.ResourceID = &id
	}
	m.record(e)
}

func (m *Memory) record(e audit.Event) {
	m.trail = append(m.trail, audit.Entry{ID: int64(len(m.trail)) + 1, CreatedAt: m.now(), Event: e})
}

// Record implements identity.Store.
func (m *Memory) Record(ctx context.Context, e audit.Event) error {
	if err := m.begin(ctx, "Record"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.record(e)
	return nil
}

// AuditLog lists entries, newest first, and counts them all. Of the filter it knows Action, UserID and Limit.
func (m *Memory) AuditLog(ctx context.Context, f audit.Filter) ([]audit.Entry, audit.Total, error) {
	if err := m.begin(ctx, "AuditLog"); err != nil {
		return nil, audit.Total{}, err
	}
	defer m.mu.Unlock()
	var out []audit.Entry
	for _, e := range slices.Backward(m.trail) {
		byUser := f.UserID == nil || e.UserID != nil && *e.UserID == *f.UserID
		if (f.Action == "" || f.Action == e.Action) && byUser {
			out = append(out, e)
		}
	}
	return out[:min(f.Limit, len(out))], audit.Total{N: int64(len(out))}, nil
}

// CreateOrganization implements identity.Store.
func (m *Memory) CreateOrganization(ctx context.Context, o identity.Organization, e audit.Event) (identity.Organization, error) {
	if err := m.begin(ctx, "CreateOrganization"); err != nil {
		return identity.Organization{}, err
	}
	defer m.mu.Unlock()
	if err := m.checkOrganization(o); err != nil {
		return identity.Organization{}, err
	}
	m.lastOrganization++
	o.ID = m.lastOrganization
	if o.CreatedAt.IsZero() {
		o.CreatedAt = m.now()
	}
	o.CreatedAt = instant(o.CreatedAt)
	o.UpdatedAt = o.CreatedAt
	m.organizations[o.ID] = o
	m.append(e, o.ID)
	return o, nil
}

func (m *Memory) checkOrganization(o identity.Organization) error {
	for _, other := range m.organizations {
		if other.Name == o.Name && other.ID != o.ID {
			return fault.New(fault.Invalid, "Organization with this name already exists")
		}
	}
	return nil
}

// Organization implements identity.Store.
func (m *Memory) Organization(ctx context.Context, id int64) (identity.Organization, error) {
	if err := m.begin(ctx, "Organization"); err != nil {
		return identity.Organization{}, err
	}
	defer m.mu.Unlock()
	o, ok := m.organizations[id]
	if !ok {
		return identity.Organization{}, fault.New(fault.NotFound, "Organization not found")
	}
	return o, nil
}

// Organizations implements identity.Store.
func (m *Memory) Organizations(ctx context.Context, only *int64, p identity.Page) ([]identity.Organization, int64, error) {
	if err := m.begin(ctx, "Organizations"); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	page, total := list(m.organizations, p, func(o identity.Organization) bool { return only == nil || o.ID == *only })
	return page, total, nil
}

// list returns a page of the records that pass, ordered by id, and how many pass.
func list[T any](all map[int64]T, p identity.Page, pass func(T) bool) ([]T, int64) {
	var page []T
	var total int64
	skip := p.Skip
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if !pass(all[id]) {
			continue
		}
		total++
		switch {
		case id <= p.After:
		case skip > 0:
			skip--
		case len(page) < p.Limit:
			page = append(page, all[id])
		}
	}
	return page, total
}

// UpdateOrganization implements identity.Store.
func (m *Memory) UpdateOrganization(ctx context.Context, o identity.Organization, e audit.Event) (identity.Organization, error) {
	if err := m.begin(ctx, "UpdateOrganization"); err != nil {
		return identity.Organization{}, err
	}
	defer m.mu.Unlock()
	stored, ok := m.organizations[o.ID]
	if !ok {
		return identity.Organization{}, fault.New(fault.NotFound, "Organization not found")
	}
	if err := m.checkOrganization(o); err != nil {
		return identity.Organization{}, err
	}
	stored.Name, stored.Description, stored.UpdatedAt = o.Name, o.Description, m.after(stored.UpdatedAt)
	m.organizations[o.ID] = stored
	m.append(e, o.ID)
	return stored, nil
}

// DeleteOrganization implements identity.Store. This store has no certificate authorities.
func (m *Memory) DeleteOrganization(ctx context.Context, id int64, e audit.Event) error {
	if err := m.begin(ctx, "DeleteOrganization"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if _, ok := m.organizations[id]; !ok {
		return fault.New(fault.NotFound, "Organization not found")
	}
	for _, u := range m.users {
		if u.OrganizationID != nil && *u.OrganizationID == id {
			return fault.New(fault.Invalid, "Organization has users")
		}
	}
	delete(m.organizations, id)
	m.append(e, id)
	return nil
}

// Members implements identity.Store.
func (m *Memory) Members(ctx context.Context, organizationID int64, p identity.Page) ([]identity.User, int64, error) {
	if err := m.begin(ctx, "Members"); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	page, total := list(m.users, p, func(u identity.User) bool { return u.OrganizationID != nil && *u.OrganizationID == organizationID })
	return page, total, nil
}
