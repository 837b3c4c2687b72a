package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestContractOrganizations(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"admins and superusers create organizations", createOrganizations},
		{"a taken name is 400 Organization with this name already exists", takenOrganizationNames},
		{"GET /organizations/ lists the own one; to a superuser, all", listOrganizations},
		{"GET and PUT are for the organization's own people and superusers", readAndChangeOrganizations},
		{"delete is the superuser's, and 400 while it has users", deleteOrganizations},
		{"an admin cannot pull another organization's users in", membership},
		{"an admin cannot take over who created objects elsewhere", creatorsAreNotTakenOver},
		{"what was given for a membership ends with it", grantsEndWithMembership},
		{"GET /organizations/{id}/users lists the members to members", listMembers},
		{"a user without organization sees nothing but what they created", loners},
		{"objects belong to the CA's organization", objectsBelongToTheCA},
		{"another organization is denied, whatever the capabilities", otherOrganizationsAreDenied},
		{"the same organization reads, and does what the capability grants", capabilitiesGrant},
	})
}

func createOrganizations(t *testing.T, w *world) {
	for _, p := range []party{w.root(t), w.member(t, "admin", 0, nil), w.member(t, "admin", w.organization(t), nil)} {
		name := w.unique("made")
		made := p.ask("POST", "/api/v1/organizations/", object{"name": name, "description": "d"}).want(http.StatusCreated)
		equalSlices(t, "fields", fields(made.object()), []string{"created_at", "description", "id", "name", "updated_at"})
		expect(t, made.object(), object{"name": name, "description": "d"})
	}
	w.member(t, "user", 0, nil).ask("POST", "/api/v1/organizations/", object{"name": w.unique("x")}).refused(http.StatusForbidden, "Insufficient permissions")
	for _, name := range []string{"", strings.Repeat("x", 256), "a\x00b"} {
		w.root(t).ask("POST", "/api/v1/organizations/", object{"name": name}).want(http.StatusUnprocessableEntity).problems()
	}
}

func takenOrganizationNames(t *testing.T, w *world) {
	root, name := w.root(t), w.unique("taken")
	statuses := root.atOnce(8, "POST", "/api/v1/organizations/", func(int) any { return object{"name": name} })
	equalSlices(t, "statuses of parallel creations", statuses, one(8, http.StatusCreated, http.StatusBadRequest))
	root.ask("POST", "/api/v1/organizations/", object{"name": name}).refused(http.StatusBadRequest, "Organization with this name already exists")
	root.ask("PUT", fmt.Sprintf("/api/v1/organizations/%d", w.organization(t)), object{"name": name}).
		refused(http.StatusBadRequest, "Organization with this name already exists")
}

func listOrganizations(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	for _, role := range []string{"user", "admin"} {
		equalSlices(t, role, ids(w.member(t, role, own, nil).ask("GET", "/api/v1/organizations/", nil).list()), []int64{own})
		equal(t, role+" without organization", len(w.member(t, role, 0, nil).ask("GET", "/api/v1/organizations/", nil).list()), 0)
	}
	all := ids(w.root(t).ask("GET", "/api/v1/organizations/", nil).list())
	if !slices.Contains(all, own) || !slices.Contains(all, other) {
		t.Errorf("the superuser's list %v lacks %d or %d", all, own, other)
	}
}

func readAndChangeOrganizations(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	path := fmt.Sprintf("/api/v1/organizations/%d", own)
	admin, user := w.member(t, "admin", own, nil), w.member(t, "user", own, nil)
	for _, p := range []party{admin, user, w.root(t)} {
		equal(t, path, p.ask("GET", path, nil).want(http.StatusOK).id(), own)
	}
	for _, p := range []party{admin, w.root(t)} {
		name := w.unique("renamed")
		expect(t, p.ask("PUT", path, object{"name": name, "description": "new"}).want(http.StatusOK).object(), object{"name": name, "description": "new"})
	}
	for _, p := range []party{w.member(t, "admin", other, nil), w.member(t, "admin", 0, nil), w.member(t, "user", 0, nil)} {
		p.ask("GET", path, nil).refused(http.StatusForbidden, "Insufficient permissions")
		p.ask("PUT", path, object{"name": w.unique("x")}).refused(http.StatusForbidden, "Insufficient permissions")
	}
	user.ask("PUT", path, object{"name": w.unique("x")}).refused(http.StatusForbidden, "Insufficient permissions")
}

