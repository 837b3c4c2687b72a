package identity_test

import (
	"cmp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"signet/audit"
	"signet/fault"
	"signet/identity"
	"signet/policy"
)

// everybody is the targets of the permission matrices, in the order of their columns.
var everybody = []string{"superNone", "superA", "adminA", "adminA2A", "adminB", "adminNone", "userA", "userA2A", "userB", "userNone"}

func TestWhoMaySeeWhom(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	for _, row := range []struct{ caller, want string }{
		// superNone superA adminA adminA2A adminB adminNone userA userA2A userB userNone
		{"nobody", "----------"},
		{"userNone", "---------+"},
		{"user2None", "----------"},
		{"userA", "------+---"},
		{"userB", "--------+-"},
		{"adminNone", "-----+----"},
		{"adminA", "-+++--++--"},
		{"adminB", "----+---+-"},
		{"superA", "++++++++++"},
		{"superNone", "++++++++++"},
		{"server", "++++++++++"},
	} {
		for i, target := range everybody {
			want := insufficient
			if row.want[i] == '+' {
				want = granted
			}
			u, err := w.User(w.ctx, w.caller(row.caller), w.cast[target].ID)
			if got := verdict(err); got != want || (u.ID == 0) != (err != nil) {
				t.Errorf("%s sees %s: got %q (user %d)", row.caller, target, got, u.ID)
			}
		}
		_, err := w.User(w.ctx, w.caller(row.caller), 1<<40)
		wantVerdict(t, err, noUser)
	}
}

func TestOnlySuperusersListUsers(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	for _, name := range []string{"nobody", "userA", "userNone", "adminA", "adminNone"} {
		users, total, err := w.Users(w.ctx, w.caller(name), identity.Page{Limit: 100})
		wantVerdict(t, err, insufficient)
		if users != nil || total != 0 {
			t.Errorf("%s sees %d of %d users", name, len(users), total)
		}
	}
	users, total, err := w.Users(w.ctx, w.caller("superA"), identity.Page{Skip: 1, Limit: 3})
	if err != nil || len(users) != 3 || total != int64(len(w.cast)) {
		t.Errorf("a superuser sees %d of %d users: %v", len(users), total, err)
	}
}

// patches are the things one can ask of an account. None changes more than the password.
func (w *world) patches(target identity.User) map[byte][]identity.UserPatch {
	c := target.Capabilities
	return map[byte][]identity.UserPatch{
		'e': {{Email: ptr(target.Email)}},
		'p': {{Password: ptr(password)}},
		'c': {{CreateCA: &c.CreateCA}, {CreateCert: &c.CreateCert}, {RevokeCert: &c.RevokeCert},
			{ExportPrivateKey: &c.ExportPrivateKey}, {DeleteCA: &c.DeleteCA}},
		's': {{Role: &target.Role}, {Active: ptr(true)}, {OrganizationID: cmp.Or(target.OrganizationID, &w.a)}},
	}
}

func TestWhoMayPatchWhatOfWhom(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	// e: e-mail address, p: password, c: each capability, s: standing (role, is_active, organization_id)
	for _, row := range []struct{ caller, want string }{
		// superNone superA adminA adminA2A adminB adminNone userA userA2A userB userNone
		{"nobody", "- - - - - - - - - -"},
		{"userNone", "- - - - - - - - - ep"},
		{"user2None", "- - - - - - - - - -"},
		{"userA", "- - - - - - ep - - -"},
		{"adminNone", "- - - - - ep - - - -"},
		{"adminA", "- - ep - - - epc epc - -"},
		{"adminB", "- - - - ep - - - epc -"},
		{"superA", "epcs epcs epcs epcs epcs epcs epcs epcs epcs epcs"},
		{"superNone", "epcs epcs epcs epcs epcs epcs epcs epcs epcs epcs"},
		{"server", "epcs epcs epcs epcs epcs epcs epcs epcs epcs epcs"},
	} {
		cells := strings.Fields(row.want)
		for i, target := range everybody {
			for letter, patches := range w.patches(w.cast[target]) {
				want := insufficient
				if strings.ContainsRune(cells[i], rune(letter)) {
					want = granted
				}
				for _, p := range patches {
					_, err := w.UpdateUser(w.ctx, w.caller(row.caller), w.cast[target].ID, p)
					if got := verdict(err); got != want {
						t.Errorf("%s patches %c of %s: got %q", row.caller, letter, target, got)
					}
					_, err = w.UpdateUser(w.ctx, w.caller(row.caller), 1<<40, p)
					wantVerdict(t, err, noUser)
				}
			}
		}
	}
}

func TestAPatchIsGrantedAsAWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	for name, p := range map[string]identity.UserPatch{
		"role":       {Email: ptr("x@example.org"), Role: ptr(policy.RoleSuperuser)},
		"activity":   {Password: ptr(newPassword), Active: ptr(true)},
		"membership": {Email: ptr("x@example.org"), OrganizationID: &w.b},
		"capability": {Email: ptr("x@example.org"), CreateCA: ptr(true)},
	} {
		before := w.user("adminA")
		_, err := w.UpdateUser(w.ctx, w.caller("adminA"), before.ID, p)
		wantVerdict(t, err, insufficient)
		if after := w.user("adminA"); after != before {
			t.Errorf("%s: the account became %+v", name, after)
		}
	}
}

func TestPatchStoresWhatItNames(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	u, err := w.UpdateUser(w.ctx, w.caller("superNone"), w.cast["userA"].ID, identity.UserPatch{
		Email: ptr("ada@example.org"), Password: ptr(newPassword), Role: ptr(policy.RoleAdmin), Active: ptr(false),
		OrganizationID: &w.b, CreateCA: ptr(true), CreateCert: ptr(true), RevokeCert: ptr(true),
		ExportPrivateKey: ptr(true), DeleteCA: ptr(true),
	})
	if err != nil {
		t.Fatal(err)
	}
	all := policy.Capabilities{CreateCA: true, CreateCert: true, RevokeCert: true, ExportPrivateKey: true, DeleteCA: true}
	if u.Email != "ada@example.org" || u.Role != policy.RoleAdmin || u.Active || *u.OrganizationID != w.b || u.Capabilities != all || u.TokenEpoch != 1 {
		t.Errorf("stored %+v", u)
	}
	if bcrypt.CompareHashAndPassword([]byte(u.PasswordHash), []byte(newPassword)) != nil {
		t.Error("the password is not the new one")
	}
	e := w.last(audit.UserUpdate)
	want := "changed email, password, role to admin, is_active to false, organization_id to 2, can_create_ca to true, " +
		"can_create_cert to true, can_revoke_cert to true, can_export_private_key to true, can_delete_ca to true"
	if e.Detail != want || *e.UserID != w.cast["superNone"].ID || *e.ResourceID != u.ID || *e.OrganizationID != w.b {
		t.Errorf("recorded as %+v", e)
	}

	u, err = w.UpdateUser(w.ctx, w.caller("superNone"), u.ID, identity.UserPatch{OrganizationID: &w.a, DeleteCA: ptr(false)})
	if err != nil {
		t.Fatal(err)
	}
	all.DeleteCA = false // a move alone withdraws nothing
	if *u.OrganizationID != w.a || u.Capabilities != all || u.TokenEpoch != 1 {
		t.Errorf("stored %+v", u)
	}
	if e := w.last(audit.UserUpdate); e.Detail != "changed organization_id to 1, can_delete_ca to false" || *e.OrganizationID != w.a {
		t.Errorf("recorded as %+v", e)
	}
}

func TestAnAdminDoesNotTakeOverWhoCreatedObjectsElsewhere(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []string{"in another organization", "in no organization"} {
		w := populated(t, nil)
		u := w.cast["userA"]
		w.store.Created(u.ID, w.a)
		w.store.Created(w.cast["userB"].ID, w.b)
		_, err := w.UpdateUser(w.ctx, w.caller("adminA"), u.ID, identity.UserPatch{Email: ptr("first@example.org")})
		wantVerdict(t, err, granted)

		w.store.Created(u.ID, map[string]int64{"in another organization": w.b}[elsewhere])
		for _, p := range []identity.UserPatch{
			{Password: ptr(newPassword)}, {Email: ptr("taken@example.org")}, {Password: ptr(newPassword), CreateCA: ptr(true)},
		} {
			before := w.user("userA")
			_, err := w.UpdateUser(w.ctx, w.caller("adminA"), u.ID, p)
			wantVerdict(t, err, insufficient)
			if after := w.user("userA"); after != before {
				t.Errorf("%s: the account became %+v", elsewhere, after)
			}
		}
		for caller, p := range map[string]identity.UserPatch{
			"adminA": {CreateCA: ptr(true)}, "userA": {Email: ptr("ada@example.org"), Password: ptr(newPassword)},
			"superNone": {Email: ptr("again@example.org"), Password: ptr(password)}, "server": {Password: ptr(newPassword)},
		} {
			_, err := w.UpdateUser(w.ctx, w.caller(caller), u.ID, p)
			if got := verdict(err); got != granted {
				t.Errorf("%s: %s patches: %s", elsewhere, caller, got)
			}
		}
	}
}

