package ca_test

import (
	"strings"
	"testing"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

func TestALeftoverIsDestroyedOnTheRecord(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	operator := policy.Caller{Username: "operator", Operator: true}
	v.soft.Put("spare", foreignKey, exporting)
	_, err := v.DestroyLeftover(t.Context(), acmeAdmin, "spare", foreignKey)
	wantFault(t, err, fault.Forbidden, "Insufficient permissions")
	_, err = v.DestroyLeftover(t.Context(), operator, "", foreignKey)
	wantFault(t, err, fault.NotFound, "")
	_, err = v.DestroyLeftover(t.Context(), operator, "nowhere", foreignKey)
	wantFault(t, err, fault.Invalid, "not configured")

	v.soft.SetStuck(true)
	if _, err := v.DestroyLeftover(t.Context(), operator, "spare", foreignKey); err == nil || !strings.Contains(err.Error(), "still has the key") {
		t.Fatalf("a token that kept the key: %v", err)
	}
	if d := v.last(t, audit.KeyDestroy).Detail; !strings.HasPrefix(d, "key was not destroyed") {
		t.Errorf("detail %q", d)
	}
	v.soft.SetStuck(false)
	result, err := v.DestroyLeftover(t.Context(), operator, "spare", foreignKey)
	if err != nil || result != "key destroyed; the token has it no more" || v.soft.Has("spare", foreignKey) {
		t.Fatalf("%q, %v", result, err)
	}
	entries, _, _ := v.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.KeyDestroy, Limit: 2})
	if !strings.HasPrefix(entries[0].Detail, "key destroyed") || !strings.HasPrefix(entries[1].Detail, "key that is no CA's is to be destroyed") || entries[0].Username != "operator" {
		t.Errorf("entries %+v", entries)
	}
}

func TestTheKeyOfACAIsNoLeftover(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	c := v.createCA(t, superuser, nil)
	refused := func(when string) {
		t.Helper()
		_, err := v.DestroyLeftover(t.Context(), superuser, "main", c.KeyID)
		wantFault(t, err, fault.Conflict, "is that of CA 1")
		if !v.soft.Has("main", c.KeyID) {
			t.Errorf("%s: the key is gone", when)
		}
	}
	refused("in use")
	if err := v.DeleteCA(t.Context(), superuser, c.ID); err != nil {
		t.Fatal(err)
	}
	refused("deleted")
	if _, err := v.DestroyKey(t.Context(), superuser, c.ID); err != nil {
		t.Fatal(err)
	}
	v.soft.Put("main", c.KeyID, bornHere) // something under the id of a key that is gone
	if _, err := v.DestroyLeftover(t.Context(), superuser, "main", c.KeyID); err != nil {
		t.Error(err)
	}

	// A CA that is being made has a CKA_ID before it has a key.
	pending, err := v.store.CreateCA(t.Context(), ca.CA{Name: "Pending", KeyID: foreignKey}, audit.Event{Action: audit.CAReserve})
	if err != nil {
		t.Fatal(err)
	}
	v.soft.Put("main", foreignKey, bornHere)
	_, err = v.DestroyLeftover(t.Context(), superuser, "", foreignKey)
	wantFault(t, err, fault.Conflict, "is that of CA 2")
	if err := v.store.AbandonCA(t.Context(), pending.ID, ca.Revocation{At: v.clock.Now()}, audit.Event{Action: audit.CAAbandon}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.DestroyLeftover(t.Context(), superuser, "", foreignKey); err != nil {
		t.Errorf("of a CA that was given up: %v", err)
	}
}
