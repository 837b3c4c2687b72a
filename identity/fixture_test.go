package identity_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"signet/audit"
	"signet/fault"
	"signet/identity"
	"signet/identity/identitytest"
	"signet/policy"
)

const (
	password    = "correct-horse-battery-staple"
	newPassword = "Tr0ub4dor-and-3-more"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// disclosures collects what the whole suite showed to callers or wrote into trails, and the secrets it used.
var disclosures = struct {
	sync.Mutex
	secrets, texts []string
}{secrets: []string{password, newPassword, string(secret)}}

// TestMain runs the suite, and then searches all of its errors and audit entries for all of its secrets.
func TestMain(m *testing.M) {
	code := m.Run()
	disclosures.Lock()
	defer disclosures.Unlock()
	shown := strings.Join(disclosures.texts, "\n")
	for i, s := range disclosures.secrets {
		if at := strings.Index(shown, s); at >= 0 {
			line, _, _ := strings.Cut(shown[strings.LastIndex(shown[:at], "\n")+1:], "\n")
			fmt.Fprintf(os.Stderr, "FAIL: secret %d is disclosed in: %s\n", i, line)
			code = 1
		}
	}
	os.Exit(code)
}

func keepSecret(s ...string) {
	disclosures.Lock()
	defer disclosures.Unlock()
	disclosures.secrets = append(disclosures.secrets, s...)
}

func shown(s ...string) {
	disclosures.Lock()
	defer disclosures.Unlock()
	disclosures.texts = append(disclosures.texts, s...)
}

// world is a service on a store in memory, with two organizations and a cast of users who share one password.
type world struct {
	*testing.T
	*identity.Service
	store *identitytest.Memory
	ctx   context.Context
	now   time.Time
	cast  map[string]identity.User
	a, b  int64 // organizations
}

// newWorld returns a world without users; adjust may be nil.
func newWorld(t *testing.T, adjust func(*identity.Config)) *world {
	t.Helper()
	w := &world{
		T: t, store: identitytest.New(), cast: map[string]identity.User{},
		now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC),
		ctx: audit.WithRequest(t.Context(), audit.Request{ID: "request-1", RemoteAddr: "192.0.2.7"}),
	}
	cfg := identity.Config{
		Store: w.store, Secret: secret, AccessTTL: 15 * time.Minute, RefreshTTL: 24 * time.Hour, BcryptCost: bcrypt.MinCost,
		SessionAge: time.Hour, // what this service changes it must know without reading
		Now:        func() time.Time { return w.now },
	}
	if adjust != nil {
		adjust(&cfg)
	}
	var err error
	if w.Service, err = identity.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.store.Fail = nil
		for _, e := range w.trail("") {
			shown(e.Username + " " + e.Detail)
		}
	})
	return w
}

var passwordHash = sync.OnceValue(func() string {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(h)
})

// populated returns a world with its cast: a name ends in the organization its owner belongs to, or in None.
func populated(t *testing.T, adjust func(*identity.Config)) *world {
	t.Helper()
	w := newWorld(t, adjust)
	w.a, w.b = w.organization("Organization A"), w.organization("Organization B")
	for _, name := range []string{
		"superNone", "superA", "adminA", "adminA2A", "userA", "userA2A", "adminB", "userB", "adminNone", "userNone", "user2None",
	} {
		w.join(name)
	}
	return w
}

func (w *world) organization(name string) int64 {
	w.Helper()
	o, err := w.store.CreateOrganization(w.ctx, identity.Organization{Name: name}, audit.Event{})
	if err != nil {
		w.Fatal(err)
	}
	return o.ID
}

func (w *world) join(name string) {
	w.Helper()
	u := identity.User{Username: name, Email: strings.ToLower(name) + "@example.org", PasswordHash: passwordHash(), Active: true}
	switch {
	case strings.HasPrefix(name, "super"):
		u.Role = policy.RoleSuperuser
	case strings.HasPrefix(name, "admin"):
		u.Role = policy.RoleAdmin
	default:
		u.Role = policy.RoleUser
	}
	switch {
	case strings.HasSuffix(name, "A"):
		u.OrganizationID = &w.a
	case strings.HasSuffix(name, "B"):
		u.OrganizationID = &w.b
	}
	u, err := w.store.CreateUser(w.ctx, u, audit.Event{})
	if err != nil {
		w.Fatal(err)
	}
	w.cast[name] = u
}

