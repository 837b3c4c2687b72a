package identitytest

import (
	"time"

	"signet/audit"
	"signet/fault"
	"signet/identity"
)

var refreshTests = map[string]func(f fixture){
	"belongs to its user, used or not": func(f fixture) {
		u := f.user()
		t, next := f.token(u.ID), f.next()
		f.recorded(audit.LoginSuccess, u.ID)
		_, err := f.rotate(t.Hash, next, now)
		f.ok(err)
		for _, hash := range [][]byte{t.Hash, next.Hash} {
			owner, err := f.s.RefreshTokenOwner(f.Context(), hash)
			f.ok(err)
			f.equal(owner, u.ID)
		}
	},
	"that nobody has is not found": func(f fixture) {
		_, err := f.s.RefreshTokenOwner(f.Context(), []byte("unknown"))
		f.refused(err, fault.NotFound, "Refresh token not found")
		f.void([]byte("unknown"))
	},
	"needs a user": func(f fixture) {
		t := f.next()
		t.UserID = 99
		f.silent(func() {
			f.refused(f.s.CreateRefreshToken(f.Context(), t, event(audit.LoginSuccess)), fault.NotFound, "User not found")
		})
	},
	"is used once": func(f fixture) {
		u := f.user()
		t := f.token(u.ID)
		got, err := f.rotate(t.Hash, f.next(), now)
		f.ok(err)
		f.equal(got, u)
		f.recorded(audit.TokenRefresh, u.ID)
		f.void(t.Hash)
	},
	"is replaced by one of the same user": func(f fixture) {
		u, other := f.user(), f.user()
		next := f.next()
		next.UserID = other.ID
		_, err := f.rotate(f.token(u.ID).Hash, next, now)
		f.ok(err)
		got, err := f.rotate(next.Hash, f.next(), now)
		f.ok(err)
		f.equal(got.ID, u.ID)
	},
	"names its user in an event that names none": func(f fixture) {
		p := f.plan()
		p.OrganizationID = ptr(f.organization().ID)
		u, err := f.create(p)
		f.ok(err)
		_, err = f.s.RotateRefreshToken(f.Context(), f.token(u.ID).Hash, f.next(), now, audit.Event{Action: audit.TokenRefresh})
		f.ok(err)
		f.equal(f.events(audit.TokenRefresh)[0].Event, audit.Event{Action: audit.TokenRefresh, UserID: &u.ID, Username: u.Username,
			OrganizationID: u.OrganizationID, ResourceID: &u.ID})
	},
	"is void from its expiry on": func(f fixture) {
		t := f.token(f.user().ID)
		_, err := f.rotate(t.Hash, f.next(), t.ExpiresAt)
		f.refused(err, fault.Unauthenticated, "Invalid or expired refresh token")
		_, err = f.rotate(t.Hash, f.next(), t.ExpiresAt.Add(-time.Microsecond))
		f.ok(err)
	},
	"of an inactive user is void": func(f fixture) {
		u := f.user()
		t := f.token(u.ID)
		u.Active = false
		_, err := f.update(u)
		f.ok(err)
		f.void(t.Hash)
	},
	"of an earlier epoch is void, and so is its successor": func(f fixture) {
		u := f.user()
		used, fresh, next := f.token(u.ID), f.token(u.ID), f.next()
		_, err := f.rotate(used.Hash, next, now)
		f.ok(err)
		other := f.token(f.user().ID)
		u.TokenEpoch++
		u, err = f.update(u)
		f.ok(err)
		f.void(fresh.Hash)
		f.void(next.Hash)
		_, err = f.rotate(other.Hash, f.next(), now)
		f.ok(err)
		_, err = f.rotate(f.token(u.ID).Hash, f.next(), now)
		f.ok(err)
	},
	"survives an update within the epoch": func(f fixture) {
		u := f.user()
		t := f.token(u.ID)
		u.Email = "other@example.com"
		_, err := f.update(u)
		f.ok(err)
		_, err = f.rotate(t.Hash, f.next(), now)
		f.ok(err)
	},
	"goes with its user": func(f fixture) {
		u := f.user()
		t := f.token(u.ID)
		f.ok(f.s.DeleteUser(f.Context(), u.ID, event(audit.UserDelete)))
		f.void(t.Hash)
		_, err := f.s.RefreshTokenOwner(f.Context(), t.Hash)
		f.refused(err, fault.NotFound, "Refresh token not found")
	},
	"is not used up when its successor cannot be stored": func(f fixture) {
		u := f.user()
		t, other := f.token(u.ID), f.token(u.ID)
		f.silent(func() {
			_, err := f.rotate(t.Hash, identity.RefreshToken{Hash: other.Hash, ExpiresAt: now.Add(time.Hour)}, now)
			f.refused(err, fault.Conflict, "Refresh token already exists")
		})
		_, err := f.rotate(t.Hash, f.next(), now)
		f.ok(err)
	},
	"is pruned after its expiry": func(f fixture) {
		u := f.user()
		old, young := f.token(u.ID), f.next()
		young.UserID, young.ExpiresAt = u.ID, now.Add(2*time.Hour)
		f.ok(f.s.CreateRefreshToken(f.Context(), young, event(audit.LoginSuccess)))
		f.ok(f.s.Prune(f.Context(), old.ExpiresAt))
		_, err := f.s.RefreshTokenOwner(f.Context(), old.Hash)
		f.ok(err)
		f.ok(f.s.Prune(f.Context(), old.ExpiresAt.Add(time.Second)))
		_, err = f.s.RefreshTokenOwner(f.Context(), old.Hash)
		f.refused(err, fault.NotFound, "Refresh token not found")
		_, err = f.s.RefreshTokenOwner(f.Context(), young.Hash)
		f.ok(err)
	},
}

