package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"signet/ca"
	"signet/evidence"
)

type keyDrillCommand struct {
	All bool `name:"all" help:"The keys of all CAs, one after the other."`
	keyChoice
	outputFormat
	Config
}

// drillResult is a drill that was just made.
type drillResult struct {
	Token      string            `json:"token"`
	ID         string            `json:"key_id"`
	CA         *keyOwner         `json:"ca,omitempty"` // after the drill; absent when the drill was not recorded
	At         time.Time         `json:"at"`
	Grade      evidence.Grade    `json:"grade"`
	Reasons    []string          `json:"reasons"`
	Conclusive bool              `json:"conclusive"`
	Locked     string            `json:"locked"`
	Attacks    []evidence.Attack `json:"attacks"`

	what string
}

// Run drills and prints what each attack achieved. With --all a drill that fails does not keep the others from being
// made. The JSON is always a list.
func (c *keyDrillCommand) Run(in *invocation) (err error) {
	if err := c.keyChoice.check(c.All); err != nil {
		return err
	}
	d, err := c.openDesk(in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	var done []drillResult
	var failed []error
	if c.All {
		done, failed = d.drillAll(in.ctx)
	} else {
		one, err := d.drill(in.ctx, c.keyChoice)
		if err != nil {
			return err
		}
		done = []drillResult{one}
	}
	for _, r := range done {
		failed = append(failed, r.verdict())
	}
	return errors.Join(c.write(in.stdout, done, func(w io.Writer) error { return writeDrills(w, done) }), errors.Join(failed...))
}

func (d *desk) drillAll(ctx context.Context) (done []drillResult, failed []error) {
	done = []drillResult{}
	all, err := d.authority.EveryCA(ctx, byOperator)
	if err != nil {
		return done, []error{err}
	}
	for _, c := range all {
		if !drillable(c) {
			continue
		}
		if r, err := d.drillCA(ctx, c.ID); err != nil {
			failed = append(failed, err)
		} else {
			done = append(done, r)
		}
		if ctx.Err() != nil {
			return done, append(failed, context.Cause(ctx))
		}
	}
	return done, failed
}

// drillable reports whether the drill of the CA's key is the CA's affair.
func drillable(c ca.CA) bool {
	return (c.State == ca.Valid || c.State == ca.Revoked) && c.DeletedAt == nil && c.KeyDestroyedAt == nil
}

// drill drills the key of a CA on the record, and any other key without.
func (d *desk) drill(ctx context.Context, k keyChoice) (drillResult, error) {
	if k.CA != 0 {
		return d.drillCA(ctx, k.CA)
	}
	found, err := d.find(ctx, k.Token, k.ID)
	if err != nil {
		return drillResult{}, err
	}
	if found.Use == useCA && drillable(found.CA.record) {
		return d.drillCA(ctx, found.CA.ID)
	}
	ref := ca.KeyRef{Token: found.Token, ID: k.ID}
	key, err := d.keys.Inspect(ctx, ref)
	if err != nil {
		return drillResult{}, fmt.Errorf("inspect key %x: %w", k.ID, err)
	}
	drill, err := d.keys.Drill(ctx, ref)
	if err != nil {
		return drillResult{}, fmt.Errorf("drill key %x: %w", k.ID, err)
	}
	r := drillResult{Token: found.Token, ID: found.ID, At: drill.At, Attacks: drill.Attacks, what: found.words() + "; not recorded"}
	r.Grade, r.Reasons = evidence.GradeOf(key.Attributes, drill)
	r.Conclusive = len(drill.Attacks) > 0 && len(drill.With(evidence.Inconclusive)) == 0
	return r, nil
}

func (d *desk) drillCA(ctx context.Context, id int64) (drillResult, error) {
	drill, err := d.authority.Drill(ctx, byOperator, id)
	if err != nil {
		return drillResult{}, fmt.Errorf("drill key of CA %d: %w", id, err)
	}
	c, err := d.authority.CA(ctx, byOperator, id)
	if err != nil {
		return drillResult{}, err
	}
	owner := ownerOf(c)
	return drillResult{
		Token: d.authority.TokenOf(c), ID: hex.EncodeToString(c.KeyID), CA: owner, At: drill.At, Grade: drill.Grade, Reasons: drill.Reasons,
		Conclusive: drill.Conclusive, Locked: c.Proof.Locked, Attacks: drill.Attacks, what: owner.String(),
	}, nil
}

func (r drillResult) with(o evidence.Outcome) int {
	return len(evidence.Drill{Attacks: r.Attacks}.With(o))
}

// verdict is an error when an attack succeeded, or when it is not known that none would.
func (r drillResult) verdict() error {
	switch yielded, unclear := r.with(evidence.Yielded), r.with(evidence.Inconclusive); {
	case yielded > 0:
		return fmt.Errorf("key %s in token %s gave way to %d attacks", r.ID, r.Token, yielded)
	case unclear > 0 || !r.Conclusive:
		return fmt.Errorf("the drill of key %s in token %s was inconclusive: %d attacks ended without a clear answer; try again", r.ID, r.Token, unclear)
	}
	return nil
}

func writeDrills(w io.Writer, all []drillResult) error {
	for i, r := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "key %s in token %q: %s\n", r.ID, r.Token, r.what)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, a := range r.Attacks {
			fmt.Fprintf(table, "  %s\t%s\t%s\ton the %s\t%s\n", a.Outcome, a.Name, a.Call, a.Target, oneLine(a.Result))
		}
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(w, "%d attacks: %d refused, %d without means, %d successful, %d inconclusive\n", len(r.Attacks),
			r.with(evidence.Refused), r.with(evidence.NotApplicable), r.with(evidence.Yielded), r.with(evidence.Inconclusive))
		fmt.Fprintf(w, "grade: %s\n", r.Grade)
		for _, reason := range r.Reasons {
			fmt.Fprintf(w, "- %s\n", oneLine(reason))
		}
		if r.Locked != "" {
			fmt.Fprintf(w, "the CA is LOCKED: %s\n", oneLine(r.Locked))
		}
	}
	return nil
}
