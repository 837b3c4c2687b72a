package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"
)

func TestContractAuditTrail(t *testing.T) {
	t.Parallel()
	holdContract(t, []sentence{
		{"every change leaves its event, with who, what and from where", changesLeaveEvents},
		{"logins, failed ones included, and logouts leave their events", sessionsLeaveEvents},
		{"the server's own signatures leave their events", serverLeavesEvents},
		{"a refused change leaves no event of a change", refusalsLeaveNoChange},
		{"filters: action, user_id, resource_type, resource_id, since, until", auditFilters},
		{"newest first, limit 1 to 1000 with default 100, skip and a cursor", auditPages},
		{"a superuser reads everything, an admin the own organization, a user nothing", auditVisibility},
	})
}

func changesLeaveEvents(t *testing.T, w *world) {
	root, organization := w.root(t), w.organization(t)
	p := w.member(t, "superuser", organization, nil)
	path := func(format string, args ...any) string { return "/api/v1/" + fmt.Sprintf(format, args...) }
	other := w.member(t, "user", 0, nil)
	parent := p.ca(w.unique("events"), nil).want(http.StatusCreated)
	child := p.ca(w.unique("events"), object{"parent_ca_id": parent.id()}).want(http.StatusCreated)
	leaf := p.issue(child.id(), "events.example", "server", nil).want(http.StatusCreated)
	made := p.ask("POST", "/api/v1/organizations/", object{"name": w.unique("events")}).want(http.StatusCreated)
	user := p.ask("POST", "/api/v1/users/", w.account(nil)).want(http.StatusCreated)
	for _, c := range []struct {
		action, resource string
		id               int64
		do               func() answer // nil: done above
		status           int
	}{
		{"ca_create", "ca", parent.id(), nil, 0},
		{"ca_create", "ca", child.id(), nil, 0},
		{"ca_reserve", "ca", child.id(), nil, 0},
		{"cert_create", "certificate", leaf.id(), nil, 0},
		{"cert_reserve", "certificate", leaf.id(), nil, 0},
		{"org_create", "organization", made.id(), nil, 0},
		{"user_create", "user", user.id(), nil, 0},
		{"cert_export_private_key", "certificate", leaf.id(), func() answer { return p.ask("GET", path("certificates/%d/private-key", leaf.id()), nil) }, 200},
		{"cert_revoke", "certificate", leaf.id(), func() answer { return p.revoke(leaf.id(), "") }, 200},
		{"ca_revoke", "ca", child.id(), func() answer { return p.ask("POST", path("cas/%d/revoke", child.id()), nil) }, 200},
		{"ca_delete", "ca", child.id(), func() answer { return p.ask("DELETE", path("cas/%d", child.id()), nil) }, 204},
		{"ca_export_private_key", "ca", parent.id(), func() answer { return p.ask("GET", path("cas/%d/private-key", parent.id()), nil) }, 403},
		{"user_update", "user", other.id, func() answer { return p.ask("PATCH", path("users/%d", other.id), object{"can_create_ca": true}) }, 200},
		{"org_add_user", "organization", made.id(), func() answer { return p.ask("POST", path("organizations/%d/users/%d", made.id(), other.id), nil) }, 200},
		{"org_remove_user", "organization", made.id(), func() answer { return p.ask("DELETE", path("organizations/%d/users/%d", made.id(), other.id), nil) }, 200},
		{"org_update", "organization", made.id(), func() answer { return p.ask("PUT", path("organizations/%d", made.id()), object{"description": "x"}) }, 200},
		{"org_delete", "organization", made.id(), func() answer { return p.ask("DELETE", path("organizations/%d", made.id()), nil) }, 204},
		{"user_delete", "user", other.id, func() answer { return p.ask("DELETE", path("users/%d", other.id), nil) }, 204},
		{"login_success", "user", p.id, nil, 0},
		{"token_refresh", "user", p.id, func() answer { return p.ask("POST", path("auth/refresh"), object{"refresh_token": p.refresh}) }, 200},
		{"sessions_invalidate", "user", p.id, func() answer { return p.ask("POST", path("auth/invalidate"), nil) }, 204},
	} {
		query := fmt.Sprintf("action=%s&resource_type=%s&resource_id=%d", c.action, c.resource, c.id)
		before := 0
		if c.do != nil {
			before = len(root.audit("%s", query))
			c.do().want(c.status)
		}
		entries := root.audit("%s", query)
		if c.do == nil && len(entries) == 0 || c.do != nil && len(entries) != before+1 {
			t.Errorf("%s: %d entries, before %d", c.action, len(entries), before)
			continue
		}
		expect(t, entries[0], object{"action": c.action, "user_id": p.id, "username": p.name, "resource_type": c.resource, "resource_id": c.id, "remote_addr": "127.0.0.1"})
		if request, _ := entries[0]["request_id"].(string); request == "" {
			t.Errorf("%s: no request id", c.action)
		}
	}
}