func deleteOrganizations(t *testing.T, w *world) {
	root, organization := w.root(t), w.organization(t)
	path := fmt.Sprintf("/api/v1/organizations/%d", organization)
	admin := w.member(t, "admin", organization, nil)
	admin.ask("DELETE", path, nil).refused(http.StatusForbidden, "Insufficient permissions")
	root.ask("DELETE", path, nil).refused(http.StatusBadRequest, "")
	root.ask("DELETE", fmt.Sprintf("/api/v1/users/%d", admin.id), nil).want(http.StatusNoContent)
	root.ask("DELETE", path, nil).want(http.StatusNoContent)
	root.ask("GET", path, nil).refused(http.StatusNotFound, "")
	if again := w.organization(t); again == organization {
		t.Error("the id of a deleted organization was given to another")
	}
	equal(t, "entries that record the deletion", len(root.audit("action=org_delete&resource_id=%d", organization)), 1)
	equal(t, "entries that record the creation", len(root.audit("action=org_create&resource_id=%d", organization)), 1)
}

func membership(t *testing.T, w *world) {
	root, own, other := w.root(t), w.organization(t), w.organization(t)
	admin := w.member(t, "admin", own, nil)
	path := func(p party) string { return fmt.Sprintf("/api/v1/organizations/%d/users/%d", own, p.id) }
	for _, stranger := range []party{w.member(t, "user", other, nil), w.member(t, "admin", other, nil), w.member(t, "superuser", 0, nil), w.member(t, "admin", 0, nil)} {
		admin.ask("POST", path(stranger), nil).refused(http.StatusForbidden, "Insufficient permissions")
	}
	loner := w.member(t, "user", 0, nil)
	expect(t, admin.ask("POST", path(loner), nil).want(http.StatusOK).object(), object{"id": loner.id, "organization_id": own})
	for _, p := range []party{w.member(t, "user", own, nil), w.member(t, "admin", other, nil), w.member(t, "user", 0, nil)} {
		p.ask("POST", path(w.member(t, "user", 0, nil)), nil).refused(http.StatusForbidden, "Insufficient permissions")
		p.ask("DELETE", path(loner), nil).refused(http.StatusForbidden, "Insufficient permissions")
	}
	admin.ask("DELETE", path(loner), nil).want(http.StatusOK)
	expect(t, root.ask("GET", fmt.Sprintf("/api/v1/users/%d", loner.id), nil).object(), object{"organization_id": nil})
	admin.ask("DELETE", path(loner), nil).refused(http.StatusNotFound, "")
	moved := w.member(t, "user", other, nil)
	expect(t, root.ask("POST", path(moved), nil).want(http.StatusOK).object(), object{"organization_id": own})
	root.ask("POST", fmt.Sprintf("/api/v1/organizations/%d/users/999999", own), nil).refused(http.StatusNotFound, "")
	root.ask("POST", fmt.Sprintf("/api/v1/organizations/999999/users/%d", moved.id), nil).refused(http.StatusNotFound, "")
}

