package catest

import (
	"fmt"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/evidence"
	"signet/fault"
)

// drillOf is a drill of this grade, which names its attack.
func drillOf(g evidence.Grade, attack string) *ca.KeyDrill {
	return &ca.KeyDrill{
		Drill: evidence.Drill{At: now, Token: "1f2e3d4c", Attacks: []evidence.Attack{{
			Name: attack, Call: "C_WrapKey", Target: "key", Outcome: evidence.Refused, Result: "CKR_KEY_UNEXTRACTABLE"}}},
		Trigger: ca.OnRequest, Grade: g, Reasons: []string{"every attack was refused"}, Conclusive: true,
	}
}

var (
	drilled = ca.KeyProof{Grade: evidence.Drilled}
	leaking = ca.KeyProof{Grade: evidence.Asserted, Locked: "its key is only asserted"}
)

const changedMeanwhile = "What is known of the CA's key has changed meanwhile"

func (f fixture) prove(id int64, was, is ca.KeyProof, d *ca.KeyDrill) {
	f.Helper()
	f.ok(f.s.ProveCA(f.Context(), id, was, is, d))
}

// lock makes a CA that may not certify.
func (f fixture) lock(c ca.CA) {
	f.Helper()
	f.prove(c.ID, c.Proof, leaking, nil)
}

