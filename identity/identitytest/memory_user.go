package identitytest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"signet/audit"
	"signet/fault"
	"signet/identity"
)

// CreateFirstUser implements identity.Store.
func (m *Memory) CreateFirstUser(ctx context.Context, u identity.User, e audit.Event) (identity.User, error) {
	if err := m.begin(ctx, "CreateFirstUser"); err != nil {
		return identity.User{}, err
	}
	defer m.mu.Unlock()
	if m.hadUser {
		return identity.User{}, fault.New(fault.Conflict, "There already is, or was, a user")
	}
	return m.createUser(u, e)
}

// CreateUser implements identity.Store.
func (m *Memory) CreateUser(ctx context.Context, u identity.User, e audit.Event) (identity.User, error) {
	if err := m.begin(ctx, "CreateUser"); err != nil {
		return identity.User{}, err
	}
	defer m.mu.Unlock()
	return m.createUser(u, e)
}

func (m *Memory) createUser(u identity.User, e audit.Event) (identity.User, error) {
	if err := m.checkUser(u); err != nil {
		return identity.User{}, err
	}
	m.lastUser++
	u.ID = m.lastUser
	if u.CreatedAt.IsZero() {
		u.CreatedAt = m.now()
	}
	u.CreatedAt = instant(u.CreatedAt)
	u.UpdatedAt = u.CreatedAt
	m.users[u.ID], m.hadUser, m.bootstrap = u, true, nil
	m.append(e, u.ID)
	return u, nil
}

func (m *Memory) checkUser(u identity.User) error {
	for _, other := range m.users {
		switch {
		case other.ID == u.ID:
		case other.Username == u.Username:
			return fault.New(fault.Invalid, "Username already registered")
		case strings.EqualFold(other.Email, u.Email):
			return fault.New(fault.Invalid, "Email already registered")
		}
	}
	if u.OrganizationID == nil {
		return nil
	}
	if _, ok := m.organizations[*u.OrganizationID]; !ok {
		return fault.New(fault.NotFound, "Organization not found")
	}
	return nil
}

// HasUsers implements identity.Store.
func (m *Memory) HasUsers(ctx context.Context) (bool, error) {
	if err := m.begin(ctx, "HasUsers"); err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	return m.hadUser, nil
}

// User implements identity.Store.
func (m *Memory) User(ctx context.Context, id int64) (identity.User, error) {
	if err := m.begin(ctx, "User"); err != nil {
		return identity.User{}, err
	}
	defer m.mu.Unlock()
	return m.user(id)
}

func (m *Memory) user(id int64) (identity.User, error) {
	u, ok := m.users[id]
	if !ok {
		return identity.User{}, fault.New(fault.NotFound, "User not found")
	}
	return u, nil
}

// UserByName implements identity.Store.
func (m *Memory) UserByName(ctx context.Context, username string) (identity.User, error) {
	if err := m.begin(ctx, "UserByName"); err != nil {
		return identity.User{}, err
	}
	defer m.mu.Unlock()
	for _, u := range m.users {
		if u.Username == username {
			return u, nil
		}
	}
	return identity.User{}, fault.New(fault.NotFound, "User not found")
}

// Users implements identity.Store.
func (m *Memory) Users(ctx context.Context, p identity.Page) ([]identity.User, int64, error) {
	if err := m.begin(ctx, "Users"); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	page, total := list(m.users, p, func(identity.User) bool { return true })
	return page, total, nil
}

// UpdateUser implements identity.Store.
func (m *Memory) UpdateUser(ctx context.Context, u identity.User, e audit.Event) (identity.User, error) {
	if err := m.begin(ctx, "UpdateUser"); err != nil {
		return identity.User{}, err
	}
	defer m.mu.Unlock()
	stored, err := m.user(u.ID)
	if err != nil {
		return identity.User{}, err
	}
	if !stored.UpdatedAt.Equal(instant(u.UpdatedAt)) {
		return identity.User{}, fault.New(fault.Conflict, "User was changed by someone else")
	}
	u.Username = stored.Username
	if err := m.checkUser(u); err != nil {
		return identity.User{}, err
	}
	if u.TokenEpoch != stored.TokenEpoch {
		for _, t := range m.refresh {
			t.spent = t.spent || t.UserID == u.ID
		}
	}
	u.CreatedAt, u.UpdatedAt = stored.CreatedAt, m.after(stored.UpdatedAt)
	m.users[u.ID] = u
	m.append(e, u.ID)
	return u, nil
}

