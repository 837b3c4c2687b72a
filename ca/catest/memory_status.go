package catest

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// answerKey is what an answer is stored under.
type answerKey struct {
	caID   int64
	serial string
	hash   crypto.Hash
	from   int64 // thisUpdate, in microseconds
}

func keyOf(s ca.SignedAnswer) answerKey {
	return answerKey{s.CAID, s.Serial, s.Hash, s.ThisUpdate.UnixMicro()}
}

// issued returns when the certificate with a serial number of a CA ends; false when there is none, or none yet.
func (m *Memory) issued(caID int64, serial string) (notAfter time.Time, issued bool) {
	for _, c := range m.certificates {
		if c.IssuerID == caID && c.Serial == serial && c.State != ca.Pending {
			return c.NotAfter, true
		}
	}
	for _, a := range m.authorities {
		own := a.ParentID == nil && a.ID == caID
		if (own || a.ParentID != nil && *a.ParentID == caID) && a.Serial == serial && a.State != ca.Pending {
			return a.NotAfter, true
		}
	}
	for _, r := range m.responders {
		if r.CAID == caID && r.Serial == serial && r.State != ca.Pending {
			return r.NotAfter, true
		}
	}
	return time.Time{}, false
}

// SerialStatus implements ca.Store.
func (m *Memory) SerialStatus(ctx context.Context, caID int64, serial string) (ca.SerialStatus, error) {
	if err := m.begin(ctx, "SerialStatus"); err != nil {
		return ca.SerialStatus{}, err
	}
	defer m.mu.Unlock()
	a, err := m.public(caID)
	if err != nil {
		return ca.SerialStatus{}, err
	}
	s := ca.SerialStatus{Sequence: a.sequence}
	s.NotAfter, s.Issued = m.issued(caID, serial)
	if e, ok := a.ledger[serial]; ok && s.Issued && !e.Released {
		revoked := *e
		s.Revoked = &revoked
	}
	return s, nil
}

// ReserveResponder implements ca.Store.
func (m *Memory) ReserveResponder(ctx context.Context, r ca.Responder, e audit.Event) (int64, error) {
	if err := m.begin(ctx, "ReserveResponder"); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	if _, err := m.public(r.CAID); err != nil {
		return 0, err
	}
	if m.serialTaken(r.CAID, r.Serial) {
		return 0, fault.New(fault.Conflict, "Serial number is already in use")
	}
	r.ID, r.State, r.Certificate = int64(len(m.responders))+1, ca.Pending, nil
	r.NotBefore, r.NotAfter = instant(r.NotBefore), instant(r.NotAfter)
	m.responders[r.ID] = &responder{r, m.now()}
	m.append(e, r.CAID)
	return r.ID, nil
}