// caller is a member of the cast, "nobody" (the zero caller) or "server" (the operator at the command line).
func (w *world) caller(name string) policy.Caller {
	w.Helper()
	switch name {
	case "nobody":
		return policy.Caller{}
	case "server":
		return policy.Caller{Role: policy.RoleSuperuser}
	}
	u, ok := w.cast[name]
	if !ok {
		w.Fatalf("there is no %s in the cast", name)
	}
	return u.Caller()
}

// user is a member of the cast as stored at present.
func (w *world) user(name string) identity.User {
	w.Helper()
	u, err := w.store.User(w.ctx, w.cast[name].ID)
	if err != nil {
		w.Fatal(err)
	}
	return u
}

func (w *world) login(username, password string) identity.Tokens {
	w.Helper()
	tokens, err := w.Login(w.ctx, username, password)
	if err != nil {
		w.Fatalf("login of %s: %v", username, err)
	}
	keepSecret(tokens.Access, tokens.Refresh)
	return tokens
}

func (w *world) session(access string) identity.Session {
	w.Helper()
	s, err := w.Authenticate(w.ctx, access)
	if err != nil {
		w.Fatalf("authenticate: %v", err)
	}
	return s
}

func (w *world) refresh(token string) identity.Tokens {
	w.Helper()
	tokens, err := w.Refresh(w.ctx, token)
	if err != nil {
		w.Fatalf("refresh: %v", err)
	}
	keepSecret(tokens.Access, tokens.Refresh)
	return tokens
}

// trail is the audit entries of one action, or all, newest first.
func (w *world) trail(action audit.Action) []audit.Entry {
	w.Helper()
	// The context of a test has ended when its cleanup runs.
	entries, _, err := w.store.AuditLog(context.WithoutCancel(w.ctx), audit.Filter{Action: action, Limit: 100_000})
	if err != nil {
		w.Fatal(err)
	}
	return entries
}

// last is the newest entry, which must be of this action.
func (w *world) last(action audit.Action) audit.Entry {
	w.Helper()
	entries := w.trail("")
	if len(entries) == 0 || entries[0].Action != action {
		w.Fatalf("the newest audit entry is not %s: %+v", action, entries)
	}
	return entries[0]
}

// verdict is an error as a caller sees it: "" for none, else its code and message.
func verdict(err error) string {
	if err == nil {
		return ""
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return "unclassified: " + err.Error()
	}
	shown(fmt.Sprintf("%v %+v", err, f.Fields))
	return fmt.Sprintf("%s: %s", f.Code, f.Message)
}

func wantVerdict(t testing.TB, err error, want string) {
	t.Helper()
	if got := verdict(err); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// The refusals that many tests expect.
const (
	granted        = ""
	insufficient   = "forbidden: Insufficient permissions"
	noPrivilege    = "forbidden: Not enough permissions to create admin or superuser accounts"
	noRegistration = "forbidden: Unauthenticated registration is disabled"
	noOrganization = "not_found: Organization not found"
	noUser         = "not_found: User not found"
	badCredentials = "unauthenticated: Could not validate credentials"
	badLogin       = "unauthenticated: Incorrect username or password"
	badRefresh     = "unauthenticated: Invalid or expired refresh token"
	malformed      = "unprocessable: The request is malformed"
)

var errAway = fault.New(fault.Unavailable, "the database is not available")

// away makes the named store method fail from now on.
func (w *world) away(method string) {
	w.store.Fail = func(m string) error {
		if m == method {
			return errAway
		}
		return nil
	}
}

// meanwhile runs f once, just before the named store method.
func (w *world) meanwhile(method string, f func()) {
	done := false
	w.store.Fail = func(m string) error {
		if m == method && !done {
			done = true
			f()
		}
		return nil
	}
}

func ptr[T any](v T) *T { return &v }
