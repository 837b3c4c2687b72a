package identity

import (
	"context"
	"errors"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// refreshLength is the length of a refresh token: tokenSize octets in base64url without padding.
const refreshLength = (tokenSize*8 + 5) / 6

// Login exchanges a password for tokens. Unauthenticated "Incorrect username or password" otherwise: which of the
// two is wrong, and whether the account is active, shows neither in the answer nor in the time it takes.
func (s *Service) Login(ctx context.Context, username, password string) (Tokens, error) {
	u, err := s.userToLogin(ctx, username)
	if err != nil {
		return Tokens{}, err
	}
	ok, err := s.passwords.matches(ctx, u.PasswordHash, password)
	if err != nil {
		return Tokens{}, err
	}
	if !ok || !u.Active {
		return Tokens{}, s.loginFailed(ctx, u, username)
	}
	g, err := s.tokens.grant(u)
	if err != nil {
		return Tokens{}, err
	}
	err = s.store.CreateRefreshToken(ctx, g.stored, aboutUser(by(ctx, u.Caller(), audit.LoginSuccess), u, ""))
	if fault.Is(err, fault.NotFound) { // deleted while the password was checked
		return Tokens{}, badLogin()
	}
	if err != nil {
		return Tokens{}, err
	}
	return s.handOut(ctx, u, g, badLogin())
}

// userToLogin finds a user by name; the zero User stands for nobody.
func (s *Service) userToLogin(ctx context.Context, username string) (User, error) {
	if usernameProblem(username) != nil { // never registered, and not every database takes every string
		return User{}, nil
	}
	u, err := s.store.UserByName(ctx, username)
	if fault.Is(err, fault.NotFound) {
		return User{}, nil
	}
	return u, err
}

// loginFailed records a failed login, also when the client has hung up.
func (s *Service) loginFailed(ctx context.Context, u User, username string) error {
	e := by(ctx, policy.Caller{UserID: u.ID, Username: asTried(username)}, audit.LoginFailure)
	if u.ID != 0 {
		e = aboutUser(e, u, "")
	}
	if err := s.store.Record(context.WithoutCancel(ctx), e); err != nil {
		return err
	}
	return badLogin()
}

// handOut returns the tokens of g, which are stored, unless u's sessions were ended after u was read: then what
// was stored is revoked and refused is returned. Without this a login or a refresh that began before a password
// change could outlive it.
func (s *Service) handOut(ctx context.Context, u User, g grant, refused error) (Tokens, error) {
	present, _, err := s.store.Session(ctx, u.ID, g.jti)
	switch {
	case err == nil && present.Active && present.TokenEpoch == u.TokenEpoch:
		return g.tokens, nil
	case err != nil && !fault.Is(err, fault.NotFound):
		return Tokens{}, err
	}
	e := aboutUser(by(ctx, u.Caller(), audit.Logout), u, "the sessions of the user were ended meanwhile")
	if err := s.store.Logout(context.WithoutCancel(ctx), g.stored.Hash, g.jti, g.expires, e); err != nil {
		return Tokens{}, err
	}
	return Tokens{}, refused
}

// Refresh uses up a refresh token. Unauthenticated "Invalid or expired refresh token" otherwise.
func (s *Service) Refresh(ctx context.Context, refresh string) (Tokens, error) {
	if len(refresh) != refreshLength {
		return Tokens{}, badRefresh(errors.New("wrong length"))
	}
	old := tokenHash(refresh)
	u, err := s.owner(ctx, old)
	if err != nil {
		return Tokens{}, refreshFault(err)
	}
	g, err := s.tokens.grant(u)
	if err != nil {
		return Tokens{}, err
	}
	_, err = s.store.RotateRefreshToken(ctx, old, g.stored, s.now(), aboutUser(by(ctx, u.Caller(), audit.TokenRefresh), u, ""))
	if err != nil {
		return Tokens{}, refreshFault(err)
	}
	return s.handOut(ctx, u, g, badRefresh(errors.New("the sessions of the user were ended")))
}

// owner returns the user whom the refresh token with this hash was given to.
func (s *Service) owner(ctx context.Context, hash []byte) (User, error) {
	id, err := s.store.RefreshTokenOwner(ctx, hash)
	if err != nil {
		return User{}, err
	}
	return s.store.User(ctx, id)
}

// Logout ends one session: the refresh token and the access token that carried the call. Forbidden when the
// refresh token is another user's; then nothing ends. A refresh token that nobody knows is no failure.
func (s *Service) Logout(ctx context.Context, session Session, refresh string) error {
	hash := tokenHash(refresh)
	owner, err := s.store.RefreshTokenOwner(ctx, hash)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err == nil && owner != session.User.ID {
		return insufficient()
	}
	e := aboutUser(by(ctx, session.User.Caller(), audit.Logout), session.User, "")
	return s.store.Logout(ctx, hash, session.JTI, session.Expires, e)
}

// Invalidate ends every session of the caller.
func (s *Service) Invalidate(ctx context.Context, session Session) error {
	_, err := s.change(ctx, session.User.ID, func(u *User) (audit.Event, error) {
		u.TokenEpoch++
		return aboutUser(by(ctx, session.User.Caller(), audit.SessionsInvalidate), *u, ""), nil
	})
	return err
}

func badLogin() error { return fault.New(fault.Unauthenticated, "Incorrect username or password") }

func badRefresh(reason error) error {
	return fault.Wrap(fault.Unauthenticated, "Invalid or expired refresh token", reason)
}

// refreshFault gives the store's refusals the message of the API; what is no refusal stays as it is.
func refreshFault(err error) error {
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unauthenticated) {
		return badRefresh(err)
	}
	return err
}
