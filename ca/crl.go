package ca

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
	"signet/signer"
)

const (
	// publishWait is how long a revocation waits for its CRL before it answers anyway.
	publishWait = 900 * time.Millisecond
	// publishTimeout bounds one publication.
	publishTimeout = time.Minute
	// reservationGrace is how old a reservation is when another replica may call it abandoned: longer than the
	// time a request has to finish its record.
	reservationGrace = 2 * time.Minute
)

// publisher signs CRLs one at a time per CA. Requests that arrive while one is being signed share the next.
type publisher struct {
	publish func(ctx context.Context, caID int64) error

	mu      sync.Mutex
	next    map[int64]chan struct{} // closed when the publication that starts after the request has ended
	running map[int64]bool
	wg      sync.WaitGroup
}

// request asks for a CRL that includes everything recorded until now.
func (p *publisher) request(caID int64) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.next[caID]
	if done == nil {
		done = make(chan struct{})
		p.next[caID] = done
	}
	if !p.running[caID] {
		p.running[caID] = true
		p.wg.Add(1)
		go p.work(caID)
	}
	return done
}

func (p *publisher) work(caID int64) {
	defer p.wg.Done()
	for {
		p.mu.Lock()
		done := p.next[caID]
		if done == nil {
			delete(p.running, caID)
			p.mu.Unlock()
			return
		}
		delete(p.next, caID)
		p.mu.Unlock()

		ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
		_ = p.publish(ctx, caID) // reports its own failure; the schedule tries again
		cancel()
		close(done)
	}
}

// await requests a CRL and waits for it, but not for long.
func (p *publisher) await(ctx context.Context, caID int64) {
	timeout := time.NewTimer(publishWait)
	defer timeout.Stop()
	select {
	case <-p.request(caID):
	case <-timeout.C:
	case <-ctx.Done():
	}
}

// publishCRL signs and stores the next CRL of a CA.
func (a *Authority) publishCRL(ctx context.Context, caID int64) (err error) {
	defer func() {
		if err != nil {
			a.failed("crl", fmt.Errorf("publish CRL of CA %d: %w", caID, err))
		}
	}()
	start := a.cfg.Now()
	c, err := a.cfg.Store.PublicCA(ctx, caID)
	if err != nil {
		return err
	}
	if c.KeyDestroyedAt != nil {
		return nil // the last list was signed
	}
	ref := c.KeyRef()
	if c.Proof.Locked != "" {
		ref.Accept = evidence.Imported // see refuseLocked; a key that says it can leave its token signs nothing at all
	}
	issuer, err := a.issuerWith(ctx, c, ref)
	if err != nil {
		return err
	}
	if err := issuer.Ready(); err != nil { // before a number is taken
		return err
	}
	// An entry leaves the list after it appeared once beyond the certificate's end (RFC 5280, section 3.3): what
	// had not expired at the last list is in this one.
	since := start
	if last, err := a.cfg.Store.LatestCRL(ctx, caID); err == nil {
		since = last.ThisUpdate
	} else if !fault.Is(err, fault.NotFound) {
		return err
	}

	crl, err := a.cfg.Store.BeginCRL(ctx, caID)
	if err != nil {
		return err
	}
	revoked, err := a.cfg.Store.RevokedSerials(ctx, caID, since)
	if err != nil {
		return err
	}
	crl.CAID, crl.Entries = caID, len(revoked)
	crl.ThisUpdate = a.cfg.Now().UTC().Truncate(time.Second)
	crl.NextUpdate = crl.ThisUpdate.Add(a.cfg.CRLValidity)
	entries := make([]signer.Revoked, len(revoked))
	for i, r := range revoked {
		serial, err := signer.ParseSerial(r.Serial)
		if err != nil {
			return err
		}
		entries[i] = signer.Revoked{Serial: serial, At: r.At, Reason: r.Reason}
	}
	crl.DER, err = issuer.SignCRL(signer.CRL{
		Number: big.NewInt(crl.Number), ThisUpdate: crl.ThisUpdate, NextUpdate: crl.NextUpdate, Entries: entries,
	})
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("CRL number %d with %d entries", crl.Number, crl.Entries)
	if err := a.cfg.Store.CompleteCRL(ctx, crl, a.event(ctx, policy.Caller{}, audit.CRLPublish, c.OrganizationID, audit.ResourceCA, &c.ID, detail)); err != nil {
		return err
	}
	if a.cfg.Hooks.Published != nil {
		a.cfg.Hooks.Published(crl.Entries, a.cfg.Now().Sub(start))
	}
	return nil
}

// Run publishes CRLs that are due, reconciles and drills, until ctx ends and what it began is finished.
func (a *Authority) Run(ctx context.Context) {
	defer a.publisher.wg.Wait()
	var drills sync.WaitGroup
	defer drills.Wait()
	drills.Go(func() { a.drillInBackground(ctx) })
	crls := time.NewTicker(time.Second)
	defer crls.Stop()
	reservations := time.NewTicker(time.Minute)
	defer reservations.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-crls.C:
			a.publishDue(ctx)
		case <-reservations.C:
			if _, err := a.Reconcile(ctx, a.cfg.Now().Add(-reservationGrace)); err != nil && ctx.Err() == nil {
				a.failed("reconcile", err)
			}
		}
	}
}

// publishDue publishes every CRL that is missing, behind, or about to lapse, two at a time.
func (a *Authority) publishDue(ctx context.Context) {
	now := a.cfg.Now()
	due, err := a.cfg.Store.StaleCRLs(ctx, now.Add(a.cfg.CRLRefresh), now)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			a.failed("crl", fmt.Errorf("list stale CRLs: %w", err))
		}
		return
	}
	slots := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for _, id := range due {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			select {
			case <-a.publisher.request(id):
			case <-ctx.Done():
			}
		})
	}
	wg.Wait()
}

// Reconcile closes the reservations made before the given time: what they announced may have been signed, so their
// serials count as revoked from now on. It returns how many there were.
func (a *Authority) Reconcile(ctx context.Context, before time.Time) (int, error) {
	n, err := a.cfg.Store.Abandon(ctx, before, a.cfg.Now())
	if err != nil {
		return 0, fmt.Errorf("reconcile reservations: %w", err)
	}
	return n, nil
}
