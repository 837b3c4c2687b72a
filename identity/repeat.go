package identity

import (
	"context"

	"signet/policy"
)

// Registered returns a user whom the caller created, to answer the request to do so once more: to those who may read the
// user, and to others while nobody has changed the user since, because they know all of it.
func (s *Service) Registered(ctx context.Context, caller policy.Caller, id int64) (User, error) {
	u, err := s.store.User(ctx, id)
	if err != nil {
		return User{}, err
	}
	if !u.UpdatedAt.Equal(u.CreatedAt) && !maySee(caller, u) {
		return User{}, insufficient()
	}
	return u, nil
}

// Founded is [Service.Registered] for an organization.
func (s *Service) Founded(ctx context.Context, caller policy.Caller, id int64) (Organization, error) {
	o, err := s.store.Organization(ctx, id)
	if err != nil {
		return Organization{}, err
	}
	if !o.UpdatedAt.Equal(o.CreatedAt) && !mayEnter(caller, id) {
		return Organization{}, insufficient()
	}
	return o, nil
}
