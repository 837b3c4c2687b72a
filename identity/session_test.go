package identity_test

import (
	"testing"
	"testing/synctest"
	"time"

	"signet/fault"
	"signet/identity"
)

func TestAnotherReplicaRefusesAnEndedSessionWithinTheAgeOfSessions(t *testing.T) {
	t.Parallel()
	const age = 500 * time.Millisecond
	inactive := identity.UserPatch{Active: new(bool)}
	for name, end := range map[string]func(w *world, s identity.Session, refresh string) error{
		"logout":     func(w *world, s identity.Session, refresh string) error { return w.Logout(w.ctx, s, refresh) },
		"invalidate": func(w *world, s identity.Session, _ string) error { return w.Invalidate(w.ctx, s) },
		"deactivation": func(w *world, s identity.Session, _ string) error {
			_, err := w.UpdateUser(w.ctx, w.caller("superNone"), s.User.ID, inactive)
			return err
		},
		"deletion": func(w *world, s identity.Session, _ string) error {
			return w.DeleteUser(w.ctx, w.caller("superNone"), s.User.ID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := populated(t, func(c *identity.Config) { c.SessionAge = age })
				tokens := w.login("userA", password)
				other, err := identity.New(identity.Config{
					Store: w.store, Secret: secret, AccessTTL: time.Minute, RefreshTTL: time.Hour, SessionAge: age,
					Now: func() time.Time { return w.now },
				})
				if err != nil {
					t.Fatal(err)
				}
				session, err := other.Authenticate(w.ctx, tokens.Access)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Authenticate(w.ctx, tokens.Access); err != nil {
					t.Fatal(err)
				}
				if err := end(w, session, tokens.Refresh); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Authenticate(w.ctx, tokens.Access); !fault.Is(err, fault.Unauthenticated) {
					t.Errorf("the replica that ended the session: %v", err)
				}
				time.Sleep(age)
				if _, err := other.Authenticate(w.ctx, tokens.Access); !fault.Is(err, fault.Unauthenticated) {
					t.Errorf("the other replica, %s later: %v", age, err)
				}
			})
		})
	}
}
