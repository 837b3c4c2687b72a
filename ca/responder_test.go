package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"signet/audit"
	"signet/ca"
	"signet/evidence"
	"signet/fault"
)

func (w *world) count(t *testing.T, action audit.Action) int64 {
	t.Helper()
	_, n, err := w.store.AuditLog(t.Context(), audit.Filter{Action: action})
	if err != nil {
		t.Fatal(err)
	}
	return n.N
}

func TestANewCAAnswersWithinSeconds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(t)
	root := w.createCA(t, superuser, nil)
	eventually(t, 5*time.Second, "it has a responder", func() bool {
		_, err := w.store.LatestResponder(t.Context(), root.ID)
		return err == nil
	})
	r := w.responder(t, root)
	cert, issuer := parse(t, r.Certificate), parse(t, root.Certificate)
	if err := cert.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
	if len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning || cert.IsCA {
		t.Errorf("extended key usage is %v", cert.ExtKeyUsage)
	}
	if bytes.Equal(r.KeyID, root.KeyID) || bytes.Equal(r.PublicKey, root.PublicKey) {
		t.Error("the responder has the key of the CA")
	}
	if now := w.clock.Now(); !cert.NotAfter.Equal(now.AddDate(0, 0, 14)) || cert.NotBefore.After(now) || cert.NotBefore.Before(root.NotBefore) {
		t.Errorf("it is valid from %s to %s, and now is %s", cert.NotBefore, cert.NotAfter, now)
	}
	for _, action := range []audit.Action{audit.ResponderReserve, audit.ResponderCreate} {
		e := w.last(t, action)
		if e.ResourceType != audit.ResourceCA || *e.ResourceID != root.ID {
			t.Errorf("%s is about %s %d", action, e.ResourceType, *e.ResourceID)
		}
	}
}

func TestOneReplicaCertifiesTheResponder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	var wg sync.WaitGroup
	for range 6 {
		replica := w.replica(nil)
		for range 3 {
			wg.Go(func() { replica.status(t, root, leaf.Serial) })
		}
	}
	wg.Wait()
	all, err := w.store.Responders(t.Context(), 0, 10)
	if err != nil || len(all) != 1 {
		t.Errorf("%d responders, error %v", len(all), err)
	}
}

func TestARefusedResponderIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	w.keys.setAway(true)
	w.run(t)
	w.wantRefusal(t, root, plain(t, root, leaf.Serial), later)
	select {
	case err := <-w.failed:
		t.Logf("reported: %v", err)
	case <-time.After(5 * time.Second):
		t.Error("nobody was told that there is no responder")
	}
	keys, err := w.ResponderKeys(t.Context(), superuser)
	if err != nil || len(keys) != 0 {
		t.Errorf("keys of responders: %+v, %v", keys, err)
	}
	w.keys.setAway(false)
	w.clock.advance(10 * time.Second)
	w.status(t, root, leaf.Serial)
}

func TestRespondersAreRenewedUnderTheirKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	w.status(t, root, leaf.Serial)
	first := w.responder(t, root)
	w.run(t)
	w.clock.advance(6 * 24 * time.Hour)
	time.Sleep(1200 * time.Millisecond)
	if again := w.responder(t, root); again.ID != first.ID {
		t.Error("it was renewed before half of its validity was over")
	}
	w.clock.advance(2 * 24 * time.Hour)
	eventually(t, 5*time.Second, "it is renewed", func() bool { return w.responder(t, root).ID != first.ID })
	second := w.responder(t, root)
	if !bytes.Equal(second.KeyID, first.KeyID) || second.Serial == first.Serial || !second.NotAfter.Equal(w.clock.Now().AddDate(0, 0, 14)) {
		t.Errorf("second responder: key %x, serial %s, until %s", second.KeyID, second.Serial, second.NotAfter)
	}
	eventually(t, 5*time.Second, "answers come with it", func() bool {
		a := w.ask(t, root, ca.StatusRequest{IDs: plain(t, root, leaf.Serial).IDs, Nonce: []byte("n")})
		return bytes.Contains(a.DER, second.Certificate)
	})
	if !bytes.Equal(w.status(t, root, leaf.Serial).Certificate.Raw, second.Certificate) {
		t.Error("the old responder is in the answer")
	}
}

func TestALostResponderKeyIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	w.status(t, root, leaf.Serial)
	first := w.responder(t, root)
	if err := w.keys.Destroy(t.Context(), "main", first.KeyID); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(10 * time.Second)
	restarted := w.replica(nil)
	r := plain(t, root, leaf.Serial)
	r.Nonce = []byte("n")
	restarted.ask(t, root, r)
	if second := w.responder(t, root); bytes.Equal(second.KeyID, first.KeyID) {
		t.Error("it has the key that the token has lost")
	}
}

func TestRespondersOutliveNeitherTheirCANorShorterOutages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(t)
	short := w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN, r.ValidDays = "Short", "CN=Short", 5 })
	root := w.createCA(t, superuser, nil)
	eventually(t, 5*time.Second, "both have a responder", func() bool {
		_, one := w.store.LatestResponder(t.Context(), short.ID)
		_, two := w.store.LatestResponder(t.Context(), root.ID)
		return one == nil && two == nil
	})
	if r := w.responder(t, short); !r.NotAfter.Equal(short.NotAfter) {
		t.Errorf("the CA ends %s, its responder %s", short.NotAfter, r.NotAfter)
	}
	until := w.clock.Now().AddDate(0, 0, 40)
	w.set(t, root, ca.RevocationPolicy{Outage: ca.Outage{From: until.AddDate(0, 0, -20), Until: until}})
	eventually(t, 5*time.Second, "it covers the outage", func() bool { return !w.responder(t, root).NotAfter.Before(until.AddDate(0, 0, 1)) })

	w.clock.advance(short.NotAfter.Sub(w.clock.Now()) + time.Second)
	w.wantRefusal(t, short, plain(t, short, "4711"), unauthorized)
}

func TestResponderGoesOnWhenItsCANoLongerCertifies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	child := w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN, r.ParentID = "Child", "CN=Child", &root.ID })
	leaf := w.issue(t, superuser, child.ID)

	w.keys.Set(evidence.Yielded, nil)
	if _, err := w.Drill(t.Context(), superuser, child.ID); err != nil {
		t.Fatal(err)
	}
	if w.get(t, child.ID).Proof.Locked == "" {
		t.Fatal("the CA is not locked")
	}
	if got := w.status(t, child, leaf.Serial); got.Status != ocsp.Good {
		t.Errorf("locked CA: status %d", got.Status)
	}
	if _, err := w.RevokeCA(t.Context(), superuser, child.ID, ca.RevokeRequest{Reason: "cessationOfOperation"}); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(8 * 24 * time.Hour)
	if got := w.replica(nil).status(t, child, leaf.Serial); got.Status != ocsp.Good {
		t.Errorf("revoked CA: status %d", got.Status)
	}

	keys, err := w.ResponderKeys(t.Context(), superuser)
	if err != nil || len(keys) != 1 || !keys[0].Needed || keys[0].CAID != child.ID {
		t.Errorf("keys of responders: %+v, %v", keys, err)
	}
	_, err = w.DestroyLeftover(t.Context(), superuser, "", keys[0].ID)
	wantFault(t, err, fault.Conflict, "is that of the OCSP responder of CA 2")
	_, err = w.ResponderKeys(t.Context(), acmeAdmin)
	wantFault(t, err, fault.Forbidden, "")

	// Without the key of the CA the responder tells what it can until its own end. Then its key goes too.
	if _, err := w.DestroyKey(t.Context(), superuser, child.ID); err != nil {
		t.Fatal(err)
	}
	r := w.responder(t, child)
	w.clock.advance(time.Minute)
	if got := w.replica(nil).status(t, child, leaf.Serial); got.Status != ocsp.Good {
		t.Errorf("CA without key: status %d", got.Status)
	}
	w.clock.advance(r.NotAfter.Sub(w.clock.Now()) + time.Second)
	w.wantRefusal(t, child, plain(t, child, leaf.Serial), unauthorized)
	if keys, err = w.ResponderKeys(t.Context(), superuser); err != nil || keys[0].Needed {
		t.Errorf("keys of responders: %+v, %v", keys, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go w.Run(ctx)
	eventually(t, 5*time.Second, "the key of the responder is destroyed", func() bool {
		_, err := w.keys.Inspect(t.Context(), ca.KeyRef{ID: r.KeyID})
		return fault.Is(err, fault.NotFound)
	})
	eventually(t, 5*time.Second, "that is on record", func() bool { return w.count(t, audit.KeyDestroy) == 2 })
}

func TestEveryCertificateHasAnAnswerBeforeAnybodyAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	var leaves []ca.Issued
	for range 40 { // more than are signed at once
		leaves = append(leaves, w.issue(t, superuser, root.ID))
	}
	w.revoke(t, leaves[0], "superseded")
	w.set(t, root, ca.RevocationPolicy{Presign: true})
	unanswered := func() int {
		n := 0
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			serials, _, err := w.store.Unanswered(t.Context(), root.ID, hash, w.clock.Now(), 12*time.Hour+time.Minute, "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			n += len(serials)
		}
		return n
	}
	stop := w.run(t)
	eventually(t, 20*time.Second, "everything is answered", func() bool { return unanswered() == 0 })
	if n := w.signed(t, root); n != 80 {
		t.Errorf("%d signatures for 40 certificates and two hashes", n)
	}
	w.clock.advance(10 * time.Hour) // not fresh for much longer
	eventually(t, 20*time.Second, "it is answered anew", func() bool { return unanswered() == 0 })
	w.revoke(t, leaves[1], "keyCompromise")
	eventually(t, 20*time.Second, "what was revoked is answered anew", func() bool { return unanswered() == 0 })
	stop()
	w.keys.setAway(true)
	restarted := w.replica(nil)
	for i, leaf := range leaves {
		want := ocsp.Good
		if i < 2 {
			want = ocsp.Revoked
		}
		if got := restarted.status(t, root, leaf.Serial); got.Status != want {
			t.Errorf("leaf %d: status %d", i, got.Status)
		}
	}
}

