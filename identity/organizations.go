package identity

import (
	"context"
	"fmt"
	"strings"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// CreateOrganization creates an organization. Admins and superusers; an admin does not become a member by it.
func (s *Service) CreateOrganization(ctx context.Context, caller policy.Caller, name string, description *string) (Organization, error) {
	if err := checkOrganization(&name, description); err != nil {
		return Organization{}, err
	}
	if !isSuperuser(caller) && caller.Role != policy.RoleAdmin {
		return Organization{}, insufficient()
	}
	o := Organization{Name: strings.TrimSpace(name), Description: description}
	e := by(ctx, caller, audit.OrgCreate)
	e.ResourceType, e.Detail = audit.ResourceOrganization, o.Name
	return s.store.CreateOrganization(ctx, o, e)
}

// Organizations lists the caller's own organization; to superusers, all.
func (s *Service) Organizations(ctx context.Context, caller policy.Caller, p Page) ([]Organization, int64, error) {
	switch {
	case isSuperuser(caller):
		return s.store.Organizations(ctx, nil, p)
	case caller.OrganizationID == nil: // to the store, nil would mean all
		return nil, 0, nil
	}
	return s.store.Organizations(ctx, caller.OrganizationID, p)
}

// Organization returns one organization, to its members and to superusers.
func (s *Service) Organization(ctx context.Context, caller policy.Caller, id int64) (Organization, error) {
	o, err := s.store.Organization(ctx, id)
	if err != nil {
		return Organization{}, err
	}
	if !mayEnter(caller, id) {
		return Organization{}, insufficient()
	}
	return o, nil
}

// UpdateOrganization changes name and description; nil leaves a field as it is. Its admins and superusers.
func (s *Service) UpdateOrganization(ctx context.Context, caller policy.Caller, id int64, name, description *string) (Organization, error) {
	if err := checkOrganization(name, description); err != nil {
		return Organization{}, err
	}
	o, err := s.store.Organization(ctx, id)
	if err != nil {
		return Organization{}, err
	}
	if !mayManage(caller, id) {
		return Organization{}, insufficient()
	}
	var fields []string
	if name != nil && strings.TrimSpace(*name) != o.Name {
		o.Name = strings.TrimSpace(*name)
		fields = append(fields, "name to "+o.Name)
	}
	if description != nil && (o.Description == nil || *description != *o.Description) {
		o.Description = description
		fields = append(fields, "description")
	}
	if len(fields) == 0 {
		return o, nil
	}
	return s.store.UpdateOrganization(ctx, o, aboutOrganization(by(ctx, caller, audit.OrgUpdate), id, "changed "+strings.Join(fields, ", ")))
}

// DeleteOrganization removes an organization that has no users. Superusers only.
func (s *Service) DeleteOrganization(ctx context.Context, caller policy.Caller, id int64) error {
	o, err := s.store.Organization(ctx, id)
	if err != nil {
		return err
	}
	if !isSuperuser(caller) {
		return insufficient()
	}
	return s.store.DeleteOrganization(ctx, id, aboutOrganization(by(ctx, caller, audit.OrgDelete), id, o.Name))
}

// AddMember makes a user a member. Superusers move anybody; an admin takes in ordinary users who belong to no
// organization and created nothing outside of this one. A user who is a member already is returned unchanged.
func (s *Service) AddMember(ctx context.Context, caller policy.Caller, organizationID, userID int64) (User, error) {
	if err := s.organizationExists(ctx, &organizationID); err != nil {
		return User{}, err
	}
	return s.change(ctx, userID, func(u *User) (audit.Event, error) {
		switch {
		case !mayManage(caller, organizationID):
			return audit.Event{}, insufficient()
		case sameOrganization(u.OrganizationID, &organizationID):
			return audit.Event{}, errUnchanged
		case !isSuperuser(caller) && (u.OrganizationID != nil || u.Role != policy.RoleUser):
			return audit.Event{}, insufficient()
		}
		if err := s.mayOwn(ctx, caller, *u, organizationID); err != nil {
			return audit.Event{}, err
		}
		u.OrganizationID = &organizationID
		return aboutOrganization(by(ctx, caller, audit.OrgAddUser), organizationID, member(*u)), nil
	})
}

// RemoveMember ends a membership, and with it the capabilities that were given for it. Superusers; an admin of the
// organization for its ordinary users. NotFound when the user is no member.
func (s *Service) RemoveMember(ctx context.Context, caller policy.Caller, organizationID, userID int64) (User, error) {
	if err := s.organizationExists(ctx, &organizationID); err != nil {
		return User{}, err
	}
	return s.change(ctx, userID, func(u *User) (audit.Event, error) {
		switch {
		case !mayManage(caller, organizationID): // before membership: who is whose member is not for strangers
			return audit.Event{}, insufficient()
		case !sameOrganization(u.OrganizationID, &organizationID):
			return audit.Event{}, fault.New(fault.NotFound, "User not found in organization")
		case !isSuperuser(caller) && u.Role != policy.RoleUser:
			return audit.Event{}, insufficient()
		}
		detail := member(*u)
		if u.Capabilities != (policy.Capabilities{}) {
			u.Capabilities = policy.Capabilities{}
			detail += ", capabilities withdrawn"
		}
		u.OrganizationID = nil
		return aboutOrganization(by(ctx, caller, audit.OrgRemoveUser), organizationID, detail), nil
	})
}

// Members lists the users of an organization, to its members and to superusers.
func (s *Service) Members(ctx context.Context, caller policy.Caller, organizationID int64, p Page) ([]User, int64, error) {
	if err := s.organizationExists(ctx, &organizationID); err != nil {
		return nil, 0, err
	}
	if !mayEnter(caller, organizationID) {
		return nil, 0, insufficient()
	}
	return s.store.Members(ctx, organizationID, p)
}

// organizationExists returns NotFound when id names no organization; nil names none and is fine.
func (s *Service) organizationExists(ctx context.Context, id *int64) error {
	if id == nil {
		return nil
	}
	_, err := s.store.Organization(ctx, *id)
	return err
}

func member(u User) string { return fmt.Sprintf("%s (user %d)", u.Username, u.ID) }
