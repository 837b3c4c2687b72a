package identity_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"signet/audit"
	"signet/fault"
	"signet/identity"
	"signet/policy"
)

const bootstrap = "forbidden: The first user must be created from a loopback address, with the one-time token that " +
	"the server printed at its first start in the X-Bootstrap-Token header, or by `signet user create --superuser` on the server"

// newcomer is a registration that is well formed.
func newcomer() identity.Registration {
	return identity.Registration{Username: "newcomer", Email: "newcomer@example.org", Password: password, Role: policy.RoleUser}
}

func TestTheFirstUserNeedsTheWillOfTheOperator(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		token func(w *world) string // nil: none is sent
		at    bool                  // from a loopback address
		want  string
	}{
		{name: "from a loopback address", at: true},
		{name: "with the bootstrap token", token: printed},
		{name: "from a loopback address with a wrong token", at: true, token: func(*world) string { return "wrong" }},
		{name: "from afar", want: bootstrap},
		{name: "from afar with a wrong token", token: func(w *world) string { return printed(w) + "x" }, want: bootstrap},
		{name: "from afar with a token when none was made", token: func(*world) string { return "guess" }, want: bootstrap},
		{name: "from afar with an earlier token", token: func(w *world) string { old := printed(w); printed(w); return old }, want: bootstrap},
	}
	for _, tt := range tests {
		for _, role := range []policy.Role{policy.RoleSuperuser, policy.RoleAdmin, policy.RoleUser} {
			t.Run(fmt.Sprintf("%s as %s", tt.name, role), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, nil)
				r := newcomer()
				r.Role, r.Loopback, r.Capabilities = role, tt.at, policy.Capabilities{CreateCA: true, DeleteCA: true}
				if tt.token != nil {
					r.BootstrapToken = tt.token(w)
				}
				u, err := w.Register(w.ctx, nil, r)
				wantVerdict(t, err, tt.want)
				if err != nil {
					return
				}
				if u.Role != role || u.Capabilities != r.Capabilities || !u.Active || u.OrganizationID != nil {
					t.Errorf("created %+v", u)
				}
				if e := w.last(audit.UserCreate); e.UserID != nil || *e.ResourceID != u.ID || !strings.Contains(e.Detail, "first user") {
					t.Errorf("recorded as %+v", e)
				}
				w.login("newcomer", password)
			})
		}
	}
}

func printed(w *world) string {
	token, err := w.BootstrapToken(w.ctx)
	if err != nil || len(token) != 43 {
		w.Errorf("bootstrap token of %d characters: %v", len(token), err)
	}
	keepSecret(token)
	return token
}

func TestTheFirstUserCannotJoinAnOrganizationThatDoesNotExist(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	r := newcomer()
	r.Loopback, r.OrganizationID = true, ptr(int64(7))
	_, err := w.Register(w.ctx, nil, r)
	wantVerdict(t, err, noOrganization)
	r.OrganizationID = nil
	_, err = w.Register(w.ctx, nil, r)
	wantVerdict(t, err, granted)
}

func TestThereIsOneFirstUserOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := printed(w)
	r := newcomer()
	r.Role, r.Loopback = policy.RoleSuperuser, true
	u, err := w.Register(w.ctx, nil, r)
	wantVerdict(t, err, granted)
	again := func() string {
		_, err := w.Register(w.ctx, nil, identity.Registration{
			Username: "second", Email: "second@example.org", Password: password, Role: policy.RoleSuperuser, Loopback: true, BootstrapToken: token})
		return verdict(err)
	}
	if got := again(); got != noPrivilege {
		t.Errorf("a second one: %q", got)
	}
	if err := w.store.DeleteUser(w.ctx, u.ID, audit.Event{}); err != nil {
		t.Fatal(err)
	}
	if got := again(); got != noPrivilege {
		t.Errorf("after the first one was deleted: %q", got)
	}
	if token, err := w.BootstrapToken(w.ctx); token != "" || err != nil {
		t.Errorf("another bootstrap token is made: %v", err)
	}
}

