package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/fresh"
	"signet/policy"
	"signet/signer"
)

// Config is what an Authority needs. Every field but Notices, LeaseTTL, OCSP, Version, DrillInterval, KeysAhead, Quiet, RecordAge, Retention, Archive
// and Hooks is required.
type Config struct {
	Store         Store
	Keys          Keys
	PublicURL     string        // base of the URLs written into certificates, without trailing slash
	CRLValidity   time.Duration // from thisUpdate to nextUpdate
	CRLRefresh    time.Duration // a list that did not change is replaced so long after its thisUpdate
	CRLOverlap    time.Duration // a list is replaced at least so long before its nextUpdate
	CRLCoalesce   time.Duration // between the publications of a list that changes all the time
	LeaseTTL      time.Duration // how long the others wait for a replica that has died; 0: 10 s
	OCSP          OCSPConfig
	Notices       *NoticeConfig // nil: there is nobody to tell
	DrillInterval time.Duration // between two drills of a CA's key in the background; 0: none but at the start
	RecordAge     time.Duration // how long ago the record of a CA may have been read when it issues; 0: each certificate reads it
	KeysAhead     int           // RSA-2048 leaf keys that are made ahead of their requests; 0: none
	Quiet         func() bool   // whether there is no request, and was none a moment ago: keys are made then; nil: always
	Retention     RetentionPolicy
	Archive       Archive // of what Retention removes in the background; nil: it is gone
	Version       string  // of the program, named in evidence
	Now           func() time.Time
	Hooks         Hooks
}

// OCSPConfig is how OCSP answers are made. Zero fields take the value named beside them.
type OCSPConfig struct {
	Validity          time.Duration // from thisUpdate to nextUpdate of an answer; 24 h
	ResponderValidity time.Duration // of the certificate of a delegated responder; it is renewed after half of it; 14 days
	CacheEntries      int           // answers that are held in memory; 32768
	Signers           int           // answers that are signed at once, the ones of the schedule aside; half of the processors
	ClientRate        float64       // signatures per second that one client can cause; no limit
	ClientBurst       int           // signatures that one client can cause at once; 1
}

func (c OCSPConfig) withDefaults() OCSPConfig {
	c.Validity = cmp.Or(c.Validity, 24*time.Hour)
	c.ResponderValidity = cmp.Or(c.ResponderValidity, 14*24*time.Hour)
	c.CacheEntries = cmp.Or(c.CacheEntries, 1<<15)
	c.Signers = cmp.Or(c.Signers, max(1, runtime.GOMAXPROCS(0)/2))
	c.ClientBurst = cmp.Or(c.ClientBurst, 1)
	return c
}

// Hooks are told what happened, for metrics. Nil fields are skipped.
type Hooks struct {
	Issued    func(t policy.CertificateType)
	Revoked   func(reason int)
	Refused   func(step string) // "permission", "policy", "lint", "token", "store"
	Published func(entries int, took time.Duration)
	Drilled   func(t Trigger, g evidence.Grade)
	Locked    func(locked bool)                    // a CA was locked, or unlocked
	LeafKey   func(ahead bool)                     // an RSA leaf key was wanted, and one had been made ahead or had not
	KeysAhead func(size, n int)                    // so many keys of so many bits are there now
	Answered  func(outcome string)                 // an OCSP request: "cached", "signed", "unknown" (signed too), "refused"
	Responder func(caID int64, notAfter time.Time) // an OCSP responder was certified
	Removed   func(kind RecordKind, n int)         // retention removed so many records
	Failed    func(task string, err error)         // background work: "crl", "feed", "lease", "reconcile", "drill", "responder", "ocsp", "presign", "keys-ahead", "retention"
}

// CreateCARequest asks for a new CA. Nil pointers take the default named beside them.
type CreateCARequest struct {
	Name           string
	SubjectDN      string
	Description    *string
	Key            policy.KeySpec
	ValidDays      int
	ParentID       *int64 // nil: a self-signed root
	PathLength     *int   // nil: one less than the parent's
	AllowLeafCerts *bool  // nil: true
	CRLBaseURL     *string
	Token          string         // a configured name; "": the default token
	AcceptKeyGrade evidence.Grade // of a key that the token cannot keep drilled: Asserted or Imported; "": none lower
}

// IssueRequest asks for a certificate whose key pair the server makes, or for one of the caller's own key.
type IssueRequest struct {
	IssuerID   int64
	CommonName string
	SubjectDN  string
	Type       policy.CertificateType
	Key        policy.KeySpec   // of the key to be made; unused with PublicKey
	PublicKey  crypto.PublicKey // nil: make a key pair
	KeepKey    bool             // return the private half and keep it sealed; otherwise it is discarded
	ValidDays  int
	DNS        []string
	IPs        []string
	Emails     []string
}

