package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestContractUsers(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"a user has these fields, and never a password", userFields},
		{"without authentication it is 403 Unauthenticated registration is disabled", registrationIsDisabled},
		{"only a superuser creates admins and superusers", privilegedCreation},
		{"only superusers, and admins for their own organization, create users in it", creationInOrganizations},
		{"capabilities given at user creation are stored, by who may give them", capabilitiesAreStored},
		{"a taken name or address is 400, at creation and at PATCH", takenNames},
		{"of parallel users with one name exactly one wins", parallelUsers},
		{"malformed users are 422", malformedUsers},
		{"GET /users/ is the superuser's, with skip and limit", listUsers},
		{"GET /users/{id} is for the user, an admin of the organization and superusers", whoSeesAUser},
		{"PATCH by the user: email and password alone", patchSelf},
		{"PATCH by an admin: only ordinary users of the own organization, also capabilities", patchByAdmin},
		{"PATCH by a superuser: also role, is_active, organization_id; null is unchanged", patchBySuperuser},
		{"an admin never changes a superuser, another admin or another organization's user", adminsNeverReachUp},
		{"DELETE is the superuser's; the own account is 400", deleteUsers},
		{"a deleted user's objects and audit trail stay", deletedUsersLeaveATrail},
	})
}

// The fields that a user has.
var userFieldNames = []string{"can_create_ca", "can_create_cert", "can_delete_ca", "can_export_private_key", "can_revoke_cert",
	"created_at", "email", "id", "is_active", "organization_id", "role", "updated_at", "username"}

var capabilities = []string{"can_create_ca", "can_create_cert", "can_revoke_cert", "can_export_private_key", "can_delete_ca"}

// account is a body for POST /users/.
func (w *world) account(fields object) object {
	name := w.unique("account")
	body := object{"username": name, "email": name + "@example.com", "password": "a good password"}
	for k, v := range fields {
		body[k] = v
	}
	return body
}

func userFields(t *testing.T, w *world) {
	root := w.root(t)
	body := w.account(nil)
	made := root.ask("POST", "/api/v1/users/", body).want(http.StatusCreated)
	expect(t, made.object(), object{"username": body["username"], "email": body["email"], "role": "user", "is_active": true, "organization_id": nil,
		"can_create_ca": false, "can_create_cert": false, "can_revoke_cert": false, "can_export_private_key": false, "can_delete_ca": false})
	for _, a := range []answer{made, root.ask("GET", fmt.Sprintf("/api/v1/users/%d", made.id()), nil), root.ask("GET", "/api/v1/users/me", nil)} {
		equalSlices(t, a.request, fields(a.object()), userFieldNames)
	}
}

func registrationIsDisabled(t *testing.T, w *world) {
	w.nobody(t).ask("POST", "/api/v1/users/", w.account(nil)).refused(http.StatusForbidden, "Unauthenticated registration is disabled")
	for _, role := range []string{"admin", "superuser"} {
		w.nobody(t).ask("POST", "/api/v1/users/", w.account(object{"role": role})).refused(http.StatusForbidden, "")
	}
	w.nobody(t).ask("POST", "/api/v1/users/", w.account(nil), header("X-Bootstrap-Token", "x")).refused(http.StatusForbidden, "Unauthenticated registration is disabled")
}

func privilegedCreation(t *testing.T, w *world) {
	organization := w.organization(t)
	for _, creator := range []party{w.member(t, "user", 0, nil), w.member(t, "user", organization, nil), w.member(t, "admin", organization, nil), w.member(t, "admin", 0, nil)} {
		for _, role := range []string{"admin", "superuser"} {
			creator.ask("POST", "/api/v1/users/", w.account(object{"role": role})).refused(http.StatusForbidden, "")
			creator.ask("POST", "/api/v1/users/", w.account(object{"role": role, "organization_id": organization})).refused(http.StatusForbidden, "")
		}
	}
	for _, role := range []string{"admin", "superuser", "user"} {
		made := w.root(t).ask("POST", "/api/v1/users/", w.account(object{"role": role, "organization_id": organization})).want(http.StatusCreated)
		expect(t, made.object(), object{"role": role, "organization_id": organization})
	}
}

