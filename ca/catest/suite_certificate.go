package catest

import (
	"slices"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

var certificateTests = map[string]func(f fixture){
	"completion keeps every field": func(f fixture) {
		want := f.leaf(f.root())
		id, err := f.reserve(want)
		f.ok(err)
		got, err := f.complete(id, []byte("sealed"))
		f.ok(err)
		f.recorded(audit.CertCreate, audit.ResourceCertificate, id)
		if got.UpdatedAt.Before(want.UpdatedAt) {
			f.Errorf("updated at %v", got.UpdatedAt)
		}
		want.ID, want.State, want.UpdatedAt = id, ca.Valid, got.UpdatedAt
		want.DER, want.SealedKey, want.TBS = []byte("certificate"), []byte("sealed"), nil
		f.equal(got, want)
		found, err := f.s.Certificate(f.Context(), id)
		f.ok(err)
		f.equal(found, want)
	},
	"what is absent stays absent": func(f fixture) {
		c := f.leaf(f.root())
		c.OrganizationID, c.CreatedBy = nil, nil
		made := f.issue(c)
		got, err := f.s.Certificate(f.Context(), made.ID)
		f.ok(err)
		f.equal(got, made)
		if got.OrganizationID != nil || got.CreatedBy != nil || got.SealedKey != nil || got.Revocation != (ca.Revocation{}) {
			f.Errorf("something appeared: %+v", got)
		}
	},
	"a certificate is completed once": func(f fixture) {
		c := f.issue(f.leaf(f.root()))
		f.silent(func() {
			for _, id := range []int64{c.ID, 99} {
				_, err := f.complete(id, []byte("another key"))
				f.refused(err, fault.Conflict, "Certificate is not reserved, or already completed")
			}
		})
		got, err := f.s.Certificate(f.Context(), c.ID)
		f.ok(err)
		f.equal(got, c)
	},
	"a revoked or abandoned certificate is not completed": func(f fixture) {
		root := f.root()
		revoked := f.issue(f.leaf(root))
		_, err := f.revoke(revoked.ID, keyLost)
		f.ok(err)
		abandoned, err := f.reserve(f.leaf(root))
		f.ok(err)
		_, err = f.s.Abandon(f.Context(), now.Add(time.Hour), now)
		f.ok(err)
		f.silent(func() {
			for _, id := range []int64{revoked.ID, abandoned} {
				_, err := f.complete(id, nil)
				f.refused(err, fault.Conflict, "Certificate is not reserved, or already completed")
			}
		})
	},
	"a signature of an issuer that was deleted meanwhile is still recorded": func(f fixture) {
		root := f.root()
		id, err := f.reserve(f.leaf(root))
		f.ok(err)
		f.ok(f.deleteCA(root.ID))
		_, err = f.complete(id, nil)
		f.ok(err)
	},
	"a certificate exists from its completion on": func(f fixture) {
		id, err := f.reserve(f.leaf(f.root()))
		f.ok(err)
		_, err = f.s.Certificate(f.Context(), id)
		f.refused(err, fault.NotFound, "Certificate not found")
		_, err = f.revoke(id, keyLost)
		f.refused(err, fault.NotFound, "Certificate not found")
		_, total, err := f.s.Certificates(f.Context(), ca.CertificateFilter{Scope: everything}, firstPage)
		f.ok(err)
		f.equal(total, ca.Total{})
	},
	"a list has no keys": func(f fixture) {
		id, err := f.reserve(f.leaf(f.root()))
		f.ok(err)
		want, err := f.complete(id, []byte("sealed"))
		f.ok(err)
		want.SealedKey = nil
		list, _, err := f.s.Certificates(f.Context(), ca.CertificateFilter{Scope: everything}, firstPage)
		f.ok(err)
		f.equal(list, []ca.Certificate{want})
	},
	"a list is restricted to the scope and the issuer": func(f fixture) {
		one, two := f.root(), f.root()
		issue := func(issuer ca.CA, organization, creator *int64) int64 {
			c := f.leaf(issuer)
			c.OrganizationID, c.CreatedBy = organization, creator
			return f.issue(c).ID
		}
		mine, ours, theirs := issue(one, nil, ptr(int64(7))), issue(two, ptr(int64(3)), ptr(int64(8))), issue(one, ptr(int64(4)), nil)
		member := ca.Scope{UserID: 7, OrganizationID: ptr(int64(3))}
		for name, c := range map[string]struct {
			filter ca.CertificateFilter
			want   []int64
		}{
			"zero sees none":               {ca.CertificateFilter{}, []int64{}},
			"zero sees none of an issuer":  {ca.CertificateFilter{IssuerID: &one.ID}, []int64{}},
			"a member sees own and ours":   {ca.CertificateFilter{Scope: member}, []int64{mine, ours}},
			"a member sees one issuer's":   {ca.CertificateFilter{Scope: member, IssuerID: &one.ID}, []int64{mine}},
			"a superuser sees everything":  {ca.CertificateFilter{Scope: everything}, []int64{mine, ours, theirs}},
			"a superuser sees an issuer's": {ca.CertificateFilter{Scope: everything, IssuerID: &two.ID}, []int64{ours}},
			"an unknown issuer has none":   {ca.CertificateFilter{Scope: everything, IssuerID: ptr(int64(99))}, []int64{}},
		} {
			list, total, err := f.s.Certificates(f.Context(), c.filter, firstPage)
			f.ok(err)
			if got := ids(list, certID); !slices.Equal(got, c.want) || total != (ca.Total{N: int64(len(c.want))}) {
				f.Errorf("%s: got %v of %v, want %v", name, got, total, c.want)
			}
		}
	},
	"a list is a page in the order of ids, and counts all": func(f fixture) {
		root := f.root()
		var all []int64
		for range 4 {
			all = append(all, f.issue(f.leaf(root)).ID)
		}
		for _, c := range []struct {
			page ca.Page
			want []int64
		}{
			{ca.Page{}, []int64{}},
			{ca.Page{Limit: 2}, all[:2]},
			{ca.Page{Limit: 2, Skip: 1}, all[1:3]},
			{ca.Page{Limit: 2, After: all[1]}, all[2:]},
			{ca.Page{Limit: 2, After: all[3]}, []int64{}},
		} {
			list, total, err := f.s.Certificates(f.Context(), ca.CertificateFilter{Scope: everything}, c.page)
			f.ok(err)
			if got := ids(list, certID); !slices.Equal(got, c.want) || total != (ca.Total{N: 4}) {
				f.Errorf("page %+v: got %v of %v, want %v of 4", c.page, got, total, c.want)
			}
		}
	},
}

var revokeTests = map[string]func(f fixture){
	"is kept and recorded": func(f fixture) {
		id, err := f.reserve(f.leaf(f.root()))
		f.ok(err)
		want, err := f.complete(id, []byte("sealed"))
		f.ok(err)
		got, err := f.revoke(id, keyLost)
		f.ok(err)
		f.recorded(audit.CertRevoke, audit.ResourceCertificate, id)
		want.State, want.Revocation, want.UpdatedAt = ca.Revoked, keyLost, got.UpdatedAt
		f.equal(got, want)
		found, err := f.s.Certificate(f.Context(), id)
		f.ok(err)
		f.equal(found, want)
	},
	"happens once": func(f fixture) {
		c := f.issue(f.leaf(f.root()))
		_, err := f.revoke(c.ID, keyLost)
		f.ok(err)
		f.silent(func() {
			_, err := f.revoke(c.ID, ca.Revocation{At: now})
			f.refused(err, fault.Conflict, "Certificate is already revoked")
		})
		found, err := f.s.Certificate(f.Context(), c.ID)
		f.ok(err)
		f.equal(found.Revocation, keyLost)
	},
	"does not happen to what does not exist": func(f fixture) {
		root := f.root()
		hidden := f.issue(f.leaf(root))
		f.ok(f.deleteCA(root.ID))
		f.silent(func() {
			for _, id := range []int64{hidden.ID, 99} {
				_, err := f.revoke(id, keyLost)
				f.refused(err, fault.NotFound, "Certificate not found")
			}
		})
	},
}

var abandonTests = map[string]func(f fixture){
	"closes what was reserved before, and only that": func(f fixture) {
		root := f.root()
		f.issue(f.leaf(root))
		old, young := f.leaf(root), f.leaf(root)
		young.CreatedAt = now.Add(time.Minute)
		oldID, err := f.reserve(old)
		f.ok(err)
		youngID, err := f.reserve(young)
		f.ok(err)
		pending := f.reservation(f.pending(f.plan(&root.ID)))
		f.ok(f.reserveCA(pending))
		before := len(f.events(""))

		n, err := f.s.Abandon(f.Context(), now.Add(time.Minute), now.Add(time.Hour))
		f.ok(err)
		f.equal(n, 2)
		f.equal(len(f.events(""))-before, 2)
		for action, want := range map[audit.Action]audit.Event{
			audit.CertAbandon: {ResourceType: audit.ResourceCertificate, ResourceID: &oldID, Detail: "reservation of serial " + old.Serial + " was never completed"},
			audit.CAAbandon:   {ResourceType: audit.ResourceCA, ResourceID: &pending.ID, Detail: "reservation of serial " + pending.Serial + " was never completed"},
		} {
			want.Action, want.OrganizationID = action, ptr(int64(3))
			got := f.events(action)
			if len(got) != 1 {
				f.Fatalf("%d events %s", len(got), action)
			}
			f.equal(got[0].Event, want)
		}
		_, err = f.complete(youngID, nil)
		f.ok(err)
	},
	"counts the serials as revoked at that time": func(f fixture) {
		root := f.root()
		c, pending := f.leaf(root), f.reservation(f.pending(f.plan(&root.ID)))
		_, err := f.reserve(c)
		f.ok(err)
		f.ok(f.reserveCA(pending))
		_, err = f.s.Abandon(f.Context(), now.Add(time.Second), now.Add(time.Hour))
		f.ok(err)
		f.equal(f.entries(root, 0, -1, now), []ca.RevokedEntry{
			{Serial: c.Serial, Sequence: 1, At: now.Add(time.Hour), NotAfter: c.NotAfter},
			{Serial: pending.Serial, Sequence: 2, At: now.Add(time.Hour), NotAfter: pending.NotAfter},
		})
	},
	"makes the lists of the issuer's shards stale": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 2}))
		for _, shard := range []int{0, 2} {
			c := f.leaf(root)
			c.CRLShard = shard
			_, err := f.reserve(c)
			f.ok(err)
		}
		for shard := range 3 {
			f.publish(ca.ListScope{CAID: root.ID, Shard: shard}, now)
		}
		f.equal(f.stale(now), []ca.ListScope(nil))
		_, err := f.s.Abandon(f.Context(), now.Add(time.Second), now)
		f.ok(err)
		f.equal(f.stale(now), []ca.ListScope{{CAID: root.ID}, {CAID: root.ID, Shard: 2}})
		f.equal(f.state(root).Sequence, int64(2))
	},
	"closes a CA that has no key yet, and puts nothing on a list": func(f fixture) {
		root := f.root()
		f.pending(f.plan(&root.ID))
		f.pending(f.plan(nil))
		n, err := f.s.Abandon(f.Context(), now.Add(time.Second), now)
		f.ok(err)
		f.equal(n, 2)
		f.equal(len(f.entries(root, 0, -1, now)), 0)
		f.equal(f.state(root).Sequence, int64(0))
	},
	"finds nothing a second time": func(f fixture) {
		_, err := f.reserve(f.leaf(f.root()))
		f.ok(err)
		_, err = f.s.Abandon(f.Context(), now.Add(time.Second), now)
		f.ok(err)
		f.silent(func() {
			n, err := f.s.Abandon(f.Context(), now.Add(time.Second), now)
			f.ok(err)
			f.equal(n, 0)
		})
	},
}
