package ca_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/ca/catest"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

func TestADrillLocksAndUnlocks(t *testing.T) {
	t.Parallel()
	var locks []bool
	v := newVault(t, func(c *ca.Config) { c.Hooks.Locked = func(locked bool) { locks = append(locks, locked) } })
	c := v.createCA(t, acmeAdmin, nil)
	leaf := v.issue(t, acmeAdmin, c.ID)

	v.soft.Set(evidence.Yielded, nil)
	d, err := v.Drill(t.Context(), acmeAdmin, c.ID)
	if err != nil || d.Grade != evidence.Asserted || d.Trigger != ca.OnRequest {
		t.Fatalf("%+v, %v", d, err)
	}
	if e := v.last(t, audit.CALock); *e.ResourceID != c.ID || e.Username != "alice" || !strings.Contains(e.Detail, "wrap-CKM_AES_KEY_WRAP") {
		t.Errorf("entry %+v", e)
	}
	t.Run("it certifies nothing", func(t *testing.T) {
		_, err := v.Issue(t.Context(), acmeAdmin, serverRequest(c.ID))
		wantFault(t, err, fault.Conflict, "CA 1 is locked: its key is only asserted, and drilled is needed")
		child := caRequest("Child")
		child.ParentID = &c.ID
		_, err = v.CreateCA(t.Context(), acmeAdmin, child)
		wantFault(t, err, fault.Conflict, "CA 1 is locked")
		_, err = v.SignCSR(t.Context(), acmeAdmin, ca.CSRRequest{CSR: []byte("never read"), IssuerID: &c.ID, Type: policy.Server})
		wantFault(t, err, fault.Conflict, "CA 1 is locked")
	})
	t.Run("permission comes first", func(t *testing.T) {
		_, err := v.Issue(t.Context(), rivalUser, serverRequest(c.ID))
		wantFault(t, err, fault.Forbidden, "Insufficient permissions")
	})
	t.Run("it goes on revoking", func(t *testing.T) {
		if _, err := v.Revoke(t.Context(), acmeAdmin, leaf.ID, ca.RevokeRequest{Reason: "key compromise"}); err != nil {
			t.Fatal(err)
		}
		crl, err := v.PublicList(t.Context(), ca.Slug(c.Name, c.ID), 0, false)
		if err != nil || crl.Entries != 1 {
			t.Fatalf("CRL with %d entries, %v", crl.Entries, err)
		}
	})
	t.Run("what says nothing changes nothing", func(t *testing.T) {
		v.soft.Set("", errAway)
		_, err := v.Drill(t.Context(), acmeAdmin, c.ID)
		wantFault(t, err, fault.Unavailable, "not available")
		if v.get(t, c.ID).Proof.Locked == "" {
			t.Error("unlocked")
		}
	})
	v.soft.Set(evidence.Refused, nil)
	if _, err := v.Drill(t.Context(), acmeAdmin, c.ID); err != nil {
		t.Fatal(err)
	}
	v.last(t, audit.CAUnlock)
	v.issue(t, acmeAdmin, c.ID)
	t.Run("an unclear drill does not lock", func(t *testing.T) {
		v.soft.Set(evidence.Inconclusive, nil)
		d, err := v.Drill(t.Context(), acmeAdmin, c.ID)
		if err != nil || d.Conclusive {
			t.Fatalf("%+v, %v", d, err)
		}
		if p := v.get(t, c.ID).Proof; p.Locked != "" || p.Grade != evidence.Drilled {
			t.Errorf("%+v", p)
		}
	})
	t.Run("a user may not drill, a stranger sees nothing", func(t *testing.T) {
		for _, who := range []policy.Caller{acmeUser, rivalUser, loneUser, {}} {
			_, err := v.Drill(t.Context(), who, c.ID)
			wantFault(t, err, fault.Forbidden, "Insufficient permissions")
		}
	})
	if !slices.Equal(locks, []bool{true, false}) {
		t.Errorf("hooks %v", locks)
	}
}

