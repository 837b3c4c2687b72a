package ca_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"signet/audit"
	"signet/ca"
	"signet/ca/catest"
	"signet/fault"
	"signet/keystore"
	"signet/policy"
)

// operator acts beside the server and has no account.
var operator = policy.Caller{Username: "signet token rotate-kek", Role: policy.RoleSuperuser}

// kekKeys is the token of a world. Tests may take it away after some secrets.
type kekKeys struct {
	*keystore.Token
	left   int // secrets that may be sealed; negative: no limit
	broken int // so many come out with a flipped bit
}

func (k *kekKeys) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	if k.left == 0 {
		return nil, errAway
	}
	k.left--
	sealed, err := k.Token.Seal(ctx, plaintext, aad)
	if err == nil && k.broken > 0 {
		k.broken--
		sealed[len(sealed)-1] ^= 1
	}
	return sealed, err
}

func (k *kekKeys) SealedUnder(sealed []byte) ([]byte, error) { return keystore.SealedUnder(sealed) }

// sealedWorld has some certificates whose keys are kept, and one whose key is not.
func sealedWorld(t *testing.T, n int) (*world, *kekKeys, []ca.Issued) {
	t.Helper()
	w := newWorld(t)
	root := w.createCA(t, superuser, nil)
	var all []ca.Issued
	for range n {
		all = append(all, w.issue(t, superuser, root.ID))
	}
	r := serverRequest(root.ID)
	r.KeepKey = false
	if _, err := w.Issue(t.Context(), superuser, r); err != nil {
		t.Fatal(err)
	}
	return w, &kekKeys{Token: w.keys.token, left: -1}, all
}

// exports checks that the keys are the ones that were handed out.
func (w *world) exports(t *testing.T, all []ca.Issued) {
	t.Helper()
	for _, c := range all {
		if _, key, err := w.PrivateKey(t.Context(), superuser, c.ID); err != nil || string(key) != string(c.PrivateKeyPEM) {
			t.Errorf("the key of certificate %d is another one, %v", c.ID, err)
		}
	}
}

func (w *world) details(t *testing.T, action audit.Action) (details []string) {
	t.Helper()
	entries, _, err := w.AuditLog(t.Context(), superuser, audit.Filter{Action: action, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Username != operator.Username || e.UserID != nil {
			t.Errorf("%s was done by %q (%v)", action, e.Username, e.UserID)
		}
		details = append(details, e.Detail)
	}
	return details
}

func (w *world) reseal(t *testing.T, keys ca.KeyEncryptionKeys, current, resealed, failed int) ca.Resealed {
	t.Helper()
	got, err := w.Reseal(t.Context(), operator, keys)
	if err != nil || got.Current != current || got.Resealed != resealed || got.Failed != failed {
		t.Fatalf("resealed %+v, %v; want %d, %d and %d", got, err, current, resealed, failed)
	}
	return got
}

func TestResealKeepsEveryKey(t *testing.T) {
	t.Parallel()
	w, keys, all := sealedWorld(t, 205) // three pages
	w.reseal(t, keys, 205, 0, 0)
	old, err := keys.CurrentKEK(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next, err := w.RotateKEK(t.Context(), operator, keys)
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, w.DestroyKEK(t.Context(), operator, keys, old), fault.Conflict, "205 private keys are sealed under")
	w.reseal(t, keys, 0, 205, 0)
	w.reseal(t, keys, 205, 0, 0)
	if count, err := w.SealedUnder(t.Context(), operator, keys); err != nil || len(count) != 1 || count[hex.EncodeToString(next)] != 205 {
		t.Errorf("keys by key-encryption key: %v, %v", count, err)
	}
	if err := w.DestroyKEK(t.Context(), operator, keys, old); err != nil {
		t.Fatal(err)
	}
	w.exports(t, all[:3])
	w.exports(t, all[203:])
	for action, want := range map[audit.Action][]string{ // newest first
		audit.KEKRotate:  {fmt.Sprintf("%x seals from now on", next), "about to make"},
		audit.KEKDestroy: {fmt.Sprintf("%x is destroyed", old), fmt.Sprintf("about to destroy key-encryption key %x", old)},
		audit.KeyReseal:  {"keys of 5 certificates", "keys of 100 certificates anew (ids 101 to 200)", "keys of 100 certificates anew (ids 1 to 100)"},
	} {
		got := w.details(t, action)
		if len(got) != len(want) {
			t.Errorf("%s: %q", action, got)
			continue
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: %q, want %q", action, got[i], want[i])
			}
		}
	}
}

func TestResealKeepsTheOldFormOfWhatTheTokenSealsWrong(t *testing.T) {
	t.Parallel()
	w, keys, all := sealedWorld(t, 4)
	if _, err := w.RotateKEK(t.Context(), operator, keys); err != nil {
		t.Fatal(err)
	}
	keys.broken = 1
	got := w.reseal(t, keys, 0, 3, 1)
	if len(got.Reasons) != 1 || !strings.Contains(got.Reasons[0].Error(), "the old form is kept") {
		t.Errorf("reasons %v", got.Reasons)
	}
	w.exports(t, all)
	w.reseal(t, keys, 3, 1, 0)
	w.exports(t, all)
}

