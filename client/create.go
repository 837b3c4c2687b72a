package client

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"time"
)

// idempotencyKey is the header that lets the server know a request that it has seen before.
const idempotencyKey = "Idempotency-Key"

type keyOfContext struct{}

// WithIdempotencyKey returns a context whose call has this key rather than a random one: 1 to 255 printable ASCII characters. A
// program that keeps the key may make the same call again within 24 hours, even after a crash, and it creates nothing
// twice. The key is for one call; a different one with it is refused with 422.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfContext{}, key)
}

const (
	// createAttempts is how often a call that creates something is sent.
	createAttempts = 5
	// firstPause is how long the second attempt waits, and each further one twice as long, unless the server says more.
	firstPause = 200 * time.Millisecond
	// longestPause bounds what the server may say.
	longestPause = 15 * time.Second
)

// create is do for a request that creates something. It is sent again when no answer comes, or one that says to try again; a
// stranger's request, which the server would not know again, is not.
func (c *Client) create(ctx context.Context, request *http.Request, madeErr error, out any) error {
	if madeErr != nil || !c.signedIn() {
		return c.do(ctx, request, madeErr, out)
	}
	key, ok := ctx.Value(keyOfContext{}).(string)
	if !ok {
		key = rand.Text()
	}
	request.Header.Set(idempotencyKey, key)
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := c.do(ctx, request, nil, out)
		wait, again := retryAfter(err)
		if !again || attempt == createAttempts || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(max(pause, wait)):
		case <-ctx.Done():
			return err
		}
		pause *= 2
	}
}

// retryAfter reports whether a request that ended so is worth sending again, and when.
func retryAfter(err error) (time.Duration, bool) {
	var refused *Error
	if errors.As(err, &refused) {
		return min(refused.RetryAfter, longestPause), refused.RetryAfter > 0
	}
	return 0, err != nil
}
