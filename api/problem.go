package api

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"

	"signet/api/wire"
	"signet/fault"
)

// statuses is the only table from kinds of failure to HTTP statuses.
var statuses = map[fault.Code]int{
	fault.Invalid:         http.StatusBadRequest,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Forbidden:       http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Conflict:        http.StatusConflict,
	fault.Unprocessable:   http.StatusUnprocessableEntity,
	fault.RateLimited:     http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
	fault.Internal:        http.StatusInternalServerError,
}

// statusClientClosed is for the log: nobody is there to read an answer, or only somebody who must not take it for success.
const statusClientClosed = 499

// fail answers with a failure. Only a classified failure shows its message; the log gets the rest.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	exchangeOf(r.Context()).err = err
	if errors.Is(err, errSlowBody) { // the context has ended with it
		writeProblem(w, http.StatusRequestTimeout, "The request body did not arrive in time")
		return
	}
	if r.Context().Err() != nil && errors.Is(context.Cause(r.Context()), context.Canceled) {
		w.WriteHeader(statusClientClosed)
		return
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		writeProblem(w, http.StatusRequestEntityTooLarge, "Request body too large")
		return
	}
	f := classify(err)
	status, ok := statuses[f.Code]
	switch {
	case !ok || f.Code == fault.Internal:
		writeProblem(w, http.StatusInternalServerError, "Internal Server Error")
		return
	case f.Code == fault.Unprocessable:
		writeJSON(w, status, wire.ValidationProblem{Detail: fieldProblems(f)})
		return
	case f.Code == fault.Unauthenticated:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case f.Code == fault.RateLimited, f.Code == fault.Unavailable, f.RetryAfter > 0:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(f.RetryAfter.Seconds())))))
	}
	writeProblem(w, status, f.Message)
}

// classify finds the fault in an error. A deadline that passed is nobody's fault.
func classify(err error) *fault.Error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Unavailable, "The server took too long", err)
	}
	return fault.Wrap(fault.Internal, "", err)
}

func fieldProblems(f *fault.Error) []wire.FieldProblem {
	fields := f.Fields
	if len(fields) == 0 {
		fields = []fault.Field{{Type: "value_error", Loc: []any{"body"}, Msg: f.Message}}
	}
	out := make([]wire.FieldProblem, len(fields))
	for i, field := range fields {
		out[i] = wire.FieldProblem{Type: field.Type, Loc: field.Loc, Msg: field.Msg, Input: field.Input}
	}
	return out
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	writeJSON(w, status, wire.Problem{Detail: detail})
}
