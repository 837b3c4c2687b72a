package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/ocsp"

	"signet/fault"
	"signet/signer"
)

const (
	// unknownFresh is how long an answer about a serial number that was never issued is given again.
	unknownFresh = time.Minute
	// maxChanges is how often an answer is looked for again because the serial number changed meanwhile.
	maxChanges = 4
)

var errChanging = errors.New("the status changes all the time")

// sharedAnswer answers a request for one certificate without nonce: the same for everybody who asks.
func (a *Authority) sharedAnswer(ctx context.Context, s *subject, id CertID, client string) (StatusAnswer, string, error) {
	key := statusKey{s.id, id.Hash, id.Serial}
	for range maxChanges {
		now := a.cfg.Now()
		f, mine, landed := a.ocsp.answers.join(key, now, s.byName.Load())
		if landed != nil {
			return landed.StatusAnswer, "cached", nil
		}
		if f == nil {
			if held := a.ocsp.answers.find(key); held != nil && held.valid(now) {
				return held.StatusAnswer, "cached", nil
			}
			return StatusAnswer{}, "", tryLater("too many answers are being made")
		}
		if mine {
			go a.fly(context.WithoutCancel(ctx), s, key, client, f)
		}
		wait := answerWait
		if held := a.ocsp.answers.find(key); held != nil && held.valid(now) {
			wait = staleWait
		}
		timeout := time.NewTimer(wait)
		err := error(context.DeadlineExceeded)
		select {
		case <-f.done:
			err = f.err
		case <-timeout.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
		timeout.Stop()
		switch held := a.ocsp.answers.find(key); {
		case err == nil && !f.stale:
			return f.answer.StatusAnswer, f.outcome, nil
		case err == nil:
		case held != nil && held.valid(a.cfg.Now()):
			return held.StatusAnswer, "cached", nil
		default:
			return StatusAnswer{}, "", err
		}
	}
	return StatusAnswer{}, "", tryLater("%w", errChanging)
}

// fly makes an answer for everybody who waits for it.
func (a *Authority) fly(ctx context.Context, s *subject, key statusKey, client string, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	defer a.ocsp.answers.land(key, f)
	f.answer, f.outcome, f.err = a.findAnswer(ctx, s, key, client)
}

// findAnswer takes an answer from the store, or signs one.
func (a *Authority) findAnswer(ctx context.Context, s *subject, key statusKey, client string) (*heldAnswer, string, error) {
	status, p, err := a.lookUp(ctx, s, key.serial)
	if err != nil {
		return nil, "", err
	}
	if !status.Issued {
		return a.unknownAnswer(ctx, s, key, p, client)
	}
	stored, err := a.storedAnswer(ctx, s, key)
	if err != nil {
		return nil, "", err
	}
	if stored != nil && stored.fresh(a.cfg.Now(), p.ByName) {
		return stored, "cached", nil
	}
	release, err := take(ctx, a.ocsp.signing)
	if err == nil {
		defer release()
		var signed SignedAnswer
		if signed, err = a.signAnswer(ctx, s, key, status, p, a.cfg.Now()); err == nil {
			a.keepAnswer(signed)
			return held(signed, p.ByName), "signed", nil
		}
	}
	if stored != nil { // the token is away, and the answer goes on to be true
		return stored, "cached", nil
	}
	return nil, "", err
}

// take waits for a slot.
func take(ctx context.Context, slots chan struct{}) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lookUp reads what is known of a serial number, and the policy in effect.
func (a *Authority) lookUp(ctx context.Context, s *subject, serial string) (SerialStatus, RevocationPolicy, error) {
	release, err := take(ctx, a.ocsp.looking)
	if err != nil {
		return SerialStatus{}, RevocationPolicy{}, err
	}
	defer release()
	p, err := a.policyOf(ctx, s.id)
	if err != nil {
		return SerialStatus{}, RevocationPolicy{}, fmt.Errorf("find revocation policy of CA %d: %w", s.id, err)
	}
	s.byName.Store(p.ByName)
	status, err := a.cfg.Store.SerialStatus(ctx, s.id, serial)
	if err != nil {
		return SerialStatus{}, RevocationPolicy{}, fmt.Errorf("find status of serial %s of CA %d: %w", serial, s.id, err)
	}
	return status, a.Effective(p), nil
}

// unknownAnswer says that a serial number was never issued. There is no end of such numbers, so each costs its client.
func (a *Authority) unknownAnswer(ctx context.Context, s *subject, key statusKey, p RevocationPolicy, client string) (*heldAnswer, string, error) {
	release, err := a.mayCause(ctx, client)
	if err != nil {
		return nil, "", err
	}
	defer release()
	now := a.cfg.Now()
	signed, err := a.signAnswer(ctx, s, key, SerialStatus{}, p, now)
	if err != nil {
		return nil, "", err
	}
	answer := held(signed, p.ByName)
	answer.unknown = true
	if soon := now.Add(unknownFresh); soon.Before(answer.FreshUntil) {
		answer.FreshUntil = soon
	}
	return answer, "unknown", nil
}

const (
	// signingQueue is how many requests may wait for each slot: what those before it take is less than slotWait.
	signingQueue = 64
	slotWait     = 500 * time.Millisecond
)

// mayCause takes a signature from the budget of a client and a slot to make it in; tryLater without either. There are few slots, so
// that a moment's wait for one is no refusal.
func (a *Authority) mayCause(ctx context.Context, client string) (release func(), err error) {
	if !a.ocsp.budget.take(client) {
		return nil, tryLater("the client has caused too many signatures")
	}
	if a.ocsp.waiting.Add(1) > int64(signingQueue*cap(a.ocsp.signing)) {
		a.ocsp.waiting.Add(-1)
		return nil, tryLater("too many signatures are being made")
	}
	defer a.ocsp.waiting.Add(-1)
	ctx, cancel := context.WithTimeout(ctx, slotWait)
	defer cancel()
	if release, err = take(ctx, a.ocsp.signing); err != nil {
		return nil, tryLater("too many signatures are being made")
	}
	return release, nil
}

// storedAnswer reads an answer that this replica or another one signed before; nil when there is none that may be given.
func (a *Authority) storedAnswer(ctx context.Context, s *subject, key statusKey) (*heldAnswer, error) {
	stored, err := a.cfg.Store.Answer(ctx, s.id, key.serial, key.hash, a.cfg.Now())
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find answer about serial %s of CA %d: %w", key.serial, s.id, err)
	}
	response, err := ocsp.ParseResponse(stored.DER, nil)
	if err != nil || response.SerialNumber.Text(16) != key.serial {
		return nil, fmt.Errorf("stored answer about serial %s of CA %d is none: %w", key.serial, s.id, err)
	}
	return held(stored, len(response.RawResponderName) > 0), nil
}