func creationInOrganizations(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	admin, user, loner := w.member(t, "admin", own, nil), w.member(t, "user", own, nil), w.member(t, "user", 0, nil)
	body := func(organization int64) object { return w.account(object{"organization_id": organization}) }
	admin.ask("POST", "/api/v1/users/", body(own)).want(http.StatusCreated)
	admin.ask("POST", "/api/v1/users/", body(other)).refused(http.StatusForbidden, "")
	user.ask("POST", "/api/v1/users/", body(own)).refused(http.StatusForbidden, "")
	loner.ask("POST", "/api/v1/users/", body(own)).refused(http.StatusForbidden, "")
	w.nobody(t).ask("POST", "/api/v1/users/", body(own)).refused(http.StatusForbidden, "")
	w.root(t).ask("POST", "/api/v1/users/", body(999999)).refused(http.StatusNotFound, "")
}

func capabilitiesAreStored(t *testing.T, w *world) {
	organization := w.organization(t)
	grants := object{"organization_id": organization}
	for i, name := range capabilities {
		grants[name] = i%2 == 0
	}
	for _, creator := range []party{w.root(t), w.member(t, "admin", organization, nil)} {
		made := creator.ask("POST", "/api/v1/users/", w.account(grants)).want(http.StatusCreated)
		expect(t, made.object(), grants)
		expect(t, w.root(t).ask("GET", fmt.Sprintf("/api/v1/users/%d", made.id()), nil).object(), grants)
	}
	for _, creator := range []party{w.member(t, "user", organization, nil), w.member(t, "admin", 0, nil)} {
		a := creator.ask("POST", "/api/v1/users/", w.account(grants)).want(http.StatusForbidden, http.StatusCreated)
		if a.status == http.StatusCreated {
			t.Errorf("%s gave capabilities that are not theirs to give: %s", creator.name, a.body)
		}
	}
}

func takenNames(t *testing.T, w *world) {
	root, p := w.root(t), w.member(t, "user", 0, nil)
	root.ask("POST", "/api/v1/users/", w.account(object{"username": p.name})).refused(http.StatusBadRequest, "Username already registered")
	root.ask("POST", "/api/v1/users/", w.account(object{"email": p.name + "@example.com"})).refused(http.StatusBadRequest, "Email already registered")
	other := w.member(t, "user", 0, nil)
	for _, who := range []party{root, other} {
		who.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", other.id), object{"email": p.name + "@example.com"}).refused(http.StatusBadRequest, "Email already registered")
	}
	other.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", other.id), object{"email": other.name + "@example.com"}).want(http.StatusOK)
}

func parallelUsers(t *testing.T, w *world) {
	name := w.unique("twin")
	statuses := w.root(t).atOnce(8, "POST", "/api/v1/users/", func(i int) any {
		return w.account(object{"username": name})
	})
	equalSlices(t, "statuses", statuses, one(8, http.StatusCreated, http.StatusBadRequest))
}

func malformedUsers(t *testing.T, w *world) {
	for _, c := range []struct {
		field string
		value any
	}{
		{"username", ""}, {"username", strings.Repeat("x", 256)}, {"username", "a\x00b"}, {"username", 5}, {"username", "a\nb"},
		{"email", "nobody"}, {"email", "a@"}, {"email", "@b.example"}, {"email", ""}, {"email", "a@b\x00.example"}, {"email", "a b@c.example"},
		{"password", "1234567"}, {"password", ""}, {"password", strings.Repeat("x", 73)}, {"password", nil},
		{"role", "god"}, {"role", ""}, {"organization_id", "x"}, {"can_create_ca", "perhaps"},
	} {
		a := w.root(t).ask("POST", "/api/v1/users/", w.account(object{c.field: c.value})).want(http.StatusUnprocessableEntity)
		if got := a.problems(); len(got) != 1 || !strings.HasSuffix(got[0], " body."+c.field) {
			t.Errorf("%s %q: problems %v", c.field, c.value, got)
		}
	}
	p := w.member(t, "user", 0, nil)
	for field, value := range map[string]any{"email": "nobody", "password": "1234567", "role": "god", "is_active": "perhaps"} {
		w.root(t).ask("PATCH", fmt.Sprintf("/api/v1/users/%d", p.id), object{field: value}).want(http.StatusUnprocessableEntity).problems()
	}
	w.root(t).ask("POST", "/api/v1/users/", w.account(object{"password": "12345678"})).want(http.StatusCreated)
}

