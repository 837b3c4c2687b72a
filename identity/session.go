package identity

import (
	"context"
	"time"

	"signet/audit"
	"signet/fresh"
)

// maxSessions bounds the sessions that are held in memory.
const maxSessions = 4096

type sessionKey struct {
	userID int64
	jti    string
}

type storedSession struct {
	user    User
	revoked bool
}

// session is [Store.Session] as of a moment ago: what another replica ended may pass until the age of sessions is over, what
// this one ended does not.
func (s *Service) session(ctx context.Context, userID int64, jti string) (User, bool, error) {
	found, err := s.sessions.Get(ctx, sessionKey{userID, jti}, func(ctx context.Context) (storedSession, error) {
		u, revoked, err := s.store.Session(ctx, userID, jti)
		return storedSession{u, revoked}, err
	})
	return found.user, found.revoked, err
}

// forgetful is a store whose changes are felt by the sessions at once, also those that may have been made: an error does not
// say that there was no change.
type forgetful struct {
	Store
	sessions *fresh.Cache[sessionKey, storedSession]
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