func held(s SignedAnswer, byName bool) *heldAnswer {
	sum := sha256.Sum256(s.DER)
	return &heldAnswer{byName: byName, StatusAnswer: StatusAnswer{
		DER: s.DER, ThisUpdate: s.ThisUpdate, NextUpdate: s.NextUpdate, FreshUntil: s.ThisUpdate.Add(s.NextUpdate.Sub(s.ThisUpdate) / 2),
		ETag: `"` + hex.EncodeToString(sum[:16]) + `"`,
	}}
}

// signAnswer signs what is known of one serial number, as of the time at, which may be to come.
func (a *Authority) signAnswer(ctx context.Context, s *subject, key statusKey, status SerialStatus, p RevocationPolicy, at time.Time) (SignedAnswer, error) {
	id, err := s.certID(key.hash, key.serial)
	if err != nil {
		return SignedAnswer{}, err
	}
	signs, err := a.signs(ctx, s, p)
	if err != nil {
		return SignedAnswer{}, err
	}
	single, err := signs.single(id, status, p, at)
	if err != nil {
		return SignedAnswer{}, err
	}
	der, err := a.signWith(s, signs, []signer.SingleResponse{single}, nil)
	if err != nil {
		return SignedAnswer{}, err
	}
	return SignedAnswer{
		CAID: s.id, Serial: key.serial, Hash: key.hash, ThisUpdate: single.ThisUpdate, NextUpdate: single.NextUpdate,
		Sequence: status.Sequence, DER: der,
	}, nil
}

// ownAnswer answers a request that nobody else's answer serves: it has a nonce, or asks about several certificates.
func (a *Authority) ownAnswer(ctx context.Context, s *subject, r StatusRequest) (StatusAnswer, error) {
	release, err := a.mayCause(ctx, r.Client)
	if err != nil {
		return StatusAnswer{}, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	all := make([]signer.SingleResponse, len(r.IDs))
	var signs *signing
	for i, id := range r.IDs {
		status, p, err := a.lookUp(ctx, s, id.Serial)
		if err != nil {
			return StatusAnswer{}, err
		}
		if signs == nil {
			if signs, err = a.signs(ctx, s, p); err != nil {
				return StatusAnswer{}, err
			}
		}
		if all[i], err = signs.single(id.DER, status, p, a.cfg.Now()); err != nil {
			return StatusAnswer{}, err
		}
	}
	der, err := a.signWith(s, signs, all, r.Nonce)
	if err != nil {
		return StatusAnswer{}, err
	}
	answer := StatusAnswer{DER: der, ThisUpdate: all[0].ThisUpdate, NextUpdate: all[0].NextUpdate}
	for _, single := range all[1:] {
		if single.NextUpdate.Before(answer.NextUpdate) {
			answer.NextUpdate = single.NextUpdate
		}
	}
	answer.FreshUntil = answer.ThisUpdate
	return answer, nil
}

// certID is the CertID of a certificate in the form in which clients write it: the parameters of the algorithm are NULL.
func (s *subject) certID(hash crypto.Hash, serial string) ([]byte, error) {
	number, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		return nil, refusal(signer.OCSPMalformedRequest, "serial number %q", serial)
	}
	algorithm, hashes := oidSHA256, s.sha256
	if hash == crypto.SHA1 {
		algorithm, hashes = oidSHA1, s.sha1
	}
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Name, Key []byte
		Serial    *big.Int
	}{pkix.AlgorithmIdentifier{Algorithm: algorithm, Parameters: asn1.NullRawValue}, hashes.name, hashes.key, number})
	if err != nil {
		return nil, fmt.Errorf("encode certID: %w", err)
	}
	return der, nil
}

var (
	oidSHA1   = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)
