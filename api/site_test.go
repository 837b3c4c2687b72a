package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet/api"
	"signet/api/contract"
	"signet/ca"
	"signet/ca/catest"
	"signet/identity"
	"signet/keystore"
	"signet/softhsm/softhsmtest"
	"signet/store"
)

// site is a server with a SQLite database and a SoftHSM2 token of its own. Every answer it gives is held against the
// contract.
type site struct {
	t       testing.TB
	handler http.Handler
	url     string
	log     *lockedBuffer
	metrics *prometheus.Registry
	store   *store.DB
	ca      *ca.Authority  // whose background work rests
	drills  *catest.Script // what drills of keys achieve
}

// lockedBuffer is a log that tests read while the server writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const (
	rootPassword = "correct horse battery"
	password     = "battery horse staple"
)

// newSite starts a server without any user. change, if given, alters its configuration.
func newSite(t testing.TB, change ...func(*api.Config)) *site {
	t.Helper()
	s := &site{t: t, log: &lockedBuffer{}, metrics: prometheus.NewRegistry()}
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "signet.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.store = db
	token, err := keystore.Open(t.Context(), softhsmtest.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	k := &keys{Token: token}
	s.drills = &k.Script
	authority := ca.New(ca.Config{
		Store: db, Keys: k, PublicURL: "http://pki.example", Now: time.Now,
		CRLValidity: 7 * 24 * time.Hour, CRLRefresh: 24 * time.Hour, CRLOverlap: 24 * time.Hour, CRLCoalesce: time.Second, LeaseTTL: 10 * time.Second,
		OCSP: ca.OCSPConfig{Validity: 24 * time.Hour, ResponderValidity: 14 * 24 * time.Hour, CacheEntries: 1000, Signers: 2, ClientRate: 100, ClientBurst: 100},
	})
	s.ca = authority
	people, err := identity.New(identity.Config{
		Store: db, Secret: bytes.Repeat([]byte("k"), 32), AccessTTL: time.Hour, RefreshTTL: time.Hour, BcryptCost: 4,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := api.Config{
		CA: authority, Identity: people, Claims: db, ClaimSecret: bytes.Repeat([]byte("c"), 32), Logins: db, Ready: db.Ping, Metrics: s.metrics,
		Logger: slog.New(slog.NewJSONHandler(s.log, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	s.handler = api.New(cfg)
	server := httptest.NewServer(s.handler)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// withRoot starts a server with a superuser, and returns the superuser.
func withRoot(t testing.TB, change ...func(*api.Config)) *caller {
	t.Helper()
	c := newSite(t, change...).nobody()
	c.create(http.StatusCreated, "/api/v1/users/", object{
		"username": "root", "email": "root@example.com", "password": rootPassword, "role": "superuser"})
	return c.as("root", rootPassword)
}

type object = map[string]any

// caller calls the API with a token, or without.
type caller struct {
	*site
	token   string
	refresh string
}

func (s *site) nobody() *caller { return &caller{site: s} }

// answer is what a call got.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request as it is. Redirects are not followed.
func (c *caller) do(method, path string, body io.Reader, header http.Header) answer {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := contract.Transport{T: c.t}.RoundTrip(request)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{response.StatusCode, response.Header, data}
}

// call sends a JSON body (nil: none) and wants this status (0: any).
func (c *caller) call(want int, method, path string, body any) answer {
	c.t.Helper()
	var reader io.Reader
	header := http.Header{}
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		reader = bytes.NewReader(data)
		header.Set("Content-Type", "application/json")
	}
	a := c.do(method, path, reader, header)
	if want != 0 && a.status != want {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, want, a.body)
	}
	return a
}

func (c *caller) create(want int, path string, body object) object {
	c.t.Helper()
	return c.call(want, "POST", path, body).object(c.t)
}

func (c *caller) get(path string) object {
	c.t.Helper()
	return c.call(http.StatusOK, "GET", path, nil).object(c.t)
}

func (c *caller) list(path string) []object {
	c.t.Helper()
	return c.call(http.StatusOK, "GET", path, nil).objects(c.t)
}

// as logs in.
func (s *site) as(username, password string) *caller {
	s.t.Helper()
	a := s.nobody().login(username, password)
	if a.status != http.StatusOK {
		s.t.Fatalf("log in as %s: %d %s", username, a.status, a.body)
	}
	o := a.object(s.t)
	return &caller{site: s, token: o["access_token"].(string), refresh: o["refresh_token"].(string)}
}

func (c *caller) login(username, password string) answer {
	c.t.Helper()
	form := url.Values{"username": {username}, "password": {password}}
	return c.do("POST", "/api/v1/auth/token", strings.NewReader(form.Encode()), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
}

// user makes a user and logs in as them.
func (c *caller) user(name string, more object) *caller {
	c.t.Helper()
	body := object{"username": name, "email": name + "@example.com", "password": password}
	for k, v := range more {
		body[k] = v
	}
	c.create(http.StatusCreated, "/api/v1/users/", body)
	return c.as(name, password)
}

func (c *caller) organization(name string) int64 {
	c.t.Helper()
	return idOf(c.create(http.StatusCreated, "/api/v1/organizations/", object{"name": name}))
}

// authority makes a CA with a P-256 key.
func (c *caller) authority(name string, more object) object {
	c.t.Helper()
	body := object{"name": name, "subject_dn": "CN=" + name, "key_type": "ec"}
	for k, v := range more {
		body[k] = v
	}
	return c.create(http.StatusCreated, "/api/v1/cas/", body)
}

// certificate makes a server certificate with a P-256 key.
func (c *caller) certificate(caID int64, name string, more object) object {
	c.t.Helper()
	body := object{"common_name": name, "subject_dn": "CN=" + name, "certificate_type": "server", "key_type": "ec"}
	for k, v := range more {
		body[k] = v
	}
	return c.create(http.StatusCreated, fmt.Sprintf("/api/v1/certificates/?ca_id=%d", caID), body)
}

func (a answer) object(t testing.TB) object {
	t.Helper()
	var o object
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatalf("not an object: %s", a.body)
	}
	return o
}

func (a answer) objects(t testing.TB) []object {
	t.Helper()
	var all []object
	if err := json.Unmarshal(a.body, &all); err != nil {
		t.Fatalf("not a list of objects: %v: %s", err, a.body)
	}
	return all
}

// detail is the reason of a refusal.
func (a answer) detail(t testing.TB) string {
	t.Helper()
	text, ok := a.object(t)["detail"].(string)
	if !ok {
		t.Fatalf("detail is not a text: %s", a.body)
	}
	return text
}

// problems are the malformed parts of a request, as "type loc".
func (a answer) problems(t testing.TB) []string {
	t.Helper()
	var v struct {
		Detail []struct {
			Type string
			Loc  []any
		}
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("detail is not a list: %s", a.body)
	}
	var out []string
	for _, d := range v.Detail {
		loc := make([]string, len(d.Loc))
		for i, l := range d.Loc {
			loc[i] = fmt.Sprint(l)
		}
		out = append(out, d.Type+" "+strings.Join(loc, "."))
	}
	return out
}

func idOf(o object) int64 { return int64(o["id"].(float64)) }

func path(format string, a ...any) string { return fmt.Sprintf("/api/v1"+format, a...) }
