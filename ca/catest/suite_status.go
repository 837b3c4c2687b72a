package catest

import (
	"crypto"
	"fmt"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// responder is one to be reserved.
func (f fixture) responder(c ca.CA) ca.Responder {
	n := f.n.Add(1)
	return ca.Responder{
		CAID: c.ID, Token: "main", KeyID: fmt.Appendf(nil, "responder key %d", n), PublicKey: fmt.Appendf(nil, "public key %d", n),
		Serial: fmt.Sprintf("0c5b%x", n), TBS: []byte("to be signed"), NotBefore: now, NotAfter: now.AddDate(0, 0, 14), State: ca.Pending,
	}
}

func (f fixture) reserveResponder(r ca.Responder) (int64, error) {
	return f.s.ReserveResponder(f.Context(), r, event(audit.ResponderReserve, audit.ResourceCA))
}

func (f fixture) completeResponder(id int64) error {
	return f.s.CompleteResponder(f.Context(), id, []byte("responder certificate"), event(audit.ResponderCreate, audit.ResourceCA))
}

// certify makes a valid responder.
func (f fixture) certify(c ca.CA) ca.Responder {
	f.Helper()
	r := f.responder(c)
	var err error
	r.ID, err = f.reserveResponder(r)
	f.ok(err)
	f.ok(f.completeResponder(r.ID))
	r.State, r.TBS, r.Certificate = ca.Valid, nil, []byte("responder certificate")
	return r
}

func (f fixture) status(c ca.CA, serial string) ca.SerialStatus {
	f.Helper()
	s, err := f.s.SerialStatus(f.Context(), c.ID, serial)
	f.ok(err)
	return s
}

// answer is one that is valid for a day.
func answer(c ca.CA, serial string, thisUpdate time.Time, sequence int64) ca.SignedAnswer {
	return ca.SignedAnswer{
		CAID: c.ID, Serial: serial, Hash: crypto.SHA256, ThisUpdate: thisUpdate, NextUpdate: thisUpdate.Add(24 * time.Hour),
		Sequence: sequence, DER: fmt.Appendf(nil, "answer about %s at %s", serial, thisUpdate),
	}
}

func (f fixture) keep(all ...ca.SignedAnswer) {
	f.Helper()
	f.ok(f.s.KeepAnswers(f.Context(), all))
}

// answers checks which answer is given at a time.
func (f fixture) answers(c ca.CA, serial string, at time.Time, want ca.SignedAnswer) {
	f.Helper()
	got, err := f.s.Answer(f.Context(), c.ID, serial, crypto.SHA256, at)
	f.ok(err)
	f.equal(got, want)
}

func (f fixture) silentAbout(c ca.CA, serial string, at time.Time) {
	f.Helper()
	_, err := f.s.Answer(f.Context(), c.ID, serial, crypto.SHA256, at)
	f.refused(err, fault.NotFound, "OCSP answer not found")
}

func (f fixture) unanswered(c ca.CA, at time.Time, left time.Duration) []string {
	f.Helper()
	all, last, err := f.s.Unanswered(f.Context(), c.ID, crypto.SHA256, at, left, "", 100)
	f.ok(err)
	f.equal(last, "")
	return append([]string{}, all...)
}

var statusTests = map[string]func(f fixture){
	"of a serial number that nobody has": func(f fixture) {
		root := f.root()
		f.equal(f.status(root, "1"), ca.SerialStatus{})
		_, err := f.s.SerialStatus(f.Context(), root.ID+1, "1")
		f.refused(err, fault.NotFound, "CA not found")
	},
	"of a leaf follows its life": func(f fixture) {
		root, other := f.root(), f.root()
		c := f.leaf(root)
		id, err := f.reserve(c)
		f.ok(err)
		f.equal(f.status(root, c.Serial).Issued, false)
		_, err = f.complete(id, nil)
		f.ok(err)
		f.equal(f.status(root, c.Serial), ca.SerialStatus{Issued: true, NotAfter: c.NotAfter})
		f.equal(f.status(other, c.Serial).Issued, false)

		hold := ca.Revocation{At: now, Reason: 6, Text: "on hold"}
		_, err = f.revoke(id, hold)
		f.ok(err)
		f.equal(f.status(root, c.Serial), ca.SerialStatus{Issued: true, NotAfter: c.NotAfter, Sequence: 1, Revoked: &ca.RevokedEntry{
			Serial: c.Serial, Sequence: 1, At: now, Reason: 6, NotAfter: c.NotAfter}})
		_, err = f.s.Release(f.Context(), id, now, event(audit.CertRelease, audit.ResourceCertificate))
		f.ok(err)
		f.equal(f.status(root, c.Serial), ca.SerialStatus{Issued: true, NotAfter: c.NotAfter, Sequence: 2})

		lost := keyLost
		lost.InvalidityDate = now.Add(-time.Hour)
		_, err = f.revoke(id, lost)
		f.ok(err)
		f.ok(f.deleteCA(root.ID))
		f.equal(f.status(root, c.Serial), ca.SerialStatus{Issued: true, NotAfter: c.NotAfter, Sequence: 3, Revoked: &ca.RevokedEntry{
			Serial: c.Serial, Sequence: 3, At: lost.At, Reason: 1, InvalidityDate: lost.InvalidityDate, NotAfter: c.NotAfter}})
	},
	"of CAs and responders": func(f fixture) {
		root := f.root()
		child := f.child(root)
		responder := f.certify(child)
		f.equal(f.status(root, root.Serial).Issued, true)
		f.equal(f.status(root, child.Serial).Issued, true)
		f.equal(f.status(child, child.Serial).Issued, false)
		f.equal(f.status(child, responder.Serial), ca.SerialStatus{Issued: true, NotAfter: responder.NotAfter})
		_, err := f.revokeCA(child.ID, keyLost)
		f.ok(err)
		f.equal(f.status(root, child.Serial).Revoked.Reason, 1)
	},
	"of an abandoned reservation is revoked": func(f fixture) {
		root := f.root()
		leaf, responder := f.leaf(root), f.responder(root)
		_, err := f.reserve(leaf)
		f.ok(err)
		_, err = f.reserveResponder(responder)
		f.ok(err)
		ended := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
		_, err = f.s.Abandon(f.Context(), ended, ended)
		f.ok(err)
		for _, serial := range []string{leaf.Serial, responder.Serial} {
			s := f.status(root, serial)
			f.equal(s.Issued, true)
			f.equal(s.Revoked.At, ended)
		}
	},
}

var responderTests = map[string]func(f fixture){
	"is reserved, then completed": func(f fixture) {
		root := f.root()
		want := f.responder(root)
		id, err := f.reserveResponder(want)
		f.ok(err)
		f.recorded(audit.ResponderReserve, audit.ResourceCA, root.ID)
		_, err = f.s.LatestResponder(f.Context(), root.ID)
		f.refused(err, fault.NotFound, "OCSP responder not found")
		want.ID = id
		all, err := f.s.Responders(f.Context(), 0, 10)
		f.ok(err)
		f.equal(all, []ca.Responder{want})

		f.ok(f.completeResponder(id))
		f.recorded(audit.ResponderCreate, audit.ResourceCA, root.ID)
		want.State, want.TBS, want.Certificate = ca.Valid, nil, []byte("responder certificate")
		got, err := f.s.LatestResponder(f.Context(), root.ID)
		f.ok(err)
		f.equal(got, want)
		f.silent(func() {
			f.refused(f.completeResponder(id), fault.Conflict, "OCSP responder is not reserved, or already completed")
			f.refused(f.completeResponder(id+1), fault.Conflict, "OCSP responder is not reserved, or already completed")
		})
	},
	"is the one that was certified last": func(f fixture) {
		one, two := f.root(), f.root()
		first := f.certify(one)
		other := f.certify(two)
		second := f.certify(one)
		for _, want := range []ca.Responder{second, other} {
			got, err := f.s.LatestResponder(f.Context(), want.CAID)
			f.ok(err)
			f.equal(got, want)
		}
		all, err := f.s.Responders(f.Context(), first.ID, 1)
		f.ok(err)
		f.equal(all, []ca.Responder{other})
	},
	"shares no serial number": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		child := f.child(root)
		first := f.certify(root)
		for _, taken := range []string{leaf.Serial, child.Serial, first.Serial} {
			r := f.responder(root)
			r.Serial = taken
			f.silent(func() {
				_, err := f.reserveResponder(r)
				f.refused(err, fault.Conflict, "Serial number is already in use")
			})
		}
		r := f.responder(f.root())
		r.Serial = leaf.Serial // another CA numbers for itself
		_, err := f.reserveResponder(r)
		f.ok(err)
	},
	"needs a CA": func(f fixture) {
		f.silent(func() {
			_, err := f.reserveResponder(f.responder(ca.CA{ID: 4711}))
			f.refused(err, fault.NotFound, "CA not found")
		})
	},
}

