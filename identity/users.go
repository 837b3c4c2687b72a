package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// attempts is how often a change is tried on a fresh read when somebody else changed the row meanwhile.
const attempts = 10

// errUnchanged is returned to [Service.change] when there is nothing to store.
var errUnchanged = errors.New("unchanged")

// Users lists all users. Superusers only.
func (s *Service) Users(ctx context.Context, caller policy.Caller, p Page) ([]User, int64, error) {
	if !isSuperuser(caller) {
		return nil, 0, insufficient()
	}
	return s.store.Users(ctx, p)
}

// User returns one user: to the user, to an admin of the same organization and to superusers.
func (s *Service) User(ctx context.Context, caller policy.Caller, id int64) (User, error) {
	u, err := s.store.User(ctx, id)
	if err != nil {
		return User{}, err
	}
	if !maySee(caller, u) {
		return User{}, insufficient()
	}
	return u, nil
}

// UpdateUser changes an account. Users change their own e-mail address and password; an admin also the capabilities
// of ordinary users of the own organization, but not address and password of one who created objects outside of it;
// superusers everything, except that they cannot demote or deactivate themselves: so one superuser alone cannot leave
// the system without any. Who is moved to another organization keeps the capabilities. A new password, and
// deactivation, end the user's sessions.
func (s *Service) UpdateUser(ctx context.Context, caller policy.Caller, id int64, p UserPatch) (User, error) {
	if err := p.check(); err != nil {
		return User{}, err
	}
	u, err := s.store.User(ctx, id)
	if err != nil {
		return User{}, err
	}
	if err := s.organizationExists(ctx, p.OrganizationID); err != nil {
		return User{}, err
	}
	if err := s.permit(ctx, caller, u, p); err != nil {
		return User{}, err
	}
	var hash string
	if p.Password != nil {
		if hash, err = s.passwords.hash(ctx, *p.Password); err != nil {
			return User{}, err
		}
	}
	return s.change(ctx, id, func(u *User) (audit.Event, error) {
		if err := s.permit(ctx, caller, *u, p); err != nil { // the target may have been promoted or moved meanwhile
			return audit.Event{}, err
		}
		fields := p.apply(u, hash)
		if len(fields) == 0 {
			return audit.Event{}, errUnchanged
		}
		return aboutUser(by(ctx, caller, audit.UserUpdate), *u, "changed "+strings.Join(fields, ", ")), nil
	})
}

// permit returns nil when the caller may apply p to u.
func (s *Service) permit(ctx context.Context, caller policy.Caller, u User, p UserPatch) error {
	if !mayPatch(caller, u, p) {
		return insufficient()
	}
	demoted := p.Role != nil && *p.Role != policy.RoleSuperuser
	deactivated := p.Active != nil && !*p.Active
	if isSuperuser(caller) && caller.UserID == u.ID && (demoted || deactivated) {
		return fault.New(fault.Invalid, "Superusers cannot demote or deactivate their own account")
	}
	if (p.Email != nil || p.Password != nil) && u.OrganizationID != nil {
		return s.mayOwn(ctx, caller, u, *u.OrganizationID)
	}
	return nil
}

// capabilities reports whether p mentions any capability.
func (p UserPatch) capabilities() bool {
	return p.CreateCA != nil || p.CreateCert != nil || p.RevokeCert != nil || p.ExportPrivateKey != nil || p.DeleteCA != nil
}

// apply changes u and returns what changed, for people; hash replaces the password if p has one.
func (p UserPatch) apply(u *User, hash string) (fields []string) {
	if p.Email != nil && *p.Email != u.Email {
		u.Email = *p.Email
		fields = append(fields, "email")
	}
	if p.Password != nil {
		u.PasswordHash = hash
		fields = append(fields, "password")
	}
	if set(&u.Role, p.Role) {
		fields = append(fields, fmt.Sprintf("role to %s", u.Role))
	}
	deactivated := u.Active
	if set(&u.Active, p.Active) {
		fields = append(fields, fmt.Sprintf("is_active to %t", u.Active))
	}
	deactivated = deactivated && !u.Active
	if p.OrganizationID != nil && !sameOrganization(u.OrganizationID, p.OrganizationID) {
		u.OrganizationID = p.OrganizationID
		fields = append(fields, fmt.Sprintf("organization_id to %d", *u.OrganizationID))
	}
	for _, c := range []struct {
		name string
		have *bool
		want *bool
	}{
		{"can_create_ca", &u.Capabilities.CreateCA, p.CreateCA},
		{"can_create_cert", &u.Capabilities.CreateCert, p.CreateCert},
		{"can_revoke_cert", &u.Capabilities.RevokeCert, p.RevokeCert},
		{"can_export_private_key", &u.Capabilities.ExportPrivateKey, p.ExportPrivateKey},
		{"can_delete_ca", &u.Capabilities.DeleteCA, p.DeleteCA},
	} {
		if set(c.have, c.want) {
			fields = append(fields, fmt.Sprintf("%s to %t", c.name, *c.have))
		}
	}
	if p.Password != nil || deactivated {
		u.TokenEpoch++
	}
	return fields
}

// set stores *want in *have and reports whether that changed it; a nil want changes nothing.
func set[T comparable](have, want *T) bool {
	if want == nil || *want == *have {
		return false
	}
	*have = *want
	return true
}

// DeleteUser removes an account and ends its sessions. Superusers only, and never their own.
func (s *Service) DeleteUser(ctx context.Context, caller policy.Caller, id int64) error {
	u, err := s.store.User(ctx, id)
	if err != nil {
		return err
	}
	if !isSuperuser(caller) {
		return insufficient()
	}
	if caller.UserID == id {
		return fault.New(fault.Invalid, "You cannot delete your own account")
	}
	return s.store.DeleteUser(ctx, id, aboutUser(by(ctx, caller, audit.UserDelete), u, created(u)))
}

// change reads a user, applies f and stores the result with f's event. When somebody else stored the row in
// between, it starts over, so f always judges what it changes.
func (s *Service) change(ctx context.Context, id int64, f func(*User) (audit.Event, error)) (User, error) {
	for try := 1; ; try++ {
		u, err := s.store.User(ctx, id)
		if err != nil {
			return User{}, err
		}
		e, err := f(&u)
		if errors.Is(err, errUnchanged) {
			return u, nil
		}
		if err != nil {
			return User{}, err
		}
		stored, err := s.store.UpdateUser(ctx, u, e)
		if try < attempts && fault.Is(err, fault.Conflict) {
			continue
		}
		return stored, err
	}
}
