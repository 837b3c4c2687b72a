package identitytest

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/audit"
	"signet/fault"
	"signet/identity"
	"signet/policy"
)

// Suite holds an identity.Store to its contract. Every test gets a store of its own from newStore, which must be
// empty and must also have the AuditLog method of ca.Store, to show what was recorded.
func Suite(t *testing.T, newStore func(t *testing.T) identity.Store) {
	tests := map[string]map[string]func(f fixture){
		"first user":    firstUserTests,
		"user":          userTests,
		"organization":  organizationTests,
		"refresh token": refreshTests,
		"session":       sessionTests,
		"race":          raceTests,
	}
	for group, cases := range tests {
		for name, test := range cases {
			t.Run(group+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newStore(t)
				trail, ok := s.(trail)
				if !ok {
					t.Fatalf("%T does not show its audit log", s)
				}
				test(fixture{T: t, s: s, trail: trail, n: new(atomic.Int64)})
			})
		}
	}
}

type trail interface {
	AuditLog(ctx context.Context, f audit.Filter) ([]audit.Entry, audit.Total, error)
}

// now is when the records of the suite are made; a database keeps its microseconds.
var now = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

// fixture makes records in one store.
type fixture struct {
	*testing.T
	s     identity.Store
	trail trail
	n     *atomic.Int64 // of records made
}

func ptr[T any](v T) *T { return &v }

// ok fails the test at once.
func (f fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("unexpected error: %v", err)
	}
}

// refused checks that an error has a code and a message.
func (f fixture) refused(err error, code fault.Code, message string) {
	f.Helper()
	if !fault.Is(err, code) || err.Error() != message {
		f.Errorf("error is %q (%v), want %q (%v)", err, fault.CodeOf(err), message, code)
	}
}

func (f fixture) equal(got, want any) {
	f.Helper()
	if !reflect.DeepEqual(got, want) {
		f.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func event(action audit.Action) audit.Event {
	return audit.Event{Action: action, UserID: ptr(int64(70)), Username: "admin", OrganizationID: ptr(int64(30)),
		ResourceType: audit.ResourceUser, Detail: "details", RequestID: "r-1", RemoteAddr: "192.0.2.1"}
}

// plan is a user to be created.
func (f fixture) plan() identity.User {
	n := f.n.Add(1)
	return identity.User{
		Username: fmt.Sprintf("user%d", n), Email: fmt.Sprintf("user%d@example.com", n), PasswordHash: "hash", Role: policy.RoleUser,
		Active: true, Capabilities: policy.Capabilities{CreateCert: true, DeleteCA: true}, TokenEpoch: 1, CreatedAt: now, UpdatedAt: now,
	}
}

func (f fixture) create(u identity.User) (identity.User, error) {
	return f.s.CreateUser(f.Context(), u, event(audit.UserCreate))
}

func (f fixture) first(u identity.User) (identity.User, error) {
	return f.s.CreateFirstUser(f.Context(), u, event(audit.UserCreate))
}

func (f fixture) update(u identity.User) (identity.User, error) {
	return f.s.UpdateUser(f.Context(), u, event(audit.UserUpdate))
}

// user makes a user.
func (f fixture) user() identity.User {
	f.Helper()
	u, err := f.create(f.plan())
	f.ok(err)
	return u
}

func (f fixture) createOrganization(name string) (identity.Organization, error) {
	o := identity.Organization{Name: name, Description: ptr("for tests"), CreatedAt: now, UpdatedAt: now}
	return f.s.CreateOrganization(f.Context(), o, event(audit.OrgCreate))
}

// organization makes an organization.
func (f fixture) organization() identity.Organization {
	f.Helper()
	o, err := f.createOrganization(fmt.Sprintf("organization %d", f.n.Add(1)))
	f.ok(err)
	return o
}

// token gives a user a refresh token that lives for an hour.
func (f fixture) token(userID int64) identity.RefreshToken {
	f.Helper()
	t := f.next()
	t.UserID = userID
	f.ok(f.s.CreateRefreshToken(f.Context(), t, event(audit.LoginSuccess)))
	return t
}

// next is a refresh token that is not stored.
func (f fixture) next() identity.RefreshToken {
	return identity.RefreshToken{Hash: fmt.Appendf(nil, "hash of token %d", f.n.Add(1)), ExpiresAt: now.Add(time.Hour)}
}

func (f fixture) rotate(old []byte, next identity.RefreshToken, at time.Time) (identity.User, error) {
	return f.s.RotateRefreshToken(f.Context(), old, next, at, event(audit.TokenRefresh))
}

// void checks that a refresh token is worth nothing.
func (f fixture) void(hash []byte) {
	f.Helper()
	f.silent(func() {
		_, err := f.rotate(hash, f.next(), now)
		f.refused(err, fault.Unauthenticated, "Invalid or expired refresh token")
	})
}

func (f fixture) events(action audit.Action) []audit.Entry {
	f.Helper()
	entries, _, err := f.trail.AuditLog(f.Context(), audit.Filter{Action: action, Limit: 10_000})
	f.ok(err)
	return entries
}

// silent checks that a call that fails leaves no event.
func (f fixture) silent(call func()) {
	f.Helper()
	before := len(f.events(""))
	call()
	if after := len(f.events("")); after != before {
		f.Errorf("the call left %d events", after-before)
	}
}

// recorded checks the last event.
func (f fixture) recorded(action audit.Action, id int64) {
	f.Helper()
	all := f.events("")
	if len(all) == 0 {
		f.Fatal("no event was recorded")
	}
	want := event(action)
	want.ResourceID = &id
	f.equal(all[0].Event, want)
}

// parallel runs a call n times at once and returns the errors.
func parallel(n int, call func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = call(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWins checks that exactly one call succeeded and the others were refused.
func (f fixture) oneWins(errs []error, code fault.Code, message string) {
	f.Helper()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		f.refused(err, code, message)
	}
	if won != 1 {
		f.Errorf("%d of %d calls succeeded, want 1", won, len(errs))
	}
}
