package catest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// entries are what a list of a shard is made of, by change.
func (f fixture) entries(c ca.CA, shard int, changedAfter int64, notExpiredAt time.Time) []ca.RevokedEntry {
	f.Helper()
	var out []ca.RevokedEntry
	for e, err := range f.s.RevokedEntries(f.Context(), c.ID, shard, changedAfter, notExpiredAt) {
		f.ok(err)
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b ca.RevokedEntry) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return out
}

func (f fixture) serials(entries []ca.RevokedEntry) []string {
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Serial)
	}
	return out
}

func (f fixture) release(id int64) (ca.Certificate, error) {
	return f.s.Release(f.Context(), id, now.Add(2*time.Hour), event(audit.CertRevoke, audit.ResourceCertificate))
}

// replace is revoke for a reason that replaces others.
func (f fixture) replace(id int64, r ca.Revocation, replaces ...int) (ca.Certificate, error) {
	return f.s.Revoke(f.Context(), id, r, replaces, event(audit.CertRevoke, audit.ResourceCertificate))
}

var held = ca.Revocation{At: now.Add(time.Minute), Reason: 6, Text: "on hold"}

var ledgerTests = map[string]func(f fixture){
	"has certificates and child CAs by change": func(f fixture) {
		root := f.root()
		one, two := f.issue(f.leaf(root)), f.issue(f.leaf(root))
		f.issue(f.leaf(root))
		child := f.child(root)
		lost := ca.Revocation{At: now.Add(3 * time.Second), Reason: 1, InvalidityDate: now.Add(-time.Hour)}
		for _, id := range []int64{two.ID, one.ID} {
			_, err := f.revoke(id, lost)
			f.ok(err)
			lost = ca.Revocation{At: now.Add(time.Second), Reason: 4}
		}
		ended := ca.Revocation{At: now.Add(2 * time.Second), Reason: 2, InvalidityDate: now}
		got, err := f.revokeCA(child.ID, ended)
		f.ok(err)
		f.equal(got.Revocation, ended)
		want := []ca.RevokedEntry{
			{Serial: two.Serial, Sequence: 1, At: now.Add(3 * time.Second), Reason: 1, InvalidityDate: now.Add(-time.Hour), NotAfter: two.NotAfter},
			{Serial: one.Serial, Sequence: 2, At: now.Add(time.Second), Reason: 4, NotAfter: one.NotAfter},
			{Serial: child.Serial, Sequence: 3, At: ended.At, Reason: 2, InvalidityDate: now, NotAfter: child.NotAfter},
		}
		f.equal(f.entries(root, 0, -1, now), want)
		f.equal(f.entries(root, 0, 1, now), want[1:])
		f.equal(f.entries(root, 0, 3, now), []ca.RevokedEntry(nil))
		changed, err := f.s.ChangedSerials(f.Context(), root.ID, 1, 1)
		f.ok(err)
		f.equal(changed, want[1:2])
		f.equal(f.state(root).Sequence, int64(3))
		f.equal(f.state(child).Sequence, int64(0))
	},
	"is divided into shards that add up": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 2}))
		var serials []string
		for _, shard := range []int{1, 2, 0} {
			c := f.leaf(root)
			c.CRLShard = shard
			leaf := f.issue(c)
			f.equal(leaf.CRLShard, shard)
			_, err := f.revoke(leaf.ID, keyLost)
			f.ok(err)
			serials = append(serials, leaf.Serial)
		}
		for shard, want := range [][]string{serials, serials[:1], serials[1:2]} { // 0 is the whole
			f.equal(f.serials(f.entries(root, shard, -1, now)), want)
		}
		changed, err := f.s.ChangedSerials(f.Context(), root.ID, 0, 10)
		f.ok(err)
		f.equal(f.serials(changed), serials)
	},
	"leaves out what has expired": func(f fixture) {
		root := f.root()
		c := f.leaf(root)
		c.NotAfter = now.Add(24 * time.Hour)
		leaf := f.issue(c)
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		f.equal(len(f.entries(root, 0, -1, c.NotAfter)), 1)
		f.equal(len(f.entries(root, 0, -1, c.NotAfter.Add(time.Second))), 0)
		f.equal(len(f.entries(root, 0, -1, time.Time{})), 1)
	},
	"keeps what was deleted": func(f fixture) {
		root := f.root()
		child := f.child(root)
		_, err := f.revokeCA(child.ID, keyLost)
		f.ok(err)
		f.ok(f.deleteCA(child.ID))
		f.ok(f.deleteCA(root.ID))
		f.equal(f.serials(f.entries(root, 0, -1, now)), []string{child.Serial})
	},
	"has nothing of another CA": func(f fixture) {
		one, two := f.root(), f.root()
		leaf := f.issue(f.leaf(one))
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		f.equal(len(f.entries(two, 0, -1, now)), 0)
		changed, err := f.s.ChangedSerials(f.Context(), two.ID, 0, 10)
		f.ok(err)
		f.equal(len(changed), 0)
	},
	"can be left in the middle, and read while it changes": func(f fixture) {
		root := f.root()
		for range 3 {
			_, err := f.revoke(f.issue(f.leaf(root)).ID, keyLost)
			f.ok(err)
		}
		late := f.issue(f.leaf(root))
		n := 0
		for _, err := range f.s.RevokedEntries(f.Context(), root.ID, 0, -1, now) {
			f.ok(err)
			if n++; n == 1 {
				_, err := f.revoke(late.ID, keyLost)
				f.ok(err)
			}
		}
		f.equal(n, 3)
		for _, err := range f.s.RevokedEntries(f.Context(), root.ID, 0, -1, now) {
			f.ok(err)
			break
		}
		f.equal(len(f.entries(root, 0, -1, now)), 4)
	},
	"ends with the caller": func(f fixture) {
		root := f.root()
		ctx, cancel := context.WithCancel(f.Context())
		cancel()
		n := 0
		for _, err := range f.s.RevokedEntries(ctx, root.ID, 0, -1, now) {
			if n++; !errors.Is(err, context.Canceled) {
				f.Errorf("error is %v", err)
			}
		}
		f.equal(n, 1)
	},
}

