// Package api is Signet's HTTP interface: the contract of openapi.yaml on the use cases of packages ca and identity.
//
// Each handler authenticates, reads the request, makes one call and encodes the answer. What must never happen: a rule
// that is only here; a private key, password or token in a log or in an error; an address or an identity taken from a
// header that anybody can set.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"signet/ca"
	"signet/identity"
)

// Config is what the API needs. CA, Identity, Claims and ClaimSecret are required.
type Config struct {
	CA       *ca.Authority
	Identity *identity.Service

	// Ready reports whether database and token answer; nil means they do. It is asked about once a second at most,
	// however often /readyz is.
	Ready func(context.Context) error

	Logger  *slog.Logger         // nil: no log
	Metrics *prometheus.Registry // where the API registers its metrics, and what /metrics shows; nil: none

	// HideMetrics leaves /metrics out, for servers that show the metrics on another listener.
	HideMetrics bool

	// TrustedProxies are the networks of the proxies whose X-Forwarded-For is believed; nil: nobody's is.
	TrustedProxies []netip.Prefix

	// MaxIssuing is how many requests for certificates are worked on at once, about two for each session of the tokens;
	// 0 means 64. What else is bounded follows from it, or is fixed.
	MaxIssuing int

	// MaxSlow is how many bodies are waited for at once, fewer than there may be connections; 0 means 1024. Those that have taken
	// longest are cut off.
	MaxSlow int

	LoginRate Rate             // of login attempts per client address
	Logins    Logins           // counts them; needed with a LoginRate
	Now       func() time.Time // nil: time.Now

	Claims      Claims // of requests with an Idempotency-Key
	ClaimSecret []byte // the same in all replicas; keeps those who read the claims from guessing what was requested
}

type server struct {
	ca       *ca.Authority
	identity *identity.Service
	log      *slog.Logger
	now      func() time.Time
	ready    *readiness
	logins   *limiter
	trusted  []netip.Prefix // proxies
	claims   Claims
	metrics  *metrics
	router   *mux.Router
	openapi  []byte // JSON

	claimSecret []byte
}

// New returns the handler of every route. It panics when openapi.yaml and the routes disagree, which a test would have
// found.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &server{
		ca: cfg.CA, identity: cfg.Identity, log: cfg.Logger, now: cfg.Now,
		ready: newReadiness(cfg.Ready), logins: newLimiter(cfg.LoginRate, cfg.Logins, cfg.Now), metrics: newMetrics(cfg.Metrics),
		trusted: cfg.TrustedProxies, claims: cfg.Claims, claimSecret: cfg.ClaimSecret,
	}
	s.route(cfg)
	return newAdmission(cfg).admit(s.observe(s.router), func(err error) http.Handler {
		return s.observe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, err) }))
	})
}

// handler answers one request, or returns why it does not.
type handler func(w http.ResponseWriter, r *request) error

const prefix = "/api/v1"

// route makes the router.
func (s *server) route(cfg Config) {
	doc, err := Specification()
	if err != nil {
		panic(err)
	}
	if s.openapi, err = doc.MarshalJSON(); err != nil {
		panic(err)
	}
	s.router = mux.NewRouter().SkipClean(true) // a path means what it says; nothing redirects to another host's
	s.router.NotFoundHandler = http.HandlerFunc(s.notFound)
	s.router.MethodNotAllowedHandler = http.HandlerFunc(s.methodNotAllowed)

	open := func(method, path string, h handler) {
		methods := []string{method}
		if method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		s.router.Handle(slashed.Replace(path), s.serve(path, operationOf(doc, method, path), h)).Methods(methods...)
	}
	s.routeFleets(func(method, path string, h handler) { open(method, path, quietly(h)) })
	s.routeEverybody(cfg, open)
	s.routeUsers(func(method, path string, h handler) { open(method, prefix+path, s.authenticated(h)) })
}

// slashed lets a request in a path have slashes, as base64 has.
var slashed = strings.NewReplacer("/{request}", "/{request:.+}")

// routeFleets registers the routes that relying parties ask all the time. They come first: the router tries one by one.
func (s *server) routeFleets(open func(method, path string, h handler)) {
	open("POST", "/ocsp/{slug}", s.ocspPOST)
	open("GET", "/ocsp/{slug}/{request}", s.ocspGET)
	open("GET", "/crl/{slug}.pem", s.crlPEM)
	open("GET", "/crl/{slug}", s.crl(false))
	open("GET", "/crl/{slug}/delta", s.crl(true))
	open("GET", "/crl/{slug}/{shard}", s.crl(false))
	open("GET", "/crl/{slug}/{shard}/delta", s.crl(true))
}

// quietly keeps a route out of the log, unless something is wrong.
func quietly(h handler) handler {
	return func(w http.ResponseWriter, r *request) error {
		exchangeOf(r.Context()).quiet = true
		return h(w, r)
	}
}

