package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signet/audit"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

const (
	// drillDelay is how long after the start the keys are drilled: requests that waited for the server go first.
	drillDelay = 5 * time.Second
	// drillFresh is how old a drill is when a start repeats it. Replicas that start together drill each key once.
	drillFresh = time.Minute
	// drillTimeout bounds one drill, the wait for another included.
	drillTimeout = 2 * time.Minute
	// maxRest bounds the pause between two drills in the background.
	maxRest = time.Second
	// proofAttempts is how often a drill is judged anew because somebody changed what is accepted meanwhile.
	proofAttempts = 3
)

// Drill attacks the key of a CA now, records what came of it, and locks or unlocks the CA accordingly. Unavailable
// when the token is away; nothing changes then.
func (a *Authority) Drill(ctx context.Context, caller policy.Caller, id int64) (KeyDrill, error) {
	c, err := a.cfg.Store.CA(ctx, id)
	if err != nil {
		return KeyDrill{}, fmt.Errorf("find CA: %w", err)
	}
	if err := a.allow(policy.Allow(caller, policy.DrillKey, c.object())); err != nil {
		return KeyDrill{}, err
	}
	if c.KeyDestroyedAt != nil {
		return KeyDrill{}, a.refuseLocked(c)
	}
	ctx, cancel := finish(ctx, drillTimeout) // an attack that was begun ends on the record
	defer cancel()
	return a.drill(ctx, caller, c, OnRequest)
}

// drill examines the key of a CA and records it, also when the attacks left something behind, which is an error: a key
// that gave way locks its CA whatever else went wrong.
func (a *Authority) drill(ctx context.Context, caller policy.Caller, c CA, t Trigger) (KeyDrill, error) {
	e, err := a.examine(ctx, c.KeyRef(), t)
	if err != nil {
		err = a.refuse(err)
	}
	if len(e.drill.Attacks) == 0 && err != nil {
		return KeyDrill{}, err
	}
	e.drill.CAID = c.ID
	return e.drill, errors.Join(err, a.record(ctx, caller, c, e.drill))
}

// record stores a drill with what follows from it, in one transaction.
func (a *Authority) record(ctx context.Context, caller policy.Caller, c CA, d KeyDrill) error {
	for attempt := 1; ; attempt++ {
		next := c.Proof.judge(d)
		events := a.lockEvents(ctx, caller, c, next)
		if d.Trigger == OnRequest || next.Grade != c.Proof.Grade {
			detail := fmt.Sprintf("key drilled: grade %s, %d attacks, %d successful", d.Grade, len(d.Attacks), len(d.With(evidence.Yielded)))
			if next.Grade != c.Proof.Grade {
				detail += "; before it was " + known(c.Proof.Grade)
			}
			events = append(events, a.event(ctx, caller, audit.CAKeyDrill, c.OrganizationID, audit.ResourceCA, &c.ID, detail))
		}
		err := a.cfg.Store.ProveCA(ctx, c.ID, c.Proof, next, &d, events...)
		if err == nil {
			a.locked(c.Proof, next)
			return nil
		}
		if !fault.Is(err, fault.Conflict) || attempt == proofAttempts {
			return fmt.Errorf("record drill of CA %d: %w", c.ID, err)
		}
		if c, err = a.cfg.Store.CA(ctx, c.ID); err != nil {
			return fmt.Errorf("find CA %d again: %w", c.ID, err)
		}
	}
}

// lockEvents are the entries of the trail when a CA is locked or unlocked.
func (a *Authority) lockEvents(ctx context.Context, caller policy.Caller, c CA, next KeyProof) []audit.Event {
	switch was := c.Proof.Locked; {
	case was == "" && next.Locked != "":
		return []audit.Event{a.event(ctx, caller, audit.CALock, c.OrganizationID, audit.ResourceCA, &c.ID,
			"locked: "+next.Locked+"; it certifies nothing more and goes on publishing CRLs")}
	case was != "" && next.Locked == "":
		return []audit.Event{a.event(ctx, caller, audit.CAUnlock, c.OrganizationID, audit.ResourceCA, &c.ID,
			fmt.Sprintf("unlocked: its key is %s, and %s is needed", next.Grade, next.Needs()))}
	}
	return nil
}

