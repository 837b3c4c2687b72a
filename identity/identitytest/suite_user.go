package identitytest

import (
	"context"
	"errors"
	"slices"

	"signet/audit"
	"signet/fault"
	"signet/identity"
	"signet/policy"
)

const notFirst = "There already is, or was, a user"

var firstUserTests = map[string]func(f fixture){
	"is created in an empty store, in any role": func(f fixture) {
		u := f.plan()
		u.Role = policy.RoleSuperuser
		got, err := f.first(u)
		f.ok(err)
		u.ID = 1
		f.equal(got, u)
		f.recorded(audit.UserCreate, 1)
	},
	"is created once": func(f fixture) {
		_, err := f.first(f.plan())
		f.ok(err)
		f.silent(func() {
			_, err := f.first(f.plan())
			f.refused(err, fault.Conflict, notFirst)
		})
	},
	"is not created after another user": func(f fixture) {
		f.user()
		_, err := f.first(f.plan())
		f.refused(err, fault.Conflict, notFirst)
	},
	"is not created again when all users are deleted": func(f fixture) {
		u, err := f.first(f.plan())
		f.ok(err)
		f.ok(f.s.DeleteUser(f.Context(), u.ID, event(audit.UserDelete)))
		_, err = f.first(f.plan())
		f.refused(err, fault.Conflict, notFirst)
		had, err := f.s.HasUsers(f.Context())
		f.ok(err)
		f.equal(had, true)
	},
	"is still to come when its creation failed": func(f fixture) {
		u := f.plan()
		u.OrganizationID = ptr(int64(99))
		f.silent(func() {
			_, err := f.first(u)
			f.refused(err, fault.NotFound, "Organization not found")
		})
		had, err := f.s.HasUsers(f.Context())
		f.ok(err)
		f.equal(had, false)
		u.OrganizationID = nil
		_, err = f.first(u)
		f.ok(err)
	},
	"bootstrap token is not set at first": func(f fixture) {
		_, err := f.s.BootstrapToken(f.Context())
		f.refused(err, fault.NotFound, "No bootstrap token is set")
	},
	"bootstrap token replaces an earlier one": func(f fixture) {
		for _, hash := range []string{"first hash", "second hash"} {
			f.ok(f.s.SetBootstrapToken(f.Context(), []byte(hash)))
			got, err := f.s.BootstrapToken(f.Context())
			f.ok(err)
			f.equal(string(got), hash)
		}
	},
	"bootstrap token is gone once there is a user": func(f fixture) {
		f.ok(f.s.SetBootstrapToken(f.Context(), []byte("hash")))
		_, err := f.first(f.plan())
		f.ok(err)
		_, err = f.s.BootstrapToken(f.Context())
		f.refused(err, fault.NotFound, "No bootstrap token is set")
	},
}