// answered reports whether the store has every answer about a certificate that is signed for the time between, with a validity
// of 24 hours: for each hour, and the last one of the last half of it.
func (w *world) answered(t testing.TB, c ca.CA, serial string, from, until time.Time) bool {
	t.Helper()
	for at := from; at.Before(until); at = at.Add(time.Hour) {
		if _, err := w.store.Answer(t.Context(), c.ID, serial, crypto.SHA256, at); err != nil {
			return false
		}
	}
	last, err := w.store.Answer(t.Context(), c.ID, serial, crypto.SHA256, until.Add(-time.Second))
	return err == nil && last.NextUpdate.After(until.Add(12*time.Hour-2*time.Second))
}

func TestAnswersOfAnOutageAreReleasedOnTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf, revoked, late := w.issue(t, superuser, root.ID), w.issue(t, superuser, root.ID), w.issue(t, superuser, root.ID)
	from := w.clock.Now().Add(7*24*time.Hour + 17*time.Minute)
	until := from.Add(10 * 24 * time.Hour)
	w.revoke(t, revoked, "superseded")
	w.set(t, root, ca.RevocationPolicy{Outage: ca.Outage{From: from, Until: until}})
	stop := w.run(t)
	staged := func(serial string) bool { return w.answered(t, root, serial, from, until) }
	all := func() bool { return staged(leaf.Serial) && staged(revoked.Serial) && staged(late.Serial) }
	eventually(t, 30*time.Second, "every hour of the outage has answers", all)
	w.revoke(t, late, "keyCompromise")
	eventually(t, 30*time.Second, "they say what was revoked since", all)
	stop()

	w.keys.setAway(true)
	w.clock.advance(from.Sub(w.clock.Now()))
	restarted := w.replica(nil)
	for w.clock.Now().Before(until) {
		for serial, want := range map[string]int{leaf.Serial: ocsp.Good, revoked.Serial: ocsp.Revoked, late.Serial: ocsp.Revoked} {
			got := restarted.status(t, root, serial)
			now := w.clock.Now()
			if got.Status != want || got.ThisUpdate.After(now) || !got.NextUpdate.After(now) || got.Certificate.NotAfter.Before(now) {
				t.Fatalf("at %s: status %d, want %d, from %s to %s, responder until %s", now, got.Status, want, got.ThisUpdate, got.NextUpdate, got.Certificate.NotAfter)
			}
		}
		w.clock.advance(time.Hour)
	}
	w.clock.advance(-time.Hour)
	restarted.status(t, root, leaf.Serial)
	restarted.revoke(t, leaf, "keyCompromise")
	restarted.wantRefusal(t, root, plain(t, root, leaf.Serial), later) // what was signed ahead is not true any more
}