var holdTests = map[string]func(f fixture){
	"a reason replaces weaker ones and keeps the time": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		first := ca.Revocation{At: now.Add(time.Minute), Reason: 4, Text: "superseded", InvalidityDate: now.Add(-time.Hour)}
		_, err := f.replace(leaf.ID, first, 0, 4)
		f.ok(err)
		second, err := f.replace(leaf.ID, keyLost, 0, 4)
		f.ok(err)
		f.recorded(audit.CertRevoke, audit.ResourceCertificate, leaf.ID)
		want := keyLost
		want.At, want.InvalidityDate = first.At, first.InvalidityDate
		f.equal([]any{second.State, second.Revocation}, []any{ca.Revoked, want})
		f.equal(f.entries(root, 0, -1, now), []ca.RevokedEntry{{Serial: leaf.Serial, Sequence: 2, At: first.At, Reason: 1,
			InvalidityDate: first.InvalidityDate, NotAfter: leaf.NotAfter}})
		f.silent(func() {
			_, err := f.replace(leaf.ID, keyLost, 0, 4)
			f.refused(err, fault.Conflict, "Certificate is already revoked")
		})
		f.equal(f.state(root).Sequence, int64(2))
	},
	"a date of invalidity can be given later": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		_, err := f.replace(leaf.ID, held)
		f.ok(err)
		late := keyLost
		late.InvalidityDate = now.Add(-time.Hour)
		got, err := f.replace(leaf.ID, late, 6)
		f.ok(err)
		f.equal(got.Revocation.InvalidityDate, late.InvalidityDate)
		f.equal(f.entries(root, 0, -1, now)[0].InvalidityDate, late.InvalidityDate)
		found, err := f.s.Certificate(f.Context(), leaf.ID)
		f.ok(err)
		f.equal(found.Revocation, got.Revocation)
	},
	"the reason of a CA is replaced": func(f fixture) {
		root := f.root()
		child := f.child(root)
		revoke := func(r ca.Revocation) (ca.CA, error) {
			return f.s.RevokeCA(f.Context(), child.ID, r, []int{5}, event(audit.CARevoke, audit.ResourceCA))
		}
		_, err := revoke(ca.Revocation{At: now, Reason: 5})
		f.ok(err)
		got, err := revoke(keyLost)
		f.ok(err)
		want := keyLost
		want.At = now
		f.equal(got.Revocation, want)
		f.equal(f.entries(root, 0, -1, now), []ca.RevokedEntry{{Serial: child.Serial, Sequence: 2, At: now, Reason: 1, NotAfter: child.NotAfter}})
		f.silent(func() {
			_, err := revoke(keyLost)
			f.refused(err, fault.Conflict, "CA is already revoked")
		})
	},
	"a released certificate is valid, and stays in the ledger for deltas": func(f fixture) {
		root := f.root()
		id, err := f.reserve(f.leaf(root))
		f.ok(err)
		leaf, err := f.complete(id, []byte("sealed"))
		f.ok(err)
		_, err = f.replace(leaf.ID, held)
		f.ok(err)
		got, err := f.release(leaf.ID)
		f.ok(err)
		f.recorded(audit.CertRevoke, audit.ResourceCertificate, leaf.ID)
		leaf.UpdatedAt = now.Add(2 * time.Hour)
		f.equal(got, leaf)
		found, err := f.s.Certificate(f.Context(), leaf.ID)
		f.ok(err)
		f.equal(found, leaf)
		want := []ca.RevokedEntry{{Serial: leaf.Serial, Sequence: 2, At: held.At, Reason: 6, NotAfter: leaf.NotAfter, Released: true}}
		f.equal(f.entries(root, 0, -1, now), want)
		f.equal(f.entries(root, 0, 1, now), want)
		f.equal(f.state(root).Sequence, int64(2))
	},
	"a released certificate can be held again": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		_, err := f.replace(leaf.ID, held)
		f.ok(err)
		_, err = f.release(leaf.ID)
		f.ok(err)
		again := ca.Revocation{At: now.Add(3 * time.Hour), Reason: 6}
		got, err := f.replace(leaf.ID, again)
		f.ok(err)
		f.equal(got.Revocation, again)
		f.equal(f.entries(root, 0, -1, now), []ca.RevokedEntry{{Serial: leaf.Serial, Sequence: 3, At: again.At, Reason: 6, NotAfter: leaf.NotAfter}})
		f.equal(f.scopes(now)[0].Changed, int64(3))
	},
	"only what is on hold is released": func(f fixture) {
		root := f.root()
		valid, revoked := f.issue(f.leaf(root)), f.issue(f.leaf(root))
		_, err := f.revoke(revoked.ID, keyLost)
		f.ok(err)
		f.silent(func() {
			for _, id := range []int64{valid.ID, revoked.ID} {
				_, err := f.release(id)
				f.refused(err, fault.Conflict, "Certificate is not on hold")
			}
			_, err := f.release(99)
			f.refused(err, fault.NotFound, "Certificate not found")
		})
		_, err = f.replace(valid.ID, held)
		f.ok(err)
		f.ok(f.deleteCA(root.ID))
		_, err = f.release(valid.ID)
		f.refused(err, fault.NotFound, "Certificate not found")
	},
	"of 8 releases of a certificate one wins": func(f fixture) {
		leaf := f.issue(f.leaf(f.root()))
		_, err := f.replace(leaf.ID, held)
		f.ok(err)
		f.oneWins(parallel(8, func(int) error {
			_, err := f.release(leaf.ID)
			return err
		}), fault.Conflict, "Certificate is not on hold")
	},
}