func sessionsLeaveEvents(t *testing.T, w *world) {
	root, organization := w.root(t), w.organization(t)
	loggingOut := w.member(t, "user", organization, nil)
	loggingOut.ask("POST", "/api/v1/auth/token", url.Values{"username": {loggingOut.name}, "password": {"wrong"}}).want(http.StatusUnauthorized)
	loggingOut.ask("POST", "/api/v1/auth/logout", object{"refresh_token": loggingOut.refresh}).want(http.StatusNoContent)
	for _, action := range []string{"login_failure", "logout"} {
		entries := root.audit("action=%s&user_id=%d", action, loggingOut.id)
		if len(entries) != 1 {
			t.Errorf("%s: %d entries", action, len(entries))
			continue
		}
		expect(t, entries[0], object{"username": loggingOut.name, "organization_id": organization})
	}
	name := w.unique("stranger")
	loggingOut.ask("POST", "/api/v1/auth/token", url.Values{"username": {name}, "password": {"wrong"}}).want(http.StatusUnauthorized)
	if !slices.ContainsFunc(root.audit("action=login_failure"), func(e object) bool { return e["username"] == name && e["user_id"] == nil }) {
		t.Error("the failed login of a name that nobody has is not in the trail")
	}
}

func serverLeavesEvents(t *testing.T, w *world) {
	root := w.root(t)
	authority := root.ca(w.unique("events"), nil).want(http.StatusCreated)
	if !slices.ContainsFunc(root.audit("action=crl_publish&resource_id=%d", authority.id()), func(e object) bool { return e["user_id"] == nil }) {
		t.Error("the server's own signature of a CRL is not in the trail")
	}
}

func refusalsLeaveNoChange(t *testing.T, w *world) {
	organization := w.organization(t)
	admin, p := w.member(t, "admin", organization, nil), w.member(t, "user", organization, nil)
	authority := admin.ca(w.unique("refusals"), nil).want(http.StatusCreated)
	leaf := admin.issue(authority.id(), "refusals.example", "server", nil).want(http.StatusCreated).id()
	p.revoke(leaf, "").want(http.StatusForbidden)
	p.ask("DELETE", fmt.Sprintf("/api/v1/cas/%d", authority.id()), nil).want(http.StatusForbidden)
	p.issue(authority.id(), "x.example", "server", nil).want(http.StatusForbidden)
	p.issue(999999, "x.example", "server", nil).want(http.StatusNotFound)
	admin.issue(authority.id(), "x.example", "server", object{"valid_days": 36501}).want(http.StatusBadRequest, http.StatusUnprocessableEntity)
	p.ask("PATCH", fmt.Sprintf("/api/v1/users/%d", p.id), object{"role": "admin"}).want(http.StatusForbidden)
	for _, e := range w.root(t).audit("user_id=%d", p.id) {
		if e["action"] != "login_success" {
			t.Errorf("a refused user has the event %v", e)
		}
	}
	equal(t, "certificates that were announced", len(w.root(t).audit("action=cert_reserve&user_id=%d", admin.id)), 1)
}