func TestAYieldLocksAlsoWhenTheDrillLeftSomethingBehind(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, acmeAdmin, nil)
	v.soft.Set(evidence.Yielded, nil)
	v.soft.Leave(fault.New(fault.Internal, "the drill left a key behind in the token"))
	_, err := v.Drill(t.Context(), acmeAdmin, c.ID)
	wantFault(t, err, fault.Internal, "left a key behind")
	if p := v.get(t, c.ID).Proof; p.Locked == "" || p.Grade != evidence.Asserted {
		t.Errorf("%+v", p)
	}
	v.last(t, audit.CALock)
	if drills, err := v.Drills(t.Context(), acmeAdmin, c.ID); err != nil || len(drills) != 2 {
		t.Errorf("%d drills, %v", len(drills), err)
	}
	v.soft.Set(evidence.Refused, nil)
	_, err = v.CreateCA(t.Context(), acmeAdmin, caRequest("Another"))
	wantFault(t, err, fault.Internal, "left a key behind")
	if !strings.Contains(v.last(t, audit.CAKeyRefuse).Detail, "was destroyed") {
		t.Error("the new key was left behind as well")
	}
}

func TestDrillsOnRequestDoNotQueueUpBeforeANewCA(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, acmeAdmin, nil)
	drillsBefore := v.soft.Drills()
	release := v.soft.Hold()
	const asking = 20
	refused := make(chan error, asking)
	for range asking {
		go func() {
			_, err := v.Drill(context.WithoutCancel(t.Context()), acmeAdmin, c.ID)
			refused <- err
		}()
	}
	for range asking - 2 { // one runs and one waits
		wantFault(t, <-refused, fault.Conflict, "another key drill is running")
	}
	created := make(chan error, 1)
	go func() {
		_, err := v.CreateCA(context.WithoutCancel(t.Context()), superuser, caRequest("New"))
		created <- err
	}()
	release()
	for _, err := range []error{<-refused, <-refused, <-created} {
		if err != nil {
			t.Error(err)
		}
	}
	if n := v.soft.Drills() - drillsBefore; n != 3 {
		t.Errorf("%d drills, want 3", n)
	}
}

func TestALowerGradeIsAcceptedAndWithdrawn(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, acmeAdmin, nil)
	v.soft.Set(evidence.Yielded, nil)
	if _, err := v.Drill(t.Context(), acmeAdmin, c.ID); err != nil {
		t.Fatal(err)
	}
	_, err := v.AcceptKeyGrade(t.Context(), acmeAdmin, c.ID, evidence.Asserted, "mine")
	wantFault(t, err, fault.Forbidden, "Insufficient permissions")
	_, err = v.AcceptKeyGrade(t.Context(), superuser, c.ID, evidence.Asserted, " ")
	wantFault(t, err, fault.Invalid, "reason must not be empty")
	for _, g := range []evidence.Grade{"", evidence.Exportable, evidence.Attested, "best"} {
		_, err := v.AcceptKeyGrade(t.Context(), superuser, c.ID, g, "x")
		wantFault(t, err, fault.Invalid, "grade")
	}
	c, err = v.AcceptKeyGrade(t.Context(), superuser, c.ID, evidence.Asserted, "a locked room")
	if err != nil || c.Proof.Locked != "" || c.Proof.Accepted.Reason != "a locked room" {
		t.Fatalf("%+v, %v", c.Proof, err)
	}
	v.last(t, audit.CAUnlock)
	if d := v.last(t, audit.CAKeyAccept).Detail; !strings.Contains(d, `"a locked room"`) {
		t.Errorf("detail %q", d)
	}
	v.issue(t, acmeAdmin, c.ID)
	if _, err := v.Drill(t.Context(), acmeAdmin, c.ID); err != nil || v.get(t, c.ID).Proof.Locked != "" {
		t.Errorf("locked although accepted: %v", err)
	}
	if c, err = v.AcceptKeyGrade(t.Context(), superuser, c.ID, evidence.Drilled, "a better token is coming"); err != nil || c.Proof.Locked == "" || c.Proof.Accepted.Grade != "" {
		t.Fatalf("%+v, %v", c.Proof, err)
	}
	_, err = v.Issue(t.Context(), acmeAdmin, serverRequest(c.ID))
	wantFault(t, err, fault.Conflict, "CA 1 is locked")
}

