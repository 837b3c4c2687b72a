package catest

import (
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

var crlTests = map[string]func(f fixture){
	"numbers start at 1, increase, and are never given out again": func(f fixture) {
		root, other := f.root(), f.root()
		for want := int64(1); want <= 3; want++ {
			c, err := f.s.BeginCRL(f.Context(), root.ID)
			f.ok(err)
			f.equal(c, ca.CRL{CAID: root.ID, Number: want})
		}
		c, err := f.s.BeginCRL(f.Context(), other.ID)
		f.ok(err)
		f.equal(c.Number, int64(1))
	},
	"sequence counts what the CA revoked": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		child := f.child(root)
		sequence := func() int64 {
			c, err := f.s.BeginCRL(f.Context(), root.ID)
			f.ok(err)
			return c.Sequence
		}
		before := sequence()
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		after := sequence()
		_, err = f.revokeCA(child.ID, keyLost)
		f.ok(err)
		if last := sequence(); before != 0 || after <= before || last <= after {
			f.Errorf("sequence goes %d, %d, %d", before, after, last)
		}
		c, err := f.s.BeginCRL(f.Context(), child.ID)
		f.ok(err)
		f.equal(c.Sequence, int64(0))
	},
	"a CA that does not exist has no list": func(f fixture) {
		pending := f.pending(f.plan(nil))
		for _, id := range []int64{pending.ID, 99} {
			_, err := f.s.BeginCRL(f.Context(), id)
			f.refused(err, fault.NotFound, "CA not found")
			f.refused(f.s.CompleteCRL(f.Context(), ca.CRL{CAID: id, Number: 1, DER: []byte("crl")}, event(audit.CRLPublish, "")), fault.NotFound, "CA not found")
			_, err = f.s.LatestCRL(f.Context(), id)
			f.refused(err, fault.NotFound, "CRL not found")
		}
	},
	"a number that is only taken is not published": func(f fixture) {
		root := f.root()
		_, err := f.s.BeginCRL(f.Context(), root.ID)
		f.ok(err)
		_, err = f.s.LatestCRL(f.Context(), root.ID)
		f.refused(err, fault.NotFound, "CRL not found")
	},
	"the list keeps every field and is recorded": func(f fixture) {
		root := f.root()
		want := f.published(root.ID)
		f.recorded(audit.CRLPublish, audit.ResourceCA, root.ID)
		got, err := f.s.LatestCRL(f.Context(), root.ID)
		f.ok(err)
		f.equal(got, want)
	},
	"the latest list is the one with the highest number": func(f fixture) {
		root := f.root()
		early, err := f.s.BeginCRL(f.Context(), root.ID)
		f.ok(err)
		late := f.published(root.ID)
		early.ThisUpdate, early.NextUpdate, early.DER = now, now, []byte("late arrival")
		f.ok(f.s.CompleteCRL(f.Context(), early, event(audit.CRLPublish, audit.ResourceCA)))
		got, err := f.s.LatestCRL(f.Context(), root.ID)
		f.ok(err)
		f.equal(got, late)
	},
	"a number is published once, and only if it was taken": func(f fixture) {
		root := f.root()
		c := f.published(root.ID)
		f.silent(func() {
			for _, number := range []int64{c.Number, c.Number + 1, 0, -1} {
				again := c
				again.Number = number
				err := f.s.CompleteCRL(f.Context(), again, event(audit.CRLPublish, audit.ResourceCA))
				f.refused(err, fault.Conflict, "CRL number was not reserved, or is already in use")
			}
		})
	},
	"a deleted CA still has its list": func(f fixture) {
		root := f.root()
		first := f.published(root.ID)
		f.ok(f.deleteCA(root.ID))
		got, err := f.s.LatestCRL(f.Context(), root.ID)
		f.ok(err)
		f.equal(got, first)
		second := f.published(root.ID)
		f.equal(second.Number, first.Number+1)
	},
	"the last one stays when many are published": func(f fixture) {
		root := f.root()
		var last ca.CRL
		for range 20 {
			last = f.published(root.ID)
		}
		got, err := f.s.LatestCRL(f.Context(), root.ID)
		f.ok(err)
		f.equal(got, last)
		f.equal(len(f.events(audit.CRLPublish)), 20)
	},
	"holds certificates and child CAs by time of revocation": func(f fixture) {
		root := f.root()
		late, early := f.issue(f.leaf(root)), f.issue(f.leaf(root))
		f.issue(f.leaf(root))
		child := f.child(root)
		_, err := f.revoke(late.ID, ca.Revocation{At: now.Add(3 * time.Second), Reason: 4})
		f.ok(err)
		_, err = f.revokeCA(child.ID, ca.Revocation{At: now.Add(2 * time.Second), Reason: 2})
		f.ok(err)
		_, err = f.revoke(early.ID, ca.Revocation{At: now.Add(time.Second), Reason: 1})
		f.ok(err)
		got, err := f.s.RevokedSerials(f.Context(), root.ID, now)
		f.ok(err)
		f.equal(got, []ca.RevokedSerial{
			{Serial: early.Serial, At: now.Add(time.Second), Reason: 1},
			{Serial: child.Serial, At: now.Add(2 * time.Second), Reason: 2},
			{Serial: late.Serial, At: now.Add(3 * time.Second), Reason: 4},
		})
	},
	"leaves out what has expired": func(f fixture) {
		root := f.root()
		c := f.leaf(root)
		c.NotAfter = now.Add(24 * time.Hour)
		leaf := f.issue(c)
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		for at, want := range map[time.Duration]int{24 * time.Hour: 1, 24*time.Hour + time.Second: 0} {
			got, err := f.s.RevokedSerials(f.Context(), root.ID, now.Add(at))
			f.ok(err)
			if len(got) != want {
				f.Errorf("%v after issuance there are %d entries, want %d", at, len(got), want)
			}
		}
	},
	"keeps the revoked certificates and CAs that were deleted": func(f fixture) {
		root := f.root()
		child := f.child(root)
		_, err := f.revokeCA(child.ID, keyLost)
		f.ok(err)
		f.ok(f.deleteCA(child.ID))
		f.ok(f.deleteCA(root.ID))
		got, err := f.s.RevokedSerials(f.Context(), root.ID, now)
		f.ok(err)
		f.equal(got, []ca.RevokedSerial{{Serial: child.Serial, At: keyLost.At, Reason: 1}})
	},
	"has nothing of another CA": func(f fixture) {
		one, two := f.root(), f.root()
		leaf := f.issue(f.leaf(one))
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		got, err := f.s.RevokedSerials(f.Context(), two.ID, now)
		f.ok(err)
		f.equal(len(got), 0)
	},
}