var userTests = map[string]func(f fixture){
	"keeps every field": func(f fixture) {
		for _, capabilities := range []policy.Capabilities{
			{}, {CreateCA: true}, {CreateCert: true}, {RevokeCert: true}, {ExportPrivateKey: true}, {DeleteCA: true},
		} {
			want := f.plan()
			want.OrganizationID, want.Role, want.Capabilities = ptr(f.organization().ID), policy.RoleAdmin, capabilities
			want.Active, want.TokenEpoch = false, 17
			got, err := f.create(want)
			f.ok(err)
			f.recorded(audit.UserCreate, got.ID)
			want.ID = got.ID
			f.equal(got, want)
			found, err := f.s.User(f.Context(), got.ID)
			f.ok(err)
			f.equal(found, want)
			named, err := f.s.UserByName(f.Context(), want.Username)
			f.ok(err)
			f.equal(named, want)
		}
	},
	"name is taken": func(f fixture) {
		u := f.plan()
		u.Username = f.user().Username
		f.silent(func() {
			_, err := f.create(u)
			f.refused(err, fault.Invalid, "Username already registered")
		})
	},
	"names differ by case": func(f fixture) {
		_, err := f.create(identity.User{Username: "Alice", Email: "a@example.com", Role: policy.RoleUser})
		f.ok(err)
		_, err = f.create(identity.User{Username: "alice", Email: "b@example.com", Role: policy.RoleUser})
		f.ok(err)
		_, err = f.s.UserByName(f.Context(), "ALICE")
		f.refused(err, fault.NotFound, "User not found")
	},
	"e-mail is taken, in whatever case": func(f fixture) {
		u := f.plan()
		u.Email = "Zoë@Example.com"
		_, err := f.create(u)
		f.ok(err)
		for _, email := range []string{"Zoë@Example.com", "zoË@EXAMPLE.com"} {
			u := f.plan()
			u.Email = email
			f.silent(func() {
				_, err := f.create(u)
				f.refused(err, fault.Invalid, "Email already registered")
			})
		}
	},
	"organization must exist": func(f fixture) {
		u := f.plan()
		u.OrganizationID = ptr(int64(99))
		f.silent(func() {
			_, err := f.create(u)
			f.refused(err, fault.NotFound, "Organization not found")
		})
	},
	"is not found": func(f fixture) {
		_, err := f.s.User(f.Context(), 99)
		f.refused(err, fault.NotFound, "User not found")
		_, err = f.s.UserByName(f.Context(), "nobody")
		f.refused(err, fault.NotFound, "User not found")
		f.silent(func() {
			_, err := f.update(identity.User{ID: 99})
			f.refused(err, fault.NotFound, "User not found")
			f.refused(f.s.DeleteUser(f.Context(), 99, event(audit.UserDelete)), fault.NotFound, "User not found")
		})
	},
	"list is a page in the order of ids, and counts all": func(f fixture) {
		for range 4 {
			f.user()
		}
		for _, c := range []struct {
			page identity.Page
			want []int64
		}{
			{identity.Page{}, nil},
			{identity.Page{Limit: 2}, []int64{1, 2}},
			{identity.Page{Limit: 2, Skip: 1}, []int64{2, 3}},
			{identity.Page{Limit: 9, After: 3}, []int64{4}},
			{identity.Page{Limit: 9, After: 4}, nil},
		} {
			list, total, err := f.s.Users(f.Context(), c.page)
			f.ok(err)
			var got []int64
			for _, u := range list {
				got = append(got, u.ID)
			}
			if !slices.Equal(got, c.want) || total != 4 {
				f.Errorf("page %+v: got %v of %d, want %v of 4", c.page, got, total, c.want)
			}
		}
	},
	"update stores what may change, and nothing else": func(f fixture) {
		was := f.user()
		change := was
		change.Username, change.CreatedAt = "other", now.AddDate(1, 0, 0)
		change.Email, change.PasswordHash, change.Role, change.Active = "New@example.com", "new hash", policy.RoleAdmin, false
		change.Capabilities, change.OrganizationID, change.TokenEpoch = policy.Capabilities{RevokeCert: true}, ptr(f.organization().ID), 2
		got, err := f.update(change)
		f.ok(err)
		f.recorded(audit.UserUpdate, was.ID)
		if !got.UpdatedAt.After(was.UpdatedAt) {
			f.Errorf("updated at %v, before that at %v", got.UpdatedAt, was.UpdatedAt)
		}
		change.Username, change.CreatedAt, change.UpdatedAt = was.Username, was.CreatedAt, got.UpdatedAt
		f.equal(got, change)
		found, err := f.s.User(f.Context(), was.ID)
		f.ok(err)
		f.equal(found, change)
	},
	"update takes everything away again": func(f fixture) {
		u := f.plan()
		u.OrganizationID = ptr(f.organization().ID)
		u, err := f.create(u)
		f.ok(err)
		u.OrganizationID, u.Active, u.Capabilities, u.TokenEpoch = nil, false, policy.Capabilities{}, 0
		got, err := f.update(u)
		f.ok(err)
		u.UpdatedAt = got.UpdatedAt
		f.equal(got, u)
	},
	"update of what someone else changed is refused": func(f fixture) {
		was := f.user()
		_, err := f.update(was)
		f.ok(err)
		f.silent(func() {
			_, err := f.update(was)
			f.refused(err, fault.Conflict, "User was changed by someone else")
		})
	},
	"update to an e-mail that is taken is refused": func(f fixture) {
		other, u := f.user(), f.user()
		u.Email = other.Email
		f.silent(func() {
			_, err := f.update(u)
			f.refused(err, fault.Invalid, "Email already registered")
		})
	},
	"update to an organization that does not exist is refused": func(f fixture) {
		u := f.user()
		u.OrganizationID = ptr(int64(99))
		f.silent(func() {
			_, err := f.update(u)
			f.refused(err, fault.NotFound, "Organization not found")
		})
	},
	"deletion frees the names, not the id, and keeps the trail": func(f fixture) {
		u := f.user()
		f.ok(f.s.DeleteUser(f.Context(), u.ID, event(audit.UserDelete)))
		f.recorded(audit.UserDelete, u.ID)
		_, err := f.s.User(f.Context(), u.ID)
		f.refused(err, fault.NotFound, "User not found")
		again, err := f.create(u)
		f.ok(err)
		if again.ID <= u.ID {
			f.Errorf("got id %d after %d", again.ID, u.ID)
		}
		f.equal(len(f.events("")), 3)
	},
	"event without a record is kept as it is": func(f fixture) {
		e := event(audit.LoginFailure)
		f.ok(f.s.Record(f.Context(), e))
		f.equal(f.events("")[0].Event, e)
	},
	"canceled context changes nothing": func(f fixture) {
		ctx, cancel := context.WithCancel(f.Context())
		cancel()
		f.silent(func() {
			if _, err := f.s.CreateUser(ctx, f.plan(), event(audit.UserCreate)); !errors.Is(err, context.Canceled) {
				f.Errorf("error is %v", err)
			}
		})
	},
}

