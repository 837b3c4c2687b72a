// Package fault is the one error type that crosses Signet's packages on its way to a caller.
//
// A fault says two things: what kind of failure it is ([Code], which the API maps to a status in one table)
// and what the caller may be told ([Error.Message]). Everything else stays in [Error.Err], for the operator.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Code is the kind of a failure. The zero value is treated as [Internal].
type Code string

// The kinds of failure. Their HTTP statuses are in api/problem.go.
const (
	Invalid         Code = "invalid"         // the request is understood and cannot be granted as it stands
	Unauthenticated Code = "unauthenticated" // nobody, or nobody we know, is calling
	Forbidden       Code = "forbidden"       // the caller may not do this
	NotFound        Code = "not_found"
	Conflict        Code = "conflict"      // the state of the object does not allow it; see RetryAfter
	Unprocessable   Code = "unprocessable" // the request is malformed; see Fields
	RateLimited     Code = "rate_limited"  // too many attempts; see RetryAfter
	Unavailable     Code = "unavailable"   // the token or the database is away; the request is not at fault
	Internal        Code = "internal"
)

// Field is one malformed part of a request, in the shape FastPKI's clients read.
type Field struct {
	Type  string // machine-readable kind, such as "missing" or "int_parsing"
	Loc   []any  // where: "body", "query" or "path", then names and indexes
	Msg   string
	Input any
}

// Error is a classified failure. Message may be shown to the caller; Err is for the log only.
type Error struct {
	Code       Code
	Message    string
	Fields     []Field       // only with Unprocessable
	RetryAfter time.Duration // only with RateLimited, Unavailable and Conflict; zero says nothing
	Err        error
}

// New returns a fault that has no underlying error.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns a fault that keeps err for the log and shows only message to the caller.
func Wrap(code Code, message string, err error) *Error {
	return &Error{Code: code, Message: message, Err: err}
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first [Error] in err's chain, or [Internal].
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) && e.Code != "" {
		return e.Code
	}
	return Internal
}

// Is reports whether err is a fault of the given code.
func Is(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