// stale checks which CRLs are stale now, if lists that end within a day are.
func (f fixture) stale(want []int64) {
	f.Helper()
	got, err := f.s.StaleCRLs(f.Context(), now.AddDate(0, 0, 1), now)
	f.ok(err)
	f.equal(append([]int64{}, got...), append([]int64{}, want...))
}

var staleTests = map[string]func(f fixture){
	"a list is missing": func(f fixture) {
		f.pending(f.plan(nil))
		one, two := f.root(), f.root()
		f.stale([]int64{one.ID, two.ID})
	},
	"a number that is only taken is no list": func(f fixture) {
		root := f.root()
		_, err := f.s.BeginCRL(f.Context(), root.ID)
		f.ok(err)
		f.stale([]int64{root.ID})
	},
	"a fresh list is not stale": func(f fixture) {
		f.published(f.root().ID)
		f.stale(nil)
	},
	"a list lacks a revocation": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		child := f.child(root)
		f.published(root.ID)
		f.published(child.ID)
		f.stale(nil)
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		f.stale([]int64{root.ID})
		f.published(root.ID)
		f.stale(nil)
		_, err = f.revokeCA(child.ID, keyLost)
		f.ok(err)
		f.stale([]int64{root.ID})
	},
	"a list that was begun before a revocation lacks it": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		c, err := f.s.BeginCRL(f.Context(), root.ID)
		f.ok(err)
		_, err = f.revoke(leaf.ID, keyLost)
		f.ok(err)
		c.ThisUpdate, c.NextUpdate, c.DER = now, now.AddDate(0, 0, 7), []byte("crl")
		f.ok(f.s.CompleteCRL(f.Context(), c, event(audit.CRLPublish, audit.ResourceCA)))
		f.stale([]int64{root.ID})
	},
	"a list ends soon": func(f fixture) {
		root := f.root()
		c := f.published(root.ID)
		for ends, want := range map[time.Time]int{c.NextUpdate: 0, c.NextUpdate.Add(time.Second): 1} {
			got, err := f.s.StaleCRLs(f.Context(), ends, now)
			f.ok(err)
			if len(got) != want {
				f.Errorf("lists that end before %v: got %v", ends, got)
			}
		}
	},
	"a revoked CA still needs its list": func(f fixture) {
		root := f.root()
		child := f.child(root)
		f.published(root.ID)
		_, err := f.revokeCA(child.ID, keyLost)
		f.ok(err)
		f.stale([]int64{root.ID, child.ID})
	},
	"an expired CA needs none": func(f fixture) {
		root := f.root()
		for at, want := range map[time.Time]int{root.NotAfter: 1, root.NotAfter.Add(time.Second): 0} {
			got, err := f.s.StaleCRLs(f.Context(), at, at)
			f.ok(err)
			if len(got) != want {
				f.Errorf("at %v: got %v", at, got)
			}
		}
	},
	"a deleted CA needs one until its last certificate has expired": func(f fixture) {
		bare, root := f.root(), f.root()
		leaf := f.issue(f.leaf(root))
		f.ok(f.deleteCA(bare.ID))
		f.ok(f.deleteCA(root.ID))
		for at, want := range map[time.Time][]int64{leaf.NotAfter: {root.ID}, leaf.NotAfter.Add(time.Second): {}} {
			got, err := f.s.StaleCRLs(f.Context(), at, at)
			f.ok(err)
			f.equal(append([]int64{}, got...), want)
		}
	},
	"a deleted CA needs one while a child of it has not expired": func(f fixture) {
		root := f.root()
		child := f.child(root)
		f.ok(f.deleteCA(child.ID))
		f.ok(f.deleteCA(root.ID))
		f.stale([]int64{root.ID})
	},
}