// creatorsAreNotTakenOver: the creator of an object keeps access to it wherever the creator goes, so whoever owns the
// creator's account owns the object.
func creatorsAreNotTakenOver(t *testing.T, w *world) {
	root, a, b := w.root(t), w.organization(t), w.organization(t)
	adminA, adminB := w.member(t, "admin", a, nil), w.member(t, "admin", b, nil)
	alice := w.member(t, "user", a, object{"can_create_ca": true, "can_create_cert": true})
	authority := alice.ca(w.unique("treasure"), nil).want(http.StatusCreated).id()
	account := fmt.Sprintf("/api/v1/users/%d", alice.id)
	membership := func(organization int64) string {
		return fmt.Sprintf("/api/v1/organizations/%d/users/%d", organization, alice.id)
	}

	adminA.ask("PATCH", account, object{"email": w.unique("own") + "@example.com"}).want(http.StatusOK)
	adminA.ask("DELETE", membership(a), nil).want(http.StatusOK)
	adminB.ask("POST", membership(b), nil).refused(http.StatusForbidden, "Insufficient permissions")
	expect(t, root.ask("GET", account, nil).object(), object{"organization_id": nil})

	root.ask("POST", membership(b), nil).want(http.StatusOK)
	for _, change := range []object{{"password": "taken over now"}, {"email": w.unique("taken") + "@example.com"}, {"password": "taken over now", "can_create_ca": true}} {
		adminB.ask("PATCH", account, change).refused(http.StatusForbidden, "Insufficient permissions")
	}
	alice = alice.logIn(alice.name, alice.password)
	alice.issue(authority, "still-hers.example", "server", nil).want(http.StatusCreated)
	adminB.ask("GET", fmt.Sprintf("/api/v1/cas/%d", authority), nil).refused(http.StatusForbidden, "Insufficient permissions")
	expect(t, adminB.ask("PATCH", account, object{"can_create_ca": true}).want(http.StatusOK).object(), object{"can_create_ca": true})
	alice.ask("PATCH", account, object{"password": "her own choice"}).want(http.StatusOK)

	// A CA that is deleted was created all the same.
	root.ask("DELETE", fmt.Sprintf("/api/v1/cas/%d", authority), nil).want(http.StatusNoContent)
	adminB.ask("PATCH", account, object{"password": "taken over now"}).refused(http.StatusForbidden, "Insufficient permissions")
	root.ask("PATCH", account, object{"password": "a superuser's choice", "email": w.unique("reset") + "@example.com", "can_create_ca": false}).want(http.StatusOK)
	alice.logIn(alice.name, "a superuser's choice")
	root.ask("DELETE", membership(b), nil).want(http.StatusOK)
	adminA.ask("POST", membership(a), nil).want(http.StatusOK)
}