func TestATakeOverIsJudgedAgainWhenTheTargetHasCreatedSomethingMeanwhile(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	w.meanwhile("UpdateUser", func() {
		u := w.user("userA")
		w.store.Created(u.ID, w.b)
		if _, err := w.store.UpdateUser(w.ctx, u, audit.Event{}); err != nil {
			t.Error(err)
		}
	})
	_, err := w.UpdateUser(w.ctx, w.caller("adminA"), w.cast["userA"].ID, identity.UserPatch{Password: ptr(newPassword)})
	wantVerdict(t, err, insufficient)
	w.login("userA", password)
}

func TestATakeOverIsRefusedWhenNobodyKnowsWhatTheTargetCreated(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	w.away("CreatedOutside")
	_, err := w.UpdateUser(w.ctx, w.caller("adminA"), w.cast["userA"].ID, identity.UserPatch{Password: ptr(newPassword)})
	wantVerdict(t, err, verdict(errAway))
	_, err = w.AddMember(w.ctx, w.caller("adminA"), w.a, w.cast["userNone"].ID)
	wantVerdict(t, err, verdict(errAway))
	w.login("userA", password)
	if u := w.user("userNone"); u.OrganizationID != nil {
		t.Errorf("the account became %+v", u)
	}
}

func TestAPatchThatChangesNothingIsNotRecorded(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	u, before := w.cast["userA"], len(w.trail(""))
	got, err := w.UpdateUser(w.ctx, w.caller("superNone"), u.ID, identity.UserPatch{
		Email: &u.Email, Role: &u.Role, Active: &u.Active, OrganizationID: &w.a, CreateCA: ptr(false)})
	if err != nil || got != u || len(w.trail("")) != before {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPatchRefuses(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	const own = "invalid: Superusers cannot demote or deactivate their own account"
	tests := []struct {
		name, caller, target string
		patch                identity.UserPatch
		want                 string
	}{
		{"a superuser demotes the own account", "superNone", "superNone", identity.UserPatch{Role: ptr(policy.RoleAdmin)}, own},
		{"a superuser deactivates the own account", "superA", "superA", identity.UserPatch{Active: ptr(false)}, own},
		{"a taken address", "superNone", "userA", identity.UserPatch{Email: ptr("userB@example.org")}, "invalid: Email already registered"},
		{"an unknown organization", "superNone", "userA", identity.UserPatch{OrganizationID: ptr(int64(99))}, noOrganization},
		{"an unknown organization, by somebody who may not", "userA", "userA", identity.UserPatch{OrganizationID: ptr(int64(99))}, noOrganization},
		{"a malformed address", "userA", "userA", identity.UserPatch{Email: ptr("ada")}, malformed},
		{"a short password", "userA", "userA", identity.UserPatch{Password: ptr("1234567")}, malformed},
		{"a long password", "userA", "userA", identity.UserPatch{Password: ptr(strings.Repeat("p", 73))}, malformed},
		{"an unknown role", "superNone", "userA", identity.UserPatch{Role: ptr(policy.Role(""))}, malformed},
	}
	for _, tt := range tests {
		before := w.user(tt.target)
		_, err := w.UpdateUser(w.ctx, w.caller(tt.caller), before.ID, tt.patch)
		if got := verdict(err); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		shown(problems(err))
		if after := w.user(tt.target); after != before {
			t.Errorf("%s: the account became %+v", tt.name, after)
		}
	}
	keepSecret(strings.Repeat("p", 73))
}

func TestSuperusersMayDemoteEachOther(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	u, err := w.UpdateUser(w.ctx, w.caller("superNone"), w.cast["superA"].ID, identity.UserPatch{Role: ptr(policy.RoleUser)})
	if err != nil || u.Role != policy.RoleUser {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestAPatchIsTriedAgainOnAFreshRead(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	w.meanwhile("UpdateUser", func() {
		u := w.user("userA")
		u.Capabilities.CreateCA = true
		if _, err := w.store.UpdateUser(w.ctx, u, audit.Event{}); err != nil {
			t.Error(err)
		}
	})
	u, err := w.UpdateUser(w.ctx, w.caller("userA"), w.cast["userA"].ID, identity.UserPatch{Email: ptr("ada@example.org")})
	if err != nil || u.Email != "ada@example.org" || !u.Capabilities.CreateCA {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestAPatchIsJudgedAgainWhenTheTargetHasRisenMeanwhile(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	w.meanwhile("UpdateUser", func() {
		u := w.user("userA")
		u.Role = policy.RoleSuperuser
		if _, err := w.store.UpdateUser(w.ctx, u, audit.Event{}); err != nil {
			t.Error(err)
		}
	})
	_, err := w.UpdateUser(w.ctx, w.caller("adminA"), w.cast["userA"].ID, identity.UserPatch{Password: ptr(newPassword)})
	wantVerdict(t, err, insufficient)
	w.login("userA", password)
}

func TestAPatchGivesUpWhenTheRowNeverRests(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	tries := 0
	w.store.Fail = func(method string) error {
		if method != "UpdateUser" {
			return nil
		}
		tries++
		return fault.New(fault.Conflict, "User was changed by someone else")
	}
	_, err := w.UpdateUser(w.ctx, w.caller("userA"), w.cast["userA"].ID, identity.UserPatch{Email: ptr("ada@example.org")})
	wantVerdict(t, err, "conflict: User was changed by someone else")
	if tries < 2 || tries > 100 {
		t.Errorf("tried %d times", tries)
	}
}

func TestParallelPatchesAllTakeEffect(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	yes := ptr(true)
	var wg sync.WaitGroup
	for _, p := range []identity.UserPatch{
		{CreateCA: yes}, {CreateCert: yes}, {RevokeCert: yes}, {ExportPrivateKey: yes}, {DeleteCA: yes}, {Email: ptr("ada@example.org")},
	} {
		wg.Go(func() {
			_, err := w.UpdateUser(w.ctx, w.caller("adminA"), w.cast["userA"].ID, p)
			wantVerdict(t, err, granted)
		})
	}
	wg.Wait()
	u := w.user("userA")
	if u.Capabilities != (policy.Capabilities{CreateCA: true, CreateCert: true, RevokeCert: true, ExportPrivateKey: true, DeleteCA: true}) || u.Email != "ada@example.org" {
		t.Errorf("the account is %+v", u)
	}
}

func TestOnlySuperusersDeleteUsers(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	for _, caller := range []string{"nobody", "userNone", "userA", "adminNone", "adminA", "adminB"} {
		for _, target := range everybody {
			wantVerdict(t, w.DeleteUser(w.ctx, w.caller(caller), w.cast[target].ID), insufficient)
		}
		wantVerdict(t, w.DeleteUser(w.ctx, w.caller(caller), 1<<40), noUser)
	}
	for _, caller := range []string{"superNone", "superA"} {
		wantVerdict(t, w.DeleteUser(w.ctx, w.caller(caller), w.cast[caller].ID), "invalid: You cannot delete your own account")
	}
	u := w.cast["userA"]
	wantVerdict(t, w.DeleteUser(w.ctx, w.caller("superNone"), u.ID), granted)
	e := w.last(audit.UserDelete)
	if *e.UserID != w.cast["superNone"].ID || *e.ResourceID != u.ID || *e.OrganizationID != w.a || e.Detail != "userA, role user" {
		t.Errorf("recorded as %+v", e)
	}
	wantVerdict(t, w.DeleteUser(w.ctx, w.caller("superNone"), u.ID), noUser)
	wantVerdict(t, w.DeleteUser(w.ctx, w.caller("server"), w.cast["superA"].ID), granted)
}
