// Package catest tests what ca needs from a store: an in-memory ca.Store for the tests of others, and the contract
// suite that it, SQLite and PostgreSQL all pass.
package catest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

// Memory is a ca.Store in memory. It keeps the same promises as the database, except durability.
type Memory struct {
	// Now dates audit entries and updates; New sets it to time.Now.
	Now func() time.Time
	// Fail, if set, is called with the name of each Store method before it does anything; its error ends the call.
	// Set it before the store is shared.
	Fail func(method string) error

	mu           sync.Mutex
	authorities  map[int64]*authority
	certificates map[int64]*ca.Certificate
	responders   map[int64]*responder
	answers      map[answerKey]ca.SignedAnswer
	leases       map[string]lease
	notices      notices
	trail        []audit.Entry

	lastCertificate, lastEntry int64 // ids, of which none is used again
}

// authority is a CA and what it revoked and published.
type authority struct {
	ca.CA
	sequence  int64 // of changes in the ledger
	crlNumber int64 // of the last list that was completed
	ledger    map[string]*ca.RevokedEntry
	shards    map[int]int64 // the sequence of the last change in each; nil until the CA is complete
	lists     []*ca.List    // in the order of their numbers
	policy    ca.RevocationPolicy
	drills    []ca.KeyDrill // oldest first
}

// responder is a responder with the time of its reservation.
type responder struct {
	ca.Responder
	createdAt time.Time
}

var _ ca.Store = (*Memory)(nil)

// New returns an empty store.
func New() *Memory {
	return &Memory{Now: time.Now, authorities: map[int64]*authority{}, certificates: map[int64]*ca.Certificate{},
		responders: map[int64]*responder{}, answers: map[answerKey]ca.SignedAnswer{}, leases: map[string]lease{}}
}

// begin starts a call: it takes the lock unless the call is to fail.
func (m *Memory) begin(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Fail != nil {
		if err := m.Fail(method); err != nil {
			return err
		}
	}
	m.mu.Lock()
	return nil
}

func (m *Memory) now() time.Time { return instant(m.Now()) }

// instant is what a database keeps of a time.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func (m *Memory) append(e audit.Event, id int64) {
	if e.ResourceID == nil {
		e.ResourceID = &id
	}
	m.record(e)
}

func (m *Memory) record(e audit.Event) {
	m.lastEntry++
	m.trail = append(m.trail, audit.Entry{ID: m.lastEntry, CreatedAt: m.now(), Event: e})
}

func exists(s ca.State) bool { return s == ca.Valid || s == ca.Revoked }

// visible finds a CA for the methods that do not see deleted ones.
func (m *Memory) visible(id int64) (*authority, error) {
	if a, ok := m.authorities[id]; ok && exists(a.State) && a.DeletedAt == nil {
		return a, nil
	}
	return nil, fault.New(fault.NotFound, "CA not found")
}

// public finds a CA, deleted or not.
func (m *Memory) public(id int64) (*authority, error) {
	if a, ok := m.authorities[id]; ok && exists(a.State) {
		return a, nil
	}
	return nil, fault.New(fault.NotFound, "CA not found")
}

func (m *Memory) visibleCertificate(id int64) (*ca.Certificate, error) {
	if c, ok := m.certificates[id]; ok && exists(c.State) && m.authorities[c.IssuerID].DeletedAt == nil {
		return c, nil
	}
	return nil, fault.New(fault.NotFound, "Certificate not found")
}

// serialTaken reports whether an issuer has used a serial, for whatever.
func (m *Memory) serialTaken(issuer int64, serial string) bool {
	for _, c := range m.certificates {
		if c.IssuerID == issuer && c.Serial == serial {
			return true
		}
	}
	for _, a := range m.authorities {
		if a.ParentID != nil && *a.ParentID == issuer && a.Serial == serial {
			return true
		}
	}
	for _, r := range m.responders {
		if r.CAID == issuer && r.Serial == serial {
			return true
		}
	}
	return false
}

// byID returns the records that pass, ordered by id.
func byID[T any](all map[int64]*T, id func(*T) int64, pass func(*T) bool) []*T {
	var out []*T
	for _, r := range all {
		if pass(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *T) int { return cmp.Compare(id(a), id(b)) })
	return out
}

func cut[T any](all []*T, id func(*T) int64, p ca.Page) []*T {
	for len(all) > 0 && id(all[0]) <= p.After {
		all = all[1:]
	}
	all = all[min(p.Skip, len(all)):]
	return all[:min(p.Limit, len(all))]
}

func authorityID(a *authority) int64        { return a.ID }
func certificateID(c *ca.Certificate) int64 { return c.ID }

func values(in []*authority) []ca.CA {
	out := make([]ca.CA, len(in))
	for i, a := range in {
		out[i] = a.CA
	}
	return out
}

func inScope(s ca.Scope, organization, creator *int64) bool {
	switch {
	case s.All:
		return true
	case s.UserID != 0 && creator != nil && *creator == s.UserID:
		return true
	}
	return s.OrganizationID != nil && organization != nil && *organization == *s.OrganizationID
}