func grantsEndWithMembership(t *testing.T, w *world) {
	root, own, other := w.root(t), w.organization(t), w.organization(t)
	admin := w.member(t, "admin", own, nil)
	grants, none := object{}, object{}
	for _, name := range capabilities {
		grants[name], none[name] = true, false
	}
	for _, remover := range []party{admin, root} {
		p := w.member(t, "user", own, grants)
		removed := remover.ask("DELETE", fmt.Sprintf("/api/v1/organizations/%d/users/%d", own, p.id), nil).want(http.StatusOK).object()
		expect(t, removed, none)
		expect(t, removed, object{"organization_id": nil})
		p.ca(w.unique("root"), nil).refused(http.StatusForbidden, "Insufficient permissions")
		entry := root.audit("action=org_remove_user&limit=1&resource_id=%d", own)[0]
		equal(t, "detail", entry["detail"], any(fmt.Sprintf("%s (user %d), capabilities withdrawn", p.name, p.id)))
	}
	moved := w.member(t, "user", own, grants)
	expect(t, root.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", moved.id), object{"organization_id": other}).want(http.StatusOK).object(), grants)
}

func listMembers(t *testing.T, w *world) {
	organization := w.organization(t)
	a, b := w.member(t, "admin", organization, nil), w.member(t, "user", organization, nil)
	path := fmt.Sprintf("/api/v1/organizations/%d/users", organization)
	for _, p := range []party{a, b, w.root(t)} {
		equalSlices(t, path, ids(p.ask("GET", path, nil).list()), []int64{a.id, b.id})
	}
	for _, p := range []party{w.member(t, "admin", w.organization(t), nil), w.member(t, "user", 0, nil)} {
		p.ask("GET", path, nil).refused(http.StatusForbidden, "Insufficient permissions")
	}
}

func loners(t *testing.T, w *world) {
	grants := object{}
	for _, name := range capabilities {
		grants[name] = true
	}
	a, b := w.member(t, "user", 0, grants), w.member(t, "user", 0, grants)
	authority := a.ca(w.unique("loner"), nil).want(http.StatusCreated)
	leaf := a.issue(authority.id(), "loner.example", "server", nil).want(http.StatusCreated)
	equalSlices(t, "own CAs", ids(a.ask("GET", "/api/v1/cas/", nil).list()), []int64{authority.id()})
	equalSlices(t, "own certificates", ids(a.ask("GET", "/api/v1/certificates/", nil).list()), []int64{leaf.id()})
	for _, stranger := range []party{b, w.member(t, "admin", 0, nil), w.member(t, "admin", w.organization(t), nil)} {
		equal(t, "a stranger's CAs", len(stranger.ask("GET", "/api/v1/cas/", nil).list()), 0)
		equal(t, "a stranger's certificates", len(stranger.ask("GET", "/api/v1/certificates/", nil).list()), 0)
		deniedEverything(stranger, authority.id(), leaf.id())
	}
}

// deniedEverything holds that a party may do nothing with a CA and its certificate.
func deniedEverything(p party, authority, certificate int64) {
	p.t.Helper()
	for _, c := range []struct {
		method, path string
		id           int64
	}{
		{"GET", "/api/v1/cas/%d", authority}, {"GET", "/api/v1/cas/%d/chain", authority}, {"GET", "/api/v1/cas/%d/children", authority},
		{"DELETE", "/api/v1/cas/%d", authority}, {"POST", "/api/v1/cas/%d/revoke", authority}, {"GET", "/api/v1/certificates/%d", certificate},
		{"GET", "/api/v1/certificates/%d/private-key", certificate}, {"POST", "/api/v1/certificates/%d/revoke", certificate},
		{"GET", "/api/v1/export/ca/%d/certificate", authority}, {"GET", "/api/v1/export/certificate/%d", certificate},
		{"GET", "/api/v1/export/certificate/%d/private-key", certificate}, {"GET", "/api/v1/export/certificate/%d/chain", certificate},
	} {
		p.ask(c.method, fmt.Sprintf(c.path, c.id), nil).refused(http.StatusForbidden, "Insufficient permissions")
	}
	p.issue(authority, "denied.example", "server", nil).refused(http.StatusForbidden, "Insufficient permissions")
	p.issue(authority, "Denied CA", "ca", nil).refused(http.StatusForbidden, "Insufficient permissions")
	p.sign(authority, csr(p.t, "denied.example"), "server", nil).refused(http.StatusForbidden, "Insufficient permissions")
	p.ca("denied", object{"parent_ca_id": authority}).refused(http.StatusForbidden, "Insufficient permissions")
}

func objectsBelongToTheCA(t *testing.T, w *world) {
	own := w.organization(t)
	admin := w.member(t, "admin", own, nil)
	authority := admin.ca(w.unique("owned"), nil).want(http.StatusCreated)
	expect(t, authority.object(), object{"organization_id": own, "created_by_user_id": admin.id})
	byRoot := w.root(t).issue(authority.id(), "owned.example", "server", nil).want(http.StatusCreated)
	expect(t, byRoot.object(), object{"organization_id": own, "created_by_user_id": 1})
	child := w.root(t).ca(w.unique("owned-child"), object{"parent_ca_id": authority.id()}).want(http.StatusCreated)
	expect(t, child.object(), object{"organization_id": own, "created_by_user_id": 1})
	reader := w.member(t, "user", own, nil)
	reader.ask("GET", fmt.Sprintf("/api/v1/certificates/%d", byRoot.id()), nil).want(http.StatusOK)
	reader.ask("GET", fmt.Sprintf("/api/v1/cas/%d", child.id()), nil).want(http.StatusOK)
}

func otherOrganizationsAreDenied(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	admin := w.member(t, "admin", own, nil)
	authority := admin.ca(w.unique("mine"), nil).want(http.StatusCreated)
	leaf := admin.issue(authority.id(), "mine.example", "server", nil).want(http.StatusCreated)
	grants := object{}
	for _, name := range capabilities {
		grants[name] = true
	}
	for _, stranger := range []party{w.member(t, "admin", other, nil), w.member(t, "user", other, grants), w.member(t, "user", 0, grants)} {
		deniedEverything(stranger, authority.id(), leaf.id())
		equal(t, "list", len(stranger.ask("GET", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority.id()), nil).list()), 0)
	}
}

