package ca

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

// KeyProof is what is known of the key of a CA.
type KeyProof struct {
	Grade    evidence.Grade      // by the last conclusive drill; "" before the first
	Locked   string              // why the CA certifies nothing; "" when it may
	Accepted evidence.Acceptance // of a key below Drilled; zero: none
}

// Needs is the lowest grade with which the key may sign certificates.
func (p KeyProof) Needs() evidence.Grade {
	if p.Accepted.Grade == "" {
		return evidence.Drilled
	}
	return p.Accepted.Grade
}

// suffices reports whether the key may sign certificates. What was never drilled may, until it is: the CAs of a
// database that is older than drills do not stop on an upgrade.
func (p KeyProof) suffices() bool { return p.Grade == "" || p.Grade.AtLeast(p.Needs()) }

// Trigger is what caused a drill.
type Trigger string

// The triggers.
const (
	AtCreation Trigger = "create"
	AtStartup  Trigger = "startup"
	OnSchedule Trigger = "schedule"
	OnRequest  Trigger = "request"
	AtAdoption Trigger = "adopt"
)

// KeptDrills is how many drills of a CA are kept; the audit trail names those that changed something.
const KeptDrills = 50

// KeyDrill is a drill on record.
type KeyDrill struct {
	evidence.Drill
	CAID       int64
	Trigger    Trigger
	Grade      evidence.Grade
	Reasons    []string // for the grade, in words
	Conclusive bool     // otherwise the token failed in a way that says nothing of the key, and nothing followed
}

// examined is a key that was read back and attacked.
type examined struct {
	key   evidence.Key
	drill KeyDrill
}

// examine reads a key back from its token and attacks it. An error beside a drill says that the attacks left something
// behind in the token: what they achieved counts all the same.
func (a *Authority) examine(ctx context.Context, ref KeyRef, t Trigger) (examined, error) {
	if ref.Token == "" {
		ref.Token = a.cfg.Keys.Default()
	}
	release, err := a.drills.take(ctx, ref.Token, t)
	if err != nil {
		return examined{}, err
	}
	defer release()
	key, err := a.cfg.Keys.Inspect(ctx, ref)
	if err != nil {
		return examined{}, fmt.Errorf("inspect key %x: %w", ref.ID, err)
	}
	drill, err := a.cfg.Keys.Drill(ctx, ref)
	drill.Token = key.Token.Serial
	if err != nil {
		err = fmt.Errorf("drill key %x: %w", ref.ID, err)
	}
	if len(drill.Attacks) == 0 && err != nil {
		return examined{}, err
	}
	e := examined{key: key, drill: KeyDrill{Drill: drill, Trigger: t}}
	e.drill.Grade, e.drill.Reasons = evidence.GradeOf(key.Attributes, drill)
	e.drill.Conclusive = conclusive(key, e.drill)
	if a.cfg.Hooks.Drilled != nil {
		a.cfg.Hooks.Drilled(t, e.drill.Grade)
	}
	return e, err
}

// conclusive reports whether a grade says something of the key. A token that went away in the middle of a drill leaves
// a low grade that is nobody's fault, unless the attributes alone or an attack that succeeded explain it.
func conclusive(key evidence.Key, d KeyDrill) bool {
	if d.Grade.AtLeast(evidence.Drilled) || len(d.With(evidence.Yielded)) > 0 {
		return true
	}
	if asserted, _ := evidence.GradeOf(key.Attributes, evidence.Drill{}); !asserted.AtLeast(evidence.Asserted) {
		return true
	}
	return len(d.Attacks) > 0 && len(d.With(evidence.Inconclusive)) == 0
}

