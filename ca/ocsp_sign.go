package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signet/evidence"
	"signet/fault"
	"signet/signer"
)

const (
	// lookAgain is how often a replica looks whether a responder that is due was renewed by another one.
	lookAgain = time.Minute
	// certifyPause is how long no responder is certified after that failed, at least.
	certifyPause = 5 * time.Second
	// lastMinute is what a responder's certificate has left when nothing is signed with it any more.
	lastMinute = time.Minute
)

// signing is what signs the answers about a CA.
type signing struct {
	*signer.Responder
	notAfter time.Time // of the responder's certificate
	byName   bool
	until    time.Time // then it is looked for anew
}

func (g *signing) serves(now time.Time, byName bool) bool {
	return g != nil && g.byName == byName && now.Before(g.until)
}

// lasts reports whether it can sign although no other is found.
func (g *signing) lasts(now time.Time, byName bool) bool {
	return g != nil && g.byName == byName && now.Before(g.notAfter.Add(-lastMinute))
}

// single is one answer as of the time at. It does not outlive the responder, without whose certificate nobody believes it.
func (g *signing) single(id []byte, status SerialStatus, p RevocationPolicy, at time.Time) (signer.SingleResponse, error) {
	r := signer.SingleResponse{CertID: id, Status: signer.StatusUnknown, ThisUpdate: wholeSecond(at)}
	r.NextUpdate = r.ThisUpdate.Add(p.OCSPValidity)
	if r.NextUpdate.After(g.notAfter) {
		r.NextUpdate = g.notAfter
	}
	if !r.NextUpdate.After(r.ThisUpdate) {
		return signer.SingleResponse{}, errNoResponder
	}
	switch {
	case status.Revoked != nil:
		r.Status, r.RevokedAt, r.Reason = signer.StatusRevoked, status.Revoked.At, status.Revoked.Reason
	case status.Issued:
		r.Status = signer.StatusGood
	}
	return r, nil
}

// signWith signs answers. A key that failed gets a moment's rest, as that of a CA does: see notSigned.
func (a *Authority) signWith(s *subject, g *signing, all []signer.SingleResponse, nonce []byte) ([]byte, error) {
	if s.resting(a.cfg.Now()) {
		return nil, errTokenAway
	}
	der, err := g.Sign(a.cfg.Now(), all, nonce)
	if err != nil {
		if errors.Is(err, signer.ErrKey) {
			s.rest(a.cfg.Now(), tokenPause)
			s.signs.CompareAndSwap(g, nil) // the key may be another one by then
		}
		return nil, fmt.Errorf("sign OCSP answer of CA %d: %w", s.id, err)
	}
	return der, nil
}

func (s *subject) rest(now time.Time, pause time.Duration) { s.pause.Store(now.Add(pause).UnixNano()) }

func (s *subject) resting(now time.Time) bool { return now.UnixNano() < s.pause.Load() }

// signs finds what signs the answers about a CA, and certifies a responder when there is none yet.
func (a *Authority) signs(ctx context.Context, s *subject, p RevocationPolicy) (*signing, error) {
	if g := s.signs.Load(); g.serves(a.cfg.Now(), p.ByName) {
		return g, nil
	}
	release, err := take(ctx, s.turn)
	if err != nil {
		return nil, err
	}
	defer release()
	if g := s.signs.Load(); g.serves(a.cfg.Now(), p.ByName) {
		return g, nil
	}
	if s.resting(a.cfg.Now()) {
		return nil, errTokenAway
	}
	g, err := a.findSigning(ctx, s, p)
	if err != nil {
		if known := s.signs.Load(); known.lasts(a.cfg.Now(), p.ByName) {
			g = &signing{known.Responder, known.notAfter, known.byName, a.cfg.Now().Add(lookAgain)}
			s.signs.Store(g)
			return g, nil
		}
		if !errors.Is(err, errNoResponder) {
			s.rest(a.cfg.Now(), s.pauses.after(err, certifyPause))
		}
		return nil, err
	}
	s.pauses = pauses{}
	s.signs.Store(g)
	return g, nil
}

func (a *Authority) findSigning(ctx context.Context, s *subject, p RevocationPolicy) (*signing, error) {
	c, err := a.cfg.Store.PublicCA(ctx, s.id)
	if err != nil {
		return nil, fmt.Errorf("find CA %d: %w", s.id, err)
	}
	r, err := a.cfg.Store.LatestResponder(ctx, c.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("find OCSP responder of CA %d: %w", c.ID, err)
	}
	now := a.cfg.Now()
	if !r.usable(now) {
		if r, err = a.renewResponder(ctx, c, p, false); err != nil {
			return nil, err
		}
	}
	key, err := a.cfg.Keys.Signer(ctx, r.keyRef(c))
	if err != nil && a.lostKey(ctx, r) {
		if r, err = a.renewResponder(ctx, c, p, true); err != nil {
			return nil, err
		}
		key, err = a.cfg.Keys.Signer(ctx, r.keyRef(c))
	}
	if err != nil {
		return nil, fmt.Errorf("find key of the OCSP responder of CA %d: %w", c.ID, err)
	}
	responder, err := signer.NewResponder(c.Certificate, r.Certificate, key, p.ByName)
	if err != nil {
		return nil, fmt.Errorf("join certificate and key of the OCSP responder of CA %d: %w", c.ID, err)
	}
	g := &signing{Responder: responder, notAfter: r.NotAfter, byName: p.ByName, until: r.renewal()}
	if again := now.Add(lookAgain); again.After(g.until) {
		g.until = again
	}
	if last := r.NotAfter.Add(-lastMinute); last.Before(g.until) {
		g.until = last
	}
	return g, nil
}

// lostKey reports whether the token says that it does not have the key of a responder.
func (a *Authority) lostKey(ctx context.Context, r Responder) bool {
	_, err := a.cfg.Keys.Inspect(ctx, KeyRef{Token: r.Token, ID: r.KeyID})
	return fault.Is(err, fault.NotFound)
}

// keyRef names the key of a responder. It was made for this alone, in a token that may not be able to say so.
func (r Responder) keyRef(c CA) KeyRef {
	accept := evidence.Asserted
	if c.Proof.Needs() == evidence.Imported {
		accept = evidence.Imported
	}
	return KeyRef{Token: r.Token, ID: r.KeyID, PublicKey: r.PublicKey, Accept: accept}
}
