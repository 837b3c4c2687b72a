package ca

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"signet/audit"
	"signet/policy"
)

// RevocationPolicy is how a CA publishes what it revoked. The zero value follows the settings of the server: one complete
// list, and OCSP answers signed when they are asked for.
type RevocationPolicy struct {
	CRLValidity time.Duration // from thisUpdate to nextUpdate; 0: the server's setting
	CRLRefresh  time.Duration // a list that did not change is replaced so long after its thisUpdate; 0: the server's setting
	CRLOverlap  time.Duration // a list is replaced at least so long before its nextUpdate; 0: the server's setting
	Shards      int           // partitions that new certificates are spread over, up to MaxShards; 0: none
	Delta       bool          // changes go into delta CRLs, and complete lists follow the schedule

	OCSPValidity time.Duration // from thisUpdate to nextUpdate of an answer; 0: the server's setting
	ByName       bool          // the responder names itself by its subject; otherwise by the hash of its key
	Presign      bool          // answers for every certificate are signed in the background, before anybody asks

	Outage Outage

	UpdatedAt time.Time // zero: never set
}

// MaxShards bounds the partitions of a CA.
const MaxShards = 1024

// Outage is a time during which the token may be away: what must be signed then is signed before. The zero value is none.
type Outage struct{ From, Until time.Time }

// PolicyStore keeps the revocation policies of CAs.
type PolicyStore interface {
	// RevocationPolicy returns the policy of a CA, the zero value when none was set. A deleted CA has one too.
	RevocationPolicy(ctx context.Context, caID int64) (RevocationPolicy, error)
	// RevocationPolicies returns every policy that was set, by CA.
	RevocationPolicies(ctx context.Context) (map[int64]RevocationPolicy, error)
	// SetRevocationPolicy replaces the policy of a CA and opens a list for each of its shards. Shards once opened stay.
	SetRevocationPolicy(ctx context.Context, caID int64, p RevocationPolicy, e audit.Event) error
}

// policyCache holds the policies that were set, while Run follows them: issuance asks for each certificate.
type policyCache struct {
	mu      sync.Mutex
	byCA    map[int64]RevocationPolicy // nil: not followed
	changes int                        // made by this replica: what was read before one is too old
}

// refresh reads every policy.
func (c *policyCache) refresh(ctx context.Context, store PolicyStore) error {
	c.mu.Lock()
	before := c.changes
	c.mu.Unlock()
	all, err := store.RevocationPolicies(ctx)
	if err != nil {
		return fmt.Errorf("read revocation policies: %w", err)
	}
	if all == nil {
		all = map[int64]RevocationPolicy{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == before {
		c.byCA = all
	}
	return nil
}

func (c *policyCache) find(caID int64) (p RevocationPolicy, followed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byCA[caID], c.byCA != nil
}

func (c *policyCache) set(caID int64, p RevocationPolicy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	if c.byCA != nil {
		c.byCA[caID] = p
	}
}

// forget stops the use of what was read: nobody refreshes it any more.
func (c *policyCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	c.byCA = nil
}

// policyOf returns the revocation policy of a CA. While Run runs it asks nobody, and what another replica set is known within
// about a second.
func (a *Authority) policyOf(ctx context.Context, caID int64) (RevocationPolicy, error) {
	if p, followed := a.policies.find(caID); followed {
		return p, nil
	}
	return a.cfg.Store.RevocationPolicy(ctx, caID)
}

// Effective returns the policy with the settings of the server in place of what was not set.
func (a *Authority) Effective(p RevocationPolicy) RevocationPolicy {
	p.CRLValidity = cmp.Or(p.CRLValidity, a.cfg.CRLValidity)
	p.CRLRefresh = cmp.Or(p.CRLRefresh, a.cfg.CRLRefresh)
	p.CRLOverlap = cmp.Or(p.CRLOverlap, a.cfg.CRLOverlap)
	p.OCSPValidity = cmp.Or(p.OCSPValidity, a.cfg.OCSP.Validity)
	return p
}

// RevocationPolicy returns the revocation policy of a CA that the caller may read, as it was set.
func (a *Authority) RevocationPolicy(ctx context.Context, caller policy.Caller, caID int64) (RevocationPolicy, error) {
	if _, err := a.CA(ctx, caller, caID); err != nil {
		return RevocationPolicy{}, err
	}
	p, err := a.cfg.Store.RevocationPolicy(ctx, caID)
	if err != nil {
		return RevocationPolicy{}, fmt.Errorf("find revocation policy of CA %d: %w", caID, err)
	}
	return p, nil
}

// SetRevocationPolicy replaces the revocation policy of a CA; its lists follow within seconds. It needs the permission to create
// CAs below it. Invalid with every reason. It returns the policy as it was stored.
func (a *Authority) SetRevocationPolicy(ctx context.Context, caller policy.Caller, caID int64, p RevocationPolicy) (RevocationPolicy, error) {
	c, err := a.cfg.Store.CA(ctx, caID)
	if err != nil {
		return RevocationPolicy{}, fmt.Errorf("find CA: %w", err)
	}
	if err := a.allow(policy.Allow(caller, policy.CreateCA, c.object())); err != nil {
		return RevocationPolicy{}, err
	}
	p.UpdatedAt = a.cfg.Now().UTC().Truncate(time.Microsecond)
	p.Outage = Outage{From: wholeSecond(p.Outage.From), Until: wholeSecond(p.Outage.Until)}
	if err := a.checkPolicy(c, p); err != nil {
		return RevocationPolicy{}, a.refuse(err)
	}
	e := a.event(ctx, caller, audit.CASetPolicy, c.OrganizationID, audit.ResourceCA, &c.ID, p.describe())
	if err := a.cfg.Store.SetRevocationPolicy(ctx, caID, p, e); err != nil {
		return RevocationPolicy{}, fmt.Errorf("set revocation policy of CA %d: %w", caID, err)
	}
	a.policies.set(caID, p)
	if a.leads() {
		shards := make([]int, p.Shards+1) // others opened before follow with the schedule
		for i := range shards {
			shards[i] = i
		}
		a.publisher.request(caID, true, shards...)
	}
	return p, nil
}

func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// describe says for the trail what was set.
func (p RevocationPolicy) describe() string {
	var set []string
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"validity", p.CRLValidity}, {"refresh", p.CRLRefresh}, {"overlap", p.CRLOverlap}, {"OCSP validity", p.OCSPValidity}} {
		if d.value != 0 {
			set = append(set, fmt.Sprintf("%s %s", d.name, d.value))
		}
	}
	set = append(set, fmt.Sprintf("%d shards", p.Shards))
	for _, s := range []struct {
		words string
		on    bool
	}{{"deltas", p.Delta}, {"responder by name", p.ByName}, {"answers signed ahead", p.Presign}} {
		if s.on {
			set = append(set, s.words)
		}
	}
	if !p.Outage.Until.IsZero() {
		set = append(set, fmt.Sprintf("outage from %s until %s", p.Outage.From.Format(time.RFC3339), p.Outage.Until.Format(time.RFC3339)))
	}
	return "revocation policy: " + strings.Join(set, ", ")
}

