package ca

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"slices"
	"time"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
	"signet/signer"
)

// publishTimeout bounds one list.
const publishTimeout = 2 * time.Minute

// publish asks for the first list of a CA and waits for it, but not for long.
func (a *Authority) publish(ctx context.Context, s ListScope) {
	a.publisher.request(s.CAID, true, s.Shard)
	a.publisher.await(ctx, s.CAID, s.Shard)
}

// publishShards signs and stores what the shards of a CA need.
func (a *Authority) publishShards(ctx context.Context, caID int64, shards []int) (err error) {
	defer func() {
		if errors.Is(err, errOvertaken) {
			a.publisher.request(caID, false, shards...) // what its list lacks, if anything
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("publish lists of CA %d: %w", caID, err)
			a.failed("crl", err)
		}
	}()
	p, err := a.cfg.Store.RevocationPolicy(ctx, caID)
	if err != nil {
		return fmt.Errorf("find revocation policy: %w", err)
	}
	p = a.Effective(p)
	all, err := a.shardStates(ctx, a.cfg.Now(), caID)
	if err != nil {
		return err
	}
	states := all[caID] // none: there is nothing to keep up
	var lists *press
	for _, shard := range shards {
		s, ok := states[shard]
		needs := needNothing
		if ok {
			needs = p.needs(s, a.cfg.Now())
		}
		if needs == needNothing {
			continue
		}
		if lists == nil {
			if lists, err = a.openPress(ctx, caID, p); err != nil {
				return err
			}
		}
		if err := lists.publish(ctx, needs, s); err != nil {
			return err
		}
	}
	return a.signAhead(ctx, caID, p)
}

// errOvertaken says that another replica completed a list with the same number first.
var errOvertaken = errors.New("another replica was faster")

// press signs the lists of a CA.
type press struct {
	*Authority
	ca     CA
	issuer *signer.Issuer
	policy RevocationPolicy // in effect
	urls   urls
}

// openPress finds what signs the lists of a CA. It fails while the token does not sign: no number is taken then.
func (a *Authority) openPress(ctx context.Context, caID int64, p RevocationPolicy) (*press, error) {
	c, err := a.cfg.Store.PublicCA(ctx, caID)
	if err != nil {
		return nil, fmt.Errorf("find CA: %w", err)
	}
	ref := c.KeyRef()
	if c.Proof.Locked != "" {
		ref.Accept = evidence.Imported // see refuseLocked; a key that says it can leave its token signs nothing at all
	}
	issuer, err := a.issuerWith(ctx, c, ref)
	if err == nil {
		err = issuer.Ready()
	}
	if err != nil {
		return nil, fmt.Errorf("look whether the CA can sign: %w", err)
	}
	return &press{a, c, issuer, p, a.urls(c)}, nil
}

// publish signs and stores what a shard needs now.
func (p *press) publish(ctx context.Context, needs need, s shardState) error {
	start := p.cfg.Now()
	if needs == needDelta {
		err := p.delta(ctx, s, start)
		if !errors.Is(err, errLongDelta) {
			return err
		}
	}
	_, err := p.complete(ctx, s.Shard, s.Current, start)
	return err
}