func capabilitiesGrant(t *testing.T, w *world) {
	organization := w.organization(t)
	admin := w.member(t, "admin", organization, nil)
	authority := admin.ca(w.unique("grants"), object{"path_length": 3}).want(http.StatusCreated).id()
	for _, c := range []struct {
		capability string
		try        func(p party) answer
	}{
		{"can_create_cert", func(p party) answer { return p.issue(authority, "granted.example", "server", nil) }},
		{"can_create_cert", func(p party) answer { return p.sign(authority, csr(t, "granted.example"), "server", nil) }},
		{"can_revoke_cert", func(p party) answer {
			return p.revoke(admin.issue(authority, "granted.example", "server", nil).want(http.StatusCreated).id(), "")
		}},
		{"can_export_private_key", func(p party) answer {
			made := admin.issue(authority, "granted.example", "server", nil).want(http.StatusCreated)
			return p.ask("GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", made.id()), nil)
		}},
		{"can_create_ca", func(p party) answer { return p.issue(authority, w.unique("Granted CA"), "ca", nil) }},
	} {
		others := object{}
		for _, name := range capabilities {
			others[name] = name != c.capability
		}
		c.try(w.member(t, "user", organization, others)).refused(http.StatusForbidden, "Insufficient permissions")
		c.try(w.member(t, "user", organization, object{c.capability: true})).want(http.StatusOK, http.StatusCreated)
		c.try(admin).want(http.StatusOK, http.StatusCreated)
	}
	reader := w.member(t, "user", organization, nil)
	reader.ask("GET", fmt.Sprintf("/api/v1/cas/%d", authority), nil).want(http.StatusOK)
	reader.ca(w.unique("root"), nil).refused(http.StatusForbidden, "Insufficient permissions")
	created := w.member(t, "user", organization, object{"can_create_ca": true}).ca(w.unique("root"), nil).want(http.StatusCreated)
	path := fmt.Sprintf("/api/v1/cas/%d", created.id())
	w.member(t, "user", organization, object{"can_create_ca": true}).ask("DELETE", path, nil).refused(http.StatusForbidden, "Insufficient permissions")
	w.member(t, "user", organization, object{"can_delete_ca": true}).ask("DELETE", path, nil).want(http.StatusNoContent)
}

func TestContractTheVeryFirstUser(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			t.Run("exactly one of 8 parallel first users wins", func(t *testing.T) {
				t.Parallel()
				s := newSite(t, database)
				w := &world{site: s, server: s.start("signet"), database: database}
				statuses := w.nobody(t).atOnce(8, "POST", "/api/v1/users/", func(int) any { return w.account(object{"role": "superuser"}) })
				equalSlices(t, "statuses", statuses, one(8, http.StatusCreated, http.StatusForbidden))
			})
			t.Run("from elsewhere it needs the bootstrap token that the server prints", func(t *testing.T) {
				t.Parallel()
				firstUserFromElsewhere(t, database)
			})
			t.Run("when registration is allowed, anybody becomes a plain user and nothing more", func(t *testing.T) {
				t.Parallel()
				openRegistration(t, database)
			})
		})
	}
}

