package catest

import (
	"slices"
	"time"

	"signet/ca"
)

func (f fixture) scopes(at time.Time) []ca.ScopeState {
	f.Helper()
	all, err := f.s.ListScopes(f.Context(), at)
	f.ok(err)
	return all
}

// keptUp are the CAs that need a list at a time.
func (f fixture) keptUp(at time.Time) []int64 {
	f.Helper()
	out := []int64{}
	for _, s := range f.scopes(at) {
		out = append(out, s.CAID)
	}
	return slices.Compact(out)
}

// stale are the lists that lack a change at a time, or that do not exist.
func (f fixture) stale(at time.Time) []ca.ListScope {
	f.Helper()
	var out []ca.ListScope
	for _, s := range f.scopes(at) {
		if s.Current == nil || s.Current.Sequence < s.Changed {
			out = append(out, s.ListScope)
		}
	}
	return out
}

// bare is a list as scopes have it.
func bare(l ca.List) *ca.List {
	l.DER = nil
	return &l
}

var scopeTests = map[string]func(f fixture){
	"a CA has one from its completion on": func(f fixture) {
		f.pending(f.plan(nil))
		one, two := f.root(), f.root()
		f.equal(f.scopes(now), []ca.ScopeState{{ListScope: complete(one)}, {ListScope: complete(two)}})
	},
	"those of some CAs only are asked for": func(f fixture) {
		one, _, three := f.root(), f.root(), f.root()
		some, err := f.s.ListScopes(f.Context(), now, three.ID, one.ID, 99)
		f.ok(err)
		f.equal(some, []ca.ScopeState{{ListScope: complete(one)}, {ListScope: complete(three)}})
	},
	"a number that is only taken is no list": func(f fixture) {
		root := f.root()
		f.begin(complete(root))
		f.equal(f.scopes(now), []ca.ScopeState{{ListScope: complete(root)}})
	},
	"says what there is by time": func(f fixture) {
		root := f.root()
		first, last := f.publish(complete(root), now), f.publish(complete(root), now.AddDate(0, 0, 5))
		change := f.publish(delta(root), now.Add(time.Hour))
		f.equal(f.scopes(now), []ca.ScopeState{
			{ListScope: complete(root), Current: bare(first), Last: bare(last)},
			{ListScope: delta(root), Last: bare(change)},
		})
		f.equal(f.scopes(now.AddDate(0, 0, 5)), []ca.ScopeState{
			{ListScope: complete(root), Current: bare(last), Last: bare(last)},
			{ListScope: delta(root), Current: bare(change), Last: bare(change)},
		})
		newest := f.publish(complete(root), now)
		f.equal(f.scopes(now)[0], ca.ScopeState{ListScope: complete(root), Current: bare(newest), Last: bare(newest)})
	},
	"each shard knows its last change": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 2}))
		changed := func() (out []int64) {
			for _, s := range f.scopes(now) {
				out = append(out, s.Changed)
			}
			return out
		}
		f.equal(changed(), []int64{0, 0, 0})
		for _, shard := range []int{2, 0, 2} {
			c := f.leaf(root)
			c.CRLShard = shard
			_, err := f.revoke(f.issue(c).ID, keyLost)
			f.ok(err)
		}
		f.equal(changed(), []int64{2, 0, 3})
		child := f.child(root)
		_, err := f.revokeCA(child.ID, keyLost)
		f.ok(err)
		f.equal(changed(), []int64{4, 0, 3, 0})
	},
	"a list lacks a change until it is made again": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		f.publish(complete(root), now)
		f.equal(f.stale(now), []ca.ListScope(nil))
		begun := f.signed(f.begin(complete(root)), now)
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		f.equal(f.stale(now), []ca.ListScope{complete(root)})
		f.ok(f.completeLists(begun))
		f.equal(f.stale(now), []ca.ListScope{complete(root)})
		f.publish(complete(root), now)
		f.equal(f.stale(now), []ca.ListScope(nil))
	},
	"a revoked CA still needs its list": func(f fixture) {
		root := f.root()
		child := f.child(root)
		_, err := f.revokeCA(child.ID, keyLost)
		f.ok(err)
		f.equal(f.keptUp(now), []int64{root.ID, child.ID})
	},
	"an expired CA needs none": func(f fixture) {
		root := f.root()
		f.equal(f.keptUp(root.NotAfter), []int64{root.ID})
		f.equal(f.keptUp(root.NotAfter.Add(time.Second)), []int64{})
	},
	"a deleted CA needs one until its last certificate has expired": func(f fixture) {
		bare, root := f.root(), f.root()
		leaf := f.issue(f.leaf(root))
		f.ok(f.deleteCA(bare.ID))
		f.ok(f.deleteCA(root.ID))
		f.equal(f.keptUp(leaf.NotAfter), []int64{root.ID})
		f.equal(f.keptUp(leaf.NotAfter.Add(time.Second)), []int64{})
	},
	"a deleted CA needs one while a child of it has not expired": func(f fixture) {
		root := f.root()
		child := f.child(root)
		f.ok(f.deleteCA(child.ID))
		f.ok(f.deleteCA(root.ID))
		f.equal(f.keptUp(now), []int64{root.ID})
	},
}
