package identity_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"signet/audit"
	"signet/identity"
	"signet/policy"
)

func TestWhoMayDoWhatToAnOrganization(t *testing.T) {
	t.Parallel()
	operations := []func(w *world, c policy.Caller, id int64) error{
		func(w *world, c policy.Caller, id int64) error { _, err := w.Organization(w.ctx, c, id); return err },
		func(w *world, c policy.Caller, id int64) error {
			_, _, err := w.Members(w.ctx, c, id, identity.Page{Limit: 1})
			return err
		},
		func(w *world, c policy.Caller, id int64) error {
			_, err := w.UpdateOrganization(w.ctx, c, id, ptr("Renamed"), nil)
			return err
		},
		func(w *world, c policy.Caller, id int64) error { return w.DeleteOrganization(w.ctx, c, id) },
	}
	for _, row := range []struct{ caller, want string }{
		// get, members, update, delete organization A
		{"nobody", "----"},
		{"userNone", "----"},
		{"userB", "----"},
		{"userA", "++--"},
		{"adminNone", "----"},
		{"adminB", "----"},
		{"adminA", "+++-"},
		{"superNone", "++++"},
		{"superA", "++++"},
		{"server", "++++"},
	} {
		for i, operate := range operations {
			w := populated(t, nil)
			want := insufficient
			switch {
			case row.want[i] == '+' && i == 3:
				want = "invalid: Organization has users"
			case row.want[i] == '+':
				want = granted
			}
			if got := verdict(operate(w, w.caller(row.caller), w.a)); got != want {
				t.Errorf("%s, operation %d: got %q, want %q", row.caller, i, got, want)
			}
			if got := verdict(operate(w, w.caller(row.caller), 99)); got != noOrganization {
				t.Errorf("%s, operation %d on nothing: got %q", row.caller, i, got)
			}
		}
	}
}

func TestWhoMayCreateOrganizations(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	for caller, want := range map[string]string{
		"nobody": insufficient, "userNone": insufficient, "userA": insufficient,
		"adminNone": granted, "adminA": granted, "superNone": granted, "server": granted,
	} {
		o, err := w.CreateOrganization(w.ctx, w.caller(caller), "  of "+caller+" ", ptr("two\nlines"))
		if got := verdict(err); got != want {
			t.Errorf("%s: got %q, want %q", caller, got, want)
		}
		if err != nil {
			continue
		}
		if o.Name != "of "+caller || *o.Description != "two\nlines" {
			t.Errorf("%s created %+v", caller, o)
		}
		if e := w.last(audit.OrgCreate); *e.ResourceID != o.ID || e.ResourceType != audit.ResourceOrganization || e.Username != w.caller(caller).Username {
			t.Errorf("%s: recorded as %+v", caller, e)
		}
	}
	if u := w.user("adminNone"); u.OrganizationID != nil {
		t.Errorf("who created an organization became a member: %+v", u)
	}
	_, err := w.CreateOrganization(w.ctx, w.caller("adminA"), "Organization B", nil)
	wantVerdict(t, err, "invalid: Organization with this name already exists")
}

func TestOrganizationsListsTheOwnOne(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	for caller, want := range map[string]string{
		"nobody": "", "userNone": "", "adminNone": "", "userA": "Organization A", "adminB": "Organization B",
		"superNone": "Organization A, Organization B", "superA": "Organization A, Organization B",
	} {
		list, total, err := w.Organizations(w.ctx, w.caller(caller), identity.Page{Limit: 10})
		var names []string
		for _, o := range list {
			names = append(names, o.Name)
		}
		if got := strings.Join(names, ", "); err != nil || got != want || total != int64(len(list)) {
			t.Errorf("%s sees %q of %d: %v", caller, got, total, err)
		}
	}
}

func TestUpdateOrganizationChangesWhatIsGiven(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	admin := w.caller("adminA")
	o, err := w.UpdateOrganization(w.ctx, admin, w.a, nil, ptr("the first"))
	if err != nil || o.Name != "Organization A" || *o.Description != "the first" {
		t.Errorf("got %+v, %v", o, err)
	}
	o, err = w.UpdateOrganization(w.ctx, admin, w.a, ptr(" Zürich "), nil)
	if err != nil || o.Name != "Zürich" || *o.Description != "the first" {
		t.Errorf("got %+v, %v", o, err)
	}
	e := w.last(audit.OrgUpdate)
	if *e.OrganizationID != w.a || *e.ResourceID != w.a || *e.UserID != admin.UserID || e.Detail != "changed name to Zürich" {
		t.Errorf("recorded as %+v", e)
	}
	before := len(w.trail(""))
	if _, err := w.UpdateOrganization(w.ctx, admin, w.a, ptr("Zürich"), ptr("the first")); err != nil || len(w.trail("")) != before {
		t.Errorf("a change of nothing is recorded: %v", err)
	}
	_, err = w.UpdateOrganization(w.ctx, admin, w.a, ptr("Organization B"), nil)
	wantVerdict(t, err, "invalid: Organization with this name already exists")
}

