package catest

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// complete is the list of a CA without partitions.
func complete(c ca.CA) ca.ListScope { return ca.ListScope{CAID: c.ID} }

// delta is the delta that goes with it.
func delta(c ca.CA) ca.ListScope { return ca.ListScope{CAID: c.ID, Delta: true} }

func (f fixture) begin(s ca.ListScope) ca.List {
	f.Helper()
	l, err := f.s.BeginList(f.Context(), s, now)
	f.ok(err)
	return l
}

// signed is a list as its publisher completes it.
func (f fixture) signed(l ca.List, thisUpdate time.Time) ca.List {
	l.ThisUpdate, l.NextUpdate = thisUpdate, thisUpdate.AddDate(0, 0, 7)
	l.DER, l.Entries = fmt.Appendf(nil, "list %d of %+v", f.n.Add(1), l.ListScope), 2
	return l
}

func (f fixture) completeLists(lists ...ca.List) error {
	return f.s.CompleteLists(f.Context(), lists, event(audit.CRLPublish, audit.ResourceCA))
}

// kept is a list as the store has it once it is published.
func kept(l ca.List) ca.List {
	sum := sha256.Sum256(l.DER)
	l.State, l.Size, l.SHA256 = ca.ListPublished, int64(len(l.DER)), sum[:]
	return l
}

// publish takes a number and completes a list with it.
func (f fixture) publish(s ca.ListScope, thisUpdate time.Time) ca.List {
	f.Helper()
	l := f.signed(f.begin(s), thisUpdate)
	f.ok(f.completeLists(l))
	return kept(l)
}

func (f fixture) state(c ca.CA) ca.RevocationState {
	f.Helper()
	all, err := f.s.RevocationStates(f.Context())
	f.ok(err)
	for _, s := range all {
		if s.CAID == c.ID {
			return s
		}
	}
	f.Fatalf("CA %d has no state", c.ID)
	return ca.RevocationState{}
}

// current checks what is served at a time, and until when.
func (f fixture) current(s ca.ListScope, at time.Time, want ca.List, until time.Time) {
	f.Helper()
	got, next, err := f.s.CurrentList(f.Context(), s, at)
	f.ok(err)
	f.equal(got, want)
	f.equal(next, until)
}

// lists are the numbers and states of a CA's lists, newest first.
func (f fixture) lists(c ca.CA) string {
	f.Helper()
	all, total, err := f.s.Lists(f.Context(), c.ID, firstPage)
	f.ok(err)
	f.equal(total, int64(len(all)))
	text := ""
	for _, l := range all {
		kind := "complete"
		if l.Delta {
			kind = "delta"
		}
		text += fmt.Sprintf("%d %s %d %s, ", l.Number, kind, l.Shard, l.State)
	}
	return text
}