func TestNothingIsCertifiedInTheLastMinuteOfACA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.ValidDays = 1 })
	told, untold := w.issue(t, superuser, c.ID), w.issue(t, superuser, c.ID)
	w.clock.advance(c.NotAfter.Sub(w.clock.Now()) - 2*time.Minute)
	w.status(t, c, told.Serial)
	before := w.keys.signatures(c.KeyID)
	w.clock.advance(90 * time.Second)
	for range 3 {
		w.wantRefusal(t, c, plain(t, c, untold.Serial), unauthorized)
	}
	w.status(t, c, told.Serial) // what was signed before goes on to be valid
	if n := w.keys.signatures(c.KeyID) - before; n != 0 {
		t.Errorf("requests made the key of the CA sign %d times", n)
	}
}

func TestSigningAheadTakesNoRestFromSigning(t *testing.T) {
	t.Parallel()
	s := newStuckStore()
	w := newWorldOn(t, s)
	s.Now = w.clock.Now
	root := w.createCA(t, superuser, nil)
	var leaves []ca.Issued
	for range 40 {
		leaves = append(leaves, w.issue(t, superuser, root.ID))
	}
	w.set(t, root, ca.RevocationPolicy{Presign: true})
	s.on("KeepAnswers", func() error { time.Sleep(500 * time.Millisecond); return nil }) // a slow token
	w.run(t)
	answered := func(serial string) func() bool {
		return func() bool {
			_, err := s.Answer(t.Context(), root.ID, serial, crypto.SHA256, w.clock.Now())
			return err == nil
		}
	}
	for _, leaf := range leaves {
		eventually(t, 20*time.Second, "it is answered", answered(leaf.Serial))
	}
	w.revoke(t, leaves[0], "superseded")
	eventually(t, 5*time.Second, "it is answered anew", answered(leaves[0].Serial))
}

func TestAKeyThatDoesNotSignCostsFewSerialNumbers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	w.keys.setIdle(root.KeyID)
	for range 120 { // ten minutes
		w.wantRefusal(t, root, plain(t, root, leaf.Serial), later)
		w.clock.advance(5 * time.Second)
	}
	all, err := w.store.Responders(t.Context(), 0, 200)
	if err != nil || len(all) == 0 || len(all) > 8 {
		t.Errorf("%d reservations, %v", len(all), err)
	}
	w.keys.setIdle(nil)
	w.clock.advance(6 * time.Minute)
	w.status(t, root, leaf.Serial)
}

func TestAKeyThatCannotBeDestroyedIsNotRecordedAllTheTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	w.status(t, root, leaf.Serial)
	if err := w.DeleteCA(t.Context(), superuser, root.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.DestroyKey(t.Context(), superuser, root.ID); err != nil {
		t.Fatal(err)
	}
	r := w.responder(t, root)
	w.keys.setIdle(r.KeyID)
	before := w.count(t, audit.KeyDestroy)
	w.clock.advance(r.NotAfter.Sub(w.clock.Now()) + time.Second)
	w.run(t)
	for range 7 {
		time.Sleep(1100 * time.Millisecond) // responders are looked after
		w.clock.advance(6 * time.Second)
	}
	if n := w.count(t, audit.KeyDestroy) - before; n < 2 || n > 6 {
		t.Errorf("%d events", n)
	}
}
