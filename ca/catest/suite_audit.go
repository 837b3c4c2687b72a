package catest

import (
	"fmt"
	"slices"
	"time"

	"signet/audit"
)

var auditTests = map[string]func(f fixture){
	"an event is kept as it is": func(f fixture) {
		full := event(audit.LoginFailure, audit.ResourceUser)
		full.ResourceID = ptr(int64(12))
		bare := audit.Event{Action: audit.CAExportPrivateKey}
		start := time.Now().Add(-time.Second)
		for _, want := range []audit.Event{full, bare} {
			f.ok(f.s.Record(f.Context(), want))
			all := f.events(want.Action)
			if len(all) != 1 {
				f.Fatalf("%d entries", len(all))
			}
			f.equal(all[0].Event, want)
			if all[0].CreatedAt.Before(start) || all[0].CreatedAt.Location() != time.UTC {
				f.Errorf("created at %v", all[0].CreatedAt)
			}
		}
	},
	"the newest comes first, in pages, and all are counted": func(f fixture) {
		var newest []int64
		for i := range 5 {
			f.ok(f.s.Record(f.Context(), audit.Event{Action: audit.Logout, Detail: fmt.Sprint(i)}))
			newest = slices.Insert(newest, 0, f.events("")[i].ID)
		}
		for _, c := range []struct {
			filter audit.Filter
			want   []int64
		}{
			{audit.Filter{}, []int64{}},
			{audit.Filter{Limit: 2}, newest[:2]},
			{audit.Filter{Limit: 2, Skip: 1}, newest[1:3]},
			{audit.Filter{Limit: 2, BeforeID: newest[1]}, newest[2:4]},
			{audit.Filter{Limit: 9, BeforeID: newest[1], Skip: 1}, newest[3:]},
			{audit.Filter{Limit: 9, BeforeID: newest[4]}, []int64{}},
		} {
			got, total, err := f.s.AuditLog(f.Context(), c.filter)
			f.ok(err)
			if !slices.Equal(ids(got, entryID), c.want) || total != (audit.Total{N: 5}) {
				f.Errorf("%+v: got %v of %v, want %v of 5", c.filter, ids(got, entryID), total, c.want)
			}
		}
	},
	"a filter restricts by every field": func(f fixture) {
		record := func(e audit.Event) { f.ok(f.s.Record(f.Context(), e)) }
		alice, bob, us, them, five := ptr(int64(1)), ptr(int64(2)), ptr(int64(10)), ptr(int64(20)), ptr(int64(5))
		record(audit.Event{Detail: "a", Action: audit.CertCreate, UserID: alice, OrganizationID: us, ResourceType: "certificate", ResourceID: five})
		record(audit.Event{Detail: "b", Action: audit.CertRevoke, UserID: bob, OrganizationID: us, ResourceType: "certificate", ResourceID: five})
		record(audit.Event{Detail: "c", Action: audit.CACreate, UserID: alice, OrganizationID: them, ResourceType: "ca", ResourceID: five})
		record(audit.Event{Detail: "d", Action: audit.LoginFailure})
		for _, c := range []struct {
			name   string
			filter audit.Filter
			want   string
		}{
			{"nothing", audit.Filter{}, "dcba"},
			{"action", audit.Filter{Action: audit.CertRevoke}, "b"},
			{"action nobody took", audit.Filter{Action: audit.OrgDelete}, ""},
			{"user", audit.Filter{UserID: alice}, "ca"},
			{"resource type", audit.Filter{ResourceType: "certificate"}, "ba"},
			{"resource id", audit.Filter{ResourceID: five}, "cba"},
			{"resource", audit.Filter{ResourceType: "ca", ResourceID: five}, "c"},
			{"organization", audit.Filter{OrganizationID: us}, "ba"},
			{"own", audit.Filter{OwnUserID: alice}, "ca"},
			{"organization or own", audit.Filter{OrganizationID: us, OwnUserID: alice}, "cba"},
			{"what is visible is restricted further", audit.Filter{OrganizationID: us, UserID: bob}, "b"},
			{"another's is not visible", audit.Filter{OwnUserID: alice, UserID: bob}, ""},
		} {
			c.filter.Limit = 100
			entries, total, err := f.s.AuditLog(f.Context(), c.filter)
			f.ok(err)
			got := ""
			for _, e := range entries {
				got += e.Detail
			}
			if got != c.want || total.N != int64(len(c.want)) || total.AtLeast {
				f.Errorf("%s: got %q of %v, want %q", c.name, got, total, c.want)
			}
		}
	},
	"a period includes its ends": func(f fixture) {
		f.ok(f.s.Record(f.Context(), audit.Event{Action: audit.Logout}))
		at := f.events("")[0].CreatedAt
		for _, c := range []struct {
			since, until time.Time
			want         int64
		}{
			{at, at, 1},
			{at, time.Time{}, 1},
			{time.Time{}, at, 1},
			{at.Add(time.Microsecond), time.Time{}, 0},
			{time.Time{}, at.Add(-time.Microsecond), 0},
		} {
			_, total, err := f.s.AuditLog(f.Context(), audit.Filter{Since: c.since, Until: c.until})
			f.ok(err)
			if total.N != c.want || total.AtLeast {
				f.Errorf("since %v until %v: %v, want %d", c.since, c.until, total, c.want)
			}
		}
	},
}
