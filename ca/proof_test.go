package ca_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/ca/catest"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

// vault is an authority on two tokens in memory, whose keys and drills tests decide.
type vault struct {
	*world
	soft *catest.Keys
}

func newVault(t testing.TB, change ...func(*ca.Config)) *vault {
	t.Helper()
	store := catest.New()
	v := &vault{world: &world{store: store, clock: &clock{now: time.Now().UTC().Truncate(time.Second)}}, soft: catest.NewKeys("main", "spare")}
	store.Now = v.clock.Now
	cfg := ca.Config{
		Store: v.store, Keys: v.soft, PublicURL: "http://pki.example", Now: v.clock.Now,
		CRLValidity: 7 * 24 * time.Hour, CRLRefresh: 24 * time.Hour, Version: "test",
	}
	for _, f := range change {
		f(&cfg)
	}
	v.Authority = ca.New(cfg)
	return v
}

func caRequest(name string) ca.CreateCARequest {
	return ca.CreateCARequest{Name: name, SubjectDN: "CN=" + name, Key: policy.KeySpec{Type: policy.EC, Size: 256}, ValidDays: 30}
}

// last is the newest entry of the trail with this action.
func (w *world) last(t *testing.T, action audit.Action) audit.Entry {
	t.Helper()
	entries, _, err := w.store.AuditLog(t.Context(), audit.Filter{Action: action, Limit: 1})
	if err != nil || len(entries) != 1 {
		t.Fatalf("no %s in the trail: %v", action, err)
	}
	return entries[0]
}

func (w *world) get(t *testing.T, id int64) ca.CA {
	t.Helper()
	c, err := w.store.PublicCA(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestANewKeyIsDrilledBeforeItSigns(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, acmeAdmin, func(r *ca.CreateCARequest) { r.Token = "spare" })
	if c.Token != "spare" || c.Proof.Grade != evidence.Drilled || c.Proof.Locked != "" || !v.soft.Has("spare", c.KeyID) {
		t.Fatalf("%+v", c)
	}
	drills, err := v.Drills(t.Context(), acmeUser, c.ID)
	if err != nil || len(drills) != 1 || drills[0].Trigger != ca.AtCreation || !drills[0].Conclusive || len(drills[0].Attacks) != 3 {
		t.Fatalf("drills %+v, %v", drills, err)
	}
	if byDefault := v.createCA(t, acmeAdmin, nil); byDefault.Token != "main" || v.TokenOf(ca.CA{}) != "main" {
		t.Fatalf("token %q", byDefault.Token)
	}
	_, err = v.Drills(t.Context(), rivalUser, c.ID)
	wantFault(t, err, fault.Forbidden, "Insufficient permissions")
}

func TestAKeyThatYieldsSignsNothing(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.soft.Set(evidence.Yielded, nil)
	_, err := v.CreateCA(t.Context(), acmeAdmin, caRequest("Leaky"))
	for _, part := range []string{"only asserted", "wrap-CKM_AES_KEY_WRAP (C_WrapKey)", "destroyed again", `accept_key_grade "asserted"`} {
		wantFault(t, err, fault.Conflict, part)
	}
	e := v.last(t, audit.CAKeyRefuse)
	if *e.ResourceID != 1 || e.Username != "alice" || !strings.Contains(e.Detail, "was destroyed") {
		t.Errorf("entry %+v", e)
	}
	if _, n, _ := v.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CACreate, Limit: 1}); n.N != 0 {
		t.Error("a CA was created")
	}
	if n, err := v.Reconcile(t.Context(), v.clock.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("the announcement was left open: %d, %v", n, err)
	}
}

func TestAKeyThatCannotBeExaminedSignsNothing(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		outcome evidence.Outcome
		failure error
		code    fault.Code
		message string
	}{
		{"the token goes away", "", errAway, fault.Unavailable, "not available"},
		{"an attack has no clear end", evidence.Inconclusive, nil, fault.Conflict, "inconclusive: CKR_DEVICE_ERROR"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			v := newVault(t)
			v.soft.Set(row.outcome, row.failure)
			_, err := v.CreateCA(t.Context(), superuser, caRequest("Unclear"))
			wantFault(t, err, row.code, row.message)
			if _, n, _ := v.CAs(t.Context(), superuser, ca.Page{Limit: 1}); n != 0 {
				t.Error("there is a CA")
			}
			if !strings.Contains(v.last(t, audit.CAKeyRefuse).Detail, "was destroyed") {
				t.Error("the key was left behind")
			}
		})
	}
}

