package ca

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"signet/fault"
	"signet/signer"
)

const (
	// maxCertIDs is how many certificates a request may ask about.
	maxCertIDs = 100
	// maxNonce is the longest nonce (RFC 9654, section 2.1).
	maxNonce = 128
	// answerTimeout bounds the work for one answer, and answerWait how long a client waits for it.
	answerTimeout = 10 * time.Second
	answerWait    = 5 * time.Second
	// staleWait is how long a client waits for a newer answer while there is one that is still valid.
	staleWait = 500 * time.Millisecond
	// retryAnswer is when a client that was told tryLater should come again.
	retryAnswer = time.Second
	// lookups is how many serial numbers and CAs are looked up at once that strangers name and memory knows nothing of: the
	// database has other work.
	lookups = 8
)

// OCSPRefusal is a request that the protocol has a status for instead of an answer (OCSPResponseStatus; RFC 6960, section
// 4.2.1): malformedRequest (1), internalError (2), tryLater (3) or unauthorized (6).
type OCSPRefusal struct {
	Status     int
	RetryAfter time.Duration // with tryLater
	Err        error         // for the log
}

func (r *OCSPRefusal) Error() string {
	return fmt.Sprintf("OCSP request was refused with status %d: %v", r.Status, r.Err)
}

func (r *OCSPRefusal) Unwrap() error { return r.Err }

func refusal(status int, format string, args ...any) *OCSPRefusal {
	return &OCSPRefusal{Status: status, Err: fmt.Errorf(format, args...)}
}

func tryLater(format string, args ...any) *OCSPRefusal {
	r := refusal(signer.OCSPTryLater, format, args...)
	r.RetryAfter = retryAnswer
	return r
}

// errNoResponder says that nothing can be signed for a CA any more: its responder has ended, and its own key is gone.
var errNoResponder = errors.New("the CA has no OCSP responder any more")

// answerDesk is what answering OCSP requests needs in memory.
type answerDesk struct {
	known   atomic.Pointer[map[string]*subject] // by slug; replaced as a whole, so that reading it costs nothing
	adding  sync.Mutex
	answers *answerCache
	kept    keeper
	ahead   aheadDesk
	budget  *budget
	signing chan struct{} // signatures at once that requests wait for
	waiting atomic.Int64  // requests for a slot of signing
	looking chan struct{} // serial numbers and CAs that are looked up at once
}

func newAnswerDesk(cfg Config) *answerDesk {
	d := &answerDesk{
		answers: newAnswerCache(cfg.OCSP.CacheEntries), budget: newBudget(cfg.OCSP, cfg.Now),
		signing: make(chan struct{}, cfg.OCSP.Signers), looking: make(chan struct{}, lookups),
	}
	d.kept.failing.task = "ocsp"
	d.ahead = aheadDesk{all: map[int64]*ahead{}, slots: make(chan struct{}, aheadCAs)}
	d.known.Store(&map[string]*subject{})
	return d
}

// subject is a CA that is asked about. What it holds of the CA itself never changes.
type subject struct {
	id           int64
	sha1, sha256 issuerHashes
	byName       atomic.Bool   // how its responder names itself
	pause        atomic.Int64  // until then, in Unix nanoseconds, its key is not asked: it has just failed
	turn         chan struct{} // to look for what signs
	pauses       pauses        // whose turn it is
	signs        atomic.Pointer[signing]
}

// issuerHashes is what a certID says of the issuer.
type issuerHashes struct{ name, key []byte }

func (s *subject) owns(id *CertID) bool {
	h := &s.sha256
	switch id.Hash {
	case crypto.SHA1:
		h = &s.sha1
	case crypto.SHA256:
	default:
		return false
	}
	return bytes.Equal(id.NameHash, h.name) && bytes.Equal(id.KeyHash, h.key)
}

