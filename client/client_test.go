package client_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/api"
	"signet/api/contract"
	"signet/api/wire"
	"signet/ca"
	"signet/ca/catest"
	"signet/client"
	"signet/identity"
	"signet/store"
)

const password = "correct horse battery"

// clock is the time of the server's sessions.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// newClient starts a server with a superuser and returns a client that is logged in.
func newClient(t *testing.T) (*client.Client, *clock) {
	t.Helper()
	return newClientThrough(t, nil)
}

// newClientThrough is newClient with something between client and server.
func newClientThrough(t *testing.T, next http.RoundTripper) (*client.Client, *clock) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "signet.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	authority := ca.New(ca.Config{
		Store: db, Keys: catest.NewKeys("main"), PublicURL: "http://pki.example", Now: time.Now,
		CRLValidity: 7 * 24 * time.Hour, CRLRefresh: 24 * time.Hour, CRLOverlap: 24 * time.Hour, CRLCoalesce: time.Second,
		OCSP: ca.OCSPConfig{Validity: 24 * time.Hour, ResponderValidity: 14 * 24 * time.Hour, CacheEntries: 100, Signers: 1},
	})
	moved := &clock{}
	people, err := identity.New(identity.Config{
		Store: db, Secret: bytes.Repeat([]byte("k"), 32), AccessTTL: time.Minute, RefreshTTL: time.Hour, BcryptCost: 4, Now: moved.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api.New(api.Config{CA: authority, Identity: people, Claims: db, ClaimSecret: bytes.Repeat([]byte("c"), 32)}))
	t.Cleanup(server.Close)
	c, err := client.New(server.URL+"/", &http.Client{Transport: contract.Transport{T: t, Next: next}})
	if err != nil {
		t.Fatal(err)
	}
	role := wire.RoleSuperuser
	if _, err := c.CreateUser(t.Context(), wire.UserCreate{Username: "root", Email: "root@example.com", Password: password, Role: &role}); err != nil {
		t.Fatal(err)
	}
	if err := c.Login(t.Context(), "root", password); err != nil {
		t.Fatal(err)
	}
	return c, moved
}