func (f fixture) logout(hash []byte, jti string) {
	f.Helper()
	f.ok(f.s.Logout(f.Context(), hash, jti, now.Add(time.Hour), event(audit.Logout)))
}

var sessionTests = map[string]func(f fixture){
	"is that of the user": func(f fixture) {
		u := f.user()
		got, revoked, err := f.s.Session(f.Context(), u.ID, "jti-1")
		f.ok(err)
		f.equal(got, u)
		f.equal(revoked, false)
	},
	"ends with the user": func(f fixture) {
		u := f.user()
		f.logout(nil, "jti-1")
		f.ok(f.s.DeleteUser(f.Context(), u.ID, event(audit.UserDelete)))
		_, _, err := f.s.Session(f.Context(), u.ID, "jti-1")
		f.refused(err, fault.NotFound, "User not found")
	},
	"logout revokes both tokens, and no others": func(f fixture) {
		u := f.user()
		t, other := f.token(u.ID), f.token(u.ID)
		f.logout(t.Hash, "jti-1")
		f.recorded(audit.Logout, 70)
		f.void(t.Hash)
		for jti, want := range map[string]bool{"jti-1": true, "jti-2": false} {
			_, revoked, err := f.s.Session(f.Context(), u.ID, jti)
			f.ok(err)
			f.equal(revoked, want)
		}
		_, err := f.rotate(other.Hash, f.next(), now)
		f.ok(err)
	},
	"logout revokes the access token when the refresh token is unknown": func(f fixture) {
		u := f.user()
		f.logout([]byte("unknown"), "jti-1")
		_, revoked, err := f.s.Session(f.Context(), u.ID, "jti-1")
		f.ok(err)
		f.equal(revoked, true)
	},
	"logout twice is logout": func(f fixture) {
		t := f.token(f.user().ID)
		f.logout(t.Hash, "jti-1")
		f.logout(t.Hash, "jti-1")
		f.equal(len(f.events(audit.Logout)), 2)
	},
	"a revocation is pruned after its token has expired": func(f fixture) {
		u := f.user()
		f.logout(nil, "jti-1")
		for wait, want := range map[time.Duration]bool{time.Hour: true, time.Hour + time.Second: false} {
			if !want {
				f.ok(f.s.Prune(f.Context(), now.Add(wait)))
			}
			_, revoked, err := f.s.Session(f.Context(), u.ID, "jti-1")
			f.ok(err)
			if revoked && !want {
				f.Errorf("after %v the token is still revoked", wait)
			}
		}
	},
}

var raceTests = map[string]func(f fixture){
	"of 8 first users one wins": func(f fixture) {
		errs := parallel(8, func(int) error {
			_, err := f.first(f.plan())
			return err
		})
		f.oneWins(errs, fault.Conflict, notFirst)
		_, total, err := f.s.Users(f.Context(), identity.Page{})
		f.ok(err)
		f.equal(total, int64(1))
		f.equal(len(f.events(audit.UserCreate)), 1)
	},
	"of 8 users with one name one wins": func(f fixture) {
		errs := parallel(8, func(int) error {
			u := f.plan()
			u.Username = "alice"
			_, err := f.create(u)
			return err
		})
		f.oneWins(errs, fault.Invalid, "Username already registered")
	},
	"of 8 refreshes with one token one wins": func(f fixture) {
		u := f.user()
		t := f.token(u.ID)
		errs := parallel(8, func(int) error {
			_, err := f.rotate(t.Hash, f.next(), now)
			return err
		})
		f.oneWins(errs, fault.Unauthenticated, "Invalid or expired refresh token")
		f.equal(len(f.events(audit.TokenRefresh)), 1)
	},
	"of 8 updates of one state one wins": func(f fixture) {
		u := f.user()
		errs := parallel(8, func(int) error {
			_, err := f.update(u)
			return err
		})
		f.oneWins(errs, fault.Conflict, "User was changed by someone else")
		f.equal(len(f.events(audit.UserUpdate)), 1)
	},
	"no refresh slips past the end of all sessions": func(f fixture) {
		for range 4 {
			u := f.user()
			t, next := f.token(u.ID), f.next()
			parallel(2, func(i int) error {
				if i == 0 {
					_, err := f.rotate(t.Hash, next, now)
					return err
				}
				ended := u
				ended.TokenEpoch++
				_, err := f.update(ended)
				return err
			})
			f.void(t.Hash)
			f.void(next.Hash)
		}
	},
	"an organization is deleted or gets a user, not both": func(f fixture) {
		for range 4 {
			o := f.organization()
			u := f.plan()
			u.OrganizationID = &o.ID
			errs := parallel(2, func(i int) error {
				if i == 0 {
					return f.s.DeleteOrganization(f.Context(), o.ID, event(audit.OrgDelete))
				}
				_, err := f.create(u)
				return err
			})
			switch {
			case errs[0] == nil:
				f.refused(errs[1], fault.NotFound, "Organization not found")
			default:
				f.refused(errs[0], fault.Invalid, "Organization has users")
				f.ok(errs[1])
			}
		}
	},
}
