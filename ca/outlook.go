package ca

import (
	"context"
	"fmt"
	"time"
)

// CAExpiry is what ends of a CA.
type CAExpiry struct {
	CA        CA         // without TBS and Certificate
	Expiring  []int64    // its Valid certificates that end within each of the durations asked for; 0 when it is deleted
	Responder *Responder // the Valid one that was certified last, without TBS and Certificate; nil: none
}

// Ending is a place in the certificates of a CA, ordered by notAfter, then by id.
type Ending struct {
	NotAfter time.Time
	ID       int64
}

// ExpiryStore reads what ends soon. Its queries read the part of an index that they are about, and no more.
type ExpiryStore interface {
	// CAExpiries returns every CA that is Valid or Revoked, deleted ones too, by id. What ended before now is not Expiring.
	CAExpiries(ctx context.Context, now time.Time, within []time.Duration) ([]CAExpiry, error)
	// Endings lists the Valid certificates of a CA after a place and up to a notAfter, inclusive, without TBS, DER and
	// SealedKey, in order.
	Endings(ctx context.Context, caID int64, after Ending, until time.Time, limit int) ([]Certificate, error)
}

// Outlook is what ends of a CA, and how long its lists last.
type Outlook struct {
	CAExpiry
	Lists []ScopeState // that must be kept up; none when the CA has expired, has no key any more or is deleted and done with
}

// NextUpdate is the earliest nextUpdate of the complete lists that are current, zero while one is missing. ok is false
// when there is none to be kept up.
func (o Outlook) NextUpdate() (at time.Time, ok bool) {
	for _, s := range o.Lists {
		if s.Delta {
			continue
		}
		if s.Current == nil {
			return time.Time{}, true
		}
		if !ok || s.Current.NextUpdate.Before(at) {
			at, ok = s.Current.NextUpdate, true
		}
	}
	return at, ok
}

// CRLNumber is that of the newest current list, 0 when there is none.
func (o Outlook) CRLNumber() int64 {
	var number int64
	for _, s := range o.Lists {
		if s.Current != nil {
			number = max(number, s.Current.Number)
		}
	}
	return number
}

// Outlook returns what ends of every CA, deleted ones too, by id; certificates are counted for each duration.
func (a *Authority) Outlook(ctx context.Context, within ...time.Duration) ([]Outlook, error) {
	now := a.cfg.Now()
	expiries, err := a.cfg.Store.CAExpiries(ctx, now, within)
	if err != nil {
		return nil, fmt.Errorf("read what ends: %w", err)
	}
	scopes, err := a.cfg.Store.ListScopes(ctx, now)
	if err != nil {
		return nil, fmt.Errorf("read the lists to be kept up: %w", err)
	}
	lists := map[int64][]ScopeState{}
	for _, s := range scopes {
		lists[s.CAID] = append(lists[s.CAID], s)
	}
	all := make([]Outlook, len(expiries))
	for i, e := range expiries {
		all[i] = Outlook{CAExpiry: e, Lists: lists[e.CA.ID]}
	}
	return all, nil
}

// Leads reports whether this replica does the work that one does for all.
func (a *Authority) Leads() bool { return a.leads() }
