package identity

import (
	"context"

	"signet/fault"
	"signet/policy"
)

func insufficient() error { return fault.New(fault.Forbidden, "Insufficient permissions") }

// sameOrganization reports whether both name one organization. Nobody shares the organization nil.
func sameOrganization(a, b *int64) bool { return a != nil && b != nil && *a == *b }

func isSuperuser(c policy.Caller) bool { return c.Role == policy.RoleSuperuser }

// administers reports whether c is an admin of the organization.
func administers(c policy.Caller, organization *int64) bool {
	return c.Role == policy.RoleAdmin && sameOrganization(c.OrganizationID, organization)
}

// maySee decides who may read an account.
func maySee(c policy.Caller, u User) bool {
	return isSuperuser(c) || c.UserID == u.ID || administers(c, u.OrganizationID)
}

// mayPatch decides who may change what of an account. An admin never touches another admin or a superuser: whoever
// sets a password or an e-mail address owns the account.
func mayPatch(c policy.Caller, u User, p UserPatch) bool {
	standing := p.Role != nil || p.Active != nil || p.OrganizationID != nil
	switch {
	case isSuperuser(c):
		return true
	case c.UserID == u.ID:
		return !standing && !p.capabilities()
	case administers(c, u.OrganizationID) && u.Role == policy.RoleUser:
		return !standing
	}
	return false
}

// mayOwn decides whether c may become the owner of u's account, or u's administrator. The creator of an object keeps
// access to it wherever the creator goes, so whoever owns the account of somebody who created objects outside of the
// organization owns objects outside of it.
func (s *Service) mayOwn(ctx context.Context, c policy.Caller, u User, organization int64) error {
	if isSuperuser(c) || c.UserID == u.ID {
		return nil
	}
	outside, err := s.store.CreatedOutside(ctx, u.ID, organization)
	if err != nil {
		return err
	}
	if outside {
		return insufficient()
	}
	return nil
}

// mayEnter decides who may read an organization and its members.
func mayEnter(c policy.Caller, organization int64) bool {
	return isSuperuser(c) || sameOrganization(c.OrganizationID, &organization)
}

// mayManage decides who may change an organization.
func mayManage(c policy.Caller, organization int64) bool {
	return isSuperuser(c) || administers(c, &organization)
}

// mayRegister decides who may create which user, once there are users. A nil caller is nobody.
func mayRegister(c *policy.Caller, r Registration, open bool) error {
	privileged := r.Role != policy.RoleUser
	extras := r.OrganizationID != nil || r.Capabilities != policy.Capabilities{}
	switch {
	case c != nil && isSuperuser(*c):
		return nil
	case privileged:
		return fault.New(fault.Forbidden, "Not enough permissions to create admin or superuser accounts")
	case c == nil && !open:
		return fault.New(fault.Forbidden, "Unauthenticated registration is disabled")
	case c != nil && administers(*c, r.OrganizationID):
		return nil
	case c != nil && c.Role != policy.RoleAdmin && c.Role != policy.RoleUser:
		return insufficient()
	case extras:
		return insufficient()
	}
	return nil
}