// Issued is a new certificate with the private key that was made for it.
type Issued struct {
	Certificate
	PrivateKeyPEM []byte // PKCS#8 PEM; nil when none was made or it was discarded
}

// CSRRequest asks to sign a certificate signing request. Empty overrides leave what the CSR says.
type CSRRequest struct {
	CSR        []byte // PEM
	IssuerID   *int64
	IssuerName *string
	Type       policy.CertificateType
	ValidDays  int
	CommonName string
	SubjectDN  string
	DNS        []string
	IPs        []string
	Emails     []string
}

// Authority is the certificate authority service. It is safe for concurrent use.
type Authority struct {
	cfg       Config
	records   *fresh.Cache[recordKey, CA]
	keygen    chan struct{} // bounds the leaf keys being made at once
	ahead     *keysAhead
	evidence  chan struct{} // bounds the evidence being made at once: signing certificates goes first
	issuers   sync.Map      // issuerKey -> *signer.Issuer; a CA's certificate and key never change
	drills    drillSlots
	publisher *publisher
	followed  *publisher // waits for what another replica publishes
	lists     *listCache
	slugs     sync.Map // slug -> CA id
	policies  policyCache
	staged    sync.Map // CA id -> time.Time: when lists were signed ahead last
	lease     lease
	feed      feed
	ocsp      *answerDesk
	listeners []changed
	running   atomic.Bool // Run
	pauses    sync.Map    // CA id -> time.Time: until then nothing is reserved, as its key has just failed to sign
}

// New returns an Authority. It does nothing until it is called; start Run for its background work.
func New(cfg Config) *Authority {
	a := &Authority{cfg: cfg, keygen: make(chan struct{}, runtime.GOMAXPROCS(0)), evidence: make(chan struct{}, 2)}
	a.records = fresh.New[recordKey, CA](cfg.RecordAge, maxRecords)
	a.cfg.Store = forgetful{cfg.Store, a.records}
	a.cfg.LeaseTTL = cmp.Or(cfg.LeaseTTL, defaultLeaseTTL)
	a.ahead = newKeysAhead(cfg.KeysAhead, cfg.Hooks.KeysAhead)
	a.drills.busy = map[string]drillSlot{}
	a.publisher = newPublisher(cfg.CRLCoalesce, a.publishShards)
	a.followed = newPublisher(0, a.awaitLeader)
	a.lists = newListCache(cfg.Now)
	a.lease.holder = rand.Text()
	a.cfg.OCSP = cfg.OCSP.withDefaults()
	a.ocsp = newAnswerDesk(a.cfg)
	a.onChange(a.statusChanged)
	return a
}

// tokenPause is how long nothing is reserved for a CA whose key failed to sign. A reservation that cannot be signed costs
// a serial in the CRLs to come. Other CAs, whose keys may be in other tokens, go on.
const tokenPause = 250 * time.Millisecond

var errTokenAway = &fault.Error{Code: fault.Unavailable, Message: "the signing token is not available", RetryAfter: time.Second}

// tokenSigns refuses while the token of the issuer is known not to sign.
func (a *Authority) tokenSigns(ctx context.Context, c CA) error {
	if until, ok := a.pauses.Load(c.ID); ok && a.cfg.Now().Before(until.(time.Time)) {
		a.refused("token")
		return errTokenAway
	}
	issuer, err := a.issuer(ctx, c)
	if err == nil {
		err = issuer.Ready()
	}
	if err != nil {
		return a.notSigned(c, fmt.Errorf("look whether CA %d can sign: %w", c.ID, err))
	}
	return nil
}

// issuerKey names what signs for a CA: the same key is looked up again when another grade of it is asked for.
type issuerKey struct {
	id     int64
	accept evidence.Grade
}

// notSigned classifies an error of a signature, and gives a key that failed a moment's rest.
func (a *Authority) notSigned(c CA, err error) error {
	if errors.Is(err, signer.ErrKey) {
		a.pauses.Store(c.ID, a.cfg.Now().Add(tokenPause))
	}
	return a.refuse(err)
}

// issuer returns what signs certificates for a CA.
func (a *Authority) issuer(ctx context.Context, c CA) (*signer.Issuer, error) {
	return a.issuerWith(ctx, c, c.KeyRef())
}

