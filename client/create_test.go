package client_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"signet/api/wire"
	"signet/client"
)

var errCut = errors.New("the connection was cut")

// unreliable is a way to the server on which the next answers get lost, or are none.
type unreliable struct {
	mu   sync.Mutex
	loss []string // "before", "after" or "busy" for each request to come that creates something
	keys []string // that were sent
}

func (u *unreliable) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost || strings.Contains(r.URL.Path, "/auth/") {
		return http.DefaultTransport.RoundTrip(r)
	}
	u.mu.Lock()
	u.keys = append(u.keys, r.Header.Get("Idempotency-Key"))
	how := ""
	if len(u.loss) > 0 {
		how, u.loss = u.loss[0], u.loss[1:]
	}
	u.mu.Unlock()
	if how == "before" {
		return nil, errCut
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || how == "" {
		return response, err
	}
	response.Body.Close()
	if how == "after" {
		return nil, errCut
	}
	header := response.Header.Clone()
	header.Set("Retry-After", "1")
	return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: header, Request: r,
		Body: io.NopCloser(strings.NewReader(`{"detail":"busy"}`)), Proto: r.Proto, ProtoMajor: 1, ProtoMinor: 1}, nil
}

// lose plans what gets lost, and forgets the keys.
func (u *unreliable) lose(loss ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.loss, u.keys = loss, nil
}

func TestACallWhoseAnswerIsLostCreatesOneThing(t *testing.T) {
	t.Parallel()
	way := &unreliable{}
	c, _ := newClientThrough(t, way)
	ctx := t.Context()
	ec := wire.KeyTypeEc
	way.lose("after")
	authority, err := c.CreateCA(ctx, wire.CACreate{Name: "Root", SubjectDN: "CN=Root", KeyType: &ec})
	if err != nil {
		t.Fatal(err)
	}
	way.lose("before", "after", "after")
	issued, err := c.IssueCertificate(ctx, authority.ID, wire.CertificateCreate{
		CommonName: "a.example.com", SubjectDN: "CN=a.example.com", CertificateType: wire.CertificateTypeServer, KeyType: &ec})
	if err != nil || issued.PrivateKey == nil {
		t.Errorf("issued %+v, %v", issued, err)
	}
	if keys := way.keys; len(keys) != 4 || keys[0] == "" || keys[1] != keys[0] || keys[3] != keys[0] {
		t.Errorf("the keys were %q", keys)
	}
	request := wire.CSRSignRequest{CSR: csr(t), CAName: &authority.Name, CertificateType: wire.CertificateTypeServer}
	named := client.WithIdempotencyKey(ctx, "order-17")
	signed, err := c.SignCSR(named, request)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.SignCSR(named, request); err != nil || again.ID != signed.ID {
		t.Errorf("certificate %d, then %d, %v", signed.ID, again.ID, err)
	}
	request.CommonName = new(string)
	*request.CommonName = "c.example.com"
	if _, err := c.SignCSR(named, request); !client.IsStatus(err, http.StatusUnprocessableEntity) {
		t.Errorf("another call with the key: %v", err)
	}
	if another, err := c.SignCSR(ctx, request); err != nil || another.ID == signed.ID {
		t.Errorf("a call of its own: %+v, %v", another, err)
	}
	if _, err := c.CreateOrganization(client.WithIdempotencyKey(ctx, "schlüssel"), wire.OrganizationCreate{Name: "Org"}); !client.IsStatus(err, http.StatusUnprocessableEntity) {
		t.Errorf("a malformed key: %v", err)
	}
	n := 0
	for _, err := range c.Certificates(ctx, wire.ListCertificatesParams{}) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != 3 {
		t.Errorf("%d certificates, want 3", n)
	}
}

func TestACallEndsWhenTheServerStaysAway(t *testing.T) {
	t.Parallel()
	way := &unreliable{}
	c, _ := newClientThrough(t, way)
	way.lose("before", "before", "before", "before", "before")
	if _, err := c.CreateOrganization(t.Context(), wire.OrganizationCreate{Name: "Org"}); !errors.Is(err, errCut) || len(way.keys) != 5 {
		t.Errorf("after %d attempts: %v", len(way.keys), err)
	}
	way.lose("busy")
	start := time.Now()
	if o, err := c.CreateOrganization(t.Context(), wire.OrganizationCreate{Name: "Org"}); err != nil || o.Name != "Org" {
		t.Errorf("%+v, %v", o, err)
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("it asked again after %s, before the server wanted it", took)
	}
	way.lose()
	name := wire.UserCreate{Username: "x", Email: "not an address", Password: "p"}
	if _, err := c.CreateUser(t.Context(), name); !client.IsStatus(err, http.StatusUnprocessableEntity) || len(way.keys) != 1 {
		t.Errorf("a refusal, after %d attempts: %v", len(way.keys), err)
	}
}
