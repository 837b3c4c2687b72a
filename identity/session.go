package identity

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"signet/audit"
	"signet/fresh"
)

// maxSessions bounds the sessions that are held in memory.
const maxSessions = 4096

// sessionKey is the SHA-256 of an access token: what is held in memory opens nothing.
type sessionKey [sha256.Size]byte

// Authenticate checks an access token against the database, as of a moment ago: what another replica ended may pass until the age
// of sessions is over, what this one ended does not. Unauthenticated "Could not validate credentials" otherwise.
func (s *Service) Authenticate(ctx context.Context, access string) (Session, error) {
	session, err := s.sessions.Get(ctx, sha256.Sum256([]byte(access)), func(ctx context.Context) (Session, error) {
		return s.authenticate(ctx, access)
	})
	if err == nil && !s.now().Before(session.Expires) {
		return Session{}, badToken(jwt.ErrTokenExpired)
	}
	return session, err
}

// forgetful is a store whose changes are felt by the sessions at once, also those that may have been made: an error does not
// say that there was no change.
type forgetful struct {
	Store
	sessions *fresh.Cache[sessionKey, Session]
}

func (f forgetful) UpdateUser(ctx context.Context, u User, e audit.Event) (User, error) {
	defer f.sessions.Forget()
	return f.Store.UpdateUser(ctx, u, e)
}

func (f forgetful) DeleteUser(ctx context.Context, id int64, e audit.Event) error {
	defer f.sessions.Forget()
	return f.Store.DeleteUser(ctx, id, e)
}

func (f forgetful) Logout(ctx context.Context, hash []byte, jti string, expires time.Time, e audit.Event) error {
	defer f.sessions.Forget()
	return f.Store.Logout(ctx, hash, jti, expires, e)
}