// DeleteUser implements identity.Store.
func (m *Memory) DeleteUser(ctx context.Context, id int64, e audit.Event) error {
	if err := m.begin(ctx, "DeleteUser"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if _, err := m.user(id); err != nil {
		return err
	}
	delete(m.users, id)
	maps.DeleteFunc(m.refresh, func(_ string, t *refreshToken) bool { return t.UserID == id })
	m.append(e, id)
	return nil
}

// Created notes that a user created a CA or a certificate of an organization; 0 is none.
func (m *Memory) Created(userID, organizationID int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.created = append(m.created, creation{userID, organizationID})
}

// CreatedOutside implements identity.Store. The only objects it knows are those of [Memory.Created].
func (m *Memory) CreatedOutside(ctx context.Context, userID, organizationID int64) (bool, error) {
	if err := m.begin(ctx, "CreatedOutside"); err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.created, func(c creation) bool { return c.user == userID && c.organization != organizationID }), nil
}

// CreateRefreshToken implements identity.Store.
func (m *Memory) CreateRefreshToken(ctx context.Context, t identity.RefreshToken, e audit.Event) error {
	if err := m.begin(ctx, "CreateRefreshToken"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if _, err := m.user(t.UserID); err != nil {
		return err
	}
	if m.refresh[string(t.Hash)] != nil {
		return fault.New(fault.Conflict, "Refresh token already exists")
	}
	m.refresh[string(t.Hash)] = &refreshToken{RefreshToken: t}
	m.append(e, t.UserID)
	return nil
}

// RotateRefreshToken implements identity.Store. An event without UserID gets the user whose token it was.
func (m *Memory) RotateRefreshToken(ctx context.Context, old []byte, next identity.RefreshToken, now time.Time, e audit.Event) (identity.User, error) {
	if err := m.begin(ctx, "RotateRefreshToken"); err != nil {
		return identity.User{}, err
	}
	defer m.mu.Unlock()
	t := m.refresh[string(old)]
	if t == nil || t.spent || !t.ExpiresAt.After(now) || !m.users[t.UserID].Active {
		return identity.User{}, fault.New(fault.Unauthenticated, "Invalid or expired refresh token")
	}
	if m.refresh[string(next.Hash)] != nil {
		return identity.User{}, fault.New(fault.Conflict, "Refresh token already exists")
	}
	t.spent = true
	next.UserID = t.UserID
	m.refresh[string(next.Hash)] = &refreshToken{RefreshToken: next}
	u := m.users[t.UserID]
	if e.UserID == nil {
		e.UserID, e.Username, e.OrganizationID = &u.ID, u.Username, u.OrganizationID
	}
	m.append(e, t.UserID)
	return u, nil
}

// RefreshTokenOwner implements identity.Store.
func (m *Memory) RefreshTokenOwner(ctx context.Context, hash []byte) (int64, error) {
	if err := m.begin(ctx, "RefreshTokenOwner"); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	if t := m.refresh[string(hash)]; t != nil {
		return t.UserID, nil
	}
	return 0, fault.New(fault.NotFound, "Refresh token not found")
}

// Logout implements identity.Store.
func (m *Memory) Logout(ctx context.Context, hash []byte, jti string, expires time.Time, e audit.Event) error {
	if err := m.begin(ctx, "Logout"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if t := m.refresh[string(hash)]; t != nil {
		t.spent = true
	}
	m.revoked[jti] = instant(expires)
	if e.ResourceID == nil {
		e.ResourceID = e.UserID
	}
	m.record(e)
	return nil
}

// Session implements identity.Store.
func (m *Memory) Session(ctx context.Context, userID int64, jti string) (identity.User, bool, error) {
	if err := m.begin(ctx, "Session"); err != nil {
		return identity.User{}, false, err
	}
	defer m.mu.Unlock()
	u, err := m.user(userID)
	_, revoked := m.revoked[jti]
	return u, revoked && err == nil, err
}

// SetBootstrapToken implements identity.Store.
func (m *Memory) SetBootstrapToken(ctx context.Context, hash []byte) error {
	if err := m.begin(ctx, "SetBootstrapToken"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.bootstrap = bytes.Clone(hash)
	return nil
}

// BootstrapToken implements identity.Store.
func (m *Memory) BootstrapToken(ctx context.Context) ([]byte, error) {
	if err := m.begin(ctx, "BootstrapToken"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if m.bootstrap == nil {
		return nil, fault.New(fault.NotFound, "No bootstrap token is set")
	}
	return bytes.Clone(m.bootstrap), nil
}

// Prune implements identity.Store.
func (m *Memory) Prune(ctx context.Context, now time.Time) error {
	if err := m.begin(ctx, "Prune"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	maps.DeleteFunc(m.refresh, func(_ string, t *refreshToken) bool { return t.ExpiresAt.Before(now) })
	maps.DeleteFunc(m.revoked, func(_ string, expires time.Time) bool { return expires.Before(now) })
	return nil
}
