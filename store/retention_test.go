package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/store"
)

// The trail lets go of entries in the transaction that says which, and of no others. The entries have the ids from 1 on; those
// of a CA are three.
func TestTheTrailLetsGoOfNothingButWhatWasAnnounced(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		validCA(t, db)
		if err := db.Record(t.Context(), audit.Event{Action: audit.Retention, Detail: "removed"}); err != nil {
			t.Fatal(err)
		}
		later, young := time.Now().Add(90*24*time.Hour), time.Now().Add(-time.Hour)
		tomorrow := time.Now().Add(24 * time.Hour)
		for _, test := range []struct {
			name       string
			statements []string
		}{
			{"without an announcement", []string{"DELETE FROM audit_log WHERE id = 1"}},
			{"outside the range", []string{db.CutSQL("audit_log", 1, 1, 1, later, tomorrow), "DELETE FROM audit_log WHERE id = 2"}},
			{"more than the range", []string{db.CutSQL("audit_log", 1, 2, 2, later, tomorrow), "DELETE FROM audit_log WHERE id <= 3"}},
			{"younger than it says", []string{db.CutSQL("audit_log", 1, 1, 1, later, young), "DELETE FROM audit_log WHERE id = 1"}},
			{"an entry that tells of a removal", []string{db.CutSQL("audit_log", 1, 9, 1, later, tomorrow), "DELETE FROM audit_log WHERE action = 'retention'"}},
			{"announced as something else", []string{db.CutSQL("crls", 1, 1, 1, later, tomorrow), "DELETE FROM audit_log WHERE id = 1"}},
			{"changed instead", []string{db.CutSQL("audit_log", 1, 1, 1, later, tomorrow), "UPDATE audit_log SET detail = '' WHERE id = 1"}},
		} {
			err := db.ExecAll(test.statements...)
			if err == nil || !strings.Contains(err.Error(), "audit_log is append-only") {
				t.Errorf("%s: error is %v", test.name, err)
			}
		}
		if err := db.ExecAll(db.CutSQL("audit_log", 1, 1, 1, time.Now(), young)); err == nil {
			t.Error("what was written an hour ago may be announced")
		}

		// An announcement is good for its own transaction.
		entries, err := db.OldEntries(t.Context(), tomorrow, ca.RecordPlace{}, 2)
		if err != nil {
			t.Fatal(err)
		}
		cut := ca.Cut{Kind: ca.AuditRecords, First: 1, Last: 2, Count: 2, At: later, Before: tomorrow, SHA256: make([]byte, 32)}
		if err := db.RemoveEntries(t.Context(), cut, entries, audit.Event{Action: audit.Retention}); err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{"DELETE FROM audit_log WHERE id = 3", "UPDATE audit_log SET detail = ''"} {
			if err := db.Exec(statement); err == nil || !strings.Contains(err.Error(), "audit_log is append-only") {
				t.Errorf("%s: error is %v", statement, err)
			}
		}
		for _, statement := range []string{"DELETE FROM retention_cuts", "UPDATE retention_cuts SET count = 1"} {
			if err := db.Exec(statement); err == nil || !strings.Contains(err.Error(), "retention_cuts is append-only") {
				t.Errorf("%s: error is %v", statement, err)
			}
		}
		left, _, err := db.AuditLog(t.Context(), audit.Filter{Limit: 10})
		if err != nil || len(left) != 3 || left[2].ID != 3 {
			t.Errorf("entries are %+v, %v", left, err)
		}
	})
}

func TestOnPostgreSQLTheTrailCannotBeTruncated(t *testing.T) {
	t.Parallel()
	db := open(t, store.Config{URL: databases["PostgreSQL"](t)})
	for _, table := range []string{"audit_log", "retention_cuts"} {
		if err := db.Exec("TRUNCATE " + table); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: error is %v", table, err)
		}
	}
}

// Counters stay exact while certificates are removed, revoked and issued at the same time.
func TestCertificatesAreCountedAsTheyAreRemoved(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		ctx, issuer := context.Background(), validCA(t, db)
		ended := time.Now().Add(-48 * time.Hour)
		issue := func() int64 {
			t.Helper()
			c := draft(issuer)
			c.NotBefore, c.NotAfter = ended.Add(-time.Hour), ended
			id, err := db.Reserve(ctx, c, reserved)
			if err == nil {
				_, err = db.Complete(ctx, id, []byte("certificate"), nil, audit.Event{Action: audit.CertCreate})
			}
			if err != nil {
				t.Error(err)
			}
			return id
		}
		for range 40 {
			issue()
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 40 {
				if id := issue(); i%2 == 0 {
					// It may be gone by then.
					_, _ = db.Revoke(ctx, id, ca.Revocation{At: time.Now()}, nil, audit.Event{Action: audit.CertRevoke})
				}
			}
		}()
		removed := 0
		for busy := true; busy; {
			select {
			case <-done:
				busy = false
			default:
			}
			now := time.Now()
			all, err := db.ExpiredCertificates(ctx, issuer, now, now.Add(-25*time.Hour), ca.RecordPlace{}, 7)
			if err != nil {
				t.Fatal(err)
			}
			if len(all) == 0 {
				continue
			}
			cut := ca.Cut{Kind: ca.CertificateRecords, CAID: issuer, First: all[0].ID, Last: all[len(all)-1].ID, Count: len(all), At: now,
				Before: now.Add(-25 * time.Hour), SHA256: make([]byte, 32)}
			if err := db.RemoveCertificates(ctx, cut, all, audit.Event{Action: audit.Retention}); err == nil {
				removed += len(all)
			}
		}
		db.CheckCounts(t)
		if removed < 20 {
			t.Errorf("only %d were removed", removed)
		}
	})
}
