package ca_test

import (
	"strings"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

func TestSetRevocationPolicyRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	now := w.clock.Now()
	for _, tt := range []struct {
		name string
		p    ca.RevocationPolicy
		want string
	}{
		{"a validity of seconds", ca.RevocationPolicy{CRLValidity: time.Minute}, "crl_validity must be from 10m0s to"},
		{"a negative validity", ca.RevocationPolicy{CRLValidity: -time.Hour}, "crl_validity must be from"},
		{"fractions", ca.RevocationPolicy{CRLValidity: 240*time.Hour + time.Millisecond}, "crl_validity must be whole seconds"},
		{"no time left between refresh and overlap", ca.RevocationPolicy{CRLValidity: 48 * time.Hour}, "crl_refresh (24h0m0s) and crl_overlap (24h0m0s) together must be shorter than crl_validity (48h0m0s)"},
		{"an overlap without end", ca.RevocationPolicy{CRLOverlap: 200 * time.Hour}, "together must be shorter than crl_validity (168h0m0s)"},
		{"fewer shards than none", ca.RevocationPolicy{Shards: -1}, "crl_shards must be from 0 to 1024"},
		{"too many shards", ca.RevocationPolicy{Shards: ca.MaxShards + 1}, "crl_shards must be from 0 to 1024"},
		{"answers of seconds", ca.RevocationPolicy{OCSPValidity: time.Second}, "ocsp_validity must be from 5m0s to 720h0m0s"},
		{"answers of months", ca.RevocationPolicy{OCSPValidity: 800 * time.Hour}, "ocsp_validity must be from"},
		{"an outage that ends before it begins", ca.RevocationPolicy{Outage: ca.Outage{From: now.Add(2 * time.Hour), Until: now.Add(time.Hour)}}, "the outage must end after it begins"},
		{"an outage without beginning", ca.RevocationPolicy{Outage: ca.Outage{Until: now.Add(time.Hour)}}, "the outage must end after it begins"},
		{"an outage that is over", ca.RevocationPolicy{Outage: ca.Outage{From: now.Add(-2 * time.Hour), Until: now}}, "the outage must end in the future"},
		{"an endless outage", ca.RevocationPolicy{Outage: ca.Outage{From: now, Until: now.Add(91 * 24 * time.Hour)}}, "the outage must be at most 90 days long"},
		{"an outage beyond the CA", ca.RevocationPolicy{Outage: ca.Outage{From: root.NotAfter, Until: root.NotAfter.Add(time.Second)}}, "the outage must end before the CA expires"},
		{"an outage with too many lists", ca.RevocationPolicy{
			CRLValidity: time.Hour, CRLRefresh: time.Minute, CRLOverlap: 30 * time.Minute,
			Outage: ca.Outage{From: now, Until: now.Add(89 * 24 * time.Hour)}}, "more than 400 lists would be signed ahead, one each 30m0s"},
		{"every reason", ca.RevocationPolicy{Shards: -1, OCSPValidity: 1}, "ocsp_validity must be whole seconds; crl_shards must be"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.SetRevocationPolicy(t.Context(), superuser, root.ID, tt.p)
			wantFault(t, err, fault.Invalid, tt.want)
		})
	}
	_, err := w.SetRevocationPolicy(t.Context(), superuser, 99, ca.RevocationPolicy{})
	wantFault(t, err, fault.NotFound, "")
	_, err = w.SetRevocationPolicy(t.Context(), acmeUser, root.ID, ca.RevocationPolicy{})
	wantFault(t, err, fault.Forbidden, "")
	_, err = w.RevocationPolicy(t.Context(), rivalUser, root.ID)
	wantFault(t, err, fault.Forbidden, "")
	_, _, err = w.Lists(t.Context(), rivalUser, root.ID, ca.Page{Limit: 1})
	wantFault(t, err, fault.Forbidden, "")
	if got, err := w.RevocationPolicy(t.Context(), acmeUser, root.ID); err != nil || got != (ca.RevocationPolicy{}) {
		t.Errorf("%+v, %v after refusals", got, err)
	}
}

func TestARevocationPolicyIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	want := ca.RevocationPolicy{
		CRLValidity: 10 * time.Hour, CRLOverlap: time.Hour, CRLRefresh: 2 * time.Hour, Shards: 2, Delta: true, ByName: true, Presign: true,
		Outage: ca.Outage{From: w.clock.Now().Add(time.Hour), Until: w.clock.Now().Add(2 * time.Hour)},
	}
	stored, err := w.SetRevocationPolicy(t.Context(), acmeAdmin, root.ID, want)
	want.UpdatedAt = w.clock.Now()
	if err != nil || stored != want {
		t.Fatalf("%+v, %v", stored, err)
	}
	got, err := w.RevocationPolicy(t.Context(), acmeUser, root.ID)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	want.OCSPValidity = 24 * time.Hour
	if got := w.Effective(got); got != want {
		t.Errorf("in effect is %+v", got)
	}
	e := w.last(t, audit.CASetPolicy)
	for _, word := range []string{"validity 10h0m0s", "refresh 2h0m0s", "2 shards", "deltas", "by name", "signed ahead", "outage from "} {
		if !strings.Contains(e.Detail, word) {
			t.Errorf("detail %q lacks %q", e.Detail, word)
		}
	}
	list := w.list(t, root, 2, false)
	if !list.NextUpdate.Equal(w.clock.Now().Add(10 * time.Hour)) {
		t.Errorf("a list ends at %s", list.NextUpdate)
	}
}

func TestWhatWasPublishedIsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.createCA(t, acmeAdmin, nil)
	for range 3 {
		w.clock.advance(time.Minute)
		w.revoke(t, w.issue(t, acmeAdmin, root.ID), "")
		w.crl(t, root)
	}
	page, total, err := w.Lists(t.Context(), acmeUser, root.ID, ca.Page{Skip: 1, Limit: 2})
	if err != nil || total != 4 || len(page) != 2 || page[0].Number != 3 || page[1].Number != 2 {
		t.Fatalf("%d of %d lists: %+v, %v", len(page), total, page, err)
	}
	if l := page[0]; l.Entries != 2 || l.Size == 0 || len(l.SHA256) != 32 || l.DER != nil || l.State != ca.ListPublished ||
		!l.NextUpdate.Equal(l.ThisUpdate.Add(7*24*time.Hour)) {
		t.Errorf("%+v", l)
	}
}
