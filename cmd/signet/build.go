package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"signet/api"
	"signet/ca"
	"signet/identity"
	"signet/keystore"
	"signet/notify"
	"signet/store"
)

// program is a whole server as a value: the command serve runs one, and so do the tests.
type program struct {
	config         Config
	stdout, stderr io.Writer
	now            func() time.Time

	// What stands between the certificate authority and its database and token. The command sets none; the crash
	// tests end the process in between.
	wrapStore  func(ca.Store) ca.Store
	wrapKeys   func(ca.Keys) ca.Keys
	wrapClaims func(api.Claims) api.Claims
}

// server is a program whose parts are open and joined.
type server struct {
	log       *slog.Logger
	stderr    io.Writer // for what workers leave there
	now       func() time.Time
	metrics   *metrics
	db        *store.DB
	tokens    *keystore.Set
	keys      ca.Keys
	authority *ca.Authority
	people    *identity.Service
	webhook   *notify.Webhook // nil: nobody is told
	ready     *readiness
	handler   http.Handler
	labels    string // of the tokens, for people
	exclusive bool   // no other process uses the database
}

// logger writes structured logs of the configured level and format.
func (c *Config) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// build opens database and token and joins the parts into a server that listens on addr.
func (p *program) build(ctx context.Context, log *slog.Logger, addr net.Addr) (_ *server, err error) {
	c := &p.config
	s := &server{log: log, stderr: p.stderr, now: p.now, metrics: newMetrics(), exclusive: !isPostgres(c.DatabaseURL)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	secret, err := c.secretKey(log)
	if err != nil {
		return nil, err
	}
	webhookSecret, err := c.webhookSecret(log)
	if err != nil {
		return nil, err
	}
	if s.db, err = openDatabase(ctx, c, log, p.now, func(op string, took time.Duration, _ error) {
		s.metrics.database.WithLabelValues(op).Observe(took.Seconds())
	}); err != nil {
		return nil, err
	}
	if err := s.openTokens(ctx, c); err != nil {
		return nil, err
	}
	s.keys = p.keys(s.tokens)

	base, guessed := c.publicURL(addr)
	if guessed {
		log.Warn("certificates will name this server by a URL that only this machine understands: set --public-url", "url", base)
	}
	settings := c.authority()
	settings.Store, settings.Keys, settings.PublicURL = p.store(s.db), s.keys, base
	settings.Now, settings.Hooks = p.now, s.metrics.hooks(s.failed)
	var traffic traffic
	settings.Quiet = traffic.quiet
	s.authority = ca.New(settings)
	s.metrics.lookOut(s.authority)
	s.webhook = s.openWebhook(c.WebhookURL, webhookSecret)
	if s.people, err = identity.New(identity.Config{
		Store: s.db, Secret: secret, AccessTTL: c.AccessTokenTTL, RefreshTTL: c.RefreshTokenTTL,
		AllowOpenRegistration: c.AllowUnauthenticatedRegistration, BcryptCost: c.PasswordCost, SessionAge: recordAge, Now: p.now,
	}); err != nil {
		return nil, fmt.Errorf("set up accounts: %w", err)
	}
	s.ready = &readiness{
		log: log,
		components: []component{
			{name: "database", failure: "the database does not answer", check: s.db.Ping},
			{name: "token", failure: "the token does not sign", check: s.checkTokens, reason: keystore.Reason},
		},
		observe: s.metrics.component,
	}
	claimSecret, err := hkdf.Key(sha256.New, secret, nil, "signet idempotency claims", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive secret of idempotency claims: %w", err)
	}
	s.handler = traffic.watch(api.New(api.Config{
		CA: s.authority, Identity: s.people, Ready: s.ready.Check, Logger: log, Now: p.now,
		Metrics: s.metrics.registry, HideMetrics: c.MetricsListen != "",
		LoginRate: api.Rate(c.LoginRate), Logins: s.db,
		MaxIssuing:     c.maxIssuing(),
		MaxSlow:        c.maxSlow(),
		TrustedProxies: c.TrustedProxies,
		Claims:         p.claims(s.db), ClaimSecret: claimSecret,
	}))
	return s, nil
}

func (p *program) store(db *store.DB) ca.Store {
	if p.wrapStore != nil {
		return p.wrapStore(db)
	}
	return db
}

func (p *program) claims(db *store.DB) api.Claims {
	if p.wrapClaims != nil {
		return p.wrapClaims(db)
	}
	return db
}

func (p *program) keys(tokens *keystore.Set) ca.Keys {
	keys := &tokenKeys{tokens: tokens, sync: p.config.syncToken}
	if p.wrapKeys != nil {
		return p.wrapKeys(keys)
	}
	return keys
}

// failed reports background work that will be tried again.
func (s *server) failed(task string, err error) {
	s.metrics.failures.WithLabelValues(task).Inc()
	s.log.Error("background work failed", "task", task, "error", err)
}

func (s *server) metricsHandler() http.Handler {
	return promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{Registry: s.metrics.registry, MaxRequestsInFlight: maxScrapers})
}

// close closes what build opened, the token first: nothing signs without a database to record it.
func (s *server) close() error {
	var all []error
	if s.tokens != nil {
		if err := s.tokens.Close(); err != nil {
			all = append(all, fmt.Errorf("close tokens: %w", err))
		}
	}
	if s.db != nil {
		if err := s.db.Close(); err != nil {
			all = append(all, fmt.Errorf("close database: %w", err))
		}
	}
	return errors.Join(all...)
}
