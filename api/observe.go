package api

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"time"

	"signet/audit"
)

// exchange is what is known of a request and its answer when it is over. The handlers fill it in.
type exchange struct {
	route  string // template of the path; "" when there is none
	userID int64
	err    error
	quiet  bool // fleets of strangers ask: not worth a line in the log, unless something is wrong
	defect bool // err is our fault, though the answer is in order
	status int
	bytes  int64
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// headers are on every answer. Cache-Control is replaced on public files, Content-Security-Policy on the API pages.
// The values are shared by all answers: replace them, and never change them.
var headers = http.Header{
	"X-Content-Type-Options":    {"nosniff"},
	"X-Frame-Options":           {"DENY"},
	"Referrer-Policy":           {"strict-origin-when-cross-origin"},
	"Strict-Transport-Security": {"max-age=63072000; includeSubDomains"},
	"Content-Security-Policy":   {"default-src 'none'; frame-ancestors 'none'"},
	"Cache-Control":             noStore,
}

// saneID is a request id of the client's that is fit for log and audit trail.
var saneID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// observe surrounds every request: its id, the headers of its answer, the log, the metrics, and the last defence against
// panics.
func (s *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		x := &exchange{}
		id := r.Header.Get("X-Request-ID")
		if id == "" || !saneID.MatchString(id) {
			id = newRequestID()
		}
		maps.Copy(w.Header(), headers)
		w.Header().Set("X-Request-ID", id)
		ctx := context.WithValue(r.Context(), exchangeKey{}, x)
		r = r.WithContext(audit.WithRequest(ctx, audit.Request{ID: id, RemoteAddr: clientAddress(r, s.trusted)}))

		defer func() {
			recovered := recover()
			s.account(r, x, id, start, recovered)
			if recovered == nil {
				return
			}
			if x.status != 0 || recovered == http.ErrAbortHandler {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			writeProblem(w, http.StatusInternalServerError, "Internal Server Error")
		}()
		next.ServeHTTP(&recorder{w, x}, r)
	})
}

// newRequestID returns a name that no other request has. Nothing rests on nobody guessing it.
func newRequestID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	return hex.EncodeToString(b[:])
}

// account writes one line of the access log and counts the request.
func (s *server) account(r *http.Request, x *exchange, id string, start time.Time, recovered any) {
	status := x.status
	switch {
	case recovered != nil:
		status = http.StatusInternalServerError
	case status == 0:
		status = http.StatusOK
	}
	took := time.Since(start)
	method, route := r.Method, x.route
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, method) {
		method = "other"
	}
	if route == "" {
		route = "unmatched"
	}
	s.metrics.count(method, route, status, took)

	level := slog.LevelInfo
	switch {
	case status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	case status >= 500, x.defect:
		level = slog.LevelError
	case x.quiet:
		level = slog.LevelDebug
	}
	ctx := context.WithoutCancel(r.Context())
	if !s.log.Enabled(ctx, level) {
		return
	}
	attributes := []slog.Attr{
		slog.String("method", method), slog.String("route", route), slog.Int("status", status),
		slog.Int64("bytes", x.bytes), slog.Duration("duration", took), slog.String("request_id", id),
		slog.String("remote_addr", audit.RequestFrom(ctx).RemoteAddr),
	}
	if x.userID != 0 {
		attributes = append(attributes, slog.Int64("user_id", x.userID))
	}
	if x.err != nil {
		attributes = append(attributes, slog.String("error", x.err.Error()))
	}
	if recovered != nil {
		attributes = append(attributes, slog.Any("panic", recovered), slog.String("stack", string(debug.Stack())))
	}
	s.log.LogAttrs(ctx, level, "request", attributes...)
}

// recorder notes status and length of an answer.
type recorder struct {
	http.ResponseWriter
	x *exchange
}

func (w *recorder) WriteHeader(status int) {
	if w.x.status == 0 {
		w.x.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.x.status == 0 {
		w.x.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.x.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
