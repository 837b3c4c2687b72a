package ca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"signet/ca"
	"signet/ca/catest"
	"signet/fault"
	"signet/keystore"
	"signet/policy"
	"signet/softhsm/softhsmtest"
)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type world struct {
	*ca.Authority
	store  ca.Store
	keys   *tokenKeys
	clock  *clock
	failed chan error // what background work reports; the newest are lost when nobody reads
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, catest.New())
}

func newWorldOn(t testing.TB, store ca.Store) *world {
	t.Helper()
	token, err := keystore.Open(t.Context(), softhsmtest.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	w := &world{store: store, keys: &tokenKeys{token: token}, clock: &clock{now: time.Now().UTC().Truncate(time.Second)}}
	if m, ok := store.(*catest.Memory); ok {
		m.Now = w.clock.Now
	}
	return w.replica(nil)
}

// replica is another Authority on the same store and token.
func (w *world) replica(change func(*ca.Config)) *world {
	r := &world{store: w.store, keys: w.keys, clock: w.clock, failed: make(chan error, 100)}
	c := ca.Config{
		Store: w.store, Keys: w.keys, PublicURL: "http://pki.example", Now: w.clock.Now,
		CRLValidity: 7 * 24 * time.Hour, CRLRefresh: 24 * time.Hour, CRLOverlap: 24 * time.Hour, CRLCoalesce: 20 * time.Millisecond,
		RecordAge: 500 * time.Millisecond, LeaseTTL: time.Second, OCSP: ca.OCSPConfig{Validity: 24 * time.Hour},
		Hooks: ca.Hooks{Failed: func(task string, err error) {
			select {
			case r.failed <- fmt.Errorf("%s: %w", task, err):
			default:
			}
		}},
	}
	if change != nil {
		change(&c)
	}
	r.Authority = ca.New(c)
	return r
}

// run starts the background work; stop ends it and waits for that.
func (w *world) run(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { w.Run(ctx); close(stopped) }()
	stop = func() { cancel(); <-stopped }
	t.Cleanup(stop)
	eventually(t, 10*time.Second, "it runs", w.Running)
	return stop
}

// eventually waits until something holds, but not longer than within.
func eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for start := time.Now(); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > within {
			t.Fatalf("not so after %s: %s", within, what)
		}
	}
}

func ptr[T any](v T) *T { return &v }

var (
	superuser = policy.Caller{UserID: 1, Username: "root", Role: policy.RoleSuperuser}
	acmeAdmin = policy.Caller{UserID: 2, Username: "alice", Role: policy.RoleAdmin, OrganizationID: ptr(int64(10))}
	acmeUser  = policy.Caller{UserID: 3, Username: "bob", Role: policy.RoleUser, OrganizationID: ptr(int64(10))}
	rivalUser = policy.Caller{UserID: 4, Username: "mallory", Role: policy.RoleAdmin, OrganizationID: ptr(int64(20))}
	loneUser  = policy.Caller{UserID: 5, Username: "eve", Role: policy.RoleUser}
)

func (w *world) createCA(t testing.TB, caller policy.Caller, change func(*ca.CreateCARequest)) ca.CA {
	t.Helper()
	r := ca.CreateCARequest{Name: "Acme Root", SubjectDN: "CN=Acme Root,O=Acme,C=US", Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 3650}
	if change != nil {
		change(&r)
	}
	c, err := w.CreateCA(t.Context(), caller, r)
	if err != nil {
		t.Fatalf("create CA %q: %v", r.Name, err)
	}
	return c
}

func serverRequest(issuer int64) ca.IssueRequest {
	return ca.IssueRequest{
		IssuerID: issuer, CommonName: "api.example.com", SubjectDN: "CN=api.example.com,O=Acme,C=US",
		Type: policy.Server, Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 365, KeepKey: true,
	}
}

func (w *world) issue(t *testing.T, caller policy.Caller, issuer int64) ca.Issued {
	t.Helper()
	got, err := w.Issue(t.Context(), caller, serverRequest(issuer))
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return got
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// wantFault checks code and message of an error; message is a part of it.
func wantFault(t *testing.T, err error, code fault.Code, message string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("error %v, want a %s fault", err, code)
	}
	if f.Code != code || !strings.Contains(f.Message, message) {
		t.Fatalf("fault %s %q, want %s containing %q", f.Code, f.Message, code, message)
	}
}
