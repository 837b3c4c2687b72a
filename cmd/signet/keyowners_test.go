package main

import (
	"testing"
	"time"

	"signet/ca"
)

func TestWhoseKeyItIs(t *testing.T) {
	t.Parallel()
	gone := time.Now()
	o := ownersOf(func(c ca.CA) string { return or(c.Token, "home") }, []ca.CA{
		{ID: 1, State: ca.Valid, KeyID: []byte("one"), PublicKey: []byte("public one")},
		{ID: 2, State: ca.Revoked, KeyID: []byte("two"), PublicKey: []byte("public two"), Token: "away"},
		{ID: 3, State: ca.Pending, KeyID: []byte("three")},
		{ID: 4, State: ca.Abandoned, KeyID: []byte("four"), PublicKey: []byte("public four")},
		{ID: 5, State: ca.Valid, DeletedAt: &gone, KeyDestroyedAt: &gone, KeyID: []byte("five"), PublicKey: []byte("public five")},
		{ID: 6, State: ca.Valid, KeyID: []byte("six"), PublicKey: []byte("public four")}, // took over what 4 gave up
	}, []ca.ResponderKey{
		{CAID: 2, Token: "away", ID: []byte("seven"), PublicKey: []byte("public seven"), Needed: true},
		{CAID: 5, ID: []byte("eight"), PublicKey: []byte("public eight")},
	})
	for _, tt := range []struct {
		name, token, id, public string
		use                     string
		ca                      int64
	}{
		{"its own", "home", "one", "public one", useCA, 1},
		{"on another token, as cloning leaves it", "away", "one", "public one", useClone, 1},
		{"under another CKA_ID", "home", "other", "public one", useCopy, 1},
		{"another key under the CKA_ID", "home", "one", "public other", useMismatch, 1},
		{"a key under the CKA_ID whose public half is missing", "home", "one", "", useMismatch, 1},
		{"the CKA_ID on another token says nothing", "home", "two", "public other", useUnknown, 0},
		{"of a revoked CA", "away", "two", "public two", useCA, 2},
		{"of a CA that is being made", "home", "three", "public three", useCA, 3},
		{"of a CA that was given up", "home", "four", "public other", useLeftover, 4},
		{"a CA in use comes before one that was given up", "home", "six", "public four", useCA, 6},
		{"a clone of a destroyed key", "away", "five", "public five", useLeftover, 5},
		{"of an OCSP responder", "away", "seven", "public seven", useResponder, 2},
		{"of an OCSP responder that has ended", "home", "eight", "public eight", useLeftover, 5},
		{"nobody's", "home", "none", "public none", useUnknown, 0},
		{"nobody's, without public half", "home", "none", "", useUnknown, 0},
	} {
		use, owner := o.identify(tt.token, []byte(tt.id), []byte(tt.public))
		var id int64
		if owner != nil {
			id = owner.ID
		}
		if use != tt.use || id != tt.ca {
			t.Errorf("%s: %s of CA %d, want %s of CA %d", tt.name, use, id, tt.use, tt.ca)
		}
	}

	found := []ownedKey{{Use: useCA, CA: &keyOwner{ID: 1}}, {Use: useMismatch, CA: &keyOwner{ID: 6}}}
	if missing := o.missing("home", found); len(missing) != 1 || missing[0].CA.ID != 6 {
		t.Errorf("missing at home: %+v", missing)
	}
	if missing := o.missing("away", nil); len(missing) != 1 || missing[0].CA.ID != 2 {
		t.Errorf("missing away: %+v", missing)
	}
}

func FuzzKeyID(f *testing.F) {
	for _, text := range []string{"", "1a", "1A:02", "1a0", "::", "zz"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var id keyID
		if err := id.UnmarshalText(text); err == nil && (len(id) == 0 || len(id) > maxKeyID || 2*len(id) > len(text)) {
			t.Errorf("%q is %x", text, []byte(id))
		}
	})
}
