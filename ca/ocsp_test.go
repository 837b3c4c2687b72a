package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"signet/audit"
	"signet/ca"
	"signet/ca/catest"
	"signet/fault"
	"signet/policy"
)

// The statuses of a refused request (RFC 6960, section 4.2.1).
const (
	malformed    = 1
	later        = 3
	unauthorized = 6
)

func slugOf(c ca.CA) string { return ca.Slug(c.Name, c.ID) }

// certID names a certificate of a CA, as package ocsp writes it.
func certID(t testing.TB, c ca.CA, serial string, hash crypto.Hash) ca.CertID {
	t.Helper()
	number, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		t.Fatalf("serial %q", serial)
	}
	issuer, err := x509.ParseCertificate(c.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: number}, issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ocsp.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	// OCSPRequest, TBSRequest, requestList and Request each have a header of two octets.
	return ca.CertID{Hash: hash, NameHash: parsed.IssuerNameHash, KeyHash: parsed.IssuerKeyHash, Serial: serial, DER: der[8:]}
}

func plain(t testing.TB, c ca.CA, serial string) ca.StatusRequest {
	return ca.StatusRequest{IDs: []ca.CertID{certID(t, c, serial, crypto.SHA256)}, Client: "192.0.2.1"}
}

// verified parses an answer about one certificate and checks that the CA stands behind it.
func verified(t testing.TB, c ca.CA, a ca.StatusAnswer, serial string) *ocsp.Response {
	t.Helper()
	number, _ := new(big.Int).SetString(serial, 16)
	r, err := ocsp.ParseResponseForCert(a.DER, &x509.Certificate{SerialNumber: number}, parse(t, c.Certificate))
	if err != nil {
		t.Fatalf("parse response: %v", err)
	}
	return r
}

func (w *world) ask(t testing.TB, c ca.CA, r ca.StatusRequest) ca.StatusAnswer {
	t.Helper()
	a, err := w.Status(t.Context(), slugOf(c), r)
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	return a
}

// status asks about one certificate without nonce.
func (w *world) status(t testing.TB, c ca.CA, serial string) *ocsp.Response {
	t.Helper()
	return verified(t, c, w.ask(t, c, plain(t, c, serial)), serial)
}

// wantRefusal checks that there is no answer, and the status instead.
func (w *world) wantRefusal(t testing.TB, c ca.CA, r ca.StatusRequest, status int) {
	t.Helper()
	_, err := w.Status(t.Context(), slugOf(c), r)
	var refused *ca.OCSPRefusal
	if !errors.As(err, &refused) || refused.Status != status || (refused.RetryAfter > 0) != (status == later) {
		t.Errorf("error is %v, want a refusal with status %d", err, status)
	}
}