// Record implements ca.Store.
func (m *Memory) Record(ctx context.Context, e audit.Event) error {
	if err := m.begin(ctx, "Record"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.record(e)
	return nil
}

// AuditLog implements ca.Store.
func (m *Memory) AuditLog(ctx context.Context, f audit.Filter) ([]audit.Entry, ca.Total, error) {
	if err := m.begin(ctx, "AuditLog"); err != nil {
		return nil, ca.Total{}, err
	}
	defer m.mu.Unlock()
	var page []audit.Entry
	var total ca.Total
	skip := f.Skip
	for _, e := range slices.Backward(m.trail) {
		if !matches(f, e) {
			continue
		}
		total.N++
		switch {
		case f.BeforeID != 0 && e.ID >= f.BeforeID:
		case skip > 0:
			skip--
		case len(page) < f.Limit:
			page = append(page, e)
		}
	}
	return page, total, nil
}

func matches(f audit.Filter, e audit.Entry) bool {
	same := func(want, got *int64) bool { return want == nil || got != nil && *want == *got }
	mine := f.OwnUserID != nil && same(f.OwnUserID, e.UserID)
	ours := f.OrganizationID != nil && same(f.OrganizationID, e.OrganizationID)
	switch {
	case f.Action != "" && f.Action != e.Action,
		f.ResourceType != "" && f.ResourceType != e.ResourceType,
		!same(f.UserID, e.UserID), !same(f.ResourceID, e.ResourceID),
		!f.Since.IsZero() && e.CreatedAt.Before(instant(f.Since)),
		!f.Until.IsZero() && e.CreatedAt.After(instant(f.Until)):
		return false
	}
	return f.OrganizationID == nil && f.OwnUserID == nil || mine || ours
}

// IsCAKey implements ca.Store.
func (m *Memory) IsCAKey(ctx context.Context, publicKey []byte) (bool, error) {
	if err := m.begin(ctx, "IsCAKey"); err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	hash := sha256.Sum256(publicKey)
	return m.isCAKey(hash[:]), nil
}

// isCAKey reports whether a hash is that of the public key of a CA.
func (m *Memory) isCAKey(hash []byte) bool {
	for _, a := range m.authorities {
		if sum := sha256.Sum256(a.PublicKey); len(a.PublicKey) > 0 && bytes.Equal(sum[:], hash) {
			return true
		}
	}
	return false
}

// Reserve implements ca.Store.
func (m *Memory) Reserve(ctx context.Context, c ca.Certificate, e audit.Event) (int64, error) {
	if err := m.begin(ctx, "Reserve"); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	issuer, ok := m.authorities[c.IssuerID]
	switch {
	case !ok || issuer.State != ca.Valid || issuer.DeletedAt != nil:
		return 0, fault.New(fault.Conflict, "CA %d is revoked or deleted", c.IssuerID)
	case issuer.Proof.Locked != "":
		return 0, fault.New(fault.Conflict, "CA %d is locked", c.IssuerID)
	case c.Type != policy.CA && !issuer.AllowLeafCerts:
		return 0, fault.New(fault.Conflict, "CA %d does not allow leaf certificate issuance", c.IssuerID)
	case m.isCAKey(c.PublicKeySHA256):
		return 0, ca.ErrCAKey
	case m.serialTaken(c.IssuerID, c.Serial):
		return 0, fault.New(fault.Conflict, "Serial number is already in use")
	}
	m.lastCertificate++
	c.ID, c.State = m.lastCertificate, ca.Pending
	c.PublicKeySHA256, c.DER, c.SealedKey, c.Revocation = nil, nil, nil, ca.Revocation{}
	c.NotBefore, c.NotAfter = instant(c.NotBefore), instant(c.NotAfter)
	c.CreatedAt, c.UpdatedAt = m.dates(c.CreatedAt)
	m.certificates[c.ID] = &c
	m.append(e, c.ID)
	return c.ID, nil
}

// dates are a new record's: created when it says, or now.
func (m *Memory) dates(created time.Time) (time.Time, time.Time) {
	if created.IsZero() {
		created = m.now()
	}
	return instant(created), instant(created)
}

// Complete implements ca.Store.
func (m *Memory) Complete(ctx context.Context, id int64, der, sealedKey []byte, e audit.Event) (ca.Certificate, error) {
	if err := m.begin(ctx, "Complete"); err != nil {
		return ca.Certificate{}, err
	}
	defer m.mu.Unlock()
	c, ok := m.certificates[id]
	if !ok || c.State != ca.Pending {
		return ca.Certificate{}, fault.New(fault.Conflict, "Certificate is not reserved, or already completed")
	}
	c.State, c.DER, c.SealedKey, c.TBS, c.UpdatedAt = ca.Valid, der, sealedKey, nil, m.now()
	m.append(e, id)
	return *c, nil
}

// Certificate implements ca.Store.
func (m *Memory) Certificate(ctx context.Context, id int64) (ca.Certificate, error) {
	if err := m.begin(ctx, "Certificate"); err != nil {
		return ca.Certificate{}, err
	}
	defer m.mu.Unlock()
	c, err := m.visibleCertificate(id)
	if err != nil {
		return ca.Certificate{}, err
	}
	return *c, nil
}

// Certificates implements ca.Store.
func (m *Memory) Certificates(ctx context.Context, f ca.CertificateFilter, p ca.Page) ([]ca.Certificate, ca.Total, error) {
	if err := m.begin(ctx, "Certificates"); err != nil {
		return nil, ca.Total{}, err
	}
	defer m.mu.Unlock()
	all := byID(m.certificates, certificateID, func(c *ca.Certificate) bool {
		_, err := m.visibleCertificate(c.ID)
		return err == nil && inScope(f.Scope, c.OrganizationID, c.CreatedBy) && selects(f, c)
	})
	var page []ca.Certificate
	for _, c := range cut(all, certificateID, p) {
		listed := *c
		listed.SealedKey = nil
		page = append(page, listed)
	}
	return page, ca.Total{N: int64(len(all))}, nil
}