func TestOfParallelFirstUsersExactlyOneWins(t *testing.T) {
	t.Parallel()
	for _, open := range []bool{false, true} {
		w := newWorld(t, func(c *identity.Config) { c.AllowOpenRegistration = open })
		var wg sync.WaitGroup
		verdicts := make([]string, 8)
		for i := range verdicts {
			wg.Go(func() {
				_, err := w.Register(w.ctx, nil, identity.Registration{
					Username: fmt.Sprint("racer", i), Email: fmt.Sprintf("racer%d@example.org", i), Password: password,
					Role: policy.RoleSuperuser, Loopback: true})
				verdicts[i] = verdict(err)
			})
		}
		wg.Wait()
		slices.Sort(verdicts)
		want := append([]string{granted}, slices.Repeat([]string{noPrivilege}, 7)...)
		if !slices.Equal(verdicts, want) {
			t.Errorf("open %t: %q", open, verdicts)
		}
	}
}

// The loser of the race is treated like anybody else, which may mean that it is let in as an ordinary user.
func TestALosingFirstUserIsSubjectToTheNormalRules(t *testing.T) {
	t.Parallel()
	for open, want := range map[bool]string{false: noRegistration, true: granted} {
		w := newWorld(t, func(c *identity.Config) { c.AllowOpenRegistration = open })
		w.meanwhile("CreateFirstUser", func() { w.join("superNone") })
		r := newcomer()
		r.Loopback = true
		_, err := w.Register(w.ctx, nil, r)
		wantVerdict(t, err, want)
	}
}

func TestWhoMayCreateWhichUser(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	open, err := identity.New(identity.Config{Store: w.store, Secret: secret, AccessTTL: 1e9, RefreshTTL: 1e9, BcryptCost: 4, AllowOpenRegistration: true})
	if err != nil {
		t.Fatal(err)
	}
	requests := []struct {
		name   string
		change func(*identity.Registration)
	}{
		{"plain", func(*identity.Registration) {}},
		{"capable", func(r *identity.Registration) { r.Capabilities.RevokeCert = true }},
		{"inA", func(r *identity.Registration) { r.OrganizationID = &w.a }},
		{"capableInA", func(r *identity.Registration) { r.OrganizationID, r.Capabilities.CreateCA = &w.a, true }},
		{"inB", func(r *identity.Registration) { r.OrganizationID = &w.b }},
		{"nowhere", func(r *identity.Registration) { r.OrganizationID = ptr(int64(99)) }},
		{"admin", func(r *identity.Registration) { r.Role = policy.RoleAdmin }},
		{"adminInA", func(r *identity.Registration) { r.Role, r.OrganizationID = policy.RoleAdmin, &w.a }},
		{"superuser", func(r *identity.Registration) { r.Role = policy.RoleSuperuser }},
	}
	// + granted, i insufficient permissions, p not enough for a privileged account, d registration disabled,
	// o organization not found
	letters := map[byte]string{'+': granted, 'i': insufficient, 'p': noPrivilege, 'd': noRegistration, 'o': noOrganization}
	for _, row := range []struct{ caller, want string }{
		//                plain, capable, inA, capableInA, inB, nowhere, admin, adminInA, superuser
		{"anonymous", "ddddddppp"},
		{"anonymousOpen", "+iiiiippp"},
		{"nobody", "iiiiioppp"},
		{"userNone", "+iiiioppp"},
		{"userA", "+iiiioppp"},
		{"adminNone", "+iiiioppp"},
		{"adminA", "+i++ioppp"},
		{"adminB", "+iii+oppp"},
		{"superA", "+++++o+++"},
		{"superNone", "+++++o+++"},
		{"server", "+++++o+++"},
	} {
		for i, request := range requests {
			service, caller := w.Service, (*policy.Caller)(nil)
			switch row.caller {
			case "anonymous":
			case "anonymousOpen":
				service = open
			default:
				caller = ptr(w.caller(row.caller))
			}
			r := newcomer()
			r.Username = row.caller + "-" + request.name
			r.Email = r.Username + "@example.org"
			r.Loopback = true // no longer matters
			request.change(&r)
			u, err := service.Register(w.ctx, caller, r)
			if got := verdict(err); got != letters[row.want[i]] {
				t.Errorf("%s: got %q, want %q", r.Username, got, letters[row.want[i]])
			}
			if err == nil {
				checkCreated(w, caller, r, u)
			}
		}
	}
}

