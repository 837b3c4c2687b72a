package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/api/contract"
)

// sentence is a sentence of the API contract and the test that holds it.
type sentence struct {
	says string
	hold func(t *testing.T, w *world)
}

// holdContract runs the sentences on every database, those of one database in parallel on one server.
func holdContract(t *testing.T, sentences []sentence) {
	t.Helper()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, database)
			for _, s := range sentences {
				t.Run(s.says, func(t *testing.T) {
					t.Parallel()
					s.hold(t, w)
				})
			}
		})
	}
}

// world is a server with a superuser.
type world struct {
	site     *site
	server   *running
	database string
	access   string // of the superuser
	names    atomic.Int64
}

func newWorld(t *testing.T, database string, flags ...string) *world {
	t.Helper()
	s := newSite(t, database, flags...)
	w := &world{site: s, database: database, server: s.start("signet")}
	nobody := w.nobody(t)
	nobody.ask("POST", "/api/v1/users/", object{
		"username": rootName, "email": "root@example.com", "password": rootPassword, "role": "superuser"}).want(http.StatusCreated)
	w.access = nobody.logIn(rootName, rootPassword).access
	return w
}

// unique returns a name that no other sentence uses.
func (w *world) unique(prefix string) string { return fmt.Sprintf("%s-%d", prefix, w.names.Add(1)) }

// party is somebody who speaks to the server; without an access token, nobody.
type party struct {
	t               *testing.T
	url             string
	http            *http.Client
	id              int64
	name, password  string
	access, refresh string
}

func (w *world) nobody(t *testing.T) party {
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return party{t: t, url: w.server.url, http: &http.Client{
		Timeout: time.Minute, Transport: contract.Transport{T: t, Next: w.server.http.Transport}, CheckRedirect: stay}}
}

func (w *world) root(t *testing.T) party {
	p := w.nobody(t)
	p.access, p.name, p.password, p.id = w.access, rootName, rootPassword, 1
	return p
}

// member creates a user of the role in an organization (0: none), with further fields, and logs in.
func (w *world) member(t *testing.T, role string, organization int64, fields object) party {
	t.Helper()
	name := w.unique(role)
	body := object{"username": name, "email": name + "@example.com", "password": "password of " + name, "role": role}
	if organization != 0 {
		body["organization_id"] = organization
	}
	for k, v := range fields {
		body[k] = v
	}
	made := w.root(t).ask("POST", "/api/v1/users/", body).want(http.StatusCreated)
	p := w.nobody(t).logIn(name, "password of "+name)
	p.id = made.id()
	return p
}

// organization creates an organization.
func (w *world) organization(t *testing.T) int64 {
	t.Helper()
	return w.root(t).ask("POST", "/api/v1/organizations/", object{"name": w.unique("org")}).want(http.StatusCreated).id()
}

// logIn returns the user with a new session.
func (p party) logIn(name, password string) party {
	p.t.Helper()
	tokens := p.ask("POST", "/api/v1/auth/token", url.Values{"username": {name}, "password": {password}}).want(http.StatusOK).object()
	p.access, p.refresh = tokens["access_token"].(string), tokens["refresh_token"].(string)
	p.name, p.password = name, password
	return p
}

// header sets a header of a request; "Host" sets the host.
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) {
		if name == "Host" {
			r.Host = value
			return
		}
		r.Header.Set(name, value)
	}
}

