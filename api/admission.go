package api

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet/api/ocsp"
)

// class is a kind of requests with a capacity of its own, so that none can take it from another.
type class int

const (
	classElsewhere class = iota // health, metrics, documents: answered from memory
	classPublic                 // what relying parties ask
	classRevoke                 // what takes a right or a trust away, and staying logged in meanwhile
	classRead                   // everything else that changes nothing
	classIssue                  // certificates, and their private keys
	classLogin                  // bcrypt
	classChange                 // everything else: CAs, users, organizations, drills
	classes
)

var classNames = [classes]string{"other", "public", "revoke", "read", "issue", "login", "change"}

// classOf finds the class of a request, or of a route of the contract. It looks at nothing that costs time.
func classOf(method, path string) class {
	if strings.HasPrefix(path, "/ocsp/") || strings.HasPrefix(path, "/crl/") || strings.HasPrefix(path, "/ca/") {
		return classPublic
	}
	path, ok := strings.CutPrefix(path, prefix+"/")
	if !ok || path == "openapi.json" {
		return classElsewhere
	}
	resource, _, _ := strings.Cut(path, "/")
	path = strings.TrimSuffix(path, "/")
	last := path[strings.LastIndexByte(path, '/')+1:]
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		switch last { // what only reads, but with the token
		case "private-key":
			return classIssue
		case "key-evidence":
			return classChange
		}
		return classRead
	case http.MethodDelete, http.MethodPatch: // PATCH of a user ends an account, or what it may do
		return classRevoke
	}
	switch last {
	case "revoke", "release", "logout", "invalidate", "refresh", "revocation-policy", "key-grade":
		return classRevoke
	case "certificates", "sign-csr":
		return classIssue
	case "token":
		return classLogin
	case "users":
		if resource == last {
			return classLogin
		}
	}
	return classChange
}

// defaultIssuing is how many requests for certificates are worked on at once. Twice as many as a token has sessions keep
// those busy while as many are checked and recorded.
const defaultIssuing = 64

// bounds are those of the lanes, in the order of the classes.
//
// What relying parties ask is mostly answered from memory; its bound keeps a database that hangs from holding every connection.
// As many clients as may be worked for at once never see a refusal, however few places there are now. Reads leave half of
// the 16 database connections to the rest. A revocation waits where anything else would be refused.
func bounds(atOnce int) [classes]laneBounds {
	processors := runtime.GOMAXPROCS(0)
	return [classes]laneBounds{
		classPublic: {least: 512, most: 512, burst: 512, standing: 512, patience: 2 * time.Second},
		classRevoke: {least: 16, most: 16, burst: 1024, standing: 1024, patience: 10 * time.Second},
		classRead:   {least: 8, most: 8, burst: 256, standing: 128, patience: 2 * time.Second},
		classIssue:  {least: 4 * processors, most: atOnce, burst: 4 * atOnce, standing: atOnce, patience: 2 * time.Second},
		classLogin:  {least: processors, most: processors, burst: 16 * processors, standing: 16 * processors, patience: 5 * time.Second},
		classChange: {least: 8, most: 8, burst: 64, standing: 64, patience: 30 * time.Second},
	}
}

// maxBuffered is how many octets of bodies, and of answers, are held for clients that send or read slowly.
const maxBuffered = 64 << 20

// admission stands in front of everything and decides what is begun. What must never happen: a request that waits for a
// slow client while it holds a place that another one could use; work that is begun and then thrown away because there
// is too much of it; a class that waits for another.
type admission struct {
	lanes    [classes]*lane
	bodies   *hoard
	answers  *hoard
	log      *slog.Logger
	refusals *prometheus.CounterVec // nil: not counted

	mu     sync.Mutex
	silent [classes]int // refusals since the last line in the log
	spoke  time.Time
}

func newAdmission(cfg Config) *admission {
	a := &admission{log: cfg.Logger, bodies: newHoard(maxBuffered), answers: newHoard(maxBuffered)}
	a.bodies.maxSlow = cmp.Or(cfg.MaxSlow, maxSlow)
	for c, b := range bounds(cmp.Or(cfg.MaxIssuing, defaultIssuing)) {
		a.lanes[c] = newLane(b)
	}
	if cfg.Metrics != nil {
		a.refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_http_requests_shed_total", Help: "Requests refused before anything was done for them, because there were too many."}, []string{"class"})
		for c := range classes {
			a.refusals.WithLabelValues(classNames[c])
		}
		cfg.Metrics.MustRegister(a.refusals, lanesCollector{a})
	}

	return a
}