var answerTests = map[string]func(f fixture){
	"is given from its thisUpdate until its nextUpdate": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		a := answer(root, leaf.Serial, now, 0)
		f.silentAbout(root, leaf.Serial, now)
		f.keep(a)
		f.silentAbout(root, leaf.Serial, now.Add(-time.Second))
		f.answers(root, leaf.Serial, now, a)
		f.answers(root, leaf.Serial, a.NextUpdate.Add(-time.Second), a)
		f.silentAbout(root, leaf.Serial, a.NextUpdate)
		f.silentAbout(f.root(), leaf.Serial, now)
		_, err := f.s.Answer(f.Context(), root.ID, leaf.Serial, crypto.SHA1, now)
		f.refused(err, fault.NotFound, "OCSP answer not found")
	},
	"is replaced by what is later": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		first, later := answer(root, leaf.Serial, now, 0), answer(root, leaf.Serial, now.Add(12*time.Hour), 0)
		f.keep(later, first)
		f.answers(root, leaf.Serial, now.Add(11*time.Hour), first)
		f.answers(root, leaf.Serial, now.Add(12*time.Hour), later)
		f.answers(root, leaf.Serial, now.Add(30*time.Hour), later)
		again := first
		again.Sequence, again.DER = 3, []byte("signed again")
		f.keep(again)
		f.answers(root, leaf.Serial, now, again)
		f.keep(first) // its status was read earlier
		f.answers(root, leaf.Serial, now, again)
		twice := again
		twice.Sequence, twice.DER = 4, []byte("and again")
		f.keep(twice, again)
		f.answers(root, leaf.Serial, now, twice)
		f.keep()
	},
	"ends with a change of its serial number": func(f fixture) {
		root := f.root()
		leaf, other := f.issue(f.leaf(root)), f.issue(f.leaf(root))
		good, staged := answer(root, leaf.Serial, now, 0), answer(root, leaf.Serial, now.Add(12*time.Hour), 0)
		unconcerned := answer(root, other.Serial, now, 0)
		f.keep(good, staged, unconcerned)
		_, err := f.revoke(leaf.ID, ca.Revocation{At: now, Reason: 6})
		f.ok(err)
		f.silentAbout(root, leaf.Serial, now)
		f.silentAbout(root, leaf.Serial, now.Add(12*time.Hour))
		f.answers(root, other.Serial, now, unconcerned)

		revoked := answer(root, leaf.Serial, now.Add(time.Minute), 1)
		f.keep(revoked)
		f.answers(root, leaf.Serial, now.Add(time.Hour), revoked)
		f.answers(root, leaf.Serial, now.Add(13*time.Hour), revoked) // not what was staged before the change
		_, err = f.s.Release(f.Context(), leaf.ID, now, event(audit.CertRelease, audit.ResourceCertificate))
		f.ok(err)
		f.silentAbout(root, leaf.Serial, now.Add(time.Hour))
	},
	"is missing": func(f fixture) {
		root := f.root()
		leaf, revoked, expired := f.issue(f.leaf(root)), f.issue(f.leaf(root)), f.leaf(root)
		f.certify(root)
		_, err := f.revoke(revoked.ID, keyLost)
		f.ok(err)
		expired.NotAfter = now.Add(-time.Second)
		f.issue(expired)
		_, err = f.reserve(f.leaf(root))
		f.ok(err)
		f.issue(f.leaf(f.root()))
		child := f.child(root)

		all := []string{leaf.Serial, revoked.Serial, child.Serial}
		slices.Sort(all)
		f.equal(f.unanswered(root, now, time.Hour), all)
		page, last, err := f.s.Unanswered(f.Context(), root.ID, crypto.SHA256, now, time.Hour, all[0], 1)
		f.ok(err)
		f.equal(page, all[1:2])
		f.equal(last, all[1])
		f.keep(answer(root, leaf.Serial, now, 1)) // the first
		page, last, err = f.s.Unanswered(f.Context(), root.ID, crypto.SHA256, now, time.Hour, "", 2)
		f.ok(err)
		f.equal(page, all[1:2])
		f.equal(last, all[1])
		page, last, err = f.s.Unanswered(f.Context(), root.ID, crypto.SHA256, now, time.Hour, all[0], 3)
		f.ok(err)
		f.equal(page, all[1:])
		f.equal(last, "")

		f.keep(answer(root, revoked.Serial, now, 0), answer(root, child.Serial, now, 1))
		f.equal(f.unanswered(root, now, 24*time.Hour), []string{revoked.Serial}) // it was revoked afterwards
		f.keep(answer(root, revoked.Serial, now, 1))
		f.equal(f.unanswered(root, now, 24*time.Hour), []string{})
		f.equal(f.unanswered(root, now, 24*time.Hour+time.Second), all)
		f.equal(f.unanswered(root, now.Add(-time.Second), time.Hour), slices.Sorted(slices.Values(append(all, expired.Serial))))
		f.equal(f.unanswered(root, now.Add(12*time.Hour), 12*time.Hour), []string{})
		f.equal(f.unanswered(root, now.Add(12*time.Hour), 13*time.Hour), all)
		other, _, err := f.s.Unanswered(f.Context(), root.ID, crypto.SHA1, now, time.Hour, "", 100)
		f.ok(err)
		f.equal(other, all)
	},
	"is deleted after its end, in steps": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		last := answer(root, leaf.Serial, now, 0)
		f.keep(answer(root, leaf.Serial, now.Add(-3*time.Hour), 0), answer(root, leaf.Serial, now.Add(-2*time.Hour), 0),
			answer(root, leaf.Serial, now.Add(-time.Hour), 0), last)
		for _, want := range []int{2, 1, 0} {
			n, err := f.s.DropAnswers(f.Context(), last.NextUpdate, 2)
			f.ok(err)
			f.equal(n, want)
		}
		f.answers(root, leaf.Serial, now, last)
	},
}