func listUsers(t *testing.T, w *world) {
	root := w.root(t)
	for range 3 {
		w.member(t, "user", 0, nil)
	}
	all := ids(root.ask("GET", "/api/v1/users/?limit=1000", nil).list())
	if len(all) < 4 || all[0] != 1 || !slices.IsSorted(all) {
		t.Errorf("ids %v are not all users in order", all)
	}
	equalSlices(t, "skip=1&limit=2", ids(root.ask("GET", "/api/v1/users/?skip=1&limit=2", nil).list()), all[1:3])
	equal(t, "beyond the end", len(root.ask("GET", "/api/v1/users/?skip=100000", nil).list()), 0)
	organization := w.organization(t)
	for _, p := range []party{w.member(t, "user", 0, nil), w.member(t, "user", organization, nil), w.member(t, "admin", organization, nil)} {
		p.ask("GET", "/api/v1/users/", nil).refused(http.StatusForbidden, "Insufficient permissions")
	}
}

func whoSeesAUser(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	p := w.member(t, "user", own, nil)
	path := fmt.Sprintf("/api/v1/users/%d", p.id)
	for _, reader := range []party{p, w.member(t, "admin", own, nil), w.root(t)} {
		equal(t, path, reader.ask("GET", path, nil).want(http.StatusOK).id(), p.id)
	}
	for _, reader := range []party{w.member(t, "user", own, nil), w.member(t, "admin", other, nil), w.member(t, "admin", 0, nil), w.member(t, "user", 0, nil)} {
		reader.ask("GET", path, nil).refused(http.StatusForbidden, "Insufficient permissions")
	}
	// Two without organization do not share one.
	loner := w.member(t, "user", 0, nil)
	w.member(t, "admin", 0, nil).ask("GET", fmt.Sprintf("/api/v1/users/%d", loner.id), nil).refused(http.StatusForbidden, "Insufficient permissions")
}

func patchSelf(t *testing.T, w *world) {
	organization := w.organization(t)
	for _, role := range []string{"user", "admin"} {
		p := w.member(t, role, organization, nil)
		path := fmt.Sprintf("/api/v1/users/%d", p.id)
		email := w.unique("new") + "@example.com"
		expect(t, p.ask("PATCH", path, object{"email": email}).want(http.StatusOK).object(), object{"email": email})
		for _, change := range []object{{"role": "superuser"}, {"is_active": true}, {"organization_id": w.organization(t)}, {"organization_id": organization},
			{"can_create_ca": true}, {"can_export_private_key": true}, {"email": "x@example.com", "role": "admin"}} {
			p.ask("PATCH", path, change).refused(http.StatusForbidden, "Insufficient permissions")
		}
		expect(t, p.ask("GET", path, nil).object(), object{"email": email, "role": role, "organization_id": organization, "can_create_ca": false})
		p.ask("PATCH", path, object{"password": "another password", "role": nil, "organization_id": nil, "can_create_ca": nil}).want(http.StatusOK)
	}
}

func patchByAdmin(t *testing.T, w *world) {
	own := w.organization(t)
	admin, p := w.member(t, "admin", own, nil), w.member(t, "user", own, nil)
	path := fmt.Sprintf("/api/v1/users/%d", p.id)
	for _, name := range capabilities {
		for _, value := range []bool{true, false} {
			expect(t, admin.ask("PATCH", path, object{name: value}).want(http.StatusOK).object(), object{name: value})
		}
	}
	email := w.unique("mail") + "@example.com"
	admin.ask("PATCH", path, object{"email": email, "password": "another password"}).want(http.StatusOK)
	for _, change := range []object{{"role": "admin"}, {"is_active": false}, {"organization_id": w.organization(t)}, {"organization_id": own}} {
		admin.ask("PATCH", path, change).refused(http.StatusForbidden, "Insufficient permissions")
	}
}