// ask sends a request. The body is url.Values for a form, a string or bytes to be sent as they are, nil for none, and
// otherwise what is to be encoded as JSON.
func (p party) ask(method, path string, body any, change ...func(*http.Request)) answer {
	p.t.Helper()
	a, err := p.send(method, path, body, change...)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// send is ask for goroutines other than the test's own.
func (p party) send(method, path string, body any, change ...func(*http.Request)) (answer, error) {
	var reader io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
		kind = ""
	case url.Values:
		reader, kind = strings.NewReader(b.Encode()), "application/x-www-form-urlencoded"
	case string:
		reader = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(context.Background(), method, p.url+path, reader)
	if err != nil {
		return answer{}, err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	if p.access != "" {
		request.Header.Set("Authorization", "Bearer "+p.access)
	}
	for _, c := range change {
		c(request)
	}
	response, err := p.http.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return answer{t: p.t, request: method + " " + path, status: response.StatusCode, header: response.Header, body: data}, err
}

// atOnce sends n requests at the same time and returns the statuses, sorted.
func (p party) atOnce(n int, method, path string, body func(i int) any) []int {
	p.t.Helper()
	statuses := make([]int, n)
	errs := make([]error, n)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			<-start
			var a answer
			a, errs[i] = p.send(method, path, body(i))
			statuses[i] = a.status
		})
	}
	close(start)
	group.Wait()
	for _, err := range errs {
		if err != nil {
			p.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	slices.Sort(statuses)
	return statuses
}

// one is the statuses of n requests of which one wins.
func one(n, winner, others int) []int {
	statuses := slices.Repeat([]int{others}, n)
	statuses[0] = winner
	slices.Sort(statuses)
	return statuses
}

// ca asks for a CA with a P-256 key: further fields override.
func (p party) ca(name string, fields object) answer {
	p.t.Helper()
	body := object{"name": name, "subject_dn": "CN=" + name + ",O=Example", "key_type": "ec", "key_size": 256}
	for k, v := range fields {
		body[k] = v
	}
	return p.ask("POST", "/api/v1/cas/", body)
}

// issue asks for a certificate with a P-256 key: further fields override.
func (p party) issue(ca int64, commonName, kind string, fields object) answer {
	p.t.Helper()
	body := object{"common_name": commonName, "subject_dn": "CN=" + commonName + ",O=Example", "certificate_type": kind,
		"key_type": "ec", "key_size": 256}
	for k, v := range fields {
		body[k] = v
	}
	return p.ask("POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", ca), body)
}

// sign asks to sign a CSR: fields override.
func (p party) sign(ca int64, csr, kind string, fields object) answer {
	p.t.Helper()
	body := object{"ca_id": ca, "csr": csr, "certificate_type": kind}
	for k, v := range fields {
		if body[k] = v; v == nil {
			delete(body, k)
		}
	}
	return p.ask("POST", "/api/v1/certificates/sign-csr", body)
}

func (p party) revoke(certificate int64, reason string) answer {
	p.t.Helper()
	return p.ask("POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", certificate), object{"reason": reason})
}

// audit returns the newest audit entries that match a query.
func (p party) audit(query string, args ...any) []object {
	p.t.Helper()
	return p.ask("GET", "/api/v1/audit-logs/?"+fmt.Sprintf(query, args...), nil).list()
}

// published returns the CRL of a CA, verified with its certificate.
func (p party) published(ca answer) *x509.RevocationList {
	p.t.Helper()
	return parseCRL(p.t, p.ask("GET", "/crl/"+slugOf(ca), nil).want(http.StatusOK).body, ca.x509())
}

// publishedWith waits for the CRL that has so many entries. How soon it comes is a sentence of its own.
func (p party) publishedWith(ca answer, entries int) *x509.RevocationList {
	p.t.Helper()
	list := p.published(ca)
	for deadline := time.Now().Add(30 * time.Second); len(list.RevokedCertificateEntries) != entries; list = p.published(ca) {
		if time.Now().After(deadline) {
			p.t.Fatalf("the CRL of %s has the serials %v, want %d", slugOf(ca), revokedSerials(list), entries)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return list
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// slugOf is the slug of a CA with a plain ASCII name.
func slugOf(ca answer) string {
	o := ca.object()
	return fmt.Sprintf("%s-%d", strings.Trim(notSlug.ReplaceAllString(strings.ToLower(o["name"].(string)), "-"), "-"), id(o))
}

func revokedSerials(list *x509.RevocationList) []string {
	var all []string
	for _, e := range list.RevokedCertificateEntries {
		all = append(all, e.SerialNumber.Text(16))
	}
	slices.Sort(all)
	return all
}

// pemOf encodes one PEM block.
func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
