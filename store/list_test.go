package store_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/store"
)

// octets are such as do not compress.
func octets(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// publish completes the next list of a CA.
func publish(t *testing.T, db *store.DB, caID int64, at time.Time, der []byte) ca.List {
	t.Helper()
	l, err := db.BeginList(t.Context(), ca.ListScope{CAID: caID}, at)
	if err != nil {
		t.Fatal(err)
	}
	l.ThisUpdate, l.NextUpdate, l.DER = at, at.AddDate(0, 0, 7), der
	if err := db.CompleteLists(t.Context(), []ca.List{l}, audit.Event{Action: audit.CRLPublish, ResourceType: audit.ResourceCA}); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAListThatIsDamagedInTheDatabaseIsNotServed(t *testing.T) {
	damage := map[string]string{
		"a chunk is missing":     "DELETE FROM crl_chunks WHERE ca_id = %d AND part = 1",
		"every chunk is missing": "DELETE FROM crl_chunks WHERE ca_id = %d",
		"the last is missing":    "DELETE FROM crl_chunks WHERE ca_id = %d AND part = 2",
		"chunks are exchanged":   "UPDATE crl_chunks SET data = (SELECT data FROM crl_chunks c WHERE c.ca_id = crl_chunks.ca_id AND c.part = 1 - crl_chunks.part) WHERE ca_id = %d AND part < 2",
		"a chunk is far away":    "UPDATE crl_chunks SET part = 2147483647 WHERE ca_id = %d AND part = 2",
		"it is said to be short": "UPDATE crls SET size = 7 WHERE ca_id = %d",
		"it is said to be long":  "UPDATE crls SET size = size + 1 WHERE ca_id = %d",
	}
	onEach(t, func(t *testing.T, db *store.DB) {
		now, der := time.Now(), octets(2<<20+100)
		for name, statement := range damage {
			id := validCA(t, db)
			publish(t, db, id, now, der)
			l, _, err := db.CurrentList(t.Context(), ca.ListScope{CAID: id}, now)
			if err != nil || !bytes.Equal(l.DER, der) {
				t.Fatalf("%s: before, list %d has %d octets, %v", name, l.Number, len(l.DER), err)
			}
			if err := db.Exec(fmt.Sprintf(statement, id)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			l, _, err = db.CurrentList(t.Context(), ca.ListScope{CAID: id}, now)
			want := fmt.Sprintf("list 1 of CA %d is damaged", id)
			if err == nil || fault.CodeOf(err) != fault.Internal || !strings.Contains(err.Error(), want) || l.DER != nil {
				t.Errorf("%s: error is %v, want %q; %d octets", name, err, want, len(l.DER))
			}
		}
	})
}

func TestOctetsOfListsThatNobodyAsksForAreDropped(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		now, der := time.Now(), octets(1<<20+1) // two chunks
		id, other := validCA(t, db), validCA(t, db)
		publish(t, db, other, now, der)
		for n := range 4 {
			publish(t, db, id, now.Add(time.Duration(n-10)*time.Second), der)
		}
		if n := db.Chunks(t, id); n != 4 {
			t.Errorf("%d chunks of the last two lists", n)
		}
		for n := range 3 {
			publish(t, db, id, now.AddDate(0, 0, 1+n), der)
		}
		if n := db.Chunks(t, id); n != 10 {
			t.Errorf("%d chunks of them and of three to come", n)
		}
		publish(t, db, id, now, der)
		if n := db.Chunks(t, id); n != 4 {
			t.Errorf("%d chunks once those to come are withdrawn", n)
		}
		if n := db.Chunks(t, other); n != 2 {
			t.Errorf("%d chunks of the other CA", n)
		}
	})
}