// checkCreated holds that u, and its audit entry, are what r asked for.
func checkCreated(w *world, caller *policy.Caller, r identity.Registration, u identity.User) {
	w.Helper()
	same := fmt.Sprint(u.Username, u.Email, u.Role, u.Capabilities) == fmt.Sprint(r.Username, r.Email, r.Role, r.Capabilities)
	if !same || (u.OrganizationID == nil) != (r.OrganizationID == nil) || !u.Active || u.PasswordHash == "" {
		w.Errorf("%s: created %+v", r.Username, u)
	}
	e := w.last(audit.UserCreate)
	by := int64(0)
	if e.UserID != nil {
		by = *e.UserID
	}
	if caller != nil && by != caller.UserID || caller == nil && by != 0 || *e.ResourceID != u.ID || (e.OrganizationID == nil) != (u.OrganizationID == nil) {
		w.Errorf("%s: recorded as %+v", r.Username, e)
	}
}

func TestNamesAndAddressesAreTakenOnce(t *testing.T) {
	t.Parallel()
	w := populated(t, nil)
	super := w.caller("superNone")
	r := newcomer()
	r.Username = "userA"
	_, err := w.Register(w.ctx, &super, r)
	wantVerdict(t, err, "invalid: Username already registered")
	r = newcomer()
	r.Email = "usera@example.org"
	_, err = w.Register(w.ctx, &super, r)
	wantVerdict(t, err, "invalid: Email already registered")
}

func TestMalformedRegistrations(t *testing.T) {
	t.Parallel()
	const address = "value is not a valid email address: "
	tests := []struct {
		name   string
		change func(*identity.Registration)
		want   string // field, type, message of each problem
	}{
		{"no username", func(r *identity.Registration) { r.Username = "" }, "username string_too_short String should have at least 1 character"},
		{"256 characters", func(r *identity.Registration) { r.Username = strings.Repeat("ö", 256) }, "username string_too_long String should have at most 255 characters"},
		{"255 characters", func(r *identity.Registration) { r.Username = strings.Repeat("ö", 255) }, ""},
		{"a space in front", func(r *identity.Registration) { r.Username = " admin" }, "username value_error Value error, a username must not begin or end with a space"},
		{"a space behind", func(r *identity.Registration) { r.Username = "admin\u00a0" }, "username value_error Value error, a username must not begin or end with a space"},
		{"a space within", func(r *identity.Registration) { r.Username = "Ada Lovelace" }, ""},
		{"a NUL", func(r *identity.Registration) { r.Username = "ad\x00min" }, "username value_error Value error, a username must consist of printable characters"},
		{"a line break", func(r *identity.Registration) { r.Username = "ad\nmin" }, "username value_error Value error, a username must consist of printable characters"},
		{"text direction", func(r *identity.Registration) { r.Username = "ad\u202emin" }, "username value_error Value error, a username must consist of printable characters"},
		{"not UTF-8", func(r *identity.Registration) { r.Username = "ad\xffmin" }, "username value_error Value error, a username must consist of printable characters"},
		{"no address", func(r *identity.Registration) { r.Email = "" }, "email value_error " + address + "an address is of the form name@host"},
		{"no host", func(r *identity.Registration) { r.Email = "ada" }, "email value_error " + address + "an address is of the form name@host"},
		{"a display name", func(r *identity.Registration) { r.Email = "Ada <ada@example.org>" }, "email value_error " + address + "an address is of the form name@host"},
		{"angle brackets", func(r *identity.Registration) { r.Email = "<ada@example.org>" }, "email value_error " + address + "an address is of the form name@host"},
		{"a space around the address", func(r *identity.Registration) { r.Email = " ada@example.org" }, "email value_error " + address + "an address is of the form name@host"},
		{"two addresses", func(r *identity.Registration) { r.Email = "ada@example.org,bob@example.org" }, "email value_error " + address + "an address is of the form name@host"},
		{"a header behind the address", func(r *identity.Registration) { r.Email = "ada@example.org\r\nBcc: x@example.org" }, "email value_error " + address + "an address is of the form name@host"},
		{"a very long address", func(r *identity.Registration) { r.Email = strings.Repeat("a", 243) + "@example.org" }, "email value_error " + address + "it has more than 254 octets"},
		{"7 characters", func(r *identity.Registration) { r.Password = "passwör" }, "password string_too_short String should have at least 8 characters"},
		{"8 characters", func(r *identity.Registration) { r.Password = "passwörd" }, ""},
		{"73 octets", func(r *identity.Registration) { r.Password = strings.Repeat("p", 73) }, "password string_too_long String should have at most 72 octets"},
		{"an unknown role", func(r *identity.Registration) { r.Role = "root" }, "role enum Input should be 'superuser', 'admin' or 'user'"},
		{"no role", func(r *identity.Registration) { r.Role = "" }, ""},
		{"everything", func(r *identity.Registration) { *r = identity.Registration{Role: "root"} }, "username string_too_short String should have at least 1 character\n" +
			"email value_error " + address + "an address is of the form name@host\n" +
			"password string_too_short String should have at least 8 characters\n" +
			"role enum Input should be 'superuser', 'admin' or 'user'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			r := newcomer()
			r.Loopback = true
			tt.change(&r)
			keepPassword(r.Password)
			u, err := w.Register(w.ctx, nil, r)
			if got := problems(err); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if tt.want != "" {
				wantVerdict(t, err, malformed)
			} else if u.Role != policy.RoleUser {
				t.Errorf("created with role %q", u.Role)
			}
		})
	}
}