var proofTests = map[string]func(f fixture){
	"what is known of a key is kept, with its drill and events": func(f fixture) {
		c := f.root()
		is := leaking
		is.Accepted = evidence.Acceptance{Grade: evidence.Imported, By: "alice", At: now, Reason: "our token is old"}
		d := drillOf(evidence.Asserted, "wrap-CKM_AES_KEY_WRAP")
		f.ok(f.s.ProveCA(f.Context(), c.ID, c.Proof, is, d, event(audit.CALock, audit.ResourceCA), event(audit.CAKeyDrill, audit.ResourceCA)))
		f.recorded(audit.CAKeyDrill, audit.ResourceCA, c.ID)
		f.equal(len(f.events(audit.CALock)), 1)
		got, err := f.s.CA(f.Context(), c.ID)
		f.ok(err)
		f.equal(got.Proof, is)
		drills, err := f.s.Drills(f.Context(), c.ID, 10)
		f.ok(err)
		d.CAID = c.ID
		f.equal(drills, []ca.KeyDrill{*d})
	},
	"a drill that shows nothing new is no update": func(f fixture) {
		c := f.root()
		f.prove(c.ID, c.Proof, c.Proof, drillOf(evidence.Drilled, "a"))
		same, err := f.s.CA(f.Context(), c.ID)
		f.ok(err)
		f.equal(same.UpdatedAt, c.UpdatedAt)
		f.prove(c.ID, c.Proof, drilled, nil)
		changed, err := f.s.CA(f.Context(), c.ID)
		f.ok(err)
		f.equal(changed.UpdatedAt.After(c.UpdatedAt), true)
	},
	"a pending CA can be proved, and keeps that": func(f fixture) {
		c := f.pending(f.plan(nil))
		f.prove(c.ID, c.Proof, drilled, drillOf(evidence.Drilled, "a"))
		f.ok(f.reserveCA(f.reservation(c)))
		c, err := f.completeCA(c.ID)
		f.ok(err)
		f.equal(c.Proof, drilled)
	},
	"who judged by what is known no more is refused": func(f fixture) {
		c := f.root()
		f.prove(c.ID, c.Proof, drilled, nil)
		stale := []ca.KeyProof{c.Proof, leaking, {Grade: evidence.Drilled, Accepted: evidence.Acceptance{Grade: evidence.Asserted}}}
		for _, was := range stale {
			f.silent(func() {
				err := f.s.ProveCA(f.Context(), c.ID, was, leaking, drillOf(evidence.Asserted, "a"), event(audit.CALock, audit.ResourceCA))
				f.refused(err, fault.Conflict, changedMeanwhile)
			})
		}
		drills, err := f.s.Drills(f.Context(), c.ID, 10)
		f.ok(err)
		f.equal(len(drills), 0)
		f.refused(f.s.ProveCA(f.Context(), 99, ca.KeyProof{}, drilled, nil), fault.Conflict, changedMeanwhile)
	},
	"the newest drills are kept, newest first, each CA's own": func(f fixture) {
		c, other := f.root(), f.root()
		f.prove(other.ID, other.Proof, drilled, drillOf(evidence.Drilled, "other"))
		f.prove(c.ID, c.Proof, drilled, nil)
		for i := range ca.KeptDrills + 2 {
			f.prove(c.ID, drilled, drilled, drillOf(evidence.Drilled, fmt.Sprint(i)))
		}
		drills, err := f.s.Drills(f.Context(), c.ID, 1000)
		f.ok(err)
		f.equal(len(drills), ca.KeptDrills)
		f.equal([]string{drills[0].Attacks[0].Name, drills[len(drills)-1].Attacks[0].Name}, []string{fmt.Sprint(ca.KeptDrills + 1), "2"})
		two, err := f.s.Drills(f.Context(), c.ID, 2)
		f.ok(err)
		f.equal(two, drills[:2])
		drills, err = f.s.Drills(f.Context(), other.ID, 1000)
		f.ok(err)
		f.equal(len(drills), 1)
	},
	"a locked CA reserves nothing and publishes CRLs": func(f fixture) {
		c := f.root()
		pending := f.pending(f.plan(&c.ID))
		f.lock(c)
		f.silent(func() {
			_, err := f.reserve(f.leaf(c))
			f.refused(err, fault.Conflict, "CA 1 is locked")
			f.refused(f.reserveCA(f.reservation(pending)), fault.Conflict, "CA 1 is locked")
		})
		f.publish(complete(c), now)
		f.prove(c.ID, leaking, drilled, nil)
		f.issue(f.leaf(c))
	},
	"a drill is claimed once": func(f fixture) {
		c := f.root()
		claim := func(before, at time.Time) bool {
			mine, err := f.s.ClaimDrill(f.Context(), c.ID, before, at)
			f.ok(err)
			return mine
		}
		f.equal([]bool{claim(now, now), claim(now, now), claim(now.Add(-time.Hour), now), claim(now.Add(time.Hour), now.Add(time.Hour))},
			[]bool{true, false, false, true})
		got, err := f.s.CA(f.Context(), c.ID)
		f.ok(err)
		f.equal(got.DrillClaimedAt, ptr(now.Add(time.Hour)))
		f.ok(f.deleteCA(c.ID))
		f.equal(claim(now.AddDate(1, 0, 0), now), false)
	},
	"of parallel claims one succeeds": func(f fixture) {
		c := f.root()
		wins := make([]bool, 8)
		for i, err := range parallel(len(wins), func(i int) (err error) {
			wins[i], err = f.s.ClaimDrill(f.Context(), c.ID, now, now)
			return err
		}) {
			if err != nil {
				f.Errorf("claim %d: %v", i, err)
			}
		}
		won := 0
		for _, w := range wins {
			if w {
				won++
			}
		}
		f.equal(won, 1)
	},
	"a CA that was not reserved can be abandoned by itself": func(f fixture) {
		refused, reserved := f.pending(f.plan(nil)), f.pending(f.plan(nil))
		f.ok(f.reserveCA(f.reservation(reserved)))
		abandon := func(id int64) error {
			return f.s.AbandonCA(f.Context(), id, ca.Revocation{At: now, Text: "key refused"}, event(audit.CAKeyRefuse, audit.ResourceCA))
		}
		f.ok(abandon(refused.ID))
		f.recorded(audit.CAKeyRefuse, audit.ResourceCA, refused.ID)
		f.silent(func() {
			for _, id := range []int64{refused.ID, reserved.ID, 99} {
				f.refused(abandon(id), fault.Conflict, "CA is not pending, or already reserved")
			}
		})
		n, err := f.s.Abandon(f.Context(), now.Add(time.Hour), now)
		f.ok(err)
		f.equal(n, 1)
	},
	"a key of a CA that was abandoned can be used again": func(f fixture) {
		lost := f.reservation(f.pending(f.plan(nil)))
		f.ok(f.reserveCA(lost))
		_, err := f.s.Abandon(f.Context(), now.Add(time.Hour), now)
		f.ok(err)
		again := f.reservation(f.pending(f.plan(nil)))
		again.PublicKey = lost.PublicKey
		f.ok(f.reserveCA(again))
		known, err := f.s.IsCAKey(f.Context(), lost.PublicKey)
		f.ok(err)
		f.equal(known, true)
	},
}

