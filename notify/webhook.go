package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
)

const (
	pollEvery      = 5 * time.Second
	inFlight       = 4
	batch          = 4 * inFlight
	attemptTimeout = 10 * time.Second
	// claimFor is longer than a batch takes: four rounds of attemptTimeout, each with its record.
	claimFor = 2 * time.Minute
	// recordTimeout is how long the outcome of an attempt may take to be recorded, also while the server stops.
	recordTimeout = 5 * time.Second

	firstBackoff = 10 * time.Second
	maxBackoff   = time.Hour
	giveUpAfter  = 72 * time.Hour

	keepFor   = 30 * 24 * time.Hour
	dropEvery = time.Hour
	dropSize  = 1000

	maxReason = 300      // characters of an error that are kept
	maxAnswer = 64 << 10 // octets that are read of an answer, so that its connection can be used again
)

// Outcome is how an attempt ended.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered"
	Failed    Outcome = "failed"   // it is tried again
	GivenUp   Outcome = "given_up" // it failed three days after the event or later
)

// Outcomes is every outcome.
var Outcomes = []Outcome{Delivered, Failed, GivenUp}

// Config is what a Webhook needs. Every field is required.
type Config struct {
	URL       string // accepted by [CheckURL]
	Secret    []byte // at least [MinSecret] octets
	UserAgent string
	Store     Store
	Leads     func() bool // whether this replica delivers
	Now       func() time.Time
	Attempted func(e Event, o Outcome, err error) // how an attempt ended; err is nil when it was Delivered
	Failed    func(err error)                     // the store failed; it is tried again
}

// Webhook delivers events.
type Webhook struct {
	cfg    Config
	client *http.Client
}

// New returns a Webhook. It does nothing until Run.
func New(cfg Config) *Webhook {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost = inFlight, inFlight
	transport.MaxResponseHeaderBytes = maxAnswer
	return &Webhook{cfg: cfg, client: &http.Client{
		Transport: transport,
		Timeout:   attemptTimeout,
		// A redirect would take what is told to a place that the operator did not name.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// CheckURL refuses what is no place to post to. Its errors do not contain the URL, whose path may be a secret.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("it is not a URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("it must start with http:// or https:// and name a host")
	case u.User != nil:
		return errors.New("it must not have a user or a password: the signature tells who is calling")
	case u.Fragment != "":
		return errors.New("it must not have a fragment")
	}
	return nil
}

// Run delivers events while this replica leads, until ctx ends and what is in flight has an outcome.
func (w *Webhook) Run(ctx context.Context) {
	defer w.client.CloseIdleConnections()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var dropped time.Time
	for {
		if w.cfg.Leads() {
			// A receiver that takes events gets the next ones at once; one that does not is left in peace for a while.
			for more := true; more && ctx.Err() == nil; {
				claimed, delivered, err := w.DeliverDue(ctx)
				w.report(ctx, err)
				more = err == nil && claimed == batch && delivered > 0
			}
			if time.Since(dropped) > dropEvery {
				dropped = time.Now()
				w.report(ctx, w.dropOld(ctx))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (w *Webhook) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		w.cfg.Failed(err)
	}
}

// DeliverDue attempts to deliver the events that are due, one batch of them, and reports how many it claimed and how many
// the receiver took. The error is one of the store.
func (w *Webhook) DeliverDue(ctx context.Context) (claimed, delivered int, err error) {
	now := w.cfg.Now()
	events, err := w.cfg.Store.ClaimEvents(ctx, now, now.Add(claimFor), batch)
	if err != nil {
		return 0, 0, fmt.Errorf("claim events: %w", err)
	}
	var taken atomic.Int64
	errs := make([]error, len(events))
	slots := make(chan struct{}, inFlight)
	var group sync.WaitGroup
	for i, e := range events {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			ok, err := w.attempt(ctx, e)
			if errs[i] = err; ok {
				taken.Add(1)
			}
		})
	}
	group.Wait()
	return len(events), int(taken.Load()), errors.Join(errs...)
}

// attempt posts an event and records how that ended.
func (w *Webhook) attempt(ctx context.Context, e Event) (delivered bool, err error) {
	posted := w.post(ctx, e)
	now := w.cfg.Now()
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	switch {
	case posted == nil:
		w.cfg.Attempted(e, Delivered, nil)
		err = w.cfg.Store.EventDelivered(record, e.ID, now)
	case ctx.Err() != nil: // the server stops, the receiver is not at fault
		err = w.cfg.Store.EventFailed(record, e.ID, now, "the server stopped")
	case now.Sub(e.CreatedAt) >= giveUpAfter:
		w.cfg.Attempted(e, GivenUp, posted)
		err = w.cfg.Store.EventGivenUp(record, e.ID, now, reason(posted))
	default:
		w.cfg.Attempted(e, Failed, posted)
		err = w.cfg.Store.EventFailed(record, e.ID, now.Add(backoff(e.Attempts)), reason(posted))
	}
	if err != nil {
		return posted == nil, fmt.Errorf("record the attempt to deliver event %s: %w", e.EventID(), err)
	}
	return posted == nil, nil
}

// reason is an error as it is kept: text that every database takes, on one line, whatever the receiver wrote into it.
func reason(err error) string {
	text := []rune(strings.ToValidUTF8(err.Error(), "?"))
	for i, r := range text {
		if unicode.IsControl(r) {
			text[i] = ' '
		}
	}
	return string(text[:min(len(text), maxReason)])
}

// backoff is the pause after so many attempts, between half and all of what doubles from ten seconds to an hour: events that
// failed together do not come back together.
func backoff(attempts int) time.Duration {
	d := maxBackoff
	if attempts < 10 {
		d = min(d, firstBackoff<<max(attempts-1, 0))
	}
	return d/2 + rand.N(d/2)
}

// post sends an event once. The error does not contain the URL.
func (w *Webhook) post(ctx context.Context, e Event) error {
	body, err := e.Body()
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return withoutURL(err)
	}
	timestamp := strconv.FormatInt(w.cfg.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", w.cfg.UserAgent)
	r.Header.Set(HeaderEventID, e.EventID())
	r.Header.Set(HeaderTimestamp, timestamp)
	r.Header.Set(HeaderSignature, Sign(w.cfg.Secret, timestamp, body))
	answer, err := w.client.Do(r)
	if err != nil {
		return withoutURL(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("the receiver answered %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	// What it says does not matter, and neither does whether it says it to the end.
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	return nil
}

func withoutURL(err error) error {
	var named *url.Error
	if errors.As(err, &named) {
		return named.Err
	}
	return err
}

// dropOld deletes what was closed and is too old to be of interest.
func (w *Webhook) dropOld(ctx context.Context) error {
	for {
		n, err := w.cfg.Store.DropEvents(ctx, w.cfg.Now().Add(-keepFor), dropSize)
		if err != nil {
			return fmt.Errorf("drop old events: %w", err)
		}
		if n < dropSize {
			return nil
		}
	}
}
