package catest

import (
	"time"

	"signet/ca"
)

var expiryTests = map[string]func(f fixture){
	"certificates are counted that end within each time": func(f fixture) {
		one, two, idle := f.root(), f.root(), f.root()
		for _, end := range []time.Duration{-time.Microsecond, 0, time.Hour, 2 * time.Hour, 3*time.Hour + time.Microsecond, 100 * time.Hour} {
			f.ending(one, now.Add(end))
		}
		f.ending(two, now.Add(150*time.Minute))
		revoked := f.ending(two, now.Add(time.Hour))
		_, err := f.revoke(revoked.ID, keyLost)
		f.ok(err)
		pending := f.leaf(two)
		pending.NotAfter = now.Add(time.Hour)
		_, err = f.reserve(pending)
		f.ok(err)

		all, err := f.s.CAExpiries(f.Context(), now, []time.Duration{time.Hour, 3 * time.Hour, 4 * time.Hour})
		f.ok(err)
		got := map[int64][]int64{}
		for _, e := range all {
			got[e.CA.ID] = e.Expiring
		}
		f.equal(got, map[int64][]int64{one.ID: {2, 3, 4}, two.ID: {0, 1, 1}, idle.ID: {0, 0, 0}})
	},
	"every CA that was completed is listed, without its certificate": func(f fixture) {
		root := f.root()
		revoked, deleted := f.child(root), f.child(root)
		f.pending(f.plan(nil))
		f.ending(deleted, now.Add(time.Hour))
		_, err := f.revokeCA(revoked.ID, keyLost)
		f.ok(err)
		f.ok(f.deleteCA(deleted.ID))
		all, err := f.s.CAExpiries(f.Context(), now, []time.Duration{2 * time.Hour})
		f.ok(err)
		if len(all) != 3 {
			f.Fatalf("%d CAs are listed, want 3", len(all))
		}
		for i, want := range []struct {
			id      int64
			state   ca.State
			deleted bool
		}{{root.ID, ca.Valid, false}, {revoked.ID, ca.Revoked, false}, {deleted.ID, ca.Valid, true}} {
			c := all[i].CA
			f.equal([]any{c.ID, c.State, c.DeletedAt != nil}, []any{want.id, want.state, want.deleted})
			f.equal(all[i].Expiring, []int64{0})
			f.equal([]any{c.Name == "", c.NotAfter, len(c.Certificate), len(c.TBS), all[i].Responder == nil}, []any{false, root.NotAfter, 0, 0, true})
		}
	},
	"nothing is counted when nothing is asked for": func(f fixture) {
		f.root()
		all, err := f.s.CAExpiries(f.Context(), now, nil)
		f.ok(err)
		f.equal(len(all), 1)
		f.equal(len(all[0].Expiring), 0)
	},
	"endings come in the order of notAfter, each once": func(f fixture) {
		root, other := f.root(), f.root()
		late, twin, early := f.ending(root, now.Add(3*time.Hour)), f.ending(root, now.Add(2*time.Hour)), f.ending(root, now.Add(time.Hour))
		twin2, end := f.ending(root, now.Add(2*time.Hour)), f.ending(root, now.Add(4*time.Hour))
		f.ending(root, now.Add(4*time.Hour+time.Microsecond))
		f.ending(other, now.Add(2*time.Hour))
		revoked := f.ending(root, now.Add(2*time.Hour))
		_, err := f.revoke(revoked.ID, keyLost)
		f.ok(err)

		want := []int64{early.ID, twin.ID, twin2.ID, late.ID, end.ID}
		for limit := 1; limit <= 6; limit++ {
			got, place := []int64{}, ca.Ending{NotAfter: now}
			for {
				page, err := f.s.Endings(f.Context(), root.ID, place, now.Add(4*time.Hour), limit)
				f.ok(err)
				for _, c := range page {
					got, place = append(got, c.ID), ca.Ending{NotAfter: c.NotAfter, ID: c.ID}
				}
				if len(page) < limit {
					break
				}
			}
			f.equal(got, want)
		}
	},
	"an ending has what people know it by, and neither certificate nor key": func(f fixture) {
		root := f.root()
		want := f.ending(root, now.Add(time.Hour))
		page, err := f.s.Endings(f.Context(), root.ID, ca.Ending{}, now.Add(time.Hour), 10)
		f.ok(err)
		want.DER, want.SealedKey = nil, nil
		f.equal(page, []ca.Certificate{want})
	},
	"a deleted CA has no endings": func(f fixture) {
		root := f.root()
		f.ending(root, now.Add(time.Hour))
		f.ok(f.deleteCA(root.ID))
		page, err := f.s.Endings(f.Context(), root.ID, ca.Ending{}, now.Add(time.Hour), 10)
		f.ok(err)
		f.equal(len(page), 0)
	},
}
