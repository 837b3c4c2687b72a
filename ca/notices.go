package ca

import (
	"context"
	"fmt"
	"time"
)

// Notice is something that operators are told once: that a certificate is about to end, or that what renews by itself did not.
type Notice struct {
	Key       string // names the occasion: there is one notice of it
	Kind      NoticeKind
	Data      any // encoded as a JSON object
	CreatedAt time.Time
}

// NoticeKind is what a notice is about.
type NoticeKind string

// The kinds. Receivers tell them apart by these strings: they are part of the interface.
const (
	CertificateExpiring NoticeKind = "certificate.expiring"
	CAExpiring          NoticeKind = "ca.expiring"
	CRLLapsing          NoticeKind = "crl.lapsing"
	ResponderEnding     NoticeKind = "ocsp_responder.ending"
)

// NoticeConfig is how long before their end operators are told of certificates and CAs, the longest first.
type NoticeConfig struct {
	Certificates []time.Duration
	CAs          []time.Duration
}

// NoticeStore keeps what operators are to be told, until it was delivered.
type NoticeStore interface {
	// AddNotices keeps the notices whose keys are not known.
	AddNotices(ctx context.Context, all []Notice) error
	// NoticedUntil returns how far the named search for occasions came, zero when it never ran.
	NoticedUntil(ctx context.Context, search string) (time.Time, error)
	// SetNoticedUntil remembers it. An earlier time than the one that is known changes nothing.
	SetNoticedUntil(ctx context.Context, search string, until time.Time) error
}

const (
	noticeEvery = time.Minute
	noticePage  = 500
	// noticeSlack is how far each search goes back: to certificates that were not complete when it passed them, and to what
	// a replica passed whose clock is ahead.
	noticeSlack = 10 * time.Minute
)