func TestResealContinuesAfterAnOutage(t *testing.T) {
	t.Parallel()
	w, keys, all := sealedWorld(t, 105)
	if _, err := w.RotateKEK(t.Context(), operator, keys); err != nil {
		t.Fatal(err)
	}
	keys.left = 102
	got, err := w.Reseal(t.Context(), operator, keys)
	if !fault.Is(err, fault.Unavailable) || got.Resealed != 100 {
		t.Errorf("with the token away after 102 keys: %+v, %v", got, err)
	}
	w.exports(t, all[98:])
	keys.left = -1
	w.reseal(t, keys, 100, 5, 0)
	w.exports(t, all[98:])
}

func TestResealReadsAPageAgainThatSomebodyChanged(t *testing.T) {
	t.Parallel()
	w, keys, all := sealedWorld(t, 3)
	next, err := w.RotateKEK(t.Context(), operator, keys)
	if err != nil {
		t.Fatal(err)
	}
	store, inside := w.store.(*catest.Memory), false
	store.Fail = func(method string) error {
		if method == "ReplaceSealedKeys" && !inside {
			inside = true // another run is faster
			w.reseal(t, keys, 0, 3, 0)
		}
		return nil
	}
	w.reseal(t, keys, 3, 0, 0)
	store.Fail = nil
	w.exports(t, all)
	if got := w.details(t, audit.KeyReseal); len(got) != 1 || !strings.HasSuffix(got[0], fmt.Sprintf("%x", next)) {
		t.Errorf("events %q", got)
	}
}

func TestResealCountsWhatItCannotOpen(t *testing.T) {
	t.Parallel()
	w, keys, all := sealedWorld(t, 3)
	sealed, err := w.store.SealedKeys(t.Context(), 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	// A stranger with write access puts one key in the place of another, and rubbish in a third place.
	if err := w.store.ReplaceSealedKeys(t.Context(), []ca.KeyReplacement{
		{CertificateID: 1, Old: sealed[0].Sealed, New: sealed[1].Sealed}, {CertificateID: 3, Old: sealed[2].Sealed, New: []byte("rubbish")},
	}, audit.Event{}); err != nil {
		t.Fatal(err)
	}
	old, err := keys.CurrentKEK(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.RotateKEK(t.Context(), operator, keys); err != nil {
		t.Fatal(err)
	}
	got := w.reseal(t, keys, 0, 1, 2)
	if len(got.Reasons) != 2 || !strings.Contains(got.Reasons[1].Error(), "certificate 3:") {
		t.Errorf("reasons %v", got.Reasons)
	}
	w.exports(t, all[1:2])
	wantFault(t, w.DestroyKEK(t.Context(), operator, keys, old), fault.Conflict, "1 private keys are sealed under")
}

func TestAKeyOfAnotherCertificateIsNotExported(t *testing.T) {
	t.Parallel()
	w, keys, _ := sealedWorld(t, 2)
	sealed, err := w.store.SealedKeys(t.Context(), 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	place := func(k ca.SealedKey) []byte { return fmt.Appendf(nil, "certificate-key/%d/%s", k.IssuerID, k.Serial) }
	other, err := keys.Unseal(t.Context(), sealed[1].Sealed, place(sealed[1]))
	if err != nil {
		t.Fatal(err)
	}
	forged, err := keys.Seal(t.Context(), other, place(sealed[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.ReplaceSealedKeys(t.Context(), []ca.KeyReplacement{{CertificateID: 1, Old: sealed[0].Sealed, New: forged}}, audit.Event{}); err != nil {
		t.Fatal(err)
	}
	if _, key, err := w.PrivateKey(t.Context(), superuser, 1); err == nil || key != nil {
		t.Errorf("exported %s, %v", key, err)
	}
}

func TestOnlyTheOperatorRotates(t *testing.T) {
	t.Parallel()
	w, keys, _ := sealedWorld(t, 1)
	for name, caller := range map[string]policy.Caller{"an admin": acmeAdmin, "a user": loneUser, "nobody": {}} {
		_, rotate := w.RotateKEK(t.Context(), caller, keys)
		_, reseal := w.Reseal(t.Context(), caller, keys)
		_, count := w.SealedUnder(t.Context(), caller, keys)
		for what, err := range map[string]error{"rotate": rotate, "reseal": reseal, "count": count, "destroy": w.DestroyKEK(t.Context(), caller, keys, []byte("id"))} {
			if !fault.Is(err, fault.Forbidden) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
	if err := w.DestroyKEK(t.Context(), operator, keys, []byte("none")); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("destroy what does not exist: %v", err)
	}
}
