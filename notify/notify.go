// Package notify delivers what operators are told to their webhook.
//
// Each event is posted until the receiver answers 2xx, and may arrive more than once and in any order: its id is the same
// each time. What must never happen: the secret in a log, an error or a request; a request to another place than the one
// configured; an event that is lost because a server stopped.
package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Event is something that the receiver is told.
type Event struct {
	ID        int64  // in the store
	Key       string // of the occasion, unique as long as the store keeps it
	Type      string // such as "certificate.expiring"
	Data      string // JSON object
	CreatedAt time.Time
	Attempts  int // deliveries that were begun
}

// EventID is what the receiver knows the event by: 32 hexadecimal digits, the same at each attempt and on every replica.
func (e Event) EventID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d", e.Key, e.CreatedAt.UnixMicro()))
	return hex.EncodeToString(sum[:16])
}

// Body is what is posted.
func (e Event) Body() ([]byte, error) {
	body, err := json.Marshal(struct {
		ID        string          `json:"id"`
		Type      string          `json:"type"`
		CreatedAt time.Time       `json:"created_at"`
		Data      json.RawMessage `json:"data"`
	}{e.EventID(), e.Type, e.CreatedAt.UTC().Truncate(time.Second), json.RawMessage(e.Data)})
	if err != nil {
		return nil, fmt.Errorf("encode event %d: %w", e.ID, err)
	}
	return body, nil
}

// Store keeps the events. Each method is one transaction.
type Store interface {
	// ClaimEvents takes up to limit events that are due at now, so that no other caller gets them until the given time, and
	// counts an attempt of each.
	ClaimEvents(ctx context.Context, now, until time.Time, limit int) ([]Event, error)
	// EventDelivered closes an event.
	EventDelivered(ctx context.Context, id int64, at time.Time) error
	// EventFailed makes an event due again at next, and keeps the reason. One that was delivered meanwhile stays so.
	EventFailed(ctx context.Context, id int64, next time.Time, reason string) error
	// EventGivenUp closes an event that could not be delivered, and keeps the reason.
	EventGivenUp(ctx context.Context, id int64, at time.Time, reason string) error
	// DropEvents deletes closed events that were created before the given time, so many at most. It returns how many.
	DropEvents(ctx context.Context, createdBefore time.Time, limit int) (int, error)
}