// Watch looks for what operators are told, once a minute while this replica leads, until ctx ends. Without Config.Notices it
// does nothing.
func (a *Authority) Watch(ctx context.Context) {
	if a.cfg.Notices == nil {
		return
	}
	ticker := time.NewTicker(time.Second) // so that a replica that comes to lead begins at once
	defer ticker.Stop()
	var next time.Time
	for {
		if now := time.Now(); a.leads() && !now.Before(next) {
			next = now.Add(noticeEvery)
			if err := a.FindNotices(ctx); err != nil && ctx.Err() == nil {
				a.failed("notices", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// FindNotices is one round of Watch. It may run on several replicas at once: each notice is kept once.
func (a *Authority) FindNotices(ctx context.Context) error {
	all, err := a.Outlook(ctx)
	if err != nil {
		return err
	}
	policies, err := a.cfg.Store.RevocationPolicies(ctx)
	if err != nil {
		return fmt.Errorf("read revocation policies: %w", err)
	}
	now := a.cfg.Now()
	var found []Notice
	for _, o := range all {
		found = append(found, a.lapsingLists(o, policies[o.CA.ID], now)...)
		found = append(found, endingResponder(o, now)...)
	}
	if err := a.addNotices(ctx, found); err != nil {
		return err
	}
	if err := a.search(ctx, "ca", a.cfg.Notices.CAs, func(w noticeWindow) error { return a.addNotices(ctx, w.cas(all)) }); err != nil {
		return err
	}
	return a.search(ctx, "certificate", a.cfg.Notices.Certificates, func(w noticeWindow) error {
		for _, o := range all {
			if o.CA.DeletedAt != nil {
				continue
			}
			if err := a.searchCertificates(ctx, o.CA, w); err != nil {
				return err
			}
		}
		return nil
	})
}

// noticeWindow is the part of time whose ends are told because a threshold has come.
type noticeWindow struct {
	from, until time.Time // from is not in it
	threshold   time.Duration
	now         time.Time
}

// search calls find with what each threshold has reached since the search before. What had passed several thresholds by
// then is told for the last of them only.
func (a *Authority) search(ctx context.Context, name string, thresholds []time.Duration, find func(noticeWindow) error) error {
	now := a.cfg.Now()
	for i, threshold := range thresholds {
		w := noticeWindow{from: now, until: now.Add(threshold), threshold: threshold, now: now}
		if i+1 < len(thresholds) {
			w.from = now.Add(thresholds[i+1])
		}
		key := name + "/" + shortDuration(threshold)
		before, err := a.cfg.Store.NoticedUntil(ctx, key)
		if err != nil {
			return fmt.Errorf("read how far the search %s came: %w", key, err)
		}
		if back := before.Add(-noticeSlack); back.After(w.from) {
			w.from = back
		}
		if err := find(w); err != nil {
			return err
		}
		if err := a.cfg.Store.SetNoticedUntil(ctx, key, w.until); err != nil {
			return fmt.Errorf("remember how far the search %s came: %w", key, err)
		}
	}
	return nil
}

// reached reports whether the threshold came while the certificate existed: one that is issued for a shorter time is no news.
func (w noticeWindow) reached(created, notAfter time.Time) bool {
	return notAfter.After(w.from) && !notAfter.After(w.until) && created.Before(notAfter.Add(-w.threshold))
}

type caData struct {
	ID             int64     `json:"ca_id"`
	Name           string    `json:"ca_name"`
	OrganizationID *int64    `json:"organization_id"`
	Serial         string    `json:"serial_number"`
	NotAfter       time.Time `json:"not_after"`
	Within         string    `json:"within"`
}

func (w noticeWindow) cas(all []Outlook) []Notice {
	var found []Notice
	for _, o := range all {
		c := o.CA
		if c.State != Valid || c.DeletedAt != nil || !w.reached(c.CreatedAt, c.NotAfter) {
			continue
		}
		within := shortDuration(w.threshold)
		found = append(found, Notice{fmt.Sprintf("ca-expiring/%d/%s", c.ID, within), CAExpiring,
			caData{c.ID, c.Name, c.OrganizationID, c.Serial, c.NotAfter.UTC(), within}, w.now})
	}
	return found
}

type certificateData struct {
	ID             int64     `json:"certificate_id"`
	CAID           int64     `json:"ca_id"`
	CAName         string    `json:"ca_name"`
	OrganizationID *int64    `json:"organization_id"`
	CommonName     string    `json:"common_name"`
	Serial         string    `json:"serial_number"`
	NotAfter       time.Time `json:"not_after"`
	Within         string    `json:"within"`
}

// searchCertificates goes through the certificates of a CA in pages.
func (a *Authority) searchCertificates(ctx context.Context, issuer CA, w noticeWindow) error {
	within := shortDuration(w.threshold)
	place := Ending{NotAfter: w.from}
	for {
		page, err := a.cfg.Store.Endings(ctx, issuer.ID, place, w.until, noticePage)
		if err != nil {
			return fmt.Errorf("read what ends of CA %d: %w", issuer.ID, err)
		}
		var found []Notice
		for _, c := range page {
			if w.reached(c.CreatedAt, c.NotAfter) {
				found = append(found, Notice{fmt.Sprintf("certificate-expiring/%d/%s", c.ID, within), CertificateExpiring, certificateData{
					c.ID, issuer.ID, issuer.Name, c.OrganizationID, c.CommonName, c.Serial, c.NotAfter.UTC(), within}, w.now})
			}
			place = Ending{c.NotAfter, c.ID}
		}
		if err := a.addNotices(ctx, found); err != nil {
			return err
		}
		if len(page) < noticePage {
			return nil
		}
	}
}

type listData struct {
	CAID       int64     `json:"ca_id"`
	CAName     string    `json:"ca_name"`
	Shard      int       `json:"shard"`
	Delta      bool      `json:"delta"`
	Number     int64     `json:"number"`
	NextUpdate time.Time `json:"next_update"`
	URL        string    `json:"url"`
}

// lapsingLists are the lists that should have been followed by another one long ago. Lists that were signed ahead count.
func (a *Authority) lapsingLists(o Outlook, p RevocationPolicy, now time.Time) []Notice {
	overlap := a.cfg.CRLOverlap
	if p.CRLOverlap > 0 {
		overlap = p.CRLOverlap
	}
	var found []Notice
	for _, s := range o.Lists {
		if s.Last == nil || s.Delta && !p.Delta {
			continue
		}
		margin := min(overlap/2, s.Last.NextUpdate.Sub(s.Last.ThisUpdate)/4)
		if s.Last.NextUpdate.Sub(now) >= margin {
			continue
		}
		key := fmt.Sprintf("crl-lapsing/%d/%d/%t/%d", s.CAID, s.Shard, s.Delta, s.Last.Number)
		found = append(found, Notice{key, CRLLapsing, listData{
			s.CAID, o.CA.Name, s.Shard, s.Delta, s.Last.Number, s.Last.NextUpdate.UTC(), a.urls(o.CA).list(s.Shard, s.Delta)}, now})
	}
	return found
}

type responderData struct {
	CAID     int64     `json:"ca_id"`
	CAName   string    `json:"ca_name"`
	Serial   string    `json:"serial_number"`
	NotAfter time.Time `json:"not_after"`
}

// endingResponder is a responder that has less than a quarter of its validity left, and should have a successor since half.
// One that lasts as long as its CA has none.
func endingResponder(o Outlook, now time.Time) []Notice {
	r := o.Responder
	if r == nil || len(o.Lists) == 0 || !r.NotAfter.Before(o.CA.NotAfter) || r.NotAfter.Sub(now) >= r.NotAfter.Sub(r.NotBefore)/4 {
		return nil
	}
	return []Notice{{fmt.Sprintf("ocsp-responder-ending/%d/%s", o.CA.ID, r.Serial), ResponderEnding,
		responderData{o.CA.ID, o.CA.Name, r.Serial, r.NotAfter.UTC()}, now}}
}

func (a *Authority) addNotices(ctx context.Context, found []Notice) error {
	if len(found) == 0 {
		return nil
	}
	if err := a.cfg.Store.AddNotices(ctx, found); err != nil {
		return fmt.Errorf("add notices: %w", err)
	}
	return nil
}

// shortDuration writes a duration without parts that are zero.
func shortDuration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
