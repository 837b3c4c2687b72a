package ca_test

import (
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/ca/catest"
	"signet/fault"
	"signet/policy"
)

// shelf is an archive in memory.
type shelf struct {
	mu    sync.Mutex
	files map[string]string
	full  error
}

func (s *shelf) Keep(name string, lines []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full != nil {
		return s.full
	}
	if s.files == nil {
		s.files = map[string]string{}
	}
	s.files[name] = string(lines)
	return nil
}

// records are the archived lines of a kind.
func (s *shelf) records(t *testing.T, kind string) (all []map[string]any) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range s.files {
		for line := range strings.Lines(text) {
			var record map[string]any
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatal(err)
			}
			if record["record"] == kind {
				all = append(all, record)
			}
		}
	}
	return all
}

var (
	janitor = policy.Caller{Username: "operator", Operator: true}
	forADay = ca.RetentionPolicy{Expired: ca.MinRetention}
)

// expire issues certificates for a day, revokes the first of them, and lets so much time pass that lists have shown it.
func (w *world) expire(t *testing.T, issuer int64, n int) (all []ca.Issued) {
	t.Helper()
	for range n {
		r := serverRequest(issuer)
		r.ValidDays = 1
		got, err := w.Issue(t.Context(), acmeAdmin, r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got)
	}
	if _, err := w.Revoke(t.Context(), acmeAdmin, all[0].ID, ca.RevokeRequest{Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "its list, of before it ended", func() bool {
		return len(w.crl(t, w.get(t, issuer)).RevokedCertificateEntries) == 1
	})
	w.clock.advance(3 * 24 * time.Hour)
	return all
}

func TestRetentionRemovesWhatItPlannedAndSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.createCA(t, acmeAdmin, nil)
	gone := w.expire(t, c.ID, 3)
	stays := w.issue(t, acmeAdmin, c.ID)
	if _, err := w.PlanRetention(t.Context(), acmeAdmin, forADay); !fault.Is(err, fault.Forbidden) {
		t.Errorf("an admin plans: %v", err)
	}
	if _, err := w.Retain(t.Context(), acmeAdmin, forADay, nil); !fault.Is(err, fault.Forbidden) {
		t.Errorf("an admin removes: %v", err)
	}

	// No list has shown the revoked one since it ended.
	plan, err := w.PlanRetention(t.Context(), janitor, forADay)
	if err != nil || len(plan) != 1 || plan[0].Count != 2 || plan[0].Waiting != 1 || plan[0].Valid != 2 || plan[0].Keys != 2 {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	archive := &shelf{}
	done, err := w.Retain(t.Context(), janitor, forADay, archive)
	if err != nil || len(done) != 1 || done[0].Count != 2 || done[0].CAName != c.Name {
		t.Fatalf("removed %+v, %v", done, err)
	}
	if status, err := w.store.SerialStatus(t.Context(), c.ID, gone[0].Serial); err != nil || status.Revoked == nil {
		t.Errorf("status of what no list has shown: %+v, %v", status, err)
	}
	stop := w.run(t)
	eventually(t, 10*time.Second, "a list has shown it", func() bool {
		plan, err = w.PlanRetention(t.Context(), janitor, forADay)
		return err == nil && len(plan) == 1 && plan[0].Count == 1 && plan[0].Revoked == 1
	})
	stop()
	if _, err = w.Retain(t.Context(), janitor, forADay, archive); err != nil {
		t.Fatal(err)
	}
	for _, x := range gone {
		if status, err := w.store.SerialStatus(t.Context(), c.ID, x.Serial); err != nil || status.Issued || status.Revoked != nil {
			t.Errorf("status of what was removed: %+v, %v", status, err)
		}
		if _, err := w.Certificate(t.Context(), superuser, x.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("a removed certificate: %v", err)
		}
	}
	if _, err := w.Certificate(t.Context(), acmeAdmin, stays.ID); err != nil {
		t.Error(err)
	}
	if plan, err = w.PlanRetention(t.Context(), janitor, forADay); err != nil || len(plan) != 0 {
		t.Errorf("plan afterwards: %+v, %v", plan, err)
	}

	// The archive has all of it, the private keys aside, and the trail has its hash. The organization reads both events.
	kept := archive.records(t, "certificate")
	if len(kept) != 3 {
		t.Fatalf("%d certificates are archived, want 3", len(kept))
	}
	for _, record := range kept {
		block, _ := pem.Decode([]byte(record["certificate"].(string)))
		if serial := parse(t, block.Bytes).SerialNumber.Text(16); serial != record["serial"] {
			t.Errorf("certificate with serial %s is archived as %s", serial, record["serial"])
		}
		if revoked := record["serial"] == gone[0].Serial; revoked != (record["revocation_reason"] == 1.0) || record["had_private_key"] != true {
			t.Errorf("record %v", record)
		}
	}
	entries, _, err := w.AuditLog(t.Context(), acmeAdmin, audit.Filter{Action: audit.Retention, Limit: 10})
	if err != nil || len(entries) != 2 || *entries[0].ResourceID != c.ID || entries[0].Username != "operator" {
		t.Fatalf("entries %+v, %v", entries, err)
	}
	for name, text := range archive.files {
		said := fmt.Sprintf("SHA-256 of the lines %x, archived in %s", sha256.Sum256([]byte(text)), name)
		if !strings.HasSuffix(entries[0].Detail, said) && !strings.HasSuffix(entries[1].Detail, said) {
			t.Errorf("no entry says %q: %+v", said, entries)
		}
	}
}

func TestRetentionRemovesNothingThatIsNotArchived(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.createCA(t, acmeAdmin, nil)
	w.expire(t, c.ID, 2)
	archive := &shelf{full: errors.New("no space left")}
	if done, err := w.Retain(t.Context(), janitor, forADay, archive); !errors.Is(err, archive.full) || len(done) != 0 {
		t.Errorf("removed %+v, %v", done, err)
	}
	plan, err := w.PlanRetention(t.Context(), janitor, forADay)
	if err != nil || plan[0].Count != 1 {
		t.Errorf("plan %+v, %v", plan, err)
	}
}

func TestRetentionPassesOverWhatSomebodyElseHolds(t *testing.T) {
	t.Parallel()
	m := catest.New()
	var taken error
	m.Fail = func(method string) error {
		if method == "RemoveCertificates" {
			return taken
		}
		return nil
	}
	w := newWorldOn(t, m)
	c := w.createCA(t, acmeAdmin, nil)
	w.expire(t, c.ID, 2)
	taken = fault.New(fault.Conflict, "changed")
	if done, err := w.Retain(t.Context(), janitor, forADay, nil); err != nil || len(done) != 0 {
		t.Errorf("removed %+v, %v", done, err)
	}
	taken = fault.New(fault.Unavailable, "the database is not available")
	if _, err := w.Retain(t.Context(), janitor, forADay, nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("error %v", err)
	}
	taken = nil
	if done, err := w.Retain(t.Context(), janitor, forADay, nil); err != nil || len(done) != 1 {
		t.Errorf("removed %+v, %v", done, err)
	}
	entries, _, err := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.Retention, Limit: 10})
	if err != nil || len(entries) != 1 || !strings.HasSuffix(entries[0].Detail, ", not archived") {
		t.Errorf("entries %+v, %v", entries, err)
	}
}

func TestTheTrailKeepsWhatItLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.createCA(t, acmeAdmin, nil)
	for range 1200 { // three batches
		if err := w.store.Record(t.Context(), audit.Event{Action: audit.Logout, Username: "alice"}); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.advance(2 * 24 * time.Hour)
	w.issue(t, acmeAdmin, c.ID)
	archive := &shelf{}
	for range 2 {
		if _, err := w.Retain(t.Context(), janitor, ca.RetentionPolicy{Audit: time.Minute}, archive); err != nil { // it keeps a day
			t.Fatal(err)
		}
		w.clock.advance(12 * time.Hour)
	}
	entries, _, err := w.AuditLog(t.Context(), superuser, audit.Filter{Limit: 100})
	if err != nil || len(entries) != 5 || entries[0].Action != audit.Retention || entries[4].Action != audit.CertReserve {
		t.Fatalf("entries %+v, %v", entries, err)
	}
	if n := len(archive.records(t, "audit_entry")); n < 1202 || len(archive.files) != 3 {
		t.Errorf("%d entries are archived in %d files", n, len(archive.files))
	}
}

func TestRetentionRunsInTheBackgroundOfOneReplica(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.createCA(t, acmeAdmin, nil)
	w.expire(t, c.ID, 2)
	archive := &shelf{}
	var mu sync.Mutex
	removed := map[ca.RecordKind]int{}
	r := w.replica(func(cfg *ca.Config) {
		cfg.Retention, cfg.Archive = forADay, archive
		cfg.Hooks.Removed = func(kind ca.RecordKind, n int) {
			mu.Lock()
			defer mu.Unlock()
			removed[kind] += n
		}
	})
	r.run(t)
	eventually(t, 10*time.Second, "the valid one is removed", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return removed[ca.CertificateRecords] >= 1
	})
	entries, _, err := w.AuditLog(t.Context(), superuser, audit.Filter{Action: audit.Retention, Limit: 1})
	if err != nil || len(entries) != 1 || entries[0].Username != "" || entries[0].UserID != nil {
		t.Errorf("entries %+v, %v", entries, err)
	}
}