// admit lets a request in, makes it wait for its turn, or refuses it. Its body has arrived when its turn comes, and its
// place is free again as soon as its answer is known: how fast its client is does not matter. Of a request whose body
// cannot be read, failed makes the answer.
func (a *admission) admit(next http.Handler, failed func(error) http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := classOf(r.Method, r.URL.Path)
		lane := a.lanes[c]
		unread := c == classPublic && r.ContentLength > ocsp.MaxRequest // its handler refuses it as it is
		switch {
		case r.ContentLength > maxBody && !unread:
			w.Header().Set("Connection", "close") // nobody reads the body
			failed(&http.MaxBytesError{Limit: maxBody}).ServeHTTP(w, r)
			return
		case c != classElsewhere && lane.full():
			a.refuse(w, c)
			return
		}
		if !unread {
			body, err := a.bodies.receive(w, r)
			defer body.leave()
			switch {
			case body.wasCut():
				a.refuse(w, c)
				return
			case err != nil:
				failed(err).ServeHTTP(w, r)
				return
			}
		}
		if c == classElsewhere {
			next.ServeHTTP(w, r)
			return
		}
		switch err := lane.enter(r.Context()); {
		case errors.Is(err, errFull):
			a.refuse(w, c)
			return
		case err != nil:
			w.WriteHeader(statusClientClosed)
			return
		}
		answer := &answer{ResponseWriter: w, lane: lane, begun: time.Now()}
		if c != classPublic { // lists and answers are held once for everybody
			answer.hoard = a.answers
		}
		defer answer.release()
		next.ServeHTTP(answer, r)
	})
}

// refuse answers 503. Clients that were refused together do not come back together.
func (a *admission) refuse(w http.ResponseWriter, c class) {
	prepare(w)
	w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(3)))
	writeProblem(w, http.StatusServiceUnavailable, "The server is busy: try again later")
	if a.refusals != nil {
		a.refusals.WithLabelValues(classNames[c]).Inc()
	}
	if silent := a.count(c); silent != nil {
		for c, n := range silent {
			if n > 0 {
				a.log.LogAttrs(context.Background(), slog.LevelWarn, "too many requests: some were refused", slog.String("class", classNames[c]), slog.Int("count", n))
			}
		}
	}
}

// count returns what was not said in the log yet, at most once a second: a line for each refusal would be work that
// grows with the load.
func (a *admission) count(c class) map[class]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent[c]++
	if time.Since(a.spoke) < time.Second {
		return nil
	}
	out := map[class]int{}
	for c, n := range a.silent {
		out[class(c)] = n
	}
	a.spoke, a.silent = time.Now(), [classes]int{}
	return out
}

// prepare sets the headers that every answer has.
func prepare(w http.ResponseWriter) {
	maps.Copy(w.Header(), headers)
	w.Header().Set("X-Request-ID", newRequestID())
}

// lanesCollector shows how full the lanes are.
type lanesCollector struct{ *admission }

var laneDescs = [...]*prometheus.Desc{
	prometheus.NewDesc("signet_http_requests_running", "Requests that are worked on, by class.", []string{"class"}, nil),
	prometheus.NewDesc("signet_http_requests_limit", "How many requests are worked on at once, by class.", []string{"class"}, nil),
	prometheus.NewDesc("signet_http_requests_waiting", "Requests that wait for their turn, by class.", []string{"class"}, nil),
}

// Describe implements prometheus.Collector.
func (l lanesCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range laneDescs {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (l lanesCollector) Collect(out chan<- prometheus.Metric) {
	for c := classPublic; c < classes; c++ {
		running, limit, waiting := l.lanes[c].load()
		for i, n := range []int{running, limit, waiting} {
			out <- prometheus.MustNewConstMetric(laneDescs[i], prometheus.GaugeValue, float64(n), classNames[c])
		}
	}
}