func TestFromLoginToRevocation(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	ctx := t.Context()
	ec := wire.KeyTypeEc
	authority, err := c.CreateCA(ctx, wire.CACreate{Name: "Root", SubjectDN: "CN=Root", KeyType: &ec})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := c.DrillKey(ctx, authority.ID); err != nil || d.Grade != wire.KeyGradeDrilled {
		t.Errorf("drill %+v, %v", d, err)
	}
	if drills, err := c.KeyDrills(ctx, authority.ID); err != nil || len(drills) != 2 {
		t.Errorf("drills %+v, %v", drills, err)
	}
	accepted, err := c.AcceptKeyGrade(ctx, authority.ID, wire.KeyGradeAccept{Accept: wire.KeyGradeAcceptAcceptAsserted, Reason: "a test"})
	if err != nil || accepted.KeyGradeAccepted == nil || *accepted.KeyGradeAccepted != "asserted" {
		t.Errorf("accepted %+v, %v", accepted, err)
	}
	issued, err := c.IssueCertificate(ctx, authority.ID, wire.CertificateCreate{
		CommonName: "a.example.com", SubjectDN: "CN=a.example.com", CertificateType: wire.CertificateTypeServer, KeyType: &ec})
	if err != nil || issued.PrivateKey == nil {
		t.Fatalf("issued %+v, %v", issued, err)
	}
	if kept, err := c.PrivateKey(ctx, issued.ID); err != nil || *kept.PrivateKey != *issued.PrivateKey {
		t.Errorf("kept another key, %v", err)
	}
	signed, err := c.SignCSR(ctx, wire.CSRSignRequest{CSR: csr(t), CAName: &authority.Name, CertificateType: wire.CertificateTypeServer})
	if err != nil || signed.CommonName != "b.example.com" {
		t.Fatalf("signed %+v, %v", signed, err)
	}
	hold := "certificateHold"
	revoked, err := c.RevokeCertificate(ctx, signed.ID, wire.RevokeRequest{Reason: &hold})
	if err != nil || revoked.Status != wire.CertificateStatusRevoked {
		t.Errorf("revoked %+v, %v", revoked, err)
	}
	if released, err := c.ReleaseCertificate(ctx, signed.ID, "found"); err != nil || released.Status != wire.CertificateStatusValid {
		t.Errorf("released %+v, %v", released, err)
	}
	one := 1
	var names []string
	for certificate, err := range c.Certificates(ctx, wire.ListCertificatesParams{CAID: &authority.ID, Limit: &one}) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, certificate.CommonName)
	}
	if fmt.Sprint(names) != "[a.example.com b.example.com]" {
		t.Errorf("listed %q", names)
	}
	for _, err := range c.CAs(ctx, wire.ListCAsParams{}) {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestHowACAPublishesWhatItRevoked(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	ctx := t.Context()
	ec := wire.KeyTypeEc
	authority, err := c.CreateCA(ctx, wire.CACreate{Name: "Root", SubjectDN: "CN=Root", KeyType: &ec})
	if err != nil {
		t.Fatal(err)
	}
	sub, err := c.CreateCA(ctx, wire.CACreate{Name: "Sub", SubjectDN: "CN=Sub", KeyType: &ec, ParentCAID: &authority.ID})
	if err != nil {
		t.Fatal(err)
	}
	validity, shards := "48h", 2
	set, err := c.SetRevocationPolicy(ctx, authority.ID, wire.RevocationPolicyUpdate{CRLValidity: &validity, CRLShards: &shards})
	if err == nil || !client.IsStatus(err, http.StatusBadRequest) { // refresh and overlap of the server are as long
		t.Errorf("set %+v, %v", set, err)
	}
	overlap := "1h"
	set, err = c.SetRevocationPolicy(ctx, authority.ID, wire.RevocationPolicyUpdate{CRLValidity: &validity, CRLOverlap: &overlap, CRLShards: &shards})
	if err != nil || set.Effective.CRLValidity != "48h0m0s" || set.CRLRefresh != nil {
		t.Errorf("set %+v, %v", set, err)
	}
	if got, err := c.RevocationPolicy(ctx, authority.ID); err != nil || got.CRLShards != 2 {
		t.Errorf("policy %+v, %v", got, err)
	}
	if revoked, err := c.RevokeCA(ctx, sub.ID, wire.RevokeRequest{}); err != nil || *revoked.RevocationReason != "unspecified" {
		t.Errorf("revoked %+v, %v", revoked, err)
	}
	lists := 0
	for l, err := range c.CRLs(ctx, authority.ID) {
		if err != nil || l.URL == "" {
			t.Fatalf("list %+v, %v", l, err)
		}
		lists++
	}
	if lists == 0 {
		t.Error("no lists")
	}
	if _, err := c.OCSPResponder(ctx, 4711); !client.IsStatus(err, http.StatusNotFound) {
		t.Errorf("responder of an unknown CA: %v", err)
	}
}

func TestARefusalSaysWhy(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	if _, err := c.CA(t.Context(), 4711); !client.IsStatus(err, http.StatusNotFound) || err.Error() != "404 Not Found: CA not found" {
		t.Errorf("unknown CA: %v", err)
	}
	_, err := c.CreateOrganization(t.Context(), wire.OrganizationCreate{})
	if !client.IsStatus(err, http.StatusUnprocessableEntity) || !strings.Contains(err.Error(), "[body name]: String should have at least 1 character") {
		t.Errorf("no name: %v", err)
	}
	if err := c.Login(t.Context(), "root", "wrong"); !client.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("wrong password: %v", err)
	}
	if client.IsStatus(nil, 200) {
		t.Error("nil is no refusal")
	}
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte("<html>"))
	}))
	defer broken.Close()
	other, err := client.New(broken.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Me(t.Context()); !client.IsStatus(err, http.StatusBadGateway) {
		t.Errorf("a proxy: %v", err)
	}
}

func TestAnExpiredSessionIsRenewedOnceForAllCalls(t *testing.T) {
	t.Parallel()
	c, clock := newClient(t)
	clock.ahead.Store(int64(2 * time.Minute))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := c.CreateOrganization(t.Context(), wire.OrganizationCreate{Name: fmt.Sprint("o", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	clock.ahead.Store(int64(3 * time.Hour)) // the refresh token has expired too
	if _, err := c.Me(t.Context()); !client.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("after the end of the session: %v", err)
	}
}

func TestLogoutEndsTheSession(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	if err := c.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Me(t.Context()); !client.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("after logout: %v", err)
	}
}

func TestBaseURLsThatNameNoServer(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"", "localhost:8000", "ftp://pki.example", "http://", "/api", "http://a b"} {
		if _, err := client.New(base, nil); err == nil {
			t.Errorf("%q is accepted", base)
		}
	}
}

func csr(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "b.example.com"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}