// firstUserFromElsewhere: a proxy on this machine makes every request come from a loopback address, so a request that
// says it was forwarded does not count as local.
func firstUserFromElsewhere(t *testing.T, database string) {
	s := newSite(t, database)
	w := &world{site: s, server: s.start("signet"), database: database}
	nobody, token := w.nobody(t), bootstrapToken(t, w.server)
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Real-IP"} {
		value := map[string]string{"Forwarded": "for=192.0.2.1"}[name]
		if value == "" {
			value = "192.0.2.1"
		}
		for _, try := range []string{"", "wrong", token + "x", token[:len(token)-1], strings.ToUpper(token)} {
			nobody.ask("POST", "/api/v1/users/", w.account(object{"role": "superuser"}), header(name, value), header("X-Bootstrap-Token", try)).refused(http.StatusForbidden, "")
		}
	}
	// Saying that the first client was this machine does not help either.
	nobody.ask("POST", "/api/v1/users/", w.account(object{"role": "superuser"}), header("X-Forwarded-For", "127.0.0.1")).refused(http.StatusForbidden, "")
	nobody.ask("POST", "/api/v1/users/", w.account(object{"role": "superuser"}), header("X-Forwarded-For", "192.0.2.1"), header("X-Bootstrap-Token", token)).want(http.StatusCreated)
	nobody.ask("POST", "/api/v1/users/", w.account(object{"role": "superuser"}), header("X-Forwarded-For", "192.0.2.1"), header("X-Bootstrap-Token", token)).refused(http.StatusForbidden, "")
}

// bootstrapToken waits for the token that the server prints for the first user.
func bootstrapToken(t *testing.T, server *running) string {
	t.Helper()
	printed := regexp.MustCompile(`X-Bootstrap-Token: ([^'\s]+)'`)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if match := printed.FindStringSubmatch(server.stdout.String()); match != nil {
			return match[1]
		}
	}
	t.Fatal("the server printed no bootstrap token within a minute")
	return ""
}

func openRegistration(t *testing.T, database string) {
	w := newWorld(t, database, "--allow-unauthenticated-registration")
	nobody := w.nobody(t)
	made := nobody.ask("POST", "/api/v1/users/", w.account(nil)).want(http.StatusCreated)
	expect(t, made.object(), object{"role": "user", "organization_id": nil, "can_create_ca": false})
	for _, wish := range []object{{"role": "admin"}, {"role": "superuser"}} {
		nobody.ask("POST", "/api/v1/users/", w.account(wish)).refused(http.StatusForbidden, "")
	}
	for _, wish := range []object{{"organization_id": w.organization(t)}, {"can_create_ca": true}, {"can_export_private_key": true}} {
		a := nobody.ask("POST", "/api/v1/users/", w.account(wish))
		if a.status == http.StatusCreated {
			for name, value := range wish {
				if fmt.Sprint(a.object()[name]) == fmt.Sprint(value) {
					t.Errorf("anybody may take %s: %s", name, a.body)
				}
			}
		}
		a.want(http.StatusCreated, http.StatusForbidden)
	}
}

// A deleted user or organization must be deletable where foreign keys are enforced, and its id must not come back.
func TestContractPostgreSQLKeepsTheAuditTrailOfDeletedObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "postgres")
	p := w.member(t, "user", 0, object{"can_create_ca": true})
	authority := p.ca(w.unique("gone"), nil).want(http.StatusCreated)
	w.root(t).ask("DELETE", fmt.Sprintf("/api/v1/cas/%d", authority.id()), nil).want(http.StatusNoContent)
	w.root(t).ask("DELETE", fmt.Sprintf("/api/v1/users/%d", p.id), nil).want(http.StatusNoContent)
	for _, action := range []string{"ca_create", "ca_delete"} {
		equal(t, action, len(w.root(t).audit("action=%s&resource_id=%d", action, authority.id())), 1)
	}
	dump, err := exec.Command("pg_dump", w.site.url).Output()
	if err != nil || !strings.Contains(string(dump), "ca_delete") {
		t.Errorf("the dump of the database does not have the event: %v", err)
	}
}