// complete signs and stores a complete list, with a delta if the CA makes deltas. It is of the time at, which may be to come, and
// follows the list before; nil: it is the first.
func (p *press) complete(ctx context.Context, shard int, before *List, at time.Time) (List, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	start := p.cfg.Now()
	l, err := p.cfg.Store.BeginList(ctx, ListScope{CAID: p.ca.ID, Shard: shard}, start)
	if err != nil {
		return List{}, fmt.Errorf("begin list: %w", err)
	}
	l.ThisUpdate = at.UTC().Truncate(time.Second)
	l.NextUpdate = l.ThisUpdate.Add(p.policy.CRLValidity)
	since, base := l.ThisUpdate, (*List)(nil)
	if before != nil {
		// An entry leaves the list after it appeared once beyond the certificate's end (RFC 5280, section 3.3): what had not
		// expired at the last list is in this one.
		since = before.ThisUpdate
		if before.NextUpdate.After(l.ThisUpdate) {
			base = before
		}
	}
	changes := changesOf(base)
	var memory frugality
	defer memory.end()
	entries := func(yield func(signer.Revoked, error) bool) {
		read := 0
		for e, err := range p.entries(ctx, shard, before, since) {
			read++
			memory.expect(read)
			if p.policy.Delta {
				changes.add(e)
			}
			if (err != nil || !e.Released) && !yield(revokedOf(e), err) {
				return
			}
		}
	}
	what := p.crl(l, entries)
	if before != nil {
		what.Size = int(before.Size) + before.Entries/8 + 4096 // it grows a little
		memory.expect(before.Entries)
	}
	if p.policy.Delta {
		what.FreshestURL = p.urls.list(shard, true)
	}
	if l.DER, l.Entries, err = p.issuer.SignCRL(what); err != nil {
		return List{}, fmt.Errorf("sign list %d: %w", l.Number, err)
	}
	lists := []List{l}
	if p.policy.Delta {
		// Whoever holds the list before can go on with it. When too much has changed, the delta builds on the list that it comes
		// with, and there is nothing to add to that.
		d := l
		d.Delta, d.Base = true, l.Number
		if base != nil && !changes.tooMany() {
			d.Base = base.Number
		} else {
			changes.all = nil
		}
		if d, err = p.signDelta(d, changes.entries()); err != nil {
			return List{}, err
		}
		lists = append(lists, d)
	}
	return l, p.store(ctx, lists, start)
}

// entries are those of certificates that had not expired at a time, and what came after the list before: that was signed ahead perhaps,
// and what was revoked while the token was away must appear, although its certificate has expired since.
func (p *press) entries(ctx context.Context, shard int, before *List, notExpiredAt time.Time) iter.Seq2[RevokedEntry, error] {
	return func(yield func(RevokedEntry, error) bool) {
		for e, err := range p.cfg.Store.RevokedEntries(ctx, p.ca.ID, shard, -1, notExpiredAt) {
			if !yield(e, err) {
				return
			}
		}
		if before == nil {
			return
		}
		for e, err := range p.cfg.Store.RevokedEntries(ctx, p.ca.ID, shard, before.Sequence, time.Time{}) {
			if (err != nil || e.NotAfter.Before(notExpiredAt)) && !yield(e, err) {
				return
			}
		}
	}
}

// delta signs and stores what has changed since the current complete list. It fails with errLongDelta when that is so much that
// a complete list is better.
func (p *press) delta(ctx context.Context, s shardState, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	base := s.Current
	d, err := p.cfg.Store.BeginList(ctx, ListScope{CAID: p.ca.ID, Shard: s.Shard, Delta: true}, at)
	if err != nil {
		return fmt.Errorf("begin delta: %w", err)
	}
	d.Base = base.Number
	d.ThisUpdate = at.UTC().Truncate(time.Second)
	d.NextUpdate = base.NextUpdate
	if latest := d.ThisUpdate.Add(p.policy.CRLValidity); d.NextUpdate.After(latest) {
		d.NextUpdate = latest
	}
	changes := changesOf(base)
	for e, err := range p.cfg.Store.RevokedEntries(ctx, p.ca.ID, s.Shard, base.Sequence, time.Time{}) {
		if err != nil {
			return fmt.Errorf("read changes: %w", err)
		}
		if changes.add(e); changes.tooMany() {
			return errLongDelta
		}
	}
	if d, err = p.signDelta(d, changes.entries()); err != nil {
		return err
	}
	return p.store(ctx, []List{d}, at)
}

func (p *press) signDelta(d List, entries iter.Seq2[signer.Revoked, error]) (List, error) {
	what := p.crl(d, entries)
	what.Base = big.NewInt(d.Base)
	var err error
	if d.DER, d.Entries, err = p.issuer.SignCRL(what); err != nil {
		return List{}, fmt.Errorf("sign delta %d: %w", d.Number, err)
	}
	return d, nil
}