func TestACreationThatFailsBeforeItSignsLeavesNoKeyBehind(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"ProveCA", "ReserveCA"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			store := catest.New()
			v := newVault(t, func(c *ca.Config) { c.Store = store })
			v.store = store
			store.Fail = func(called string) error {
				if called == method {
					return fault.New(fault.Conflict, "CA 7 is locked")
				}
				return nil
			}
			_, err := v.CreateCA(t.Context(), superuser, caRequest("Unlucky"))
			wantFault(t, err, fault.Conflict, "CA 7 is locked")
			if keys := v.soft.Count(); keys != 0 {
				t.Errorf("%d keys are left in the token", keys)
			}
			if n, err := v.Reconcile(t.Context(), v.clock.Now().Add(time.Hour)); n != 0 || err != nil {
				t.Errorf("the announcement was left open: %d, %v", n, err)
			}
		})
	}
}

func TestAKeyWhoseTimeIsOverIsDestroyedAllTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVault(t)
		v.soft.Set("", errAway)
		time.AfterFunc(time.Hour, v.soft.Hold()) // a token that is slower than any creation may be
		_, err := v.CreateCA(t.Context(), superuser, caRequest("Slow"))
		wantFault(t, err, fault.Unavailable, "not available")
		if keys := v.soft.Count(); keys != 0 {
			t.Errorf("%d keys are left in the token", keys)
		}
		if !strings.Contains(v.last(t, audit.CAKeyRefuse).Detail, "was destroyed") {
			t.Error("the announcement was left open")
		}
	})
}

func TestAcceptanceAtCreation(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.soft.Set(evidence.Yielded, nil)
	request := func(g evidence.Grade) ca.CreateCARequest {
		r := caRequest("Accepted")
		r.AcceptKeyGrade = g
		return r
	}
	_, err := v.CreateCA(t.Context(), acmeAdmin, request(evidence.Asserted))
	wantFault(t, err, fault.Forbidden, "Insufficient permissions")
	_, err = v.CreateCA(t.Context(), superuser, request(evidence.Exportable))
	wantFault(t, err, fault.Invalid, `"exportable" cannot be accepted`)
	unknown := caRequest("Elsewhere")
	unknown.Token = "nowhere"
	_, err = v.CreateCA(t.Context(), superuser, unknown)
	wantFault(t, err, fault.Invalid, `token "nowhere" is not configured: there is main, spare`)

	c, err := v.CreateCA(t.Context(), superuser, request(evidence.Asserted))
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Proof; p.Grade != evidence.Asserted || p.Locked != "" || p.Accepted.Grade != evidence.Asserted || p.Accepted.By != "root" {
		t.Errorf("%+v", p)
	}
	if d := v.last(t, audit.CACreate).Detail; !strings.Contains(d, "a key of grade asserted was accepted") {
		t.Errorf("detail %q", d)
	}
	v.issue(t, superuser, c.ID)
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, acmeAdmin, nil)
	document, err := v.KeyEvidence(t.Context(), acmeUser, c.ID, "nonce-1", ca.EvidenceJSON)
	if err != nil || !json.Valid(document) {
		t.Fatalf("%s, %v", document, err)
	}
	for _, part := range []string{"nonce-1", "CKA_NEVER_EXTRACTABLE", "wrap-CKM_AES_KEY_WRAP", "CKM_ECDSA", c.Name} {
		if !strings.Contains(string(document), part) {
			t.Errorf("no %s in %s", part, document)
		}
	}
	if e := v.last(t, audit.CAKeyEvidence); *e.ResourceID != c.ID || e.Username != "bob" || !strings.Contains(e.Detail, "nonce-1") {
		t.Errorf("entry %+v", e)
	}
	if der, err := v.KeyEvidence(t.Context(), acmeUser, c.ID, "", ca.EvidenceDER); err != nil || len(der) == 0 {
		t.Errorf("DER: %v", err)
	}
	for nonce, message := range map[string]string{strings.Repeat("n", 65): "64 characters", "a\nb": "printable ASCII"} {
		_, err := v.KeyEvidence(t.Context(), acmeUser, c.ID, nonce, ca.EvidenceJSON)
		wantFault(t, err, fault.Invalid, message)
	}
	_, err = v.KeyEvidence(t.Context(), acmeUser, c.ID, "", "xml")
	wantFault(t, err, fault.Invalid, "format")
	_, err = v.KeyEvidence(t.Context(), rivalUser, c.ID, "", ca.EvidenceJSON)
	wantFault(t, err, fault.Forbidden, "Insufficient permissions")
	v.soft.SetAway(true)
	_, err = v.KeyEvidence(t.Context(), acmeUser, c.ID, "", ca.EvidenceJSON)
	wantFault(t, err, fault.Unavailable, "not available")
}

