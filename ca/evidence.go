package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

// EvidenceFormat is how evidence is written.
type EvidenceFormat string

// The formats.
const (
	EvidenceJSON EvidenceFormat = "json" // for people; holds the other one
	EvidenceDER  EvidenceFormat = "der"  // for machines
)

// KeyEvidence signs, with the attestation key of the token, what is known of the key of a CA: its attributes, read
// now, and the last drill. The nonce is the caller's, at most [evidence.MaxNonce] printable ASCII characters, and
// shows that the document is fresh. Unavailable when the token is away.
func (a *Authority) KeyEvidence(ctx context.Context, caller policy.Caller, id int64, nonce string, f EvidenceFormat) ([]byte, error) {
	c, err := a.CA(ctx, caller, id)
	if err != nil {
		return nil, err
	}
	if err := evidence.CheckNonce(nonce); err != nil {
		return nil, a.refuse(&policy.Violation{Reasons: []string{err.Error()}})
	}
	if c.KeyDestroyedAt != nil {
		return nil, fault.New(fault.Conflict, "the key of CA %d was destroyed", c.ID)
	}
	select {
	case a.evidence <- struct{}{}:
		defer func() { <-a.evidence }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	key, err := a.cfg.Keys.Inspect(ctx, c.KeyRef())
	if err != nil {
		return nil, a.refuse(fmt.Errorf("inspect key of CA %d: %w", id, err))
	}
	drill, err := a.lastDrill(ctx, id)
	if err != nil {
		return nil, err
	}
	attester, attesting, err := a.cfg.Keys.Attester(ctx, a.TokenOf(c))
	if err != nil {
		return nil, a.refuse(fmt.Errorf("find attestation key: %w", err))
	}
	sign := map[EvidenceFormat]func(evidence.Statement, crypto.Signer) ([]byte, error){EvidenceJSON: evidence.Sign, EvidenceDER: evidence.DER}[f]
	if sign == nil {
		return nil, fault.New(fault.Invalid, "evidence has no format %q", f)
	}
	document, err := sign(a.statement(c, nonce, key, drill, attesting), attester)
	if err != nil {
		return nil, a.refuse(fmt.Errorf("sign evidence of CA %d: %w", id, err))
	}
	sum := sha256.Sum256(document)
	e := a.event(ctx, caller, audit.CAKeyEvidence, c.OrganizationID, audit.ResourceCA, &c.ID,
		fmt.Sprintf("evidence in %s, SHA-256 %x, nonce %q", f, sum, nonce))
	if err := a.cfg.Store.Record(ctx, e); err != nil {
		return nil, fmt.Errorf("record evidence: %w", err)
	}
	return document, nil
}

// statement is what is going to be signed. The grade and its reasons follow from the rest.
func (a *Authority) statement(c CA, nonce string, key evidence.Key, drill *evidence.Drill, attesting evidence.Key) evidence.Statement {
	sum := sha256.Sum256(c.Certificate)
	s := evidence.Statement{
		Time: a.cfg.Now().UTC(), Nonce: nonce, Signet: a.cfg.Version,
		CA: evidence.CA{
			ID: c.ID, Name: c.Name, Subject: c.SubjectDN, CertificateSHA256: hex.EncodeToString(sum[:]), OrganizationID: c.OrganizationID,
		},
		Key: key, Mechanism: key.Mechanism, Drill: drill, AttestationKey: attesting,
	}
	if c.Proof.Accepted.Grade != "" {
		s.Acceptance = &c.Proof.Accepted
	}
	return s
}

// lastDrill is the newest drill that said something of the key, or the newest of all; nil when there is none.
func (a *Authority) lastDrill(ctx context.Context, id int64) (*evidence.Drill, error) {
	drills, err := a.cfg.Store.Drills(ctx, id, KeptDrills)
	if err != nil {
		return nil, fmt.Errorf("find drills of CA %d: %w", id, err)
	}
	for _, d := range drills {
		if d.Conclusive {
			return &d.Drill, nil
		}
	}
	if len(drills) > 0 {
		return &drills[0].Drill, nil
	}
	return nil, nil
}