// crl is what a list says. What was revoked while it is being made is dated at its thisUpdate at the latest. A delta names the distribution point of the complete list: both have the same
// scope (RFC 5280, section 5.2.4).
func (p *press) crl(l List, entries iter.Seq2[signer.Revoked, error]) signer.CRL {
	c := signer.CRL{Number: big.NewInt(l.Number), ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate}
	c.Entries = func(yield func(signer.Revoked, error) bool) {
		for e, err := range entries {
			if e.At.After(l.ThisUpdate) {
				e.At = l.ThisUpdate
			}
			if !yield(e, err) {
				return
			}
		}
	}
	if l.Shard > 0 { // without it, a list is complete for everything that the CA has issued
		c.DistributionPoint = p.urls.list(l.Shard, false)
	}
	return c
}

// store completes lists of one number.
func (p *press) store(ctx context.Context, lists []List, start time.Time) error {
	ctx, cancel := finish(ctx, issueTimeout)
	defer cancel()
	e := p.event(ctx, policy.Caller{}, audit.CRLPublish, p.ca.OrganizationID, audit.ResourceCA, &p.ca.ID, describe(lists))
	err := p.cfg.Store.CompleteLists(ctx, lists, e)
	for _, l := range lists {
		p.lists.drop(l.ListScope)
	}
	if fault.Is(err, fault.Conflict) {
		return errOvertaken
	}
	if err != nil {
		return fmt.Errorf("complete list %d: %w", lists[0].Number, err)
	}
	for _, l := range lists {
		if !l.ThisUpdate.After(start) {
			l.State = ListPublished
			p.lists.replace(l)
		}
	}
	if p.cfg.Hooks.Published != nil {
		p.cfg.Hooks.Published(lists[0].Entries, p.cfg.Now().Sub(start))
	}
	return nil
}

// describe says for the trail what was published.
func describe(lists []List) string {
	first := lists[0]
	detail := fmt.Sprintf("CRL number %d", first.Number)
	if first.Shard > 0 {
		detail += fmt.Sprintf(" of shard %d", first.Shard)
	}
	for i, l := range lists {
		if i > 0 {
			detail += ","
		}
		if l.Delta {
			detail += fmt.Sprintf(" with a delta of %d entries on number %d", l.Entries, l.Base)
		} else {
			detail += fmt.Sprintf(" with %d entries", l.Entries)
		}
	}
	return detail + ", from " + first.ThisUpdate.Format(time.RFC3339)
}

func revokedOf(e RevokedEntry) signer.Revoked {
	r := signer.Revoked{Serial: e.Serial, At: e.At, Reason: e.Reason, InvalidityDate: e.InvalidityDate}
	if e.Released {
		r.Reason, r.InvalidityDate = removeFromCRL, time.Time{}
	}
	return r
}

var errLongDelta = errors.New("too much has changed for a delta")

// minLongDelta is how many entries a delta may have whatever the size of its base.
const minLongDelta = 1000

// changes are the entries of a delta, as long as they are few.
type changes struct {
	after int64 // sequence of the base
	most  int
	all   []signer.Revoked
}

// changesOf collects what changed since a base; nil: nothing is collected.
func changesOf(base *List) *changes {
	if base == nil {
		return &changes{}
	}
	return &changes{after: base.Sequence, most: max(minLongDelta, base.Entries/2)}
}

func (c *changes) add(e RevokedEntry) {
	if c.most > 0 && e.Sequence > c.after && !c.tooMany() {
		c.all = append(c.all, revokedOf(e))
	}
}

func (c *changes) tooMany() bool { return len(c.all) > c.most }

func (c *changes) entries() iter.Seq2[signer.Revoked, error] {
	return func(yield func(signer.Revoked, error) bool) {
		for e := range slices.Values(c.all) {
			if !yield(e, nil) {
				return
			}
		}
	}
}