// shortfall says in words why a key has only the grade it has.
func (d KeyDrill) shortfall() string {
	why := slices.Clone(d.Reasons)
	if d.Grade == evidence.Asserted {
		for _, outcome := range []evidence.Outcome{evidence.Yielded, evidence.Inconclusive} {
			if attacks := d.With(outcome); len(attacks) > 0 {
				why = nil
				for _, attack := range attacks {
					why = append(why, fmt.Sprintf("the attack %s (%s) on the %s was %s: %s", attack.Name, attack.Call, attack.Target, outcomeWords[outcome], attack.Result))
				}
				break
			}
		}
	}
	const most = 3
	if more := len(why) - most; more > 0 {
		why = append(why[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(why, "; ")
}

var outcomeWords = map[evidence.Outcome]string{evidence.Yielded: "successful", evidence.Inconclusive: "inconclusive"}

// judge is what is known of a key after a drill. A drill that was inconclusive changes nothing.
func (p KeyProof) judge(d KeyDrill) KeyProof {
	if !d.Conclusive {
		return p
	}
	p.Grade, p.Locked = d.Grade, ""
	if !p.suffices() {
		p.Locked = fmt.Sprintf("its key is only %s, and %s is needed: %s", p.Grade, p.Needs(), d.shortfall())
	}
	return p
}

// refuseLocked refuses to certify with a key that is known too little. CRLs do not ask: whatever happened to the key,
// relying parties must go on learning what is revoked, and a list that ends unsigned helps only whoever holds a stolen
// certificate.
func (a *Authority) refuseLocked(c CA) error {
	switch {
	case c.KeyDestroyedAt != nil:
		a.refused("policy")
		return fault.New(fault.Conflict, "the key of CA %d was destroyed", c.ID)
	case c.Proof.Locked != "":
		a.refused("policy")
		return fault.New(fault.Conflict, "CA %d is locked: %s", c.ID, c.Proof.Locked)
	}
	return nil
}

// acceptance is a caller's word that a key of a lower grade may sign. Only superusers give it, and never for a key of
// which the token itself says that it can leave.
func (a *Authority) acceptance(caller policy.Caller, g evidence.Grade, reason string) (evidence.Acceptance, error) {
	if g == "" {
		return evidence.Acceptance{}, nil
	}
	if err := a.allow(policy.AllowSuperuser(caller)); err != nil {
		return evidence.Acceptance{}, err
	}
	if g != evidence.Asserted && g != evidence.Imported {
		return evidence.Acceptance{}, &policy.Violation{Reasons: []string{
			fmt.Sprintf("a key of grade %q cannot be accepted: only %s and %s can", g, evidence.Asserted, evidence.Imported)}}
	}
	if len(reason) > MaxReasonText {
		return evidence.Acceptance{}, &policy.Violation{Reasons: []string{fmt.Sprintf("reason must have at most %d bytes", MaxReasonText)}}
	}
	return evidence.Acceptance{Grade: g, By: caller.Username, At: a.cfg.Now().UTC().Truncate(time.Second), Reason: reason}, nil
}

// token resolves the name of a token.
func (a *Authority) token(name string) (string, error) {
	if name == "" {
		return a.cfg.Keys.Default(), nil
	}
	if known := a.cfg.Keys.Tokens(); !slices.Contains(known, name) {
		return "", &policy.Violation{Reasons: []string{fmt.Sprintf("token %q is not configured: there is %s", name, strings.Join(known, ", "))}}
	}
	return name, nil
}

// TokenOf is the name of the token with the key of a CA.
func (a *Authority) TokenOf(c CA) string {
	if c.Token == "" {
		return a.cfg.Keys.Default()
	}
	return c.Token
}

// drillWait is how long a drill waits for another one on the same token.
const drillWait = 20 * time.Second

// drillSlots lets one drill at a time run on each token: each keeps sessions busy, and signing goes first.
type drillSlots struct {
	mu   sync.Mutex
	busy map[string]drillSlot
}

// drillSlot is the slot of a token.
type drillSlot struct{ running, asked chan struct{} }

// take waits for the token's slot. Conflict when another drill does not end in time, and at once for a drill on request
// while another one on request waits: whoever asks again and again must not keep new CAs from being made.
func (s *drillSlots) take(ctx context.Context, token string, t Trigger) (release func(), err error) {
	s.mu.Lock()
	slot, known := s.busy[token]
	if !known {
		slot = drillSlot{running: make(chan struct{}, 1), asked: make(chan struct{}, 1)}
		s.busy[token] = slot
	}
	s.mu.Unlock()
	release = func() { <-slot.running }
	select {
	case slot.running <- struct{}{}:
		return release, nil
	default:
	}
	another := fault.New(fault.Conflict, "another key drill is running on token %q; try again later", token)
	if t == OnRequest {
		select {
		case slot.asked <- struct{}{}:
			defer func() { <-slot.asked }()
		default:
			return nil, another
		}
	}
	timeout := time.NewTimer(drillWait)
	defer timeout.Stop()
	select {
	case slot.running <- struct{}{}:
		return release, nil
	case <-timeout.C:
		return nil, another
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