var listTests = map[string]func(f fixture){
	"a CA numbers from its completion on": func(f fixture) {
		f.pending(f.plan(nil))
		one, two := f.root(), f.root()
		all, err := f.s.RevocationStates(f.Context())
		f.ok(err)
		f.equal(all, []ca.RevocationState{{CAID: one.ID}, {CAID: two.ID}})
		f.ok(f.deleteCA(one.ID))
		all, err = f.s.RevocationStates(f.Context())
		f.ok(err)
		f.equal(len(all), 2)
	},
	"a number stays the next one until it is completed": func(f fixture) {
		root, other := f.root(), f.root()
		for attempt := 1; attempt <= 3; attempt++ {
			l := f.begin(complete(root))
			f.equal([]any{l.ListScope, l.Number, l.Attempts, l.State}, []any{complete(root), int64(1), attempt, ca.ListPending})
		}
		l := f.begin(complete(root))
		f.equal(f.state(root).CRLNumber, int64(0))
		f.ok(f.completeLists(f.signed(l, now)))
		f.equal(f.state(root).CRLNumber, int64(1))
		next := f.begin(complete(root))
		f.equal([]any{next.Number, next.Attempts}, []any{int64(2), 1})
		f.equal(f.begin(complete(other)).Number, int64(1))
	},
	"a number that another list was begun with is taken over": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 2}))
		f.begin(ca.ListScope{CAID: root.ID, Shard: 1, Delta: true})
		l := f.begin(ca.ListScope{CAID: root.ID, Shard: 2})
		f.equal([]any{l.Number, l.Attempts}, []any{int64(1), 2})
		f.equal(f.lists(root), "1 complete 2 pending, ")
		f.ok(f.completeLists(f.signed(l, now)))
		f.equal(f.lists(root), "1 complete 2 published, ")
	},
	"a number knows the last change": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		f.equal(f.begin(complete(root)).Sequence, int64(0))
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		f.equal(f.begin(complete(root)).Sequence, int64(1))
	},
	"a list keeps every field and is recorded": func(f fixture) {
		root := f.root()
		f.publish(complete(root), now)
		l := f.signed(f.begin(delta(root)), now)
		l.Base = 1
		f.ok(f.completeLists(l))
		f.recorded(audit.CRLPublish, audit.ResourceCA, root.ID)
		f.current(delta(root), now, kept(l), time.Time{})
		all, _, err := f.s.Lists(f.Context(), root.ID, ca.Page{Limit: 1})
		f.ok(err)
		want := kept(l)
		want.DER = nil
		f.equal(all, []ca.List{want})
	},
	"a base and its delta are completed together": func(f fixture) {
		root := f.root()
		base := f.signed(f.begin(complete(root)), now)
		change := base
		change.Delta, change.Base, change.DER = true, 7, []byte("delta")
		f.ok(f.completeLists(base, change))
		f.equal(len(f.events(audit.CRLPublish)), 1)
		f.equal(f.lists(root), "1 complete 0 published, 1 delta 0 published, ")
		f.current(complete(root), now, kept(base), time.Time{})
		f.current(delta(root), now, kept(change), time.Time{})
		f.equal(f.begin(complete(root)).Number, int64(2))
	},
	"of two who took a number the second to complete it is refused": func(f fixture) {
		root := f.root()
		one, two := f.signed(f.begin(complete(root)), now), f.signed(f.begin(complete(root)), now)
		f.ok(f.completeLists(two))
		f.silent(func() {
			f.refused(f.completeLists(one), fault.Conflict, "CRL number is not the next one any more")
		})
		f.begin(complete(root))
		f.silent(func() {
			f.refused(f.completeLists(one), fault.Conflict, "CRL number is not the next one any more")
		})
		f.current(complete(root), now, kept(two), time.Time{})
	},
	"lists that are not of one number are not completed together": func(f fixture) {
		one, two := f.signed(f.begin(complete(f.root())), now), f.signed(f.begin(complete(f.root())), now)
		next := one
		next.Number++
		f.silent(func() {
			for _, lists := range [][]ca.List{nil, {one, two}, {one, next}} {
				if f.completeLists(lists...) == nil {
					f.Errorf("completed %d lists", len(lists))
				}
			}
		})
	},
	"a number that nobody took is refused": func(f fixture) {
		root := f.root()
		l := f.signed(f.begin(complete(root)), now)
		f.silent(func() {
			for _, number := range []int64{-1, 0, 2} {
				l.Number = number
				f.refused(f.completeLists(l), fault.Conflict, "CRL number is not the next one any more")
			}
		})
		other := f.root()
		f.refused(f.completeLists(f.signed(ca.List{ListScope: complete(other), Number: 1}, now)),
			fault.Conflict, "CRL number is not the next one any more")
	},
	"what does not exist has no list": func(f fixture) {
		root, pending := f.root(), f.pending(f.plan(nil))
		for scope, message := range map[ca.ListScope]string{
			complete(pending):              "CA not found",
			{CAID: 99}:                     "CA not found",
			{CAID: root.ID, Shard: 1}:      "CRL not found",
			{CAID: root.ID, Shard: 1 << 9}: "CRL not found",
		} {
			f.silent(func() {
				_, err := f.s.BeginList(f.Context(), scope, now)
				f.refused(err, fault.NotFound, message)
				f.refused(f.completeLists(ca.List{ListScope: scope, Number: 1}), fault.NotFound, message)
			})
			_, _, err := f.s.CurrentList(f.Context(), scope, now)
			f.refused(err, fault.NotFound, "CRL not found")
		}
		all, total, err := f.s.Lists(f.Context(), 99, firstPage)
		f.ok(err)
		f.equal([]any{len(all), total}, []any{0, int64(0)})
	},
	"a list is served from its time on": func(f fixture) {
		root := f.root()
		f.begin(complete(root))
		_, _, err := f.s.CurrentList(f.Context(), complete(root), now)
		f.refused(err, fault.NotFound, "CRL not found")
		day := func(n int) time.Time { return now.AddDate(0, 0, n) }
		first := f.publish(complete(root), now)
		_, _, err = f.s.CurrentList(f.Context(), complete(root), now.Add(-time.Second))
		f.refused(err, fault.NotFound, "CRL not found")
		second, third := f.publish(complete(root), day(5)), f.publish(complete(root), day(10))
		f.current(complete(root), now, first, day(5))
		f.current(complete(root), day(5).Add(-time.Second), first, day(5))
		f.current(complete(root), day(5), second, day(10))
		f.current(complete(root), day(30), third, time.Time{})
	},
	"a list of any length is kept as it was signed": func(f fixture) {
		root := f.root()
		for n, length := range []int{1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5 << 19} {
			l := f.signed(f.begin(complete(root)), now.Add(time.Duration(n)*time.Second))
			l.DER = make([]byte, length)
			rand.NewChaCha8([32]byte{byte(n)}).Read(l.DER)
			f.ok(f.completeLists(l))
			f.current(complete(root), l.ThisUpdate, kept(l), time.Time{})
		}
	},
	"of two lists of one time the later number is served": func(f fixture) {
		root := f.root()
		f.publish(complete(root), now)
		f.current(complete(root), now, f.publish(complete(root), now), time.Time{})
	},
	"a list withdraws those of a later time, of its scope only": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 1}))
		f.publish(complete(root), now)
		f.publish(complete(root), now.AddDate(0, 0, 5))
		f.publish(delta(root), now.AddDate(0, 0, 5))
		f.publish(ca.ListScope{CAID: root.ID, Shard: 1}, now.AddDate(0, 0, 5))
		last := f.publish(complete(root), now.Add(time.Second))
		f.equal(f.lists(root), "5 complete 0 published, 4 complete 1 published, 3 delta 0 published, "+
			"2 complete 0 withdrawn, 1 complete 0 published, ")
		f.current(complete(root), now.AddDate(1, 0, 0), last, time.Time{})
	},
	"a reader whose clock is behind gets the list before": func(f fixture) {
		root := f.root()
		var second, third ca.List
		for n := range 6 {
			second, third = third, f.publish(complete(root), now.Add(time.Duration(n-10)*time.Minute))
		}
		f.current(complete(root), now, third, time.Time{})
		f.current(complete(root), third.ThisUpdate.Add(-time.Second), second, third.ThisUpdate)
		_, _, err := f.s.CurrentList(f.Context(), complete(root), second.ThisUpdate.Add(-time.Second))
		f.refused(err, fault.NotFound, "CRL not found")
		f.equal(len(f.events(audit.CRLPublish)), 6)
		_, total, err := f.s.Lists(f.Context(), root.ID, firstPage)
		f.ok(err)
		f.equal(total, int64(6))
	},
	"lists that are signed ahead do not push out the one that is served": func(f fixture) {
		root := f.root()
		first := f.publish(complete(root), now)
		for n := 1; n <= 5; n++ {
			f.publish(complete(root), now.AddDate(0, 0, n))
		}
		f.current(complete(root), now, first, now.AddDate(0, 0, 1))
	},
	"a deleted CA still has its list, and numbers on": func(f fixture) {
		root := f.root()
		first := f.publish(complete(root), now)
		f.ok(f.deleteCA(root.ID))
		f.current(complete(root), now, first, time.Time{})
		f.equal(f.publish(complete(root), now).Number, int64(2))
	},
	"lists are pages, newest first": func(f fixture) {
		root := f.root()
		for range 2 {
			base := f.signed(f.begin(complete(root)), now)
			change := base
			change.Delta = true
			f.ok(f.completeLists(change, base))
		}
		for _, c := range []struct {
			page ca.Page
			want []int64 // places
		}{
			{ca.Page{}, nil},
			{ca.Page{Limit: 3}, []int64{5, 4, 3}},
			{ca.Page{Limit: 3, Skip: 2}, []int64{3, 2}},
			{ca.Page{Limit: 3, After: 5}, []int64{4, 3, 2}},
			{ca.Page{Limit: 1, After: 4}, []int64{3}},
			{ca.Page{Limit: 1, After: 2}, nil},
		} {
			all, total, err := f.s.Lists(f.Context(), root.ID, c.page)
			f.ok(err)
			var places []int64
			for _, l := range all {
				places = append(places, l.Place())
			}
			f.equal([]any{places, total}, []any{c.want, int64(4)})
		}
	},
}