func (w *world) responder(t testing.TB, c ca.CA) ca.Responder {
	t.Helper()
	r, err := w.store.LatestResponder(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// signed is how often the responder of a CA has signed.
func (w *world) signed(t testing.TB, c ca.CA) int { return w.keys.signatures(w.responder(t, c).KeyID) }

// stored waits until the store has an answer.
func (w *world) stored(t testing.TB, c ca.CA, serial string) {
	t.Helper()
	eventually(t, 5*time.Second, "an answer is stored", func() bool {
		_, err := w.store.Answer(t.Context(), c.ID, serial, crypto.SHA256, w.clock.Now())
		return err == nil
	})
}

func TestStatusTellsWhatBecameOfACertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	good, revoked, held, released := w.issue(t, superuser, root.ID), w.issue(t, superuser, root.ID), w.issue(t, superuser, root.ID), w.issue(t, superuser, root.ID)
	w.revoke(t, revoked, "keyCompromise")
	w.revoke(t, held, "certificateHold")
	w.revoke(t, released, "certificateHold")
	if _, err := w.Release(t.Context(), superuser, released.ID, "found again"); err != nil {
		t.Fatal(err)
	}
	const pending = "abc1"
	now := w.clock.Now()
	_, err := w.store.Reserve(t.Context(), ca.Certificate{
		IssuerID: root.ID, Serial: pending, Type: policy.Server, NotBefore: now, NotAfter: now.AddDate(1, 0, 0), CreatedAt: now,
	}, audit.Event{Action: audit.CertReserve})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.status(t, root, pending); got.Status != ocsp.Unknown {
		t.Errorf("pending: status %d", got.Status)
	}
	if _, err := w.Reconcile(t.Context(), w.clock.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	child := w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN, r.ParentID = "Child", "CN=Child", &root.ID })
	w.issue(t, superuser, child.ID)
	w.clock.advance(time.Hour) // what was answered before is not fresh any more

	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		for _, tt := range []struct {
			name, serial   string
			status, reason int
		}{
			{"good", good.Serial, ocsp.Good, 0},
			{"revoked", revoked.Serial, ocsp.Revoked, ocsp.KeyCompromise},
			{"held", held.Serial, ocsp.Revoked, ocsp.CertificateHold},
			{"released", released.Serial, ocsp.Good, 0},
			{"abandoned", pending, ocsp.Revoked, 0},
			{"never issued", "4711", ocsp.Unknown, 0},
			{"a CA", child.Serial, ocsp.Good, 0},
			{"the root itself", root.Serial, ocsp.Good, 0},
			{"the responder", w.responder(t, root).Serial, ocsp.Good, 0},
		} {
			a := w.ask(t, root, ca.StatusRequest{IDs: []ca.CertID{certID(t, root, tt.serial, hash)}})
			r := verified(t, root, a, tt.serial)
			if r.Status != tt.status || r.RevocationReason != tt.reason || r.IssuerHash != hash {
				t.Errorf("%s: status %d, reason %d, hash %v", tt.name, r.Status, r.RevocationReason, r.IssuerHash)
			}
			if tt.status == ocsp.Revoked && r.RevokedAt.IsZero() {
				t.Errorf("%s: no time of revocation", tt.name)
			}
			if !r.ThisUpdate.Equal(a.ThisUpdate) || !r.NextUpdate.Equal(a.NextUpdate) || a.NextUpdate.Sub(a.ThisUpdate) != 24*time.Hour {
				t.Errorf("%s: answer is from %s to %s, the response from %s to %s", tt.name, a.ThisUpdate, a.NextUpdate, r.ThisUpdate, r.NextUpdate)
			}
			half := a.ThisUpdate.Add(12 * time.Hour)
			if tt.status == ocsp.Unknown {
				half = a.ThisUpdate.Add(time.Minute)
			}
			if !a.FreshUntil.Equal(half) || a.ETag == "" {
				t.Errorf("%s: fresh until %s, ETag %s", tt.name, a.FreshUntil, a.ETag)
			}
		}
	}
	if err := w.DeleteCA(t.Context(), superuser, child.ID); err != nil {
		t.Fatal(err)
	}
	if got := w.status(t, child, "4711"); got.Status != ocsp.Unknown {
		t.Errorf("deleted CA: status %d", got.Status)
	}
}

func TestStatusRefusesWhatItCannotAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	other := w.createCA(t, superuser, func(r *ca.CreateCARequest) { r.Name, r.SubjectDN = "Other", "CN=Other" })
	leaf := w.issue(t, superuser, root.ID)
	id := certID(t, root, leaf.Serial, crypto.SHA256)
	with := func(change func(*ca.CertID)) ca.CertID { c := id; change(&c); return c }
	for name, tt := range map[string]struct {
		r    ca.StatusRequest
		want int
	}{
		"nothing":                 {ca.StatusRequest{}, malformed},
		"too many certIDs":        {ca.StatusRequest{IDs: slices.Repeat([]ca.CertID{id}, 101)}, malformed},
		"an empty nonce":          {ca.StatusRequest{IDs: []ca.CertID{id}, Nonce: []byte{}}, malformed},
		"a long nonce":            {ca.StatusRequest{IDs: []ca.CertID{id}, Nonce: make([]byte, 129)}, malformed},
		"another CA":              {plain(t, other, leaf.Serial), unauthorized},
		"another CA among others": {ca.StatusRequest{IDs: []ca.CertID{id, certID(t, other, leaf.Serial, crypto.SHA256)}}, unauthorized},
		"another name":            {ca.StatusRequest{IDs: []ca.CertID{with(func(c *ca.CertID) { c.NameHash = make([]byte, 32) })}}, unauthorized},
		"another key":             {ca.StatusRequest{IDs: []ca.CertID{with(func(c *ca.CertID) { c.KeyHash = make([]byte, 32) })}}, unauthorized},
		"the hash of another":     {ca.StatusRequest{IDs: []ca.CertID{with(func(c *ca.CertID) { c.Hash = crypto.SHA1 })}}, unauthorized},
		"a hash that is unknown":  {ca.StatusRequest{IDs: []ca.CertID{with(func(c *ca.CertID) { c.Hash = 0 })}}, unauthorized},
		"a serial that is none":   {ca.StatusRequest{IDs: []ca.CertID{with(func(c *ca.CertID) { c.Serial = "x" })}}, malformed},
	} {
		t.Run(name, func(t *testing.T) { w.wantRefusal(t, root, tt.r, tt.want) })
	}
	for _, slug := range []string{"", "acme-root", "acme-root-99", "another-name-1"} {
		_, err := w.Status(t.Context(), slug, plain(t, root, leaf.Serial))
		wantFault(t, err, fault.NotFound, "CA not found")
	}
}

