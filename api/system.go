package api

import (
	"context"
	_ "embed"
	"net/http"
	"sync"
	"time"

	"github.com/swaggest/swgui/v5emb"

	"signet/api/wire"
	"signet/fault"
)

func (s *server) welcome(w http.ResponseWriter, _ *request) error {
	writeJSON(w, http.StatusOK, wire.Welcome{
		Message: "Welcome to Signet, a certificate authority whose keys cannot leave their token",
		Docs:    "/docs", Openapi: prefix + "/openapi.json",
	})
	return nil
}

func (s *server) health(w http.ResponseWriter, _ *request) error {
	writeJSON(w, http.StatusOK, wire.Health{Status: wire.HealthStatusOk})
	return nil
}

func (s *server) readyz(w http.ResponseWriter, r *request) error {
	if err := s.ready.check(r.Context()); err != nil {
		return err
	}
	return s.health(w, r)
}

const (
	readyFor     = time.Second
	readyTimeout = 5 * time.Second
)

// readiness remembers a verdict for a while, so that anonymous callers do not reach what is behind it.
type readiness struct {
	ask func(context.Context) error

	mu      sync.Mutex
	at      time.Time
	verdict error
}

func newReadiness(ask func(context.Context) error) *readiness {
	if ask == nil {
		ask = func(context.Context) error { return nil }
	}
	return &readiness{ask: ask}
}

// check returns nil, or an Unavailable fault with the reason.
func (r *readiness) check(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) >= readyFor {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout) // the verdict is everybody's
		defer cancel()
		r.verdict, r.at = r.ask(ctx), time.Now()
	}
	if r.verdict != nil && fault.CodeOf(r.verdict) != fault.Unavailable {
		return fault.Wrap(fault.Unavailable, "The server is not ready", r.verdict)
	}
	return r.verdict
}

func (s *server) specification(w http.ResponseWriter, _ *request) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(s.openapi) // a client that hung up does not read it
	return nil
}

var (
	//go:embed docs.html
	docsPage []byte
	//go:embed docs.js
	docsScript []byte
)

// docsPolicy lets the API pages use what is embedded here, and nothing else in the world.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (s *server) docs(w http.ResponseWriter, _ *request) error {
	w.Header().Set("Content-Security-Policy", docsPolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(docsPage)
	return nil
}

// docsAssets are what the API pages load, below /docs/. Two of them are Swagger UI's.
var docsAssets = []string{"docs.js", "swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"}

func (s *server) asset() http.Handler {
	embedded := v5emb.New("Signet", prefix+"/openapi.json", "/docs")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		exchangeOf(r.Context()).route = "/docs"
		if r.URL.Path == "/docs/docs.js" {
			w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
			_, _ = w.Write(docsScript) // a client that hung up does not read it
			return
		}
		embedded.ServeHTTP(w, r)
	})
}
