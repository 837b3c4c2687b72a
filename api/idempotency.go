package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"signet/idempotency"
)

// Claims remembers for all replicas which request a user sent under which key.
type Claims interface {
	// ClaimRequest claims a key for an attempt to do a request: 0, or the id of what an earlier attempt made. Fails with
	// idempotency.ErrReused when the key stands for another request, and as idempotency.InFlight while another attempt has
	// the claim.
	ClaimRequest(ctx context.Context, c idempotency.Claim) (resultID int64, err error)
	// ReleaseClaim frees the key, unless the attempt made something or has lost the claim.
	ReleaseClaim(ctx context.Context, c idempotency.Claim) error
}

const (
	maxKeyLength   = 255
	releaseTimeout = 5 * time.Second
)

// once does what a request asks for, in the context that it hands over. When the request has an Idempotency-Key under which it
// was done before, it is not done: again finds what was made then.
func once[T any](s *server, w http.ResponseWriter, r *request, do func(context.Context) (T, error), again func(context.Context, int64) (T, error)) (T, error) {
	var none T
	claim, err := s.claim(r)
	if err != nil {
		return none, err
	}
	if claim == nil {
		return do(r.Context())
	}
	made, err := s.claims.ClaimRequest(r.Context(), *claim)
	if err != nil {
		return none, fmt.Errorf("claim idempotency key: %w", err)
	}
	if made != 0 {
		result, err := again(r.Context(), made)
		if err != nil {
			return none, fmt.Errorf("find what was made under the idempotency key: %w", err)
		}
		w.Header().Set("Idempotency-Replayed", "true")
		return result, nil
	}
	result, err := do(idempotency.With(r.Context(), *claim))
	if err == nil {
		return result, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), releaseTimeout)
	defer cancel()
	if releaseErr := s.claims.ReleaseClaim(ctx, *claim); releaseErr != nil { // the claim ends by itself
		err = errors.Join(err, fmt.Errorf("release idempotency key: %w", releaseErr))
	}
	return none, err
}

// claim is what the request claims, or nil when it has no key. A stranger's key is nobody's.
func (s *server) claim(r *request) (*idempotency.Claim, error) {
	sent := r.Header.Values("Idempotency-Key")
	if len(sent) == 0 {
		return nil, nil
	}
	key, reason := parseKey(sent)
	if reason != "" {
		r.checker.add("value_error", "Value error, "+reason, []any{"header", "idempotency-key"}, nil)
		return nil, r.err()
	}
	user := r.session.User.ID
	if user == 0 {
		return nil, nil
	}
	var attempt [8]byte
	rand.Read(attempt[:])
	c := &idempotency.Claim{UserID: user, Key: sha256.Sum256([]byte(key)), Attempt: int64(binary.BigEndian.Uint64(attempt[:]))}
	mac := hmac.New(sha256.New, s.claimSecret)
	for _, part := range [][]byte{[]byte(r.Method), []byte(r.URL.Path), []byte(r.URL.Query().Encode()), r.octets} {
		length := binary.BigEndian.AppendUint64(nil, uint64(len(part))) // no two requests are the same octets
		mac.Write(length)
		mac.Write(part)
	}
	mac.Sum(c.Request[:0])
	return c, nil
}

// parseKey reads the values of Idempotency-Key: one key, as it is or as a string of RFC 9651, section 3.3.3, which the draft of
// the header asks for (draft-ietf-httpapi-idempotency-key-header-07). reason says what is wrong with them.
func parseKey(values []string) (key, reason string) {
	if len(values) != 1 {
		return "", "the key must be sent once"
	}
	key = strings.Trim(values[0], " \t")
	if quoted, ok := strings.CutPrefix(key, `"`); ok {
		if key, ok = unquote(quoted); !ok {
			return "", "the key begins with a quote and is no quoted string"
		}
	}
	switch {
	case key == "":
		return "", "the key must not be empty"
	case len(key) > maxKeyLength:
		return "", fmt.Sprintf("the key must have at most %d characters", maxKeyLength)
	case strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }):
		return "", "the key must consist of printable ASCII characters"
	}
	return key, ""
}

// unquote reads a quoted string whose first quote is gone: a backslash stands before a quote or another one.
func unquote(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), i == len(s)-1
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}