func (a *Authority) locked(was, is KeyProof) {
	if (was.Locked == "") != (is.Locked == "") && a.cfg.Hooks.Locked != nil {
		a.cfg.Hooks.Locked(is.Locked != "")
	}
}

// Drills lists the recorded drills of a CA that the caller may read, newest first.
func (a *Authority) Drills(ctx context.Context, caller policy.Caller, id int64) ([]KeyDrill, error) {
	if _, err := a.CA(ctx, caller, id); err != nil {
		return nil, err
	}
	return a.cfg.Store.Drills(ctx, id, KeptDrills)
}

// DrillAll drills the key of every CA whose last drill in the background is older than age, one after the other, and
// rests between them so that signing goes first. Of several replicas one drills each CA. It returns how many keys
// were drilled; what fails is reported and tried again with the next call.
func (a *Authority) DrillAll(ctx context.Context, t Trigger, age time.Duration) (int, error) {
	const perPage = 200
	n := 0
	for page := (Page{Limit: perPage}); ; {
		found, _, err := a.cfg.Store.CAs(ctx, Scope{All: true}, page)
		if err != nil {
			return n, fmt.Errorf("list CAs to drill: %w", err)
		}
		for _, c := range found {
			page.After = c.ID
			due := a.cfg.Now().Add(-age)
			if c.KeyDestroyedAt != nil || c.DrillClaimedAt != nil && !c.DrillClaimedAt.Before(due) {
				continue
			}
			drilled, err := a.drillDue(ctx, c, t, due)
			if ctx.Err() != nil {
				return n, ctx.Err()
			}
			if err != nil {
				a.failed("drill", fmt.Errorf("drill key of CA %d: %w", c.ID, err))
			} else if drilled {
				n++
			}
		}
		if len(found) < perPage {
			return n, nil
		}
	}
}

// drillDue drills a CA if no other replica has begun to since it was due. A drill that fails is due again as it was
// before: at the start that is a shorter age than later, and must not pass for a drill of the interval.
func (a *Authority) drillDue(ctx context.Context, c CA, t Trigger, due time.Time) (bool, error) {
	began, before := a.cfg.Now(), time.Unix(0, 0)
	if c.DrillClaimedAt != nil {
		before = *c.DrillClaimedAt
	}
	mine, err := a.cfg.Store.ClaimDrill(ctx, c.ID, due, began)
	if err != nil || !mine {
		return false, err
	}
	limited, cancel := context.WithTimeout(ctx, drillTimeout)
	defer cancel()
	start := time.Now()
	_, err = a.drill(limited, policy.Caller{}, c, t)
	if err != nil {
		back, cancel := finish(ctx, issueTimeout)
		defer cancel()
		if _, backErr := a.cfg.Store.ClaimDrill(back, c.ID, began.Add(time.Microsecond), before); backErr != nil {
			return false, backErr
		}
		return false, err
	}
	rest := time.NewTimer(min(time.Since(start), maxRest))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-ctx.Done():
	}
	return true, nil
}

// drillInBackground drills all keys shortly after the start and then as the configuration says, until ctx ends. It
// looks more often than it drills: a token that was away is drilled soon after its return.
func (a *Authority) drillInBackground(ctx context.Context) {
	all := func(t Trigger, age time.Duration) {
		if _, err := a.DrillAll(ctx, t, age); err != nil && ctx.Err() == nil {
			a.failed("drill", err)
		}
	}
	delay := time.NewTimer(drillDelay)
	defer delay.Stop()
	select {
	case <-ctx.Done():
		return
	case <-delay.C:
		all(AtStartup, drillFresh)
	}
	if a.cfg.DrillInterval <= 0 {
		return
	}
	looks := time.NewTicker(min(max(a.cfg.DrillInterval/24, time.Second), time.Hour))
	defer looks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-looks.C:
			all(OnSchedule, a.cfg.DrillInterval)
		}
	}
}