func TestAnotherGradeIsInTheTrailAlsoWhenNothingIsLocked(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, superuser, nil)
	if _, err := v.AcceptKeyGrade(t.Context(), superuser, c.ID, evidence.Asserted, "a locked room"); err != nil {
		t.Fatal(err)
	}
	v.soft.Set(evidence.Yielded, nil)
	for range 2 {
		if n, err := v.DrillAll(t.Context(), ca.OnSchedule, time.Hour); n != 1 || err != nil {
			t.Fatalf("%d drilled, %v", n, err)
		}
		v.clock.advance(2 * time.Hour)
	}
	entries, n, err := v.store.AuditLog(t.Context(), audit.Filter{Action: audit.CAKeyDrill, Limit: 2})
	if err != nil || n.N != 1 || !strings.Contains(entries[0].Detail, "grade asserted") || !strings.Contains(entries[0].Detail, "before it was drilled") {
		t.Errorf("%v entries %+v, %v", n, entries, err)
	}
}

func TestADrillIsJudgedByWhatIsAcceptedWhenItIsRecorded(t *testing.T) {
	t.Parallel()
	store := catest.New()
	v := newVault(t, func(c *ca.Config) { c.Store = store })
	v.store = store
	c := v.createCA(t, superuser, nil)
	v.soft.Set(evidence.Yielded, nil)
	meanwhile := false
	store.Fail = func(method string) error {
		if method == "ProveCA" && !meanwhile {
			meanwhile = true
			if _, err := v.AcceptKeyGrade(context.Background(), superuser, c.ID, evidence.Asserted, "meanwhile"); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	if _, err := v.Drill(t.Context(), superuser, c.ID); err != nil {
		t.Fatal(err)
	}
	if p := v.get(t, c.ID).Proof; p.Locked != "" || p.Grade != evidence.Asserted || p.Accepted.Grade != evidence.Asserted {
		t.Errorf("%+v", p)
	}
}

func TestEveryKeyIsDrilledInTheBackground(t *testing.T) {
	t.Parallel()
	var failures []string
	v := newVault(t, func(c *ca.Config) { c.Hooks.Failed = func(task string, _ error) { failures = append(failures, task) } })
	first, second := v.createCA(t, superuser, nil), v.createCA(t, superuser, nil)
	deleted := v.createCA(t, superuser, nil)
	if err := v.DeleteCA(t.Context(), superuser, deleted.ID); err != nil {
		t.Fatal(err)
	}
	all := func(want int) {
		t.Helper()
		if n, err := v.DrillAll(t.Context(), ca.OnSchedule, time.Hour); n != want || err != nil {
			t.Fatalf("%d drilled, %v; want %d", n, err, want)
		}
	}
	all(2)
	all(0)
	v.clock.advance(2 * time.Hour)
	v.soft.Set("", errors.New("CKR_DEVICE_ERROR"))
	all(0)
	if !slices.Equal(failures, []string{"drill", "drill"}) {
		t.Errorf("failures %q", failures)
	}
	v.soft.Set(evidence.Yielded, nil)
	all(2) // the failed ones were given back
	for _, id := range []int64{first.ID, second.ID} {
		if v.get(t, id).Proof.Locked == "" {
			t.Errorf("CA %d is not locked", id)
		}
	}
	if e := v.last(t, audit.CALock); e.UserID != nil || e.Username != "" {
		t.Errorf("the server itself locked: %+v", e)
	}
	drills, err := v.Drills(t.Context(), superuser, first.ID)
	if err != nil || len(drills) != 3 || drills[0].Trigger != ca.OnSchedule {
		t.Errorf("drills %+v, %v", drills, err)
	}
}

func TestADrillThatFailedAtTheStartIsMadeUpForSoon(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.createCA(t, superuser, nil)
	all := func(trigger ca.Trigger, age time.Duration, want int) {
		t.Helper()
		if n, err := v.DrillAll(t.Context(), trigger, age); n != want || err != nil {
			t.Errorf("%d drilled, %v; want %d", n, err, want)
		}
	}
	for range 2 { // never drilled in the background, and drilled an interval ago
		v.soft.Set("", errAway)
		all(ca.AtStartup, time.Minute, 0)
		v.clock.advance(time.Hour)
		v.soft.Set("", nil)
		all(ca.OnSchedule, 24*time.Hour, 1)
		v.clock.advance(25 * time.Hour)
	}
}
