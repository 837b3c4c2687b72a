package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"signet/fault"
	"signet/idempotency"
)

// IdempotencyKeys keeps the keys of requests that create something.
type IdempotencyKeys interface {
	// ClaimKey makes a claim on a key at now, if nothing was created with it within [idempotency.Lifetime] and no other request
	// has had it for less than [idempotency.Lease]; it returns what the key stands for.
	ClaimKey(ctx context.Context, c idempotency.Claim, fingerprint []byte, now time.Time) (idempotency.Found, error)
	// ReleaseKey ends a claim with which nothing was created.
	ReleaseKey(ctx context.Context, c idempotency.Claim) error
}

const (
	idempotencyHeader = "Idempotency-Key"
	replayedHeader    = "Idempotency-Replayed"
	maxKey            = 255 // characters
)

// once lets a request with an Idempotency-Key create only one thing, however often it is sent. again answers with what it
// created before, by its id. A request that fails leaves its key free.
func (s *server) once(h handler, again func(w http.ResponseWriter, r *request, id int64) error) handler {
	return func(w http.ResponseWriter, r *request) error {
		key := r.idempotencyKey()
		if err := r.err(); err != nil {
			return err
		}
		if key == "" || s.keys == nil || r.session.User.ID == 0 { // nobody's keys are nobody's
			return h(w, r)
		}
		body, err := readBody(r.Request)
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		claim := idempotency.Claim{UserID: r.session.User.ID, Key: key, Token: rand.Text()}
		fingerprint := fingerprintOf(r.Request, body)
		found, err := s.keys.ClaimKey(r.Context(), claim, fingerprint, s.now())
		switch {
		case err != nil:
			return fmt.Errorf("claim idempotency key: %w", err)
		case !bytes.Equal(found.Fingerprint, fingerprint):
			r.checker.add("value_error", "Value error, this key was used for another request; choose a new one", []any{"header", idempotencyHeader}, nil)
			return r.err()
		case found.Done:
			w.Header().Set(replayedHeader, "true")
			return again(w, r, found.ResourceID)
		case !found.Claimed:
			w.Header().Set("Retry-After", "1")
			return fault.New(fault.Conflict, "A request with this %s is still being processed; ask again", idempotencyHeader)
		}
		return s.claimed(w, r, h, claim)
	}
}

// claimed handles a request that has its key. What it completes uses the claim up; otherwise the claim ends with it.
func (s *server) claimed(w http.ResponseWriter, r *request, h handler, claim idempotency.Claim) error {
	succeeded := false
	defer func() {
		if succeeded {
			return
		}
		// Otherwise it lapses.
		if err := s.keys.ReleaseKey(context.WithoutCancel(r.Context()), claim); err != nil {
			s.log.Warn("idempotency key not released", "error", err)
		}
	}()
	r.Request = r.WithContext(idempotency.With(r.Context(), claim))
	err := h(w, r)
	succeeded = err == nil
	return err
}

// idempotencyKey is the key of a request, "" when there is none. It may be written as a string of Structured Field Values
// (RFC 9651, section 3.3.3), in quotes.
func (r *request) idempotencyKey() string {
	values := r.Header.Values(idempotencyHeader)
	if len(values) == 0 {
		return ""
	}
	key := values[0]
	if unquoted, ok := strings.CutPrefix(key, `"`); ok && len(unquoted) > 1 && strings.HasSuffix(unquoted, `"`) {
		key = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(unquoted[:len(unquoted)-1])
	}
	if len(values) > 1 || key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) {
		r.checker.add("value_error", fmt.Sprintf("Value error, one key of 1 to %d printable ASCII characters is expected", maxKey),
			[]any{"header", idempotencyHeader}, nil)
		return ""
	}
	return key
}

// fingerprintOf is what two requests have in common that ask for the same.
func fingerprintOf(r *http.Request, body []byte) []byte {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %q %q\n", r.Method, r.URL.Path, r.URL.Query().Encode())
	sum.Write(body)
	return sum.Sum(nil)
}