var adoptTests = map[string]func(f fixture){
	"a CA is adopted with the certificate it has": func(f fixture) {
		root := f.root()
		c := f.reservation(f.pending(f.plan(&root.ID)))
		c.Certificate, c.TBS = []byte("made elsewhere"), nil
		got, err := f.s.AdoptCA(f.Context(), c, event(audit.CAAdopt, audit.ResourceCA))
		f.ok(err)
		f.recorded(audit.CAAdopt, audit.ResourceCA, c.ID)
		want := c
		want.State, want.UpdatedAt = ca.Valid, got.UpdatedAt
		f.equal(got, want)
		parent, err := f.s.CA(f.Context(), root.ID)
		f.ok(err)
		f.equal(parent.AllowLeafCerts, false)
	},
	"what is taken is not adopted, and stays pending": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		c := f.reservation(f.pending(f.plan(&root.ID)))
		for message, change := range map[string]func(*ca.CA){
			"Serial number is already in use": func(c *ca.CA) { c.Serial = leaf.Serial },
			"Public key is already in use":    func(c *ca.CA) { c.PublicKey = root.PublicKey },
		} {
			taken := c
			taken.Certificate = []byte("made elsewhere")
			change(&taken)
			f.silent(func() {
				_, err := f.s.AdoptCA(f.Context(), taken, event(audit.CAAdopt, audit.ResourceCA))
				f.refused(err, fault.Conflict, message)
			})
		}
		f.ok(f.s.AbandonCA(f.Context(), c.ID, ca.Revocation{At: now}, event(audit.CAAbandon, audit.ResourceCA)))
		f.issue(f.leaf(root)) // the parent was left alone
	},
	"every CA is listed to whoever asks for their keys": func(f fixture) {
		root := f.root()
		child, pending, abandoned := f.child(root), f.pending(f.plan(nil)), f.pending(f.plan(nil))
		f.ok(f.deleteCA(child.ID))
		f.ok(f.s.AbandonCA(f.Context(), abandoned.ID, ca.Revocation{At: now}, event(audit.CAAbandon, audit.ResourceCA)))
		all, err := f.s.EveryCA(f.Context(), ca.Page{Limit: 10})
		f.ok(err)
		var states []ca.State
		for _, c := range all {
			states = append(states, c.State)
		}
		f.equal(states, []ca.State{ca.Valid, ca.Valid, ca.Pending, ca.Abandoned})
		f.equal(all[1].DeletedAt != nil, true)
		f.equal(all[2].KeyID, pending.KeyID)
		page, err := f.s.EveryCA(f.Context(), ca.Page{After: 2, Limit: 1})
		f.ok(err)
		f.equal(page, all[2:3])
	},
	"the key of a CA in use is not destroyed": func(f fixture) {
		c := f.root()
		f.silent(func() {
			err := f.s.KeyDestroyed(f.Context(), c.ID, now, event(audit.CAKeyDestroy, audit.ResourceCA))
			f.refused(err, fault.Conflict, "CA is neither deleted nor revoked, or its key was destroyed before")
		})
	},
	"a CA without key is not asked for CRLs": func(f fixture) {
		deleted, revoked := f.root(), f.child(f.root())
		f.issue(f.leaf(deleted))
		f.ok(f.deleteCA(deleted.ID))
		_, err := f.revokeCA(revoked.ID, keyLost)
		f.ok(err)
		f.equal(f.keptUp(now), []int64{1, 2, 3})
		for _, id := range []int64{deleted.ID, revoked.ID} {
			f.ok(f.s.KeyDestroyed(f.Context(), id, now, event(audit.CAKeyDestroy, audit.ResourceCA)))
			f.recorded(audit.CAKeyDestroy, audit.ResourceCA, id)
		}
		f.equal(f.keptUp(now), []int64{2})
		got, err := f.s.PublicCA(f.Context(), deleted.ID)
		f.ok(err)
		f.equal(got.KeyDestroyedAt, ptr(now))
		err = f.s.KeyDestroyed(f.Context(), deleted.ID, now, event(audit.CAKeyDestroy, audit.ResourceCA))
		f.refused(err, fault.Conflict, "CA is neither deleted nor revoked, or its key was destroyed before")
	},
}
