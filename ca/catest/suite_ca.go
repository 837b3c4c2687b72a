package catest

import (
	"context"
	"errors"
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

var createCATests = map[string]func(f fixture){
	"assigns ids that start at 1 and are recorded": func(f fixture) {
		first, second := f.pending(f.plan(nil)), f.pending(f.plan(nil))
		f.equal([]int64{first.ID, second.ID}, []int64{1, 2})
		f.recorded(audit.CAReserve, audit.ResourceCA, second.ID)
	},
	"keeps every field": func(f fixture) {
		root := f.root()
		want := f.plan(&root.ID)
		got := f.make(want)
		if got.Certificate == nil || got.PublicKey == nil || got.Serial == "" || got.UpdatedAt.Before(now) {
			f.Errorf("incomplete: %+v", got)
		}
		want.ID, want.State, want.UpdatedAt = got.ID, ca.Valid, got.UpdatedAt
		want.Certificate, want.PublicKey, want.Serial = []byte("certificate"), got.PublicKey, got.Serial
		f.equal(got, want)
		found, err := f.s.CA(f.Context(), got.ID)
		f.ok(err)
		f.equal(found, want)
	},
	"keeps what is absent absent": func(f fixture) {
		plan := f.plan(nil)
		plan.Description, plan.PathLength, plan.CRLBaseURL, plan.OrganizationID, plan.CreatedBy = nil, nil, nil, nil, nil
		plan.AllowLeafCerts = false
		made := f.make(plan)
		got, err := f.s.CA(f.Context(), made.ID)
		f.ok(err)
		f.equal(got, made)
		if got.Description != nil || got.PathLength != nil || got.CRLBaseURL != nil || got.OrganizationID != nil || got.CreatedBy != nil ||
			got.ParentID != nil || got.DeletedAt != nil || got.AllowLeafCerts || got.Revocation != (ca.Revocation{}) {
			f.Errorf("something appeared: %+v", got)
		}
	},
	"makes a pending CA, whatever the record says": func(f fixture) {
		plan := f.plan(nil)
		plan.State, plan.Certificate, plan.Serial = ca.Valid, []byte("forged"), "1"
		c := f.pending(plan)
		if c.State != ca.Pending || c.Certificate != nil || c.Serial != "" {
			f.Errorf("got %+v", c)
		}
	},
	"reservation stores what the certificate will say": func(f fixture) {
		c := f.pending(f.plan(nil))
		r := f.reservation(c)
		r.SubjectDN, r.ValidDays, r.PathLength = "CN=Other", 10, ptr(0)
		r.NotBefore, r.NotAfter = now.Add(time.Hour), now.Add(48*time.Hour)
		f.ok(f.reserveCA(r))
		f.recorded(audit.CAReserve, audit.ResourceCA, c.ID)
		got, err := f.completeCA(c.ID)
		f.ok(err)
		f.recorded(audit.CACreate, audit.ResourceCA, c.ID)
		want := r
		want.State, want.TBS, want.Certificate, want.UpdatedAt = ca.Valid, nil, []byte("certificate"), got.UpdatedAt
		f.equal(got, want)
	},
	"completion of a child closes its parent to leaves": func(f fixture) {
		root := f.root()
		f.child(root)
		got, err := f.s.CA(f.Context(), root.ID)
		f.ok(err)
		if got.AllowLeafCerts {
			f.Error("the parent still allows leaf certificates")
		}
	},
	"a child that is only reserved leaves its parent open": func(f fixture) {
		root := f.root()
		f.ok(f.reserveCA(f.reservation(f.pending(f.plan(&root.ID)))))
		got, err := f.s.CA(f.Context(), root.ID)
		f.ok(err)
		if !got.AllowLeafCerts {
			f.Error("the parent does not allow leaf certificates")
		}
	},
	"a parent that does not exist is not found": func(f fixture) {
		f.silent(func() {
			_, err := f.s.CreateCA(f.Context(), f.plan(ptr(int64(99))), event(audit.CAReserve, audit.ResourceCA))
			f.refused(err, fault.NotFound, "CA not found")
		})
	},
	"a CA is reserved once": func(f fixture) {
		c := f.pending(f.plan(nil))
		f.ok(f.reserveCA(f.reservation(c)))
		f.silent(func() {
			f.refused(f.reserveCA(f.reservation(c)), fault.Conflict, "CA is not pending, or already reserved")
		})
	},
	"a CA is completed once": func(f fixture) {
		c := f.root()
		f.silent(func() {
			_, err := f.completeCA(c.ID)
			f.refused(err, fault.Conflict, "CA is not reserved, or already completed")
		})
	},
	"a CA without reservation is not completed": func(f fixture) {
		c := f.pending(f.plan(nil))
		f.silent(func() {
			_, err := f.completeCA(c.ID)
			f.refused(err, fault.Conflict, "CA is not reserved, or already completed")
			_, err = f.completeCA(99)
			f.refused(err, fault.Conflict, "CA is not reserved, or already completed")
		})
	},
	"an abandoned CA is neither reserved nor completed": func(f fixture) {
		fresh, reserved := f.pending(f.plan(nil)), f.pending(f.plan(nil))
		f.ok(f.reserveCA(f.reservation(reserved)))
		_, err := f.s.Abandon(f.Context(), now.Add(time.Hour), now)
		f.ok(err)
		f.refused(f.reserveCA(f.reservation(fresh)), fault.Conflict, "CA is not pending, or already reserved")
		_, err = f.completeCA(reserved.ID)
		f.refused(err, fault.Conflict, "CA is not reserved, or already completed")
	},
	"a revoked parent refuses the reservation": func(f fixture) {
		middle := f.child(f.root())
		c := f.pending(f.plan(&middle.ID))
		_, err := f.revokeCA(middle.ID, keyLost)
		f.ok(err)
		f.silent(func() {
			f.refused(f.reserveCA(f.reservation(c)), fault.Conflict, "CA 2 is revoked or deleted")
		})
		_, err = f.completeCA(c.ID)
		f.refused(err, fault.Conflict, "CA is not reserved, or already completed")
	},
	"a deleted parent refuses the reservation": func(f fixture) {
		root := f.root()
		f.ok(f.deleteCA(root.ID))
		c := f.pending(f.plan(&root.ID))
		f.refused(f.reserveCA(f.reservation(c)), fault.Conflict, "CA 1 is revoked or deleted")
	},
	"a serial is used once below one parent": func(f fixture) {
		root := f.root()
		leaf := f.issue(f.leaf(root))
		sibling := f.child(root)
		for _, serial := range []string{leaf.Serial, sibling.Serial} {
			c := f.reservation(f.pending(f.plan(&root.ID)))
			c.Serial = serial
			f.silent(func() { f.refused(f.reserveCA(c), fault.Conflict, "Serial number is already in use") })
		}
	},
	"a key belongs to one CA": func(f fixture) {
		root := f.root()
		c := f.reservation(f.pending(f.plan(nil)))
		c.PublicKey = root.PublicKey
		f.silent(func() { f.refused(f.reserveCA(c), fault.Conflict, "Public key is already in use") })
	},
	"a key of any CA is known": func(f fixture) {
		deleted, pending := f.root(), f.reservation(f.pending(f.plan(nil)))
		f.ok(f.deleteCA(deleted.ID))
		f.ok(f.reserveCA(pending))
		known := func(key []byte) bool {
			found, err := f.s.IsCAKey(f.Context(), key)
			f.ok(err)
			return found
		}
		f.equal([]bool{known(deleted.PublicKey), known(pending.PublicKey), known([]byte("another")), known(nil)},
			[]bool{true, true, false, false})
	},
	"a canceled context changes nothing": func(f fixture) {
		ctx, cancel := context.WithCancel(f.Context())
		cancel()
		f.silent(func() {
			if _, err := f.s.CreateCA(ctx, f.plan(nil), event(audit.CAReserve, audit.ResourceCA)); !errors.Is(err, context.Canceled) {
				f.Errorf("error is %v", err)
			}
		})
	},
}

var findCATests = map[string]func(f fixture){
	"a CA exists from its completion on": func(f fixture) {
		c := f.pending(f.plan(nil))
		find := map[string]func(context.Context, int64) (ca.CA, error){"CA": f.s.CA, "PublicCA": f.s.PublicCA}
		for step, then := range []func(){func() { f.ok(f.reserveCA(f.reservation(c))) }, func() {}} {
			for name, find := range find {
				if _, err := find(f.Context(), c.ID); !fault.Is(err, fault.NotFound) || err.Error() != "CA not found" {
					f.Errorf("step %d: %s answers %v", step, name, err)
				}
			}
			all, total, err := f.s.CAs(f.Context(), everything, firstPage)
			f.ok(err)
			f.equal([]int64{int64(len(all)), total}, []int64{0, 0})
			then()
		}
		_, err := f.completeCA(c.ID)
		f.ok(err)
		for _, find := range find {
			_, err := find(f.Context(), c.ID)
			f.ok(err)
		}
	},
	"an abandoned CA does not exist": func(f fixture) {
		c := f.pending(f.plan(nil))
		_, err := f.s.Abandon(f.Context(), now.Add(time.Hour), now)
		f.ok(err)
		_, err = f.s.CA(f.Context(), c.ID)
		f.refused(err, fault.NotFound, "CA not found")
		_, err = f.s.PublicCA(f.Context(), c.ID)
		f.refused(err, fault.NotFound, "CA not found")
		_, err = f.s.BeginList(f.Context(), complete(c), now)
		f.refused(err, fault.NotFound, "CA not found")
	},
	"an id that was never given out is not found": func(f fixture) {
		_, err := f.s.CA(f.Context(), 1<<62)
		f.refused(err, fault.NotFound, "CA not found")
	},
	"a scope sees what the user created and what belongs to the organization": func(f fixture) {
		plan := func(organization, creator *int64) int64 {
			p := f.plan(nil)
			p.Name, p.OrganizationID, p.CreatedBy = "same name", organization, creator
			return f.make(p).ID
		}
		mine, ours, theirs, nobodys := plan(nil, ptr(int64(7))), plan(ptr(int64(3)), ptr(int64(8))), plan(ptr(int64(4)), ptr(int64(9))), plan(nil, nil)
		for name, c := range map[string]struct {
			scope ca.Scope
			want  []int64
		}{
			"zero sees none":              {ca.Scope{}, []int64{}},
			"a user sees the own":         {ca.Scope{UserID: 7}, []int64{mine}},
			"a member sees own and ours":  {ca.Scope{UserID: 7, OrganizationID: ptr(int64(3))}, []int64{mine, ours}},
			"an organization sees ours":   {ca.Scope{OrganizationID: ptr(int64(3))}, []int64{ours}},
			"a stranger sees none":        {ca.Scope{UserID: 77, OrganizationID: ptr(int64(5))}, []int64{}},
			"a superuser sees everything": {ca.Scope{All: true}, []int64{mine, ours, theirs, nobodys}},
		} {
			list, total, err := f.s.CAs(f.Context(), c.scope, firstPage)
			f.ok(err)
			named, err := f.s.CAsByName(f.Context(), c.scope, "same name")
			f.ok(err)
			if got := ids(list, caID); !slices.Equal(got, c.want) || total != int64(len(c.want)) || !slices.Equal(ids(named, caID), c.want) {
				f.Errorf("%s: got %v of %d, by name %v, want %v", name, got, total, ids(named, caID), c.want)
			}
		}
	},
	"a list is a page in the order of ids, and counts all": func(f fixture) {
		for range 5 {
			f.root()
		}
		for _, c := range []struct {
			page ca.Page
			want []int64
		}{
			{ca.Page{}, []int64{}},
			{ca.Page{Limit: 2}, []int64{1, 2}},
			{ca.Page{Limit: 2, Skip: 2}, []int64{3, 4}},
			{ca.Page{Limit: 10, After: 3}, []int64{4, 5}},
			{ca.Page{Limit: 10, After: 3, Skip: 1}, []int64{5}},
			{ca.Page{Limit: 10, Skip: 5}, []int64{}},
			{ca.Page{Limit: 10, After: 5}, []int64{}},
		} {
			list, total, err := f.s.CAs(f.Context(), everything, c.page)
			f.ok(err)
			if got := ids(list, caID); !slices.Equal(got, c.want) || total != 5 {
				f.Errorf("page %+v: got %v of %d, want %v of 5", c.page, got, total, c.want)
			}
		}
	},
	"a name is found exactly": func(f fixture) {
		plan := f.plan(nil)
		plan.Name = "Zürich CA"
		c := f.make(plan)
		f.root()
		for name, want := range map[string][]int64{"Zürich CA": {c.ID}, "zürich ca": {}, "Z%": {}, "Zürich CA ": {}, "": {}} {
			got, err := f.s.CAsByName(f.Context(), everything, name)
			f.ok(err)
			if !slices.Equal(ids(got, caID), want) {
				f.Errorf("%q: got %v, want %v", name, ids(got, caID), want)
			}
		}
	},
	"children are the completed ones, revoked or not, that are not deleted": func(f fixture) {
		root := f.root()
		valid, revoked, deleted := f.child(root), f.child(root), f.child(root)
		f.child(valid)
		f.pending(f.plan(&root.ID))
		_, err := f.revokeCA(revoked.ID, keyLost)
		f.ok(err)
		f.ok(f.deleteCA(deleted.ID))
		got, err := f.s.Children(f.Context(), root.ID)
		f.ok(err)
		f.equal(ids(got, caID), []int64{valid.ID, revoked.ID})
	},
}

var endCATests = map[string]func(f fixture){
	"revocation is kept and recorded": func(f fixture) {
		c := f.child(f.root())
		got, err := f.revokeCA(c.ID, keyLost)
		f.ok(err)
		f.recorded(audit.CARevoke, audit.ResourceCA, c.ID)
		want := c
		want.State, want.Revocation, want.UpdatedAt = ca.Revoked, keyLost, got.UpdatedAt
		f.equal(got, want)
		found, err := f.s.CA(f.Context(), c.ID)
		f.ok(err)
		f.equal(found, want)
	},
	"a CA is revoked once": func(f fixture) {
		c := f.child(f.root())
		_, err := f.revokeCA(c.ID, keyLost)
		f.ok(err)
		f.silent(func() {
			_, err := f.revokeCA(c.ID, ca.Revocation{At: now})
			f.refused(err, fault.Conflict, "CA is already revoked")
		})
	},
	"a root is not revoked": func(f fixture) {
		root := f.root()
		f.silent(func() {
			_, err := f.revokeCA(root.ID, keyLost)
			f.refused(err, fault.Conflict, "A root CA cannot be revoked")
		})
	},
	"what does not exist is not revoked": func(f fixture) {
		root := f.root()
		pending, deleted := f.pending(f.plan(&root.ID)), f.child(root)
		f.ok(f.deleteCA(deleted.ID))
		f.silent(func() {
			for _, id := range []int64{pending.ID, deleted.ID, 99} {
				_, err := f.revokeCA(id, keyLost)
				f.refused(err, fault.NotFound, "CA not found")
			}
		})
	},
	"a deleted CA and its certificates are hidden, and remain for relying parties": func(f fixture) {
		c := f.root()
		leaf := f.issue(f.leaf(c))
		f.ok(f.deleteCA(c.ID))
		f.recorded(audit.CADelete, audit.ResourceCA, c.ID)
		_, err := f.s.CA(f.Context(), c.ID)
		f.refused(err, fault.NotFound, "CA not found")
		_, err = f.s.Certificate(f.Context(), leaf.ID)
		f.refused(err, fault.NotFound, "Certificate not found")
		list, total, err := f.s.Certificates(f.Context(), ca.CertificateFilter{Scope: everything, IssuerID: &c.ID}, firstPage)
		f.ok(err)
		f.equal(len(list), 0)
		f.equal(total, ca.Total{})
		_, authorities, err := f.s.CAs(f.Context(), everything, firstPage)
		f.ok(err)
		f.equal(authorities, int64(0))
		named, err := f.s.CAsByName(f.Context(), everything, c.Name)
		f.ok(err)
		f.equal(len(named), 0)
		public, err := f.s.PublicCA(f.Context(), c.ID)
		f.ok(err)
		f.equal(public.DeletedAt, ptr(now))
	},
	"a CA is deleted once": func(f fixture) {
		c := f.root()
		f.ok(f.deleteCA(c.ID))
		f.silent(func() { f.refused(f.deleteCA(c.ID), fault.NotFound, "CA not found") })
	},
	"a CA with a child is not deleted": func(f fixture) {
		root := f.root()
		c := f.child(root)
		refused := func() {
			f.Helper()
			f.silent(func() { f.refused(f.deleteCA(root.ID), fault.Conflict, "CA has child CAs; delete them first") })
		}
		refused()
		_, err := f.revokeCA(c.ID, keyLost)
		f.ok(err)
		refused()
		f.ok(f.deleteCA(c.ID))
		f.ok(f.deleteCA(root.ID))
	},
	"a CA with a child on its way is not deleted, until the child is abandoned": func(f fixture) {
		root := f.root()
		f.pending(f.plan(&root.ID))
		f.refused(f.deleteCA(root.ID), fault.Conflict, "CA has child CAs; delete them first")
		_, err := f.s.Abandon(f.Context(), now.Add(time.Hour), now)
		f.ok(err)
		f.ok(f.deleteCA(root.ID))
	},
	"the id of a deleted CA is never used again": func(f fixture) {
		c := f.root()
		f.ok(f.deleteCA(c.ID))
		if next := f.root(); next.ID <= c.ID {
			f.Errorf("got id %d after %d", next.ID, c.ID)
		}
	},
}
