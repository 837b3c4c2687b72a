package catest

import (
	"crypto"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

const aDay = 24 * time.Hour

// The clock of these tests: what ended before over is removed at later.
var (
	over  = now.Add(10 * aDay)
	later = now.Add(40 * aDay)
)

// shortLived is a certificate that ends so many hours after now.
func (f fixture) shortLived(issuer ca.CA, hours int) ca.Certificate {
	c := f.leaf(issuer)
	c.NotAfter = now.Add(time.Duration(hours) * time.Hour)
	return c
}

// expired are the certificates that may be removed.
func (f fixture) expired(c ca.CA) []ca.ExpiredCertificate {
	f.Helper()
	all, err := f.s.ExpiredCertificates(f.Context(), c.ID, later, over, ca.RecordPlace{}, 1000)
	f.ok(err)
	return all
}

func (f fixture) expiredIDs(c ca.CA) []int64 {
	f.Helper()
	return ids(f.expired(c), func(x ca.ExpiredCertificate) int64 { return x.ID })
}

// cutOf is one of records with these ids.
func cutOf(kind ca.RecordKind, caID int64, ids ...int64) ca.Cut {
	return ca.Cut{Kind: kind, CAID: caID, First: slices.Min(ids), Last: slices.Max(ids), Count: len(ids), At: later, Before: over,
		SHA256: make([]byte, 32), Archive: "file"}
}

func (f fixture) remove(c ca.CA, all []ca.ExpiredCertificate) error {
	e := event(audit.Retention, audit.ResourceCA)
	e.ResourceID = &c.ID
	return f.s.RemoveCertificates(f.Context(),
		cutOf(ca.CertificateRecords, c.ID, ids(all, func(x ca.ExpiredCertificate) int64 { return x.ID })...), all, e)
}

const recordsChanged = "A record was changed or removed since it was listed, or must be kept"

// oldEntries is what may be removed of the trail by somebody whose clock is two months ahead, and when that was written at the latest.
func (f fixture) oldEntries() (all []audit.Entry, before time.Time) {
	f.Helper()
	before = time.Now().Add(30 * aDay)
	all, err := f.s.OldEntries(f.Context(), before, ca.RecordPlace{}, 1000)
	f.ok(err)
	return all, before
}

func (f fixture) removeEntries(all []audit.Entry, before time.Time) error {
	k := cutOf(ca.AuditRecords, 0, ids(all, entryID)...)
	k.At, k.Before = before.Add(30*aDay), before
	return f.s.RemoveEntries(f.Context(), k, all, audit.Event{Action: audit.Retention, Detail: "removed"})
}

var retentionTests = map[string]func(f fixture){
	"an expired certificate goes with all that is known of it": func(f fixture) {
		root := f.root()
		id, err := f.reserve(f.shortLived(root, 48))
		f.ok(err)
		withKey, err := f.complete(id, []byte("sealed"))
		f.ok(err)
		lost := f.issue(f.shortLived(root, 24))
		stays, held := f.issue(f.leaf(root)), f.issue(f.leaf(root))
		for _, id := range []int64{lost.ID, held.ID} {
			_, err = f.revoke(id, keyLost)
			f.ok(err)
		}
		f.ok(f.s.KeepAnswers(f.Context(), []ca.SignedAnswer{answer(root, lost.Serial, later, 2), answer(root, stays.Serial, later, 2)}))
		f.publish(ca.ListScope{CAID: root.ID}, now.Add(3*aDay))

		all := f.expired(root)
		lost.State, lost.Revocation, withKey.SealedKey = ca.Revoked, keyLost, nil
		lost.UpdatedAt, all[1].UpdatedAt = all[0].UpdatedAt, withKey.UpdatedAt
		f.equal(all, []ca.ExpiredCertificate{{Certificate: lost}, {Certificate: withKey, HasKey: true}})
		all = f.expired(root)
		f.ok(f.remove(root, all))
		f.recorded(audit.Retention, audit.ResourceCA, root.ID)
		f.equal(f.expiredIDs(root), []int64{})
		for _, gone := range []ca.Certificate{lost, withKey} {
			_, err := f.s.Certificate(f.Context(), gone.ID)
			f.refused(err, fault.NotFound, "Certificate not found")
			status, err := f.s.SerialStatus(f.Context(), root.ID, gone.Serial)
			f.ok(err)
			f.equal(status, ca.SerialStatus{Sequence: 2})
			_, err = f.s.Answer(f.Context(), root.ID, gone.Serial, crypto.SHA256, later)
			f.refused(err, fault.NotFound, "OCSP answer not found")
		}
		keys, err := f.s.SealedKeys(f.Context(), 0, 10)
		f.ok(err)
		f.equal(len(keys), 0)
		f.equal(f.serials(f.entries(root, 0, -1, time.Time{})), []string{held.Serial})
		listed, total, err := f.s.Certificates(f.Context(), ca.CertificateFilter{Scope: everything}, firstPage)
		f.ok(err)
		f.equal(ids(listed, certID), []int64{stays.ID, held.ID})
		f.equal(total.N, int64(2))
		f.answers(root, stays.Serial, later, answer(root, stays.Serial, later, 2))
		if next := f.issue(f.leaf(root)); next.ID <= held.ID {
			f.Errorf("id %d is given out after %d", next.ID, held.ID)
		}
	},
	"pages of expired certificates are in the order of their ends": func(f fixture) {
		root := f.root()
		third, first, second := f.issue(f.shortLived(root, 30)), f.issue(f.shortLived(root, 20)), f.issue(f.shortLived(root, 20))
		f.issue(f.shortLived(f.root(), 20))
		f.equal(f.expiredIDs(root), []int64{first.ID, second.ID, third.ID})
		page, err := f.s.ExpiredCertificates(f.Context(), root.ID, later, over, ca.RecordPlace{At: first.NotAfter, ID: first.ID}, 1)
		f.ok(err)
		f.equal(page[0].ID, second.ID)
		page, err = f.s.ExpiredCertificates(f.Context(), root.ID, later, third.NotAfter, ca.RecordPlace{}, 10)
		f.ok(err)
		f.equal(len(page), 2) // what ends at that time has not ended before it
	},
	"what was revoked stays until every list has shown it since it ended": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 2}))
		c := f.shortLived(root, 24)
		c.CRLShard = 2
		leaf := f.issue(c)
		_, err := f.revoke(leaf.ID, keyLost)
		f.ok(err)
		all, shard := ca.ListScope{CAID: root.ID}, ca.ListScope{CAID: root.ID, Shard: 2}
		f.publish(all, now.Add(2*aDay))
		f.equal(f.expiredIDs(root), []int64{}) // the list of its shard is missing
		f.publish(shard, now.Add(aDay))
		f.equal(f.expiredIDs(root), []int64{}) // it has not ended by then
		f.publish(shard, now.Add(2*aDay))
		f.equal(f.expiredIDs(root), []int64{leaf.ID})
		listed := f.expired(root)
		_, err = f.replace(leaf.ID, ca.Revocation{At: now, Reason: 2}, 1)
		f.ok(err)
		f.equal(f.expiredIDs(root), []int64{}) // it has changed since
		f.silent(func() { f.refused(f.remove(root, listed), fault.Conflict, recordsChanged) })
		f.publish(all, now.Add(3*aDay))
		f.publish(shard, now.Add(50*aDay))
		f.equal(f.expiredIDs(root), []int64{}) // the time of this list has not come
		f.publish(shard, now.Add(3*aDay))
		f.ok(f.remove(root, f.expired(root)))
		f.equal(len(f.entries(root, 0, -1, time.Time{})), 0)
	},
	"what was on hold goes with its entry": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.shortLived(root, 24))
		_, err := f.revoke(leaf.ID, held)
		f.ok(err)
		_, err = f.release(leaf.ID)
		f.ok(err)
		f.equal(f.expiredIDs(root), []int64{})
		f.publish(ca.ListScope{CAID: root.ID}, now.Add(2*aDay))
		f.ok(f.remove(root, f.expired(root)))
		f.equal(len(f.entries(root, 0, -1, time.Time{})), 0)
	},
	"of a CA without lists to be kept up everything may go": func(f fixture) {
		for _, end := range []func(ca.CA){
			func(c ca.CA) { f.ok(f.deleteCA(c.ID)) },
			func(c ca.CA) {
				leaf := f.leaf(c)
				id, err := f.reserve(leaf)
				f.ok(err)
				_, err = f.complete(id, nil)
				f.ok(err)
				f.ok(f.deleteCA(c.ID)) // it has issued what has not expired
				f.equal(f.expiredIDs(c), []int64{})
				f.ok(f.s.KeyDestroyed(f.Context(), c.ID, now, event(audit.CAKeyDestroy, audit.ResourceCA)))
			},
		} {
			c := f.root()
			leaf := f.issue(f.shortLived(c, 24))
			_, err := f.revoke(leaf.ID, keyLost)
			f.ok(err)
			f.equal(f.expiredIDs(c), []int64{})
			end(c)
			f.ok(f.remove(c, f.expired(c)))
		}
	},
	"an abandoned reservation goes when its certificate would have expired": func(f fixture) {
		root := f.root()
		id, err := f.reserve(f.shortLived(root, 24))
		f.ok(err)
		f.equal(f.expiredIDs(root), []int64{})
		_, err = f.s.Abandon(f.Context(), later, now)
		f.ok(err)
		f.publish(ca.ListScope{CAID: root.ID}, now.Add(2*aDay))
		all := f.expired(root)
		f.equal(f.expiredIDs(root), []int64{id})
		f.equal(all[0].TBS, []byte("to be signed"))
		f.ok(f.remove(root, all))
	},
	"a certificate that changed since it was listed stays, and so do the others": func(f fixture) {
		root, other := f.root(), f.root()
		one, two := f.issue(f.shortLived(root, 24)), f.issue(f.shortLived(root, 24))
		all := f.expired(root)
		_, err := f.revoke(two.ID, keyLost)
		f.ok(err)
		f.silent(func() {
			f.refused(f.remove(root, all), fault.Conflict, recordsChanged)
			f.refused(f.remove(other, all[:1]), fault.Conflict, recordsChanged)
		})
		f.equal(f.expiredIDs(root), []int64{one.ID})
	},
	"of parallel removals one succeeds": func(f fixture) {
		root := f.root()
		for range 3 {
			f.issue(f.shortLived(root, 24))
		}
		all := f.expired(root)
		f.oneWins(parallel(4, func(int) error { return f.remove(root, all) }), fault.Conflict, recordsChanged)
		f.equal(len(f.events(audit.Retention)), 1)
	},
	"lists go when others have replaced them": func(f fixture) {
		root := f.root()
		scope := ca.ListScope{CAID: root.ID}
		for hours := range 4 {
			f.publish(scope, now.Add(time.Duration(hours-10)*time.Hour))
		}
		f.begin(scope)
		retired, err := f.s.RetiredLists(f.Context(), root.ID, over, 10)
		f.ok(err)
		f.equal(ids(retired, func(l ca.List) int64 { return l.Number }), []int64{1, 2})
		first, err := f.s.RetiredLists(f.Context(), root.ID, retired[0].NextUpdate.Add(time.Second), 10)
		f.ok(err)
		f.equal(first, retired[:1])
		e := event(audit.Retention, audit.ResourceCA)
		e.ResourceID = &root.ID
		f.ok(f.s.RemoveLists(f.Context(), cutOf(ca.ListRecords, root.ID, 1, 2), retired, e))
		f.recorded(audit.Retention, audit.ResourceCA, root.ID)
		f.equal(f.lists(root), "5 complete 0 pending, 4 complete 0 published, 3 complete 0 published, ")
		f.silent(func() {
			f.refused(f.s.RemoveLists(f.Context(), cutOf(ca.ListRecords, root.ID, 1, 2), retired, e), fault.Conflict, recordsChanged)
		})
		current, _, err := f.s.CurrentList(f.Context(), scope, now)
		f.ok(err)
		f.equal(current.Number, int64(4))
	},
	"entries of the trail go, but those that tell of a removal": func(f fixture) {
		for range 3 {
			f.ok(f.s.Record(f.Context(), event(audit.Logout, "")))
		}
		all, before := f.oldEntries()
		f.equal(len(all), 3)
		rest, err := f.s.OldEntries(f.Context(), before, ca.RecordPlace{At: all[0].CreatedAt, ID: all[0].ID}, 1)
		f.ok(err)
		f.equal(rest, all[1:2])
		none, err := f.s.OldEntries(f.Context(), all[0].CreatedAt, ca.RecordPlace{}, 10)
		f.ok(err)
		f.equal(len(none), 0)
		f.ok(f.removeEntries(all[:2], before))
		f.silent(func() { f.refused(f.removeEntries(all, before), fault.Conflict, recordsChanged) })
		f.ok(f.removeEntries(all[2:], before))
		left := f.events("")
		f.equal(len(left), 2)
		f.equal(left[0].Action, audit.Retention)
		f.equal(left[0].ID > all[2].ID, true)
		all, before = f.oldEntries()
		f.equal(len(all), 0)
		f.silent(func() { f.refused(f.removeEntries(left, before), fault.Conflict, recordsChanged) })
	},
	"what may be removed is counted": func(f fixture) {
		root, other := f.root(), f.root()
		lost, waits := f.issue(f.shortLived(root, 24)), f.issue(f.shortLived(other, 24))
		id, err := f.reserve(f.shortLived(root, 48))
		f.ok(err)
		_, err = f.complete(id, []byte("sealed"))
		f.ok(err)
		_, err = f.reserve(f.shortLived(root, 36))
		f.ok(err)
		_, err = f.s.Abandon(f.Context(), later, now)
		f.ok(err)
		f.issue(f.leaf(root))
		for _, id := range []int64{lost.ID, waits.ID} {
			_, err := f.revoke(id, keyLost)
			f.ok(err)
		}
		for hours := range 3 {
			f.publish(ca.ListScope{CAID: root.ID}, now.Add(time.Duration(hours-10)*time.Hour))
		}
		f.publish(ca.ListScope{CAID: root.ID}, now.Add(3*aDay))
		got, err := f.s.Removable(f.Context(), later, over, time.Time{})
		f.ok(err)
		list := now.Add(-10*time.Hour).AddDate(0, 0, 7)
		f.equal(got, []ca.Removable{
			{Kind: ca.CertificateRecords, CAID: root.ID, CAName: root.Name, Before: over, Count: 3,
				Oldest: now.Add(24 * time.Hour), Newest: now.Add(48 * time.Hour),
				Bytes: int64(2*len("certificate") + len("sealed") + len("to be signed")), Valid: 1, Revoked: 1, Abandoned: 1, Keys: 1},
			{Kind: ca.CertificateRecords, CAID: other.ID, CAName: other.Name, Before: over, Waiting: 1},
			{Kind: ca.ListRecords, CAID: root.ID, CAName: root.Name, Before: over, Count: 1, Oldest: list, Newest: list},
		})
		entries := f.events("")
		before := time.Now().Add(time.Hour)
		got, err = f.s.Removable(f.Context(), later, time.Time{}, before)
		f.ok(err)
		f.equal(len(got), 1)
		size := 0
		for _, e := range entries {
			size += len(e.Username) + len(e.Detail) + len(e.RequestID) + len(e.RemoteAddr)
		}
		f.equal(got[0].Oldest.After(got[0].Newest), false)
		got[0].Oldest, got[0].Newest = time.Time{}, time.Time{}
		f.equal(got[0], ca.Removable{Kind: ca.AuditRecords, Before: before, Count: int64(len(entries)), Bytes: int64(size)})
		got, err = f.s.Removable(f.Context(), later, time.Time{}, time.Time{})
		f.ok(err)
		f.equal(got, []ca.Removable{})
	},
}