func (a *Authority) issuerWith(ctx context.Context, c CA, ref KeyRef) (*signer.Issuer, error) {
	name := issuerKey{c.ID, ref.Accept}
	if cached, ok := a.issuers.Load(name); ok {
		return cached.(*signer.Issuer), nil
	}
	key, err := a.cfg.Keys.Signer(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("find key of CA %d: %w", c.ID, err)
	}
	issuer, err := signer.NewIssuer(c.Certificate, key)
	if err != nil {
		return nil, fmt.Errorf("join certificate and key of CA %d: %w", c.ID, err)
	}
	a.issuers.Store(name, issuer)
	return issuer, nil
}

// forget drops what signs for a CA.
func (a *Authority) forget(id int64) {
	for _, g := range evidence.Grades {
		a.issuers.Delete(issuerKey{id, g})
	}
}

func (c CA) issuerRules() *policy.Issuer {
	return &policy.Issuer{
		ID:             c.ID,
		AllowLeafCerts: c.AllowLeafCerts,
		PathLength:     c.PathLength,
		NotBefore:      c.NotBefore,
		NotAfter:       c.NotAfter,
		Revoked:        c.State == Revoked,
	}
}

// urls are where relying parties find what a CA publishes.
type urls struct{ base, slug string }

func (a *Authority) urls(c CA) urls {
	u := urls{base: a.cfg.PublicURL, slug: Slug(c.Name, c.ID)}
	if c.CRLBaseURL != nil {
		u.base = *c.CRLBaseURL
	}
	return u
}

func (u urls) certificate() string { return u.base + "/ca/" + u.slug + ".crt" }
func (u urls) ocsp() string        { return u.base + "/ocsp/" + u.slug }

// list is the distribution point of a shard, or the place of its delta.
func (u urls) list(shard int, delta bool) string {
	path := u.base + "/crl/" + u.slug
	if shard > 0 {
		path += "/" + strconv.Itoa(shard)
	}
	if delta {
		path += "/delta"
	}
	return path
}

func (a *Authority) event(ctx context.Context, caller policy.Caller, action audit.Action, organization *int64, resource string, id *int64, detail string) audit.Event {
	r := audit.RequestFrom(ctx)
	e := audit.Event{
		Action: action, Username: caller.Username, OrganizationID: organization,
		ResourceType: resource, ResourceID: id, Detail: detail, RequestID: r.ID, RemoteAddr: r.RemoteAddr,
	}
	if caller.UserID != 0 {
		e.UserID = &caller.UserID
	}
	return e
}

// allow turns the policy's verdict on a permission into the answer for the caller.
func (a *Authority) allow(err error) error {
	if err == nil {
		return nil
	}
	a.refused("permission")
	return fault.Wrap(fault.Forbidden, policy.ErrDenied.Error(), err)
}

// refuse classifies an error of the steps between the permission and the store.
func (a *Authority) refuse(err error) error {
	var violation *policy.Violation
	var lint *signer.LintError
	var classified *fault.Error
	switch {
	case errors.As(err, &violation):
		a.refused("policy")
		return fault.Wrap(fault.Invalid, violation.Error(), nil)
	case errors.As(err, &lint):
		a.refused("lint")
		return fault.Wrap(fault.Invalid, lint.Error(), nil)
	case errors.Is(err, signer.ErrKey):
		a.refused("token")
		return &fault.Error{Code: errTokenAway.Code, Message: errTokenAway.Message, RetryAfter: errTokenAway.RetryAfter, Err: err}
	case errors.As(err, &classified) && classified.Code == fault.Unavailable:
		a.refused("token")
	}
	return err
}

func (a *Authority) refused(step string) {
	if a.cfg.Hooks.Refused != nil {
		a.cfg.Hooks.Refused(step)
	}
}

func (a *Authority) failed(task string, err error) {
	if a.cfg.Hooks.Failed != nil {
		a.cfg.Hooks.Failed(task, err)
	}
}

func scopeOf(c policy.Caller) Scope {
	return Scope{All: c.Role == policy.RoleSuperuser || c.Operator, UserID: c.UserID, OrganizationID: c.OrganizationID}
}

const (
	// issueTimeout is how long a reserved certificate has to be signed and completed.
	issueTimeout = 30 * time.Second
	// createTimeout is the same for a CA, whose RSA key a slow token may need a minute to make. Both are shorter than
	// reservationGrace.
	createTimeout = 100 * time.Second
)

// finish is the context for a record that was begun: a client that hangs up must not stop it, a database that hangs
// must.
func finish(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), timeout)
}
