package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestARequestInFlightIsFinishedAfterSIGTERM(t *testing.T) {
	t.Parallel()
	_, r := startServer(t, "sqlite")
	type result struct {
		status int
		answer []byte
		err    error
	}
	answered := make(chan result, 1)
	go func() {
		var res result
		res.status, res.answer, res.err = r.do("POST", "/api/v1/cas/", object{
			"name": "Slow", "subject_dn": "CN=Slow", "key_type": "rsa", "key_size": 3072})
		answered <- res
	}()
	// The reservation in the audit log shows that the request is in the middle of its work.
	for deadline := time.Now().Add(20 * time.Second); len(r.list("/api/v1/audit-logs/?action=ca_reserve")) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the request never began")
		}
	}
	code := r.stop(syscall.SIGTERM)
	if res := <-answered; res.status != http.StatusCreated {
		t.Errorf("status %d, %v: %s", res.status, res.err, res.answer)
	}
	if code != 0 {
		t.Errorf("exit code %d:\n%s", code, r.stderr)
	}
	if _, _, err := r.do("GET", "/healthz", nil); err == nil {
		t.Error("something still answers")
	}
}

// serverCertificate writes a self-signed certificate for 127.0.0.1 and its key.
func serverCertificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the server itself"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(certificate)
	return certFile, keyFile, roots
}

func TestWithACertificateTheServerSpeaksModernTLSOnly(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := serverCertificate(t)
	s := newSite(t, "sqlite", "--tls-cert", certFile, "--tls-key", keyFile)
	s.roots = roots
	r := s.start("signet")
	if !strings.HasPrefix(r.url, "https://127.0.0.1:") {
		t.Fatalf("serves on %s, want https", r.url)
	}
	r.firstUser()
	authority := r.createCA("TLS")
	issued := parseCertificate(t, r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": authority, "certificate_type": "server", "csr": csr(t, "www.example.com")})["certificate"])
	if len(issued.CRLDistributionPoints) != 1 || !strings.HasPrefix(issued.CRLDistributionPoints[0], r.url+"/crl/") {
		t.Errorf("CRL distribution points are %v, want one below %s", issued.CRLDistributionPoints, r.url)
	}

	address := strings.TrimPrefix(r.url, "https://")
	old := &tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}}
	if conn, err := old.DialContext(context.Background(), "tcp", address); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was accepted")
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"health", "--url", r.url}, nil, &out, &out); err == nil {
		t.Error("the health check trusts a certificate that nobody vouches for")
	}
	if err := run(t.Context(), []string{"health", "--url", r.url, "--insecure"}, nil, &out, &out); err != nil {
		t.Errorf("health check: %v", err)
	}
}

func TestMetricsMayHaveAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	r := newSite(t, "sqlite", "--metrics-listen", address).start("signet")
	r.raw(http.StatusNotFound, "GET", "/metrics", nil)
	r.firstUser()
	authority := r.createCA("Metrics")
	certificate := r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": authority, "certificate_type": "client", "csr": csr(t, "client")})
	r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(certificate)), object{"reason": "keyCompromise"})
	r.raw(http.StatusBadRequest, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": authority, "certificate_type": "server", "csr": csr(t, "not a host name")})

	metrics := &client{t: t, url: "http://" + address, http: r.http}
	text := ""
	eventually(t, 10*time.Second, "the empty list and the one with the revocation are published", func() bool {
		text = string(metrics.raw(http.StatusOK, "GET", "/metrics", nil))
		return strings.Contains(text, "\nsignet_crl_published_total 2")
	})
	for _, want := range []string{
		`signet_certificates_issued_total{type="ca"} 1`,
		`signet_certificates_issued_total{type="client"} 1`,
		`signet_certificates_issued_total{type="server"} 0`,
		`signet_certificates_revoked_total{reason="1"} 1`,
		`signet_requests_refused_total{step="policy"} 1`,
		`signet_token_operations_total{op="generate",result="ok",token="default"}`,
		`signet_token_operations_total{op="sign",result="ok",token="default"}`,
		`signet_token_operation_seconds_count{op="sign",token="default"}`,
		`signet_token_sessions{token="default"} `, `signet_token_up{token="default"} 1`,
		`signet_database_seconds_count{op="Reserve"} 1`,
		`signet_ready{component="database"} 1`,
		`signet_ready{component="token"} 1`,
		`signet_build_info{version="`,
		`go_goroutines `,
		`process_resident_memory_bytes `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	noSecretLeaked(t, r)
}