func TestSeveralCertificatesAndNoncesGetAnAnswerOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	good, revoked := w.issue(t, superuser, root.ID), w.issue(t, superuser, root.ID)
	w.revoke(t, revoked, "superseded")
	r := ca.StatusRequest{
		IDs:   []ca.CertID{certID(t, root, good.Serial, crypto.SHA1), certID(t, root, revoked.Serial, crypto.SHA256), certID(t, root, "4711", crypto.SHA1)},
		Nonce: bytes.Repeat([]byte("n"), 128),
	}
	a := w.ask(t, root, r)
	if a.ETag != "" || a.FreshUntil.After(w.clock.Now()) {
		t.Errorf("a cache may keep it: ETag %s, fresh until %s", a.ETag, a.FreshUntil)
	}
	for _, id := range r.IDs {
		if !bytes.Contains(a.DER, id.DER) {
			t.Errorf("certID %x is not echoed", id.DER)
		}
	}
	if !bytes.Contains(a.DER, r.Nonce) {
		t.Error("the nonce is not echoed")
	}
	if got := verified(t, root, a, revoked.Serial); got.Status != ocsp.Revoked || got.RevocationReason != ocsp.Superseded {
		t.Errorf("status %d, reason %d", got.Status, got.RevocationReason)
	}
	before := w.signed(t, root)
	for i := range 3 {
		single := ca.StatusRequest{IDs: r.IDs[:1], Nonce: []byte{byte(i)}}
		if got := verified(t, root, w.ask(t, root, single), good.Serial); got.Status != ocsp.Good {
			t.Errorf("status %d", got.Status)
		}
	}
	if n := w.signed(t, root) - before; n != 3 {
		t.Errorf("%d signatures for 3 nonces", n)
	}
}

func TestAnonymousRequestsCostOneSignature(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	r := plain(t, root, leaf.Serial)
	var all sync.Map
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 50 {
				a, err := w.Status(t.Context(), slugOf(root), r)
				if err != nil {
					t.Error(err)
					return
				}
				all.Store(string(a.DER), true)
			}
		})
	}
	wg.Wait()
	if n := w.signed(t, root); n != 1 {
		t.Errorf("%d signatures", n)
	}
	n := 0
	all.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d different answers", n)
	}

	// Another replica, or this one after a restart, finds it.
	w.stored(t, root, leaf.Serial)
	w.replica(nil).ask(t, root, r)
	if n := w.signed(t, root); n != 1 {
		t.Errorf("%d signatures after a restart", n)
	}
	// Half of its validity later there is a new one, for all.
	w.clock.advance(12 * time.Hour)
	first := w.ask(t, root, r)
	w.stored(t, root, leaf.Serial)
	second := w.ask(t, root, r)
	if n := w.signed(t, root); n != 2 || !bytes.Equal(first.DER, second.DER) || !first.ThisUpdate.Equal(w.clock.Now()) {
		t.Errorf("%d signatures; the answer is of %s", n, first.ThisUpdate)
	}
}

func TestAFloodIsBoundedAndIssuanceGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t).replica(func(c *ca.Config) {
		c.OCSP.ClientRate, c.OCSP.ClientBurst, c.OCSP.Signers = 1, 5, 1
	})
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	w.status(t, root, leaf.Serial)
	before := w.signed(t, root)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				r := plain(t, root, leaf.Serial)
				r.Client = fmt.Sprint("192.0.2.", client)
				if i%2 == 0 {
					r.Nonce = []byte{byte(i), byte(i >> 8)}
				} else {
					r.IDs[0] = certID(t, root, fmt.Sprintf("1%x%04x", client, i), crypto.SHA256)
				}
				_, err := w.Status(t.Context(), slugOf(root), r)
				var refused *ca.OCSPRefusal
				if err != nil && (!errors.As(err, &refused) || refused.Status != later) {
					t.Errorf("error is %v", err)
				}
			}
		})
	}
	for range 20 {
		w.issue(t, superuser, root.ID)
	}
	stop()
	wg.Wait()
	if n := w.signed(t, root) - before; n > 8*5 {
		t.Errorf("8 clients caused %d signatures, and 5 each are allowed", n)
	}
	r := plain(t, root, leaf.Serial)
	r.Nonce, r.Client = []byte("once more"), "198.51.100.1"
	w.ask(t, root, r) // another client has a budget of its own
	r.Client = "192.0.2.7"
	for range 5 { // what the flood left of its budget
		_, _ = w.Status(t.Context(), slugOf(root), r)
	}
	w.wantRefusal(t, root, r, later)
	w.clock.advance(time.Second)
	w.ask(t, root, r)
	w.wantRefusal(t, root, r, later)
	w.clock.advance(time.Hour)
	for range 5 {
		w.ask(t, root, r)
	}
	w.wantRefusal(t, root, r, later)
}

func TestNoAnswerIsGoodAfterARevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(t)
	other := w.replica(nil)
	other.run(t)
	root := w.createCA(t, superuser, nil)
	for round := range 5 {
		leaf := w.issue(t, superuser, root.ID)
		r := plain(t, root, leaf.Serial)
		var revoked, visible sync.Map // a time, once it is so
		var wg sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		for i := range 8 {
			asked, replica := &revoked, w
			if i%2 == 1 {
				asked, replica = &visible, other
			}
			wg.Go(func() {
				for ctx.Err() == nil {
					_, over := asked.Load("over")
					a, err := replica.Status(t.Context(), slugOf(root), r)
					if err != nil {
						t.Error(err)
						return
					}
					if got := verified(t, root, a, leaf.Serial); over && got.Status != ocsp.Revoked {
						t.Errorf("round %d: status %d after the revocation", round, got.Status)
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(round) * 3 * time.Millisecond)
		w.revoke(t, leaf, "keyCompromise")
		revoked.Store("over", true)
		time.Sleep(time.Second)
		visible.Store("over", true)
		time.Sleep(50 * time.Millisecond)
		stop()
		wg.Wait()
	}
}

func TestAnswersGoOnWhileTheTokenIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf, unasked, revoked := w.issue(t, superuser, root.ID), w.issue(t, superuser, root.ID), w.issue(t, superuser, root.ID)
	w.status(t, root, leaf.Serial)
	w.status(t, root, revoked.Serial)
	w.stored(t, root, leaf.Serial)
	w.stored(t, root, revoked.Serial)
	w.keys.setAway(true)
	restarted := w.replica(nil)
	for _, after := range []time.Duration{0, 11 * time.Hour, 12*time.Hour + 59*time.Minute} { // beyond half of the validity too
		w.clock.advance(after)
		for _, replica := range []*world{w, restarted} {
			if got := replica.status(t, root, leaf.Serial); got.Status != ocsp.Good {
				t.Errorf("status %d", got.Status)
			}
			replica.wantRefusal(t, root, plain(t, root, unasked.Serial), later)
		}
	}
	w.revoke(t, revoked, "superseded")
	w.wantRefusal(t, root, plain(t, root, revoked.Serial), later) // never what it was before
	third := w.replica(nil)
	third.wantRefusal(t, root, plain(t, root, revoked.Serial), later)
	w.clock.advance(time.Minute)
	w.wantRefusal(t, root, plain(t, root, leaf.Serial), later)

	w.keys.setAway(false)
	w.clock.advance(10 * time.Second)
	for serial, want := range map[string]int{leaf.Serial: ocsp.Good, unasked.Serial: ocsp.Good, revoked.Serial: ocsp.Revoked} {
		if got := w.status(t, root, serial); got.Status != want {
			t.Errorf("status %d, want %d", got.Status, want)
		}
	}
}

func TestRespondersNameThemselvesAsThePolicySays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	other := w.replica(nil)
	w.run(t)
	other.run(t)
	for _, byName := range []bool{false, true, false} {
		w.set(t, root, ca.RevocationPolicy{ByName: byName})
		for _, replica := range []*world{w, other} {
			eventually(t, 5*time.Second, fmt.Sprintf("the responder is named by name: %t", byName), func() bool {
				got := replica.status(t, root, leaf.Serial)
				return len(got.RawResponderName) > 0 == byName && len(got.ResponderKeyHash) > 0 != byName
			})
		}
	}
}

func TestADatabaseThatFailsIsNoAnswer(t *testing.T) {
	t.Parallel()
	memory := catest.New()
	var mu sync.Mutex
	var failing string
	memory.Fail = func(method string) error {
		mu.Lock()
		defer mu.Unlock()
		if method == failing {
			return &fault.Error{Code: fault.Unavailable, Message: "the database is not available"}
		}
		return nil
	}
	fail := func(method string) { mu.Lock(); defer mu.Unlock(); failing = method }
	w := newWorldOn(t, memory)
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	for _, method := range []string{"PublicCA", "RevocationPolicy", "SerialStatus", "Answer", "LatestResponder", "Lease", "ReserveResponder", "CompleteResponder"} {
		fail(method)
		w.clock.advance(10 * time.Second)
		w.wantRefusal(t, root, plain(t, root, leaf.Serial), later)
		fail("")
	}
	w.clock.advance(10 * time.Second)
	w.status(t, root, leaf.Serial)
	fail("SerialStatus")
	w.clock.advance(23 * time.Hour)
	w.status(t, root, leaf.Serial)
}

func TestHooksCountAnswers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var outcomes []string
	var certified []int64
	w := newWorld(t).replica(func(c *ca.Config) {
		c.Hooks.Answered = func(outcome string) { mu.Lock(); defer mu.Unlock(); outcomes = append(outcomes, outcome) }
		c.Hooks.Responder = func(id int64, notAfter time.Time) { mu.Lock(); defer mu.Unlock(); certified = append(certified, id) }
	})
	root := w.createCA(t, superuser, nil)
	leaf := w.issue(t, superuser, root.ID)
	w.status(t, root, leaf.Serial)
	w.status(t, root, leaf.Serial)
	w.status(t, root, "4711")
	w.wantRefusal(t, root, ca.StatusRequest{}, malformed)
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(outcomes, " "); got != "signed cached unknown refused" || !slices.Equal(certified, []int64{root.ID}) {
		t.Errorf("outcomes are %s; responders of %v", got, certified)
	}
}

