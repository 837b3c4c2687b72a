package catest

import (
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

func (f fixture) setPolicy(c ca.CA, p ca.RevocationPolicy) error {
	return f.s.SetRevocationPolicy(f.Context(), c.ID, p, event(audit.CAUpdate, audit.ResourceCA))
}

// shards are those of a CA that a list must be kept up for.
func (f fixture) shards() []int {
	f.Helper()
	var out []int
	for _, s := range f.scopes(now) {
		out = append(out, s.Shard)
	}
	return out
}

var policyTests = map[string]func(f fixture){
	"is the zero value until one is set": func(f fixture) {
		root := f.root()
		for _, id := range []int64{root.ID, 99} {
			got, err := f.s.RevocationPolicy(f.Context(), id)
			f.ok(err)
			f.equal(got, ca.RevocationPolicy{})
		}
		all, err := f.s.RevocationPolicies(f.Context())
		f.ok(err)
		f.equal(all, map[int64]ca.RevocationPolicy{})
	},
	"keeps every field and is recorded": func(f fixture) {
		root := f.root()
		want := ca.RevocationPolicy{
			CRLValidity: 48 * time.Hour, CRLRefresh: time.Hour, CRLOverlap: 90 * time.Second, Shards: 3, Delta: true,
			OCSPValidity: time.Hour, ByName: true, Presign: true, Outage: ca.Outage{From: now, Until: now.AddDate(0, 0, 3)},
		}
		f.ok(f.setPolicy(root, want))
		f.recorded(audit.CAUpdate, audit.ResourceCA, root.ID)
		got, err := f.s.RevocationPolicy(f.Context(), root.ID)
		f.ok(err)
		if got.UpdatedAt.IsZero() {
			f.Error("nobody knows when it was set")
		}
		want.UpdatedAt = got.UpdatedAt
		f.equal(got, want)
		f.ok(f.deleteCA(root.ID))
		all, err := f.s.RevocationPolicies(f.Context())
		f.ok(err)
		f.equal(all, map[int64]ca.RevocationPolicy{root.ID: want})
	},
	"keeps whole seconds": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{CRLValidity: time.Hour + time.Millisecond}))
		got, err := f.s.RevocationPolicy(f.Context(), root.ID)
		f.ok(err)
		f.equal(got.CRLValidity, time.Hour)
	},
	"is replaced as a whole": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{CRLValidity: time.Hour, ByName: true, Delta: true, Outage: ca.Outage{From: now, Until: now}}))
		f.ok(f.setPolicy(root, ca.RevocationPolicy{CRLRefresh: time.Minute}))
		got, err := f.s.RevocationPolicy(f.Context(), root.ID)
		f.ok(err)
		f.equal(got, ca.RevocationPolicy{CRLRefresh: time.Minute, UpdatedAt: got.UpdatedAt})
	},
	"opens shards, which stay": func(f fixture) {
		root := f.root()
		f.equal(f.shards(), []int{0})
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 2}))
		f.equal(f.shards(), []int{0, 1, 2})
		c := f.leaf(root)
		c.CRLShard = 2
		_, err := f.revoke(f.issue(c).ID, keyLost)
		f.ok(err)
		f.ok(f.setPolicy(root, ca.RevocationPolicy{}))
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 3}))
		f.equal(f.shards(), []int{0, 1, 2, 3})
		f.equal(f.scopes(now)[2].Changed, int64(1))
		f.equal(f.publish(ca.ListScope{CAID: root.ID, Shard: 3}, now).Number, int64(1))
	},
	"is for CAs that exist": func(f fixture) {
		pending, deleted := f.pending(f.plan(nil)), f.root()
		f.ok(f.deleteCA(deleted.ID))
		f.silent(func() {
			for _, c := range []ca.CA{pending, deleted, {ID: 99}} {
				f.refused(f.setPolicy(c, ca.RevocationPolicy{}), fault.NotFound, "CA not found")
			}
		})
	},
}

var leaseTests = map[string]func(f fixture){
	"one holder has it until it ends": func(f fixture) {
		lease := func(name, holder string, ttl time.Duration) bool {
			has, err := f.s.Lease(f.Context(), name, holder, ttl)
			f.ok(err)
			return has
		}
		f.equal(lease("publisher", "a", time.Minute), true)
		f.equal(lease("publisher", "b", time.Minute), false)
		f.equal(lease("publisher", "a", time.Minute), true)
		f.equal(lease("responder", "b", time.Minute), true)

		f.equal(lease("publisher", "a", 20*time.Millisecond), true)
		for deadline := time.Now().Add(5 * time.Second); !lease("publisher", "b", time.Minute); {
			if time.Now().After(deadline) {
				f.Fatal("a lease does not end")
			}
			time.Sleep(5 * time.Millisecond)
		}
		f.equal(lease("publisher", "a", time.Minute), false)
	},
	"the holder gives it up, and nobody else": func(f fixture) {
		for _, holder := range []string{"a", "b", "a"} {
			has, err := f.s.Lease(f.Context(), "publisher", holder, time.Minute)
			f.ok(err)
			f.equal(has, true)
			f.ok(f.s.EndLease(f.Context(), "publisher", "c"))
			has, err = f.s.Lease(f.Context(), "publisher", "c", time.Minute)
			f.ok(err)
			f.equal(has, false)
			f.ok(f.s.EndLease(f.Context(), "publisher", holder))
		}
		f.ok(f.s.EndLease(f.Context(), "nobody's", "a"))
	},
}