// Status answers an OCSP request (RFC 6960, RFC 5019) about certificates of the CA with this slug, deleted ones included.
// NotFound when there is no such CA; every other refusal is an [*OCSPRefusal].
//
// A request whose certIDs are not all of this CA, by SHA-1 or SHA-256, is refused with unauthorized, and so is everything once
// the CA has no responder any more (RFC 6960, section 2.3). More than 100 certIDs, none, or a nonce that is not 1 to 128
// octets long (RFC 9654) are a malformedRequest. A request for one certificate without nonce is answered from memory, from the
// store, or with one signature for everybody who asks, until half of the answer's validity is over; when the token is away, as
// long as the answer is valid. Other requests, and those about serial numbers that were never issued, each cost a signature:
// they are told tryLater at once beyond what the client, and all of them together, may cause.
func (a *Authority) Status(ctx context.Context, slug string, r StatusRequest) (StatusAnswer, error) {
	s := (*a.ocsp.known.Load())[slug]
	if s != nil && len(r.IDs) == 1 && r.Nonce == nil && s.owns(&r.IDs[0]) {
		if found := a.ocsp.answers.find(statusKey{s.id, r.IDs[0].Hash, r.IDs[0].Serial}); found != nil && found.fresh(a.cfg.Now(), s.byName.Load()) {
			a.answered("cached")
			return found.StatusAnswer, nil
		}
	}
	answer, outcome, err := a.status(ctx, s, slug, r)
	if err == nil {
		a.answered(outcome)
		return answer, nil
	}
	if fault.Is(err, fault.NotFound) {
		return StatusAnswer{}, err
	}
	a.answered("refused")
	var refused *OCSPRefusal
	switch {
	case errors.As(err, &refused):
	case errors.Is(err, errNoResponder):
		refused = &OCSPRefusal{Status: signer.OCSPUnauthorized, Err: err}
	case errors.Is(err, signer.ErrKey), fault.Is(err, fault.Unavailable), errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		refused = &OCSPRefusal{Status: signer.OCSPTryLater, RetryAfter: retryAnswer, Err: err}
	default:
		refused = &OCSPRefusal{Status: signer.OCSPInternalError, Err: err}
	}
	return StatusAnswer{}, refused
}

// status is Status for what memory has no fresh answer to.
func (a *Authority) status(ctx context.Context, s *subject, slug string, r StatusRequest) (StatusAnswer, string, error) {
	if s == nil {
		var err error
		if s, err = a.subject(ctx, slug); err != nil {
			return StatusAnswer{}, "", err
		}
	}
	switch {
	case len(r.IDs) == 0 || len(r.IDs) > maxCertIDs:
		return StatusAnswer{}, "", refusal(signer.OCSPMalformedRequest, "%d certIDs", len(r.IDs))
	case r.Nonce != nil && (len(r.Nonce) == 0 || len(r.Nonce) > maxNonce):
		return StatusAnswer{}, "", refusal(signer.OCSPMalformedRequest, "nonce of %d octets", len(r.Nonce))
	}
	for i := range r.IDs {
		if !s.owns(&r.IDs[i]) {
			return StatusAnswer{}, "", refusal(signer.OCSPUnauthorized, "certID %d is not of CA %d", i+1, s.id)
		}
	}
	if len(r.IDs) == 1 && r.Nonce == nil {
		return a.sharedAnswer(ctx, s, r.IDs[0], r.Client)
	}
	answer, err := a.ownAnswer(ctx, s, r)
	return answer, "signed", err
}

// subject finds the CA of a slug.
func (a *Authority) subject(ctx context.Context, slug string) (*subject, error) {
	if s := (*a.ocsp.known.Load())[slug]; s != nil {
		return s, nil
	}
	c, err := a.PublicCA(ctx, slug)
	if err != nil {
		return nil, err
	}
	s := &subject{id: c.ID, turn: make(chan struct{}, 1)}
	for hash, into := range map[crypto.Hash]*issuerHashes{crypto.SHA1: &s.sha1, crypto.SHA256: &s.sha256} {
		if into.name, into.key, err = signer.IssuerHashes(c.Certificate, hash); err != nil {
			return nil, fmt.Errorf("hash name and key of CA %d: %w", c.ID, err)
		}
	}
	if p, err := a.policyOf(ctx, c.ID); err == nil { // the first answer asks again
		s.byName.Store(p.ByName)
	}
	a.ocsp.adding.Lock()
	defer a.ocsp.adding.Unlock()
	known := *a.ocsp.known.Load()
	if another := known[slug]; another != nil {
		return another, nil
	}
	next := maps.Clone(known)
	next[slug] = s
	a.ocsp.known.Store(&next)
	return s, nil
}

// followNames learns whether responders were told to name themselves otherwise: what was signed before is not given then.
func (a *Authority) followNames(ctx context.Context) {
	for _, s := range *a.ocsp.known.Load() {
		if p, err := a.policyOf(ctx, s.id); err == nil {
			s.byName.Store(p.ByName)
		}
	}
}

// statusChanged drops the answers about serial numbers that are not what they were.
func (a *Authority) statusChanged(caID int64, serials []string) {
	a.ocsp.answers.drop(caID, serials)
	a.ocsp.ahead.nudge(caID)
}

func (a *Authority) answered(outcome string) {
	if a.cfg.Hooks.Answered != nil {
		a.cfg.Hooks.Answered(outcome)
	}
}