// slowStore looks nothing up until its gate opens.
type slowStore struct {
	ca.Store
	gate chan struct{}
}

func (s *slowStore) SerialStatus(ctx context.Context, caID int64, serial string) (ca.SerialStatus, error) {
	select {
	case <-s.gate:
		return s.Store.SerialStatus(ctx, caID, serial)
	case <-ctx.Done():
		return ca.SerialStatus{}, ctx.Err()
	}
}

func TestClientsThatGoAwayLeaveLittleWorkBehind(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	root := first.createCA(t, superuser, nil)
	leaf := first.issue(t, superuser, root.ID)
	s := &slowStore{first.store, make(chan struct{})}
	w := first.replica(func(c *ca.Config) { c.Store = s })
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	r := plain(t, root, leaf.Serial)
	before := runtime.NumGoroutine()
	w.Status(t.Context(), slugOf(root), ca.StatusRequest{}) // learns of the CA
	for i := range 20_000 {
		made := r
		made.IDs = []ca.CertID{r.IDs[0]}
		made.IDs[0].Serial = fmt.Sprintf("%x", 1<<40+i)
		w.Status(gone, slugOf(root), made)
	}
	if n := runtime.NumGoroutine() - before; n > 6000 { // other tests have some too
		t.Errorf("%d goroutines work for nobody", n)
	}
	start := time.Now()
	w.wantRefusal(t, root, r, later)
	if took := time.Since(start); took > time.Second {
		t.Errorf("it was refused after %s", took)
	}
	close(s.gate)
	eventually(t, 10*time.Second, "answers are made again", func() bool {
		_, err := w.Status(t.Context(), slugOf(root), r)
		return err == nil
	})
}
