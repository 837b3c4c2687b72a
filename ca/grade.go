package ca

import (
	"context"
	"fmt"
	"strings"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

// AcceptKeyGrade accepts that the key of a CA is of a lower grade (Asserted or Imported), and unlocks the CA if that
// suffices; Drilled withdraws the acceptance, and locks the CA if its key is below. Superusers only.
func (a *Authority) AcceptKeyGrade(ctx context.Context, caller policy.Caller, id int64, g evidence.Grade, reason string) (CA, error) {
	c, err := a.cfg.Store.CA(ctx, id)
	if err != nil {
		return CA{}, fmt.Errorf("find CA: %w", err)
	}
	if err := a.allow(policy.AllowSuperuser(caller)); err != nil {
		return CA{}, err
	}
	if strings.TrimSpace(reason) == "" {
		return CA{}, a.refuse(&policy.Violation{Reasons: []string{"reason must not be empty: the audit trail and the evidence show it"}})
	}
	next := c.Proof
	next.Accepted = evidence.Acceptance{}
	switch g {
	case evidence.Drilled:
	case "":
		return CA{}, a.refuse(&policy.Violation{Reasons: []string{"a grade must be named"}})
	default:
		if next.Accepted, err = a.acceptance(caller, g, reason); err != nil {
			return CA{}, a.refuse(err)
		}
	}
	if next.Locked = ""; !next.suffices() {
		next.Locked = fmt.Sprintf("its key is only %s, and %s is needed", next.Grade, next.Needs())
	}
	detail := fmt.Sprintf("a key of grade %s may sign, %q; the key is %s", next.Needs(), reason, known(next.Grade))
	events := append([]audit.Event{a.event(ctx, caller, audit.CAKeyAccept, c.OrganizationID, audit.ResourceCA, &c.ID, detail)},
		a.lockEvents(ctx, caller, c, next)...)
	if err := a.cfg.Store.ProveCA(ctx, id, c.Proof, next, nil, events...); err != nil {
		return CA{}, fmt.Errorf("accept key grade: %w", err)
	}
	a.locked(c.Proof, next)
	if c, err = a.cfg.Store.CA(ctx, id); err != nil {
		return CA{}, fmt.Errorf("find CA again: %w", err)
	}
	return c, nil
}

func known(g evidence.Grade) string {
	if g == "" {
		return "not drilled yet"
	}
	return string(g)
}

// refuseGrade is the answer to a key that is below what is accepted.
func refuseGrade(d KeyDrill, needs evidence.Grade, consequence, accept string) error {
	message := fmt.Sprintf("the key is only %s, and %s is needed: %s; %s", d.Grade, needs, d.shortfall(), consequence)
	if d.Grade == evidence.Exportable {
		message = fmt.Sprintf("the token says this key can leave it: %s; %s", d.shortfall(), consequence)
	} else {
		message += fmt.Sprintf(". A superuser may accept it with %s %q", accept, d.Grade)
	}
	return fault.New(fault.Conflict, "%s", message)
}