func auditFilters(t *testing.T, w *world) {
	root := w.root(t)
	p := w.member(t, "admin", w.organization(t), nil)
	start := time.Now().UTC()
	first := p.ca(w.unique("filter"), nil).want(http.StatusCreated).id()
	time.Sleep(1100 * time.Millisecond) // since and until may have the precision of a second
	middle := time.Now().UTC()
	second := p.ca(w.unique("filter"), nil).want(http.StatusCreated).id()
	of := func(query string, args ...any) []int64 {
		var all []int64
		for _, e := range root.audit("action=ca_create&user_id=%d&%s", p.id, fmt.Sprintf(query, args...)) {
			all = append(all, int64(e["resource_id"].(float64)))
		}
		return all
	}
	stamp := func(at time.Time) string { return at.Format(time.RFC3339Nano) }
	equalSlices(t, "both", of(""), []int64{second, first})
	equalSlices(t, "resource_id", of("resource_id=%d", first), []int64{first})
	equalSlices(t, "resource_type", of("resource_type=ca"), []int64{second, first})
	equalSlices(t, "another resource_type", of("resource_type=certificate"), nil)
	equalSlices(t, "since", of("since=%s", stamp(middle)), []int64{second})
	equalSlices(t, "until", of("until=%s", stamp(middle)), []int64{first})
	equalSlices(t, "since and until", of("since=%s&until=%s", stamp(start.Add(-time.Hour)), stamp(start.Add(-time.Minute))), nil)
	equalSlices(t, "since in another zone", of("since=%s", url.QueryEscape(middle.In(time.FixedZone("", 2*3600)).Format(time.RFC3339Nano))), []int64{second})
	equalSlices(t, "another user", ids(root.audit("action=ca_create&user_id=999999")), nil)
	for _, e := range root.audit("user_id=%d", p.id) {
		expect(t, e, object{"user_id": p.id})
	}
}

func auditPages(t *testing.T, w *world) {
	root, p := w.root(t), w.member(t, "superuser", 0, nil)
	var names []string
	for range 130 {
		name := w.unique("page")
		p.ask("POST", "/api/v1/organizations/", object{"name": name}).want(http.StatusCreated)
		names = append([]string{name}, names...)
	}
	query := fmt.Sprintf("action=org_create&user_id=%d", p.id)
	details := func(list []object) []string {
		var all []string
		for _, e := range list {
			all = append(all, fmt.Sprint(e["detail"]))
		}
		return all
	}
	first := root.ask("GET", "/api/v1/audit-logs/?"+query, nil)
	equalSlices(t, "default page", details(first.list()), names[:100])
	equal(t, "X-Total-Count", first.header.Get("X-Total-Count"), "130")
	match := nextPage.FindStringSubmatch(first.header.Get("Link"))
	if match == nil {
		t.Fatalf("Link: %q", first.header.Get("Link"))
	}
	next, err := url.Parse(match[1])
	if err != nil {
		t.Fatal(err)
	}
	second := root.ask("GET", next.RequestURI(), nil)
	equalSlices(t, "next page", details(second.list()), names[100:])
	equal(t, "Link of the last page", second.header.Get("Link"), "")
	equalSlices(t, "skip and limit", details(root.audit("%s&skip=5&limit=3", query)), names[5:8])
	equalSlices(t, "limit 1000", details(root.audit("%s&limit=1000", query)), names)
	all := ids(root.audit("%s&limit=1000", query))
	slices.Reverse(all)
	equal(t, "ids descend", slices.IsSorted(all), true)
}

func auditVisibility(t *testing.T, w *world) {
	own, other := w.organization(t), w.organization(t)
	admin, stranger, loner := w.member(t, "admin", own, nil), w.member(t, "admin", other, nil), w.member(t, "admin", 0, nil)
	authority := admin.ca(w.unique("seen"), nil).want(http.StatusCreated).id()
	rootLeaf := w.root(t).issue(authority, "seen.example", "server", nil).want(http.StatusCreated).id()
	theirs := stranger.ca(w.unique("unseen"), nil).want(http.StatusCreated).id()
	for _, e := range admin.audit("limit=1000") {
		if e["organization_id"] == nil || int64(e["organization_id"].(float64)) != own {
			t.Errorf("an admin reads an event of another organization: %v", e)
		}
	}
	equal(t, "what a superuser did to the organization's CA", len(admin.audit("action=cert_create&resource_id=%d", rootLeaf)), 1)
	for _, p := range []party{stranger, loner} {
		equal(t, "events of another organization", len(p.audit("resource_type=ca&resource_id=%d", authority)), 0)
		equal(t, "events of another user", len(p.audit("user_id=%d", admin.id)), 0)
	}
	equal(t, "total", admin.ask("GET", fmt.Sprintf("/api/v1/audit-logs/?resource_type=ca&resource_id=%d", theirs), nil).header.Get("X-Total-Count"), "0")
	for _, p := range []party{w.member(t, "user", own, nil), w.member(t, "user", 0, object{"can_create_ca": true})} {
		p.ask("GET", "/api/v1/audit-logs/", nil).refused(http.StatusForbidden, "Insufficient permissions")
	}
	equal(t, "a superuser reads both", len(w.root(t).audit("action=ca_create&resource_id=%d", authority))+len(w.root(t).audit("action=ca_create&resource_id=%d", theirs)), 2)
}