func TestTheKeyOfACAThatEndedIsDestroyed(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, acmeAdmin, nil)
	v.issue(t, acmeAdmin, c.ID)
	operator := policy.Caller{Username: "operator", Operator: true}
	_, err := v.DestroyKey(t.Context(), operator, c.ID)
	wantFault(t, err, fault.Conflict, "in use")
	if err := v.DeleteCA(t.Context(), acmeAdmin, c.ID); err != nil {
		t.Fatal(err)
	}
	_, err = v.DestroyKey(t.Context(), acmeAdmin, c.ID)
	wantFault(t, err, fault.Forbidden, "Insufficient permissions")

	v.soft.SetStuck(true)
	if _, err := v.DestroyKey(t.Context(), operator, c.ID); err == nil || !strings.Contains(err.Error(), "still has the key") {
		t.Fatalf("a token that kept the key: %v", err)
	}
	if d := v.last(t, audit.CAKeyDestroy).Detail; !strings.HasPrefix(d, "key was not destroyed") {
		t.Errorf("detail %q", d)
	}
	v.soft.SetStuck(false)
	got, err := v.DestroyKey(t.Context(), operator, c.ID)
	if err != nil || got.KeyDestroyedAt == nil || v.soft.Has("main", c.KeyID) {
		t.Fatalf("%+v, %v", got, err)
	}
	entries, _, _ := v.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.CAKeyDestroy, Limit: 2})
	if !strings.HasPrefix(entries[0].Detail, "key destroyed") || !strings.HasPrefix(entries[1].Detail, "key is to be destroyed") || entries[0].Username != "operator" {
		t.Errorf("entries %+v", entries)
	}
	v.clock.advance(6*24*time.Hour + time.Hour) // its CRL would be due
	if kept, err := v.store.ListScopes(t.Context(), v.clock.Now()); err != nil || len(kept) != 0 {
		t.Errorf("lists to keep up: %v, %v", kept, err)
	}
	_, err = v.DestroyKey(t.Context(), operator, c.ID)
	wantFault(t, err, fault.Conflict, "the key of CA 1 was destroyed")
}

func TestAnInterruptedDestructionIsFinished(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, superuser, nil)
	if err := v.DeleteCA(t.Context(), superuser, c.ID); err != nil {
		t.Fatal(err)
	}
	if err := v.soft.Destroy(t.Context(), "main", c.KeyID); err != nil {
		t.Fatal(err)
	}
	if _, err := v.DestroyKey(t.Context(), superuser, c.ID); err != nil {
		t.Fatal(err)
	}
	if d := v.last(t, audit.CAKeyDestroy).Detail; !strings.HasPrefix(d, "key was gone already") {
		t.Errorf("detail %q", d)
	}
}

func TestACloneIsDestroyedTooAndAStrangerIsNot(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	deleted := func() ca.CA {
		c := v.createCA(t, superuser, nil)
		if err := v.DeleteCA(t.Context(), superuser, c.ID); err != nil {
			t.Fatal(err)
		}
		return c
	}
	cloned := deleted()
	v.soft.Clone("main", "spare", cloned.KeyID)
	if _, err := v.DestroyKey(t.Context(), superuser, cloned.ID); err != nil || v.soft.Has("main", cloned.KeyID) || v.soft.Has("spare", cloned.KeyID) {
		t.Errorf("the clone is left, or %v", err)
	}
	if d := v.last(t, audit.CAKeyDestroy).Detail; !strings.HasPrefix(d, "key destroyed; the tokens main, spare have it no more") {
		t.Errorf("detail %q", d)
	}

	beside := deleted()
	v.soft.Put("spare", beside.KeyID, nil)
	if _, err := v.DestroyKey(t.Context(), superuser, beside.ID); err != nil || v.soft.Has("main", beside.KeyID) || !v.soft.Has("spare", beside.KeyID) {
		t.Errorf("another key elsewhere was destroyed, or %v", err)
	}

	replaced := deleted()
	v.soft.Put("main", replaced.KeyID, nil)
	_, err := v.DestroyKey(t.Context(), superuser, replaced.ID)
	wantFault(t, err, fault.Conflict, "another key under the CKA_ID")
	if !v.soft.Has("main", replaced.KeyID) || v.get(t, replaced.ID).KeyDestroyedAt != nil {
		t.Error("another key was destroyed")
	}
}
