package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of a connection. A request that makes an RSA-4096 key in a token may take many seconds, and a header holds an
// access token at most.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 2 * time.Minute
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
)

// Limits of an HTTP/2 connection. A client that resets its streams as fast as it opens them (CVE-2023-44487) has no more
// handlers than this running, and is disconnected when four times as many wait (net/http).
const (
	maxStreams       = 64
	streamBuffer     = 64 << 10 // octets of bodies that the server has not read yet
	connectionBuffer = 4 * streamBuffer
)

const (
	// pruneEvery is how often expired sessions and idempotency keys leave the database.
	pruneEvery = time.Hour
	// othersGrace is how old a reservation is at the start before another replica may call it abandoned: longer than
	// a request has to finish its record.
	othersGrace = 2 * time.Minute
)

// serveCommand runs the server until a signal ends it.
type serveCommand struct{ Config }

// Run serves. It returns nil after a signal, when every request in flight was answered.
func (c *serveCommand) Run(in *invocation) error {
	return (&program{config: c.Config, stdout: in.stdout, stderr: in.stderr, now: time.Now}).run(in.ctx)
}

// run is the life of a server, from the lock on its data folder to the last line of its log.
func (p *program) run(ctx context.Context) (err error) {
	c := &p.config
	if err := c.check(); err != nil {
		return err
	}
	log := c.logger(p.stderr)

	tuneMemory()

	// 1. The folder and the addresses are ours, or nothing is touched.
	unlock, err := c.lockData(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	listener, bounded, err := c.listen(ctx)
	if err != nil {
		return err
	}
	defer listener.Close()
	var metricsListener net.Listener
	if c.MetricsListen != "" {
		if metricsListener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", c.MetricsListen); err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
		metricsListener = boundConnections(metricsListener, min(maxScrapers, c.maxConnections()))
		defer metricsListener.Close()
	}

	// 2. Database and token.
	s, err := p.build(ctx, log, listener.Addr())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.metrics.watch(bounded)

	// 3. What the last run announced and did not complete is closed before anybody is answered, and nobody is answered
	// with another database's token.
	if err := s.reconcile(ctx); err != nil {
		return err
	}
	if err := s.checkKeys(ctx, c.AcceptMissingKeys); err != nil {
		return err
	}
	s.ready.refresh(ctx)
	if err := p.announce(ctx, s, listener.Addr()); err != nil {
		return err
	}

	// 4. Serve until told to stop. Then the background work, the token and the database end, in this order.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	wait := s.background(background)
	defer wait()
	defer stopBackground()
	services := []service{{newHTTPServer(s.handler, log), listener}}
	if metricsListener != nil {
		services = append(services, service{newHTTPServer(s.metricsHandler(), log), metricsListener})
	}
	return serve(ctx, services, c.ShutdownTimeout, log)
}

// service is a handler with the address it is served on.
type service struct {
	*http.Server
	listener net.Listener
}

// serve answers until ctx ends or a service fails, then finishes the requests in flight and cuts off those that take
// longer than timeout.
func serve(ctx context.Context, services []service, timeout time.Duration, log *slog.Logger) (err error) {
	failed := make(chan error, len(services))
	for _, s := range services {
		go func() { failed <- s.Serve(s.listener) }()
	}
	select {
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		log.Info("stopping", "timeout", timeout)
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	for _, s := range services {
		if cut := s.Shutdown(limited); cut != nil {
			err = errors.Join(err, fmt.Errorf("requests were cut off after %s: %w", timeout, cut), s.Close())
		}
	}
	return err
}

// listen opens the main listener, with TLS when it is configured, and what bounds its connections.
func (c *Config) listen(ctx context.Context) (net.Listener, *connections, error) {
	var settings *tls.Config
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, nil, usagef("--tls-cert and --tls-key: %w", err)
		}
		settings = &tls.Config{
			Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	bounded := boundConnections(listener, c.maxConnections())
	if settings != nil {
		return tls.NewListener(bounded, settings), bounded, nil
	}
	return bounded, bounded, nil
}

func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           working(handler),
		ConnContext:       bind,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: connectionBuffer,
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// endOfTime is later than any record, also one that was made before the clock was set back.
var endOfTime = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)

// reconcile closes the reservations that no process will complete: all of them when the database is this process's
// alone, otherwise those that are old enough. Then the leases of an earlier process are void as well.
func (s *server) reconcile(ctx context.Context) error {
	before := s.now().Add(-othersGrace)
	if s.exclusive {
		before = endOfTime
		if err := s.db.EndLeases(ctx); err != nil {
			return fmt.Errorf("end the leases of an earlier run: %w", err)
		}
		if err := s.db.EndClaims(ctx); err != nil {
			return fmt.Errorf("end the claims of an earlier run: %w", err)
		}
	}
	n, err := s.authority.Reconcile(ctx, before)
	if err != nil {
		return err
	}
	if n > 0 {
		s.log.Warn("closed the reservations of an earlier run: their serials count as revoked", "count", n)
	}
	return nil
}

// background starts what happens without a request; wait returns when all of it has ended.
func (s *server) background(ctx context.Context) (wait func()) {
	var group sync.WaitGroup
	group.Go(func() { s.authority.Run(ctx) })
	group.Go(func() { s.ready.run(ctx) })
	group.Go(func() { s.metrics.outlook.run(ctx, s.failed) })
	if s.webhook != nil {
		group.Go(func() { s.authority.Watch(ctx) })
		group.Go(func() { s.webhook.Run(ctx) })
	}
	group.Go(func() {
		ticker := time.NewTicker(pruneEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := errors.Join(s.people.Prune(ctx), s.db.PruneClaims(ctx)); err != nil && ctx.Err() == nil {
					s.failed("prune", err)
				}
			}
		}
	})
	return group.Wait
}

// announce prints where the server is and what to do next. It goes to standard output and never to the log, because it
// may hold the one-time token for the first user.
func (p *program) announce(ctx context.Context, s *server, addr net.Addr) error {
	url, _ := p.config.localURL(addr)
	bootstrap, err := s.people.BootstrapToken(ctx)
	if err != nil {
		return fmt.Errorf("prepare first user: %w", err)
	}
	text := fmt.Sprintf("signet: serving on %s\nsignet: API documentation on %s/docs\n", url, url)
	if bootstrap != "" {
		text += fmt.Sprintf(`
There is no user yet. Create the first one, a superuser, from this machine:

  curl -X POST %s/api/v1/users/ -H 'Content-Type: application/json' \
    -d '{"username": "admin", "email": "admin@example.com", "password": "choose-a-password", "role": "superuser"}'

From another machine, add this header; it works once:

  -H 'X-Bootstrap-Token: %s'

`, url, bootstrap)
	}
	_, err = fmt.Fprint(p.stdout, text)
	return err
}