func patchBySuperuser(t *testing.T, w *world) {
	root, organization := w.root(t), w.organization(t)
	p := w.member(t, "user", 0, nil)
	path := fmt.Sprintf("/api/v1/users/%d", p.id)
	for _, change := range []object{{"organization_id": organization}, {"role": "admin"}, {"is_active": false}, {"is_active": true},
		{"can_delete_ca": true, "can_create_ca": true}, {"organization_id": w.organization(t), "can_create_ca": false}, {"role": "superuser"}} {
		expect(t, root.ask("PATCH", path, change).want(http.StatusOK).object(), change)
		expect(t, root.ask("GET", path, nil).object(), change)
	}
	root.ask("PATCH", path, object{"organization_id": 999999}).refused(http.StatusNotFound, "")
	before := root.ask("GET", path, nil).object()
	expect(t, before, object{"can_delete_ca": true})
	for _, nothing := range []object{{}, {"organization_id": nil}, {"email": nil, "password": nil, "role": nil, "is_active": nil, "can_delete_ca": nil}, before} {
		expect(t, root.ask("PATCH", path, nothing).want(http.StatusOK).object(), before)
	}
}

func adminsNeverReachUp(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	admin := w.member(t, "admin", own, nil)
	for _, victim := range []party{w.member(t, "superuser", own, nil), w.member(t, "superuser", 0, nil), w.member(t, "admin", own, nil),
		w.member(t, "user", other, nil), w.member(t, "admin", other, nil), w.member(t, "user", 0, nil)} {
		path := fmt.Sprintf("/api/v1/users/%d", victim.id)
		for _, change := range []object{{"password": "taken over now"}, {"email": "taken@example.com"}, {"can_create_ca": true}, {"is_active": false}} {
			admin.ask("PATCH", path, change).refused(http.StatusForbidden, "Insufficient permissions")
		}
		victim.logIn(victim.name, victim.password)
		victim.ask("GET", "/api/v1/users/me", nil).want(http.StatusOK)
	}
	user := w.member(t, "user", own, nil)
	user.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", w.member(t, "user", own, nil).id), object{"email": "x@example.com"}).refused(http.StatusForbidden, "Insufficient permissions")
}

func deleteUsers(t *testing.T, w *world) {
	own := w.organization(t)
	p := w.member(t, "user", own, nil)
	path := fmt.Sprintf("/api/v1/users/%d", p.id)
	for _, who := range []party{p, w.member(t, "user", own, nil), w.member(t, "admin", own, nil)} {
		who.ask("DELETE", path, nil).refused(http.StatusForbidden, "Insufficient permissions")
	}
	superuser := w.member(t, "superuser", 0, nil)
	superuser.ask("DELETE", fmt.Sprintf("/api/v1/users/%d", superuser.id), nil).refused(http.StatusBadRequest, "")
	superuser.ask("DELETE", path, nil).want(http.StatusNoContent)
	superuser.ask("GET", path, nil).refused(http.StatusNotFound, "")
	superuser.ask("DELETE", path, nil).refused(http.StatusNotFound, "")
	again := superuser.ask("POST", "/api/v1/users/", w.account(object{"username": p.name, "email": p.name + "@example.com"})).want(http.StatusCreated)
	if again.id() == p.id {
		t.Error("the id of a deleted user was given to another")
	}
}

func deletedUsersLeaveATrail(t *testing.T, w *world) {
	root, organization := w.root(t), w.organization(t)
	p := w.member(t, "user", organization, object{"can_create_ca": true, "can_create_cert": true})
	authority := p.ca(w.unique("orphan"), nil).want(http.StatusCreated).id()
	certificate := p.issue(authority, "orphan.example", "server", nil).want(http.StatusCreated).id()
	root.ask("DELETE", fmt.Sprintf("/api/v1/users/%d", p.id), nil).want(http.StatusNoContent)
	root.ask("GET", fmt.Sprintf("/api/v1/cas/%d", authority), nil).want(http.StatusOK)
	root.ask("GET", fmt.Sprintf("/api/v1/certificates/%d", certificate), nil).want(http.StatusOK)
	root.issue(authority, "after.example", "server", nil).want(http.StatusCreated)
	entries := root.audit("action=cert_create&resource_id=%d", certificate)
	if len(entries) != 1 {
		t.Fatalf("%d entries about the certificate of a deleted user", len(entries))
	}
	expect(t, entries[0], object{"username": p.name, "user_id": p.id})
	equal(t, "user_delete", len(root.audit("action=user_delete&resource_id=%d", p.id)), 1)
}