// keepPassword keeps a password that is long enough not to be found by chance.
func keepPassword(s string) {
	if len(s) >= 7 {
		keepSecret(s)
	}
}

// problems is the malformed fields of an error, one per line.
func problems(err error) string {
	shown(verdict(err))
	f, _ := err.(*fault.Error)
	if f == nil {
		return ""
	}
	var lines []string
	for _, p := range f.Fields {
		if len(p.Loc) != 2 || p.Loc[0] != "body" || p.Loc[1] == "password" && p.Input != nil {
			lines = append(lines, fmt.Sprintf("misplaced: %+v", p))
			continue
		}
		lines = append(lines, fmt.Sprintf("%v %s %s", p.Loc[1], p.Type, p.Msg))
	}
	return strings.Join(lines, "\n")
}

func TestRegistrationSaysWhenTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"HasUsers", "BootstrapToken", "CreateFirstUser", "SetBootstrapToken", "Organization"} {
		w := newWorld(t, nil)
		w.away(method)
		r := newcomer()
		r.BootstrapToken, r.OrganizationID = "guess", ptr(int64(1))
		r.Loopback = method == "Organization" || method == "CreateFirstUser"
		if method == "CreateFirstUser" {
			r.OrganizationID = nil
		}
		_, err := w.Register(w.ctx, nil, r)
		if method == "SetBootstrapToken" {
			_, err = w.BootstrapToken(w.ctx)
		}
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("without %s: %v", method, err)
		}
	}
}

func FuzzRegister(f *testing.F) {
	f.Add("ada", "ada@example.org", password)
	f.Add("ad\x00a", `"a b"@example.org`, "\x00\x00\x00\x00\x00\x00\x00\x00")
	f.Add("\u202eada", "ada@[192.0.2.1]", strings.Repeat("ü", 36))
	f.Add(" ada", "ada(comment)@example.org", "short")
	f.Fuzz(func(t *testing.T, username, email, pass string) {
		w := newWorld(t, nil)
		_, err := w.Register(w.ctx, nil, identity.Registration{Username: username, Email: email, Password: pass, Loopback: true})
		if err != nil {
			wantVerdict(t, err, malformed)
			return
		}
		if strings.ContainsAny(username+email, "\x00\r\n") || len(pass) > 72 {
			t.Errorf("registered %q %q", username, email)
		}
		if _, err := w.Login(w.ctx, username, pass); err != nil {
			t.Errorf("who registered cannot log in: %v", err)
		}
	})
}