// CompleteResponder implements ca.Store.
func (m *Memory) CompleteResponder(ctx context.Context, id int64, der []byte, e audit.Event) error {
	if err := m.begin(ctx, "CompleteResponder"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	r, ok := m.responders[id]
	if !ok || r.State != ca.Pending {
		return fault.New(fault.Conflict, "OCSP responder is not reserved, or already completed")
	}
	r.State, r.Certificate, r.TBS = ca.Valid, bytes.Clone(der), nil
	m.append(e, r.CAID)
	return nil
}

// LatestResponder implements ca.Store.
func (m *Memory) LatestResponder(ctx context.Context, caID int64) (ca.Responder, error) {
	if err := m.begin(ctx, "LatestResponder"); err != nil {
		return ca.Responder{}, err
	}
	defer m.mu.Unlock()
	all := byID(m.responders, responderID, func(r *responder) bool { return r.CAID == caID && r.State == ca.Valid })
	if len(all) == 0 {
		return ca.Responder{}, fault.New(fault.NotFound, "OCSP responder not found")
	}
	return all[len(all)-1].Responder, nil
}

// Responders implements ca.Store.
func (m *Memory) Responders(ctx context.Context, after int64, limit int) ([]ca.Responder, error) {
	if err := m.begin(ctx, "Responders"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var page []ca.Responder
	all := byID(m.responders, responderID, func(*responder) bool { return true })
	for _, r := range cut(all, responderID, ca.Page{After: after, Limit: max(limit, 0)}) {
		page = append(page, r.Responder)
	}
	return page, nil
}

// KeepAnswers implements ca.Store.
func (m *Memory) KeepAnswers(ctx context.Context, all []ca.SignedAnswer) error {
	if err := m.begin(ctx, "KeepAnswers"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, s := range all {
		s.ThisUpdate, s.NextUpdate, s.DER = instant(s.ThisUpdate), instant(s.NextUpdate), bytes.Clone(s.DER)
		if was, ok := m.answers[keyOf(s)]; !ok || was.Sequence <= s.Sequence {
			m.answers[keyOf(s)] = s
		}
	}
	return nil
}

// overtaken reports whether the serial number of an answer has changed since its status was read.
func (m *Memory) overtaken(s ca.SignedAnswer) bool {
	a, ok := m.authorities[s.CAID]
	if !ok {
		return true
	}
	e, ok := a.ledger[s.Serial]
	return ok && e.Sequence > s.Sequence
}

// Answer implements ca.Store.
func (m *Memory) Answer(ctx context.Context, caID int64, serial string, hash crypto.Hash, now time.Time) (ca.SignedAnswer, error) {
	if err := m.begin(ctx, "Answer"); err != nil {
		return ca.SignedAnswer{}, err
	}
	defer m.mu.Unlock()
	now = instant(now)
	var best ca.SignedAnswer
	for key, s := range m.answers {
		if key.caID == caID && key.serial == serial && key.hash == hash && !s.ThisUpdate.After(now) && s.NextUpdate.After(now) &&
			!m.overtaken(s) && s.ThisUpdate.After(best.ThisUpdate) {
			best = s
		}
	}
	if best.CAID == 0 {
		return ca.SignedAnswer{}, fault.New(fault.NotFound, "OCSP answer not found")
	}
	return best, nil
}

// Unanswered implements ca.Store.
func (m *Memory) Unanswered(ctx context.Context, caID int64, hash crypto.Hash, at time.Time, left time.Duration, after string, limit int) ([]string, string, error) {
	if err := m.begin(ctx, "Unanswered"); err != nil {
		return nil, "", err
	}
	defer m.mu.Unlock()
	at = instant(at)
	var looked []string
	consider := func(state ca.State, serial string, notAfter time.Time) {
		if exists(state) && !notAfter.Before(at) && serial > after {
			looked = append(looked, serial)
		}
	}
	for _, c := range m.certificates {
		if c.IssuerID == caID {
			consider(c.State, c.Serial, c.NotAfter)
		}
	}
	for _, a := range m.authorities {
		if a.ParentID != nil && *a.ParentID == caID {
			consider(a.State, a.Serial, a.NotAfter)
		}
	}
	slices.Sort(looked)
	last := ""
	if len(looked) >= limit {
		looked = looked[:limit]
		last = looked[limit-1]
	}
	answered := map[string]bool{}
	for key, s := range m.answers {
		if key.caID == caID && key.hash == hash && !s.ThisUpdate.After(at) && !s.NextUpdate.Before(at.Add(left)) && !m.overtaken(s) {
			answered[key.serial] = true
		}
	}
	return slices.DeleteFunc(looked, func(serial string) bool { return answered[serial] }), last, nil
}

// DropAnswers implements ca.Store.
func (m *Memory) DropAnswers(ctx context.Context, endedBefore time.Time, limit int) (int, error) {
	if err := m.begin(ctx, "DropAnswers"); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	var ended []ca.SignedAnswer
	for _, s := range m.answers {
		if s.NextUpdate.Before(instant(endedBefore)) {
			ended = append(ended, s)
		}
	}
	slices.SortFunc(ended, func(a, b ca.SignedAnswer) int { return cmp.Compare(a.NextUpdate.UnixMicro(), b.NextUpdate.UnixMicro()) })
	ended = ended[:min(max(limit, 0), len(ended))]
	for _, s := range ended {
		delete(m.answers, keyOf(s))
	}
	return len(ended), nil
}