func TestDeleteOrganizationIsRecorded(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	id := w.organization("Empty")
	wantVerdict(t, w.DeleteOrganization(w.ctx, w.caller("superNone"), id), granted)
	if e := w.last(audit.OrgDelete); *e.ResourceID != id || *e.OrganizationID != id || e.Detail != "Empty" {
		t.Errorf("recorded as %+v", e)
	}
	wantVerdict(t, w.DeleteOrganization(w.ctx, w.caller("superNone"), id), noOrganization)
}

func TestMalformedOrganizations(t *testing.T) {
	t.Parallel()
	const control = "name value_error Value error, a name must not contain control characters"
	w := populated(t, nil)
	for _, tt := range []struct {
		name, text  string
		description *string
		want        string
	}{
		{"no name", "", nil, "name string_too_short String should have at least 1 character"},
		{"a name of spaces", " \u00a0\t ", nil, "name string_too_short String should have at least 1 character"},
		{"256 characters", strings.Repeat("ö", 256), nil, "name string_too_long String should have at most 255 characters"},
		{"a NUL", "Evil\x00", nil, control},
		{"a line break", "Evil\nInc", nil, control},
		{"not UTF-8", "Evil\xff", nil, control},
		{"a NUL in the description", "Good", ptr("\x00"), "description value_error Value error, a description must not contain control characters"},
		{"a description that is not UTF-8", "Good", ptr("\xff"), "description value_error Value error, a description must not contain control characters"},
	} {
		_, err := w.CreateOrganization(w.ctx, w.caller("superNone"), tt.text, tt.description)
		if got := problems(err); got != tt.want {
			t.Errorf("create with %s: got %q, want %q", tt.name, got, tt.want)
		}
		_, err = w.UpdateOrganization(w.ctx, w.caller("superNone"), w.a, &tt.text, tt.description)
		if got := problems(err); got != tt.want {
			t.Errorf("update with %s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestWhoMayTakeInWhom(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ caller, want string }{
		// into organization A:
		// superNone superA adminA adminA2A adminB adminNone userA userA2A userB userNone
		{"nobody", "----------"},
		{"userNone", "----------"}, // not even themselves
		{"userA", "----------"},
		{"adminNone", "----------"},
		{"adminB", "----------"}, // not even away from their own
		{"adminA", "-+++--++-+"},
		{"superNone", "++++++++++"},
		{"superA", "++++++++++"},
		{"server", "++++++++++"},
	} {
		w := populated(t, nil)
		for i, target := range everybody {
			want := insufficient
			if row.want[i] == '+' {
				want = granted
			}
			before, entries := w.user(target), len(w.trail(""))
			u, err := w.AddMember(w.ctx, w.caller(row.caller), w.a, before.ID)
			if got := verdict(err); got != want {
				t.Errorf("%s takes in %s: got %q", row.caller, target, got)
			}
			switch after := w.user(target); {
			case want == insufficient, before.OrganizationID != nil && *before.OrganizationID == w.a:
				if after != before || len(w.trail("")) != entries {
					t.Errorf("%s takes in %s: the account became %+v", row.caller, target, after)
				}
			default:
				e := w.last(audit.OrgAddUser)
				if *u.OrganizationID != w.a || *e.OrganizationID != w.a || *e.ResourceID != w.a || !strings.HasPrefix(e.Detail, target+" (user ") {
					t.Errorf("%s takes in %s: %+v, recorded as %+v", row.caller, target, u, e)
				}
			}
		}
		_, err := w.AddMember(w.ctx, w.caller(row.caller), w.a, 1<<40)
		wantVerdict(t, err, noUser)
		_, err = w.AddMember(w.ctx, w.caller(row.caller), 99, w.cast["userNone"].ID)
		wantVerdict(t, err, noOrganization)
	}
}

func TestWhoMayRemoveWhom(t *testing.T) {
	t.Parallel()
	const noMember = "not_found: User not found in organization"
	for _, row := range []struct{ caller, want string }{
		// from organization A; n: no member
		// superNone superA adminA adminA2A adminB adminNone userA userA2A userB userNone
		{"nobody", "----------"},
		{"userNone", "----------"},
		{"userA", "----------"}, // not even themselves
		{"adminNone", "----------"},
		{"adminB", "----------"},
		{"adminA", "n---nn++nn"},
		{"superNone", "n+++nn++nn"},
		{"superA", "n+++nn++nn"},
		{"server", "n+++nn++nn"},
	} {
		w := populated(t, nil)
		for i, target := range everybody {
			want := map[byte]string{'-': insufficient, 'n': noMember, '+': granted}[row.want[i]]
			before := w.user(target)
			u, err := w.RemoveMember(w.ctx, w.caller(row.caller), w.a, before.ID)
			if got := verdict(err); got != want {
				t.Errorf("%s removes %s: got %q, want %q", row.caller, target, got, want)
			}
			if err != nil {
				if after := w.user(target); after != before {
					t.Errorf("%s removes %s: the account became %+v", row.caller, target, after)
				}
				continue
			}
			if e := w.last(audit.OrgRemoveUser); u.OrganizationID != nil || *e.OrganizationID != w.a || *e.ResourceID != w.a {
				t.Errorf("%s removes %s: %+v, recorded as %+v", row.caller, target, u, e)
			}
		}
		_, err := w.RemoveMember(w.ctx, w.caller(row.caller), w.a, 1<<40)
		wantVerdict(t, err, noUser)
		_, err = w.RemoveMember(w.ctx, w.caller(row.caller), 99, w.cast["userNone"].ID)
		wantVerdict(t, err, noOrganization)
	}
}

func TestAnAdminDoesNotTakeInWhoCreatedObjectsElsewhere(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	w.store.Created(w.cast["userNone"].ID, w.a)
	w.store.Created(w.cast["user2None"].ID, 0)
	for _, target := range []string{"userNone", "user2None"} {
		before, entries := w.user(target), len(w.trail(""))
		_, err := w.AddMember(w.ctx, w.caller("adminB"), w.b, before.ID)
		wantVerdict(t, err, insufficient)
		if after := w.user(target); after != before || len(w.trail("")) != entries {
			t.Errorf("%s became %+v", target, after)
		}
	}
	_, err := w.AddMember(w.ctx, w.caller("adminA"), w.a, w.cast["userNone"].ID)
	wantVerdict(t, err, granted) // back to where it is theirs already
	for _, target := range []string{"userNone", "user2None"} {
		_, err := w.AddMember(w.ctx, w.caller("superNone"), w.b, w.cast[target].ID)
		wantVerdict(t, err, granted)
	}
}

func TestWhatWasGivenForAMembershipEndsWithIt(t *testing.T) {
	t.Parallel()
	for _, caller := range []string{"adminA", "superNone"} {
		w := populated(t, nil)
		for target, p := range map[string]identity.UserPatch{
			"userA":   {CreateCA: ptr(true), CreateCert: ptr(true), RevokeCert: ptr(true), ExportPrivateKey: ptr(true), DeleteCA: ptr(true)},
			"userA2A": {},
		} {
			id := w.cast[target].ID
			if _, err := w.UpdateUser(w.ctx, w.caller("adminA"), id, p); err != nil {
				t.Fatal(err)
			}
			u, err := w.RemoveMember(w.ctx, w.caller(caller), w.a, id)
			wantVerdict(t, err, granted)
			if u.Capabilities != (policy.Capabilities{}) || u != w.user(target) {
				t.Errorf("%s removed by %s: %+v", target, caller, u)
			}
			want := fmt.Sprintf("%s (user %d)", target, id)
			if target == "userA" {
				want += ", capabilities withdrawn"
			}
			if e := w.last(audit.OrgRemoveUser); e.Detail != want {
				t.Errorf("recorded as %q, want %q", e.Detail, want)
			}
		}
	}
}

func TestOfTwoAdminsWhoTakeInOneUserOneWins(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	var wg sync.WaitGroup
	verdicts := make([]string, 2)
	for i, admin := range []string{"adminA", "adminB"} {
		wg.Go(func() {
			c := w.caller(admin)
			_, err := w.AddMember(w.ctx, c, *c.OrganizationID, w.cast["userNone"].ID)
			verdicts[i] = verdict(err)
		})
	}
	wg.Wait()
	if (verdicts[0] == granted) == (verdicts[1] == granted) {
		t.Errorf("got %q", verdicts)
	}
}

func TestMembersListsTheUsersOfOneOrganization(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	users, total, err := w.Members(w.ctx, w.caller("userB"), w.b, identity.Page{Limit: 10})
	if err != nil || total != 2 || len(users) != 2 || users[0].Username != "adminB" || users[1].Username != "userB" {
		t.Errorf("got %+v, %d, %v", users, total, err)
	}
}