// routeEverybody registers the routes that nobody needs to log in for.
func (s *server) routeEverybody(cfg Config, open func(method, path string, h handler)) {
	open("GET", "/", s.welcome)
	open("GET", "/healthz", s.health)
	open("GET", "/readyz", s.readyz)
	open("GET", "/docs", s.docs)
	open("GET", prefix+"/openapi.json", s.specification)
	for _, name := range docsAssets {
		s.router.Handle("/docs/"+name, s.asset()).Methods("GET", "HEAD")
	}
	if cfg.Metrics != nil && !cfg.HideMetrics {
		open("GET", "/metrics", metricsPage(cfg.Metrics))
	}

	open("GET", "/ca/{slug}.crt", s.caCertificate)
	open("GET", "/ca/{slug}.pem", s.caCertificatePEM)

	open("POST", prefix+"/auth/token", s.login)
	open("POST", prefix+"/auth/refresh", s.refresh)

	open("POST", prefix+"/users/", s.identified(s.createUser))
}

// routeUsers registers the routes that only users may call, below the prefix.
func (s *server) routeUsers(authenticated func(method, path string, h handler)) {
	authenticated("POST", "/auth/logout", s.logout)
	authenticated("POST", "/auth/invalidate", s.invalidateSessions)

	authenticated("GET", "/users/", s.listUsers)
	authenticated("GET", "/users/me", s.getMe)
	authenticated("GET", "/users/{user_id}", s.getUser)
	authenticated("PATCH", "/users/{user_id}", s.updateUser)
	authenticated("DELETE", "/users/{user_id}", s.deleteUser)

	authenticated("POST", "/organizations/", s.createOrganization)
	authenticated("GET", "/organizations/", s.listOrganizations)
	authenticated("GET", "/organizations/{organization_id}", s.getOrganization)
	authenticated("PUT", "/organizations/{organization_id}", s.updateOrganization)
	authenticated("DELETE", "/organizations/{organization_id}", s.deleteOrganization)
	authenticated("GET", "/organizations/{organization_id}/users", s.listMembers)
	authenticated("POST", "/organizations/{organization_id}/users/{user_id}", s.addMember)
	authenticated("DELETE", "/organizations/{organization_id}/users/{user_id}", s.removeMember)

	authenticated("POST", "/cas/", s.createCA)
	authenticated("GET", "/cas/", s.listCAs)
	authenticated("GET", "/cas/{ca_id}", s.getCA)
	authenticated("DELETE", "/cas/{ca_id}", s.deleteCA)
	authenticated("GET", "/cas/{ca_id}/chain", s.getCAChain)
	authenticated("GET", "/cas/{ca_id}/children", s.listChildren)
	authenticated("GET", "/cas/{ca_id}/private-key", s.refuseCAKey)
	authenticated("POST", "/cas/{ca_id}/revoke", s.revokeCA)
	authenticated("GET", "/cas/{ca_id}/crls", s.listCRLs)
	authenticated("GET", "/cas/{ca_id}/revocation-policy", s.getRevocationPolicy)
	authenticated("PUT", "/cas/{ca_id}/revocation-policy", s.setRevocationPolicy)
	authenticated("GET", "/cas/{ca_id}/ocsp", s.getOCSPResponder)
	authenticated("GET", "/cas/{ca_id}/key-evidence", s.getKeyEvidence)
	authenticated("POST", "/cas/{ca_id}/key-drill", s.drillKey)
	authenticated("GET", "/cas/{ca_id}/key-drills", s.listKeyDrills)
	authenticated("POST", "/cas/{ca_id}/key-grade", s.acceptKeyGrade)

	authenticated("POST", "/certificates/", s.issueCertificate)
	authenticated("GET", "/certificates/", s.listCertificates)
	authenticated("POST", "/certificates/sign-csr", s.signCSR)
	authenticated("GET", "/certificates/{cert_id}", s.getCertificate)
	authenticated("GET", "/certificates/{cert_id}/private-key", s.getPrivateKey)
	authenticated("POST", "/certificates/{cert_id}/revoke", s.revokeCertificate)
	authenticated("POST", "/certificates/{cert_id}/release", s.releaseCertificate)

	authenticated("GET", "/export/ca/{ca_id}/certificate", s.exportCA)
	authenticated("GET", "/export/ca/{ca_id}/private-key", s.refuseCAKey)
	authenticated("GET", "/export/certificate/{cert_id}", s.exportCertificate)
	authenticated("GET", "/export/certificate/{cert_id}/private-key", s.exportPrivateKey)
	authenticated("GET", "/export/certificate/{cert_id}/chain", s.exportChain)

	authenticated("GET", "/audit-logs/", s.listAuditLogs)
}

// serve runs a handler on a route of the contract.
func (s *server) serve(path string, op operation, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		exchangeOf(r.Context()).route = path
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := h(w, &request{Request: r, operation: op}); err != nil {
			s.fail(w, r, err)
		}
	})
}
