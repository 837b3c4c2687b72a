package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestTheHealthCheckFindsTheServerByItsSettings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ url, listen, cert, want string }{
		{listen: "127.0.0.1:8000", want: "http://127.0.0.1:8000"},
		{listen: "0.0.0.0:8000", want: "http://127.0.0.1:8000"},
		{listen: ":8000", want: "http://127.0.0.1:8000"},
		{listen: "[::]:8443", cert: "cert.pem", want: "https://[::1]:8443"},
		{listen: "192.0.2.1:8443", cert: "cert.pem", want: "https://192.0.2.1:8443"},
		{listen: "pki.example:https", cert: "cert.pem", want: "https://pki.example:443"},
		{url: "https://pki.example/below", listen: "127.0.0.1:0", want: "https://pki.example/below"},
		{listen: "127.0.0.1:0"},
		{listen: "127.0.0.1"},
		{listen: "127.0.0.1:none"},
		{url: "pki.example", listen: "127.0.0.1:8000"},
	} {
		c := healthCommand{URL: test.url, Config: Config{Listen: test.listen, TLSCert: test.cert}}
		u, err := c.server()
		switch {
		case test.want == "" && err == nil:
			t.Errorf("%+v: got %s, want an error", test, u)
		case test.want != "" && (err != nil || u.String() != test.want):
			t.Errorf("%+v: got %v, %v", test, u, err)
		}
	}
}

// Not parallel: it sets variables.
func TestTheHealthCheckAsksATLSServerOnLoopbackWhateverItsName(t *testing.T) {
	certFile, keyFile, roots := serverCertificate(t)
	s := newSite(t, "sqlite", "--tls-cert", certFile, "--tls-key", keyFile)
	s.roots = roots
	r := s.start("signet")
	r.raw(http.StatusOK, "GET", "/readyz", nil)
	t.Setenv("SIGNET_LISTEN", strings.TrimPrefix(r.url, "https://"))
	var out bytes.Buffer
	if err := run(t.Context(), []string{"health"}, nil, &out, &out); err == nil {
		t.Error("a TLS server was asked in plain HTTP")
	}
	t.Setenv("SIGNET_TLS_CERT", certFile)
	if err := run(t.Context(), []string{"health"}, nil, &out, &out); err != nil {
		t.Errorf("health check: %v", err)
	}
	if err := run(t.Context(), []string{"health", "--listen", "192.0.2.1:1", "--insecure"}, nil, &out, &out); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("--insecure beyond loopback: got %v", err)
	}
}