// The bounds of a policy.
const (
	minCRLValidity  = 10 * time.Minute
	maxCRLValidity  = 366 * 24 * time.Hour
	minCRLInterval  = time.Minute // of refresh and overlap
	minOCSPValidity = 5 * time.Minute
	maxOCSPValidity = 30 * 24 * time.Hour
	maxOutage       = 90 * 24 * time.Hour
)

// checkPolicy returns a *policy.Violation with every reason against a policy.
func (a *Authority) checkPolicy(c CA, p RevocationPolicy) error {
	var reasons []string
	refuse := func(ok bool, format string, args ...any) {
		if !ok {
			reasons = append(reasons, fmt.Sprintf(format, args...))
		}
	}
	within := func(name string, d, least, most time.Duration) {
		refuse(d == 0 || d >= least && d <= most, "%s must be from %s to %s", name, least, most)
		refuse(d%time.Second == 0, "%s must be whole seconds", name)
	}
	within("crl_validity", p.CRLValidity, minCRLValidity, maxCRLValidity)
	within("crl_refresh", p.CRLRefresh, minCRLInterval, maxCRLValidity)
	within("crl_overlap", p.CRLOverlap, minCRLInterval, maxCRLValidity)
	within("ocsp_validity", p.OCSPValidity, minOCSPValidity, maxOCSPValidity)
	effective := a.Effective(p)
	refuse(effective.CRLRefresh+effective.CRLOverlap < effective.CRLValidity,
		"crl_refresh (%s) and crl_overlap (%s) together must be shorter than crl_validity (%s)", effective.CRLRefresh, effective.CRLOverlap, effective.CRLValidity)
	refuse(p.Shards >= 0 && p.Shards <= MaxShards, "crl_shards must be from 0 to %d", MaxShards)
	if o := p.Outage; o != (Outage{}) {
		ahead := o.Until.Sub(p.UpdatedAt)
		refuse(!o.From.IsZero() && o.Until.After(o.From), "the outage must end after it begins")
		refuse(ahead > 0, "the outage must end in the future")
		refuse(o.Until.Sub(o.From) <= maxOutage, "the outage must be at most %d days long", maxOutage/(24*time.Hour))
		refuse(!o.Until.After(c.NotAfter), "the outage must end before the CA expires, at %s", c.NotAfter.Format(time.RFC3339))
		if spacing := effective.spacing(); len(reasons) == 0 {
			refuse(ahead/spacing < maxStaged, "until the end of the outage more than %d lists would be signed ahead, one each %s: choose a longer crl_validity",
				maxStaged, spacing)
		}
	}
	if len(reasons) > 0 {
		return &policy.Violation{Reasons: reasons}
	}
	return nil
}

// Lists returns what a CA that the caller may read published, the newest number first, and counts it all. Page.After is a
// [List.Place].
func (a *Authority) Lists(ctx context.Context, caller policy.Caller, caID int64, p Page) ([]List, int64, error) {
	if _, err := a.CA(ctx, caller, caID); err != nil {
		return nil, 0, err
	}
	return a.cfg.Store.Lists(ctx, caID, p)
}