var organizationTests = map[string]func(f fixture){
	"of somebody who created nothing has nothing outside": func(f fixture) {
		for _, id := range []int64{f.user().ID, 99} {
			outside, err := f.s.CreatedOutside(f.Context(), id, f.organization().ID)
			f.ok(err)
			f.equal(outside, false)
		}
	},
	"keeps every field": func(f fixture) {
		want := identity.Organization{Name: "Zürich & Co", Description: ptr("for tests"), CreatedAt: now, UpdatedAt: now}
		got, err := f.createOrganization(want.Name)
		f.ok(err)
		f.recorded(audit.OrgCreate, 1)
		want.ID = 1
		f.equal(got, want)
		found, err := f.s.Organization(f.Context(), 1)
		f.ok(err)
		f.equal(found, want)
	},
	"name is taken": func(f fixture) {
		one, two := f.organization(), f.organization()
		f.silent(func() {
			_, err := f.createOrganization(one.Name)
			f.refused(err, fault.Invalid, "Organization with this name already exists")
			two.Name = one.Name
			_, err = f.s.UpdateOrganization(f.Context(), two, event(audit.OrgUpdate))
			f.refused(err, fault.Invalid, "Organization with this name already exists")
		})
	},
	"is not found": func(f fixture) {
		_, err := f.s.Organization(f.Context(), 99)
		f.refused(err, fault.NotFound, "Organization not found")
		f.silent(func() {
			_, err := f.s.UpdateOrganization(f.Context(), identity.Organization{ID: 99}, event(audit.OrgUpdate))
			f.refused(err, fault.NotFound, "Organization not found")
			f.refused(f.s.DeleteOrganization(f.Context(), 99, event(audit.OrgDelete)), fault.NotFound, "Organization not found")
		})
	},
	"update changes name and description": func(f fixture) {
		o := f.organization()
		o.Name, o.Description = "new name", nil
		got, err := f.s.UpdateOrganization(f.Context(), o, event(audit.OrgUpdate))
		f.ok(err)
		f.recorded(audit.OrgUpdate, o.ID)
		if !got.UpdatedAt.After(o.UpdatedAt) {
			f.Errorf("updated at %v", got.UpdatedAt)
		}
		o.UpdatedAt = got.UpdatedAt
		f.equal(got, o)
	},
	"list is a page, of one or of all": func(f fixture) {
		for range 3 {
			f.organization()
		}
		for _, c := range []struct {
			only  *int64
			page  identity.Page
			want  []int64
			total int64
		}{
			{nil, identity.Page{Limit: 2}, []int64{1, 2}, 3},
			{nil, identity.Page{Limit: 2, After: 1, Skip: 1}, []int64{3}, 3},
			{ptr(int64(2)), identity.Page{Limit: 2}, []int64{2}, 1},
			{ptr(int64(99)), identity.Page{Limit: 2}, nil, 0},
			{nil, identity.Page{}, nil, 3},
		} {
			list, total, err := f.s.Organizations(f.Context(), c.only, c.page)
			f.ok(err)
			var got []int64
			for _, o := range list {
				got = append(got, o.ID)
			}
			if !slices.Equal(got, c.want) || total != c.total {
				f.Errorf("%+v: got %v of %d", c, got, total)
			}
		}
	},
	"members are its users": func(f fixture) {
		ours, theirs := f.organization(), f.organization()
		for i, id := range []*int64{&ours.ID, &theirs.ID, nil, &ours.ID} {
			u := f.plan()
			u.OrganizationID = id
			_, err := f.create(u)
			f.ok(err)
			list, total, err := f.s.Members(f.Context(), ours.ID, identity.Page{Limit: 1, Skip: 1})
			f.ok(err)
			f.equal([]int64{int64(len(list)), total}, []int64{int64(i / 3), int64(1 + i/3)})
		}
	},
	"is not deleted while it has users": func(f fixture) {
		o := f.organization()
		u := f.plan()
		u.OrganizationID = &o.ID
		u, err := f.create(u)
		f.ok(err)
		f.silent(func() {
			f.refused(f.s.DeleteOrganization(f.Context(), o.ID, event(audit.OrgDelete)), fault.Invalid, "Organization has users")
		})
		f.ok(f.s.DeleteUser(f.Context(), u.ID, event(audit.UserDelete)))
		f.ok(f.s.DeleteOrganization(f.Context(), o.ID, event(audit.OrgDelete)))
		f.recorded(audit.OrgDelete, o.ID)
		_, err = f.s.Organization(f.Context(), o.ID)
		f.refused(err, fault.NotFound, "Organization not found")
	},
}
