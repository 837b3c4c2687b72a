package identity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// errNotFirst says that there is, or was, a user already.
var errNotFirst = errors.New("not the first user")

// Register creates a user; caller is nil when nobody is authenticated.
//
// The very first user may take any role, by the server operator's will: from a loopback address or with the
// bootstrap token. Of parallel first users one wins; the others are subject to the normal rules. Unprocessable,
// NotFound "Organization not found", Forbidden, or Invalid for a name that is taken, in this order; nobody learns
// which organizations exist without authenticating.
func (s *Service) Register(ctx context.Context, caller *policy.Caller, r Registration) (User, error) {
	if r.Role == "" {
		r.Role = policy.RoleUser
	}
	if err := r.check(); err != nil {
		return User{}, err
	}
	creator := policy.Caller{}
	if caller == nil {
		u, err := s.registerFirst(ctx, r)
		if !errors.Is(err, errNotFirst) {
			return u, err
		}
	} else {
		creator = *caller
		if err := s.organizationExists(ctx, r.OrganizationID); err != nil {
			return User{}, err
		}
	}
	if err := mayRegister(caller, r, s.open); err != nil {
		return User{}, err
	}
	u, err := s.newUser(ctx, r)
	if err != nil {
		return User{}, err
	}
	return s.store.CreateUser(ctx, u, aboutUser(by(ctx, creator, audit.UserCreate), u, created(u)))
}

// registerFirst creates the very first user, or returns errNotFirst.
func (s *Service) registerFirst(ctx context.Context, r Registration) (User, error) {
	had, err := s.store.HasUsers(ctx)
	if err != nil {
		return User{}, err
	}
	if had {
		return User{}, errNotFirst
	}
	if err := s.mayBootstrap(ctx, r); err != nil {
		return User{}, err
	}
	if err := s.organizationExists(ctx, r.OrganizationID); err != nil {
		return User{}, err
	}
	u, err := s.newUser(ctx, r)
	if err != nil {
		return User{}, err
	}
	e := aboutUser(by(ctx, policy.Caller{}, audit.UserCreate), u, "the first user: "+created(u))
	u, err = s.store.CreateFirstUser(ctx, u, e)
	if fault.Is(err, fault.Conflict) {
		return User{}, errNotFirst
	}
	return u, err
}

// mayBootstrap decides whether a request to create the first user comes from the operator of the server.
func (s *Service) mayBootstrap(ctx context.Context, r Registration) error {
	if r.Loopback {
		return nil
	}
	if r.BootstrapToken != "" {
		want, err := s.store.BootstrapToken(ctx)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err == nil && subtle.ConstantTimeCompare(want, tokenHash(r.BootstrapToken)) == 1 {
			return nil
		}
	}
	return fault.New(fault.Forbidden, "The first user must be created from a loopback address, with the one-time token that "+
		"the server printed at its first start in the X-Bootstrap-Token header, or by `signet user create --superuser` on the server")
}

// BootstrapToken makes and stores the one-time token that permits the first user from a remote address. It returns
// "" when there already is, or was, a user.
func (s *Service) BootstrapToken(ctx context.Context) (string, error) {
	had, err := s.store.HasUsers(ctx)
	if err != nil || had {
		return "", err
	}
	token := random(tokenSize)
	if err := s.store.SetBootstrapToken(ctx, tokenHash(token)); err != nil {
		return "", err
	}
	return token, nil
}

func (s *Service) newUser(ctx context.Context, r Registration) (User, error) {
	hash, err := s.passwords.hash(ctx, r.Password)
	if err != nil {
		return User{}, err
	}
	return User{
		Username:       r.Username,
		Email:          r.Email,
		PasswordHash:   hash,
		Role:           r.Role,
		Active:         true,
		Capabilities:   r.Capabilities,
		OrganizationID: r.OrganizationID,
	}, nil
}

func created(u User) string { return fmt.Sprintf("%s, role %s", u.Username, u.Role) }
