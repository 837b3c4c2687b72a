package catest

import (
	"fmt"
	"slices"
	"time"

	"signet/ca"
)

// found are the ids that a filter finds. It also checks that each of them is on exactly one page, and that every page
// counts them all.
func (f fixture) found(filter ca.CertificateFilter) []int64 {
	f.Helper()
	list, total, err := f.s.Certificates(f.Context(), filter, firstPage)
	f.ok(err)
	all := ids(list, certID)
	f.equal(total, ca.Total{N: int64(len(all))})
	var paged []int64
	for after := int64(0); ; after = paged[len(paged)-1] {
		page, total, err := f.s.Certificates(f.Context(), filter, ca.Page{After: after, Limit: 2})
		f.ok(err)
		f.equal(total, ca.Total{N: int64(len(all))})
		if len(page) == 0 {
			break
		}
		paged = append(paged, ids(page, certID)...)
	}
	if !slices.Equal(all, paged) {
		f.Errorf("the pages have %v, the list %v", paged, all)
	}
	return all
}

// named issues a certificate with these lines in Names.
func (f fixture) named(issuer ca.CA, commonName, names string) int64 {
	f.Helper()
	c := f.leaf(issuer)
	c.CommonName, c.Names = commonName, names
	return f.issue(c).ID
}

// ending issues a certificate with this notAfter.
func (f fixture) ending(issuer ca.CA, notAfter time.Time) ca.Certificate {
	f.Helper()
	c := f.leaf(issuer)
	c.NotAfter = notAfter
	return f.issue(c)
}

var filterTests = map[string]func(f fixture){
	"a certificate is valid to the end of its notAfter, and expired from then on": func(f fixture) {
		root := f.root()
		end := now.Truncate(time.Second).Add(time.Hour)
		id := f.ending(root, end).ID
		for _, test := range []struct {
			at             time.Time
			valid, expired []int64
		}{
			{end.Add(-time.Second), []int64{id}, []int64{}},
			{end, []int64{id}, []int64{}},
			{end.Add(time.Microsecond), []int64{}, []int64{id}},
			{end.Add(time.Hour), []int64{}, []int64{id}},
		} {
			valid := f.found(ca.CertificateFilter{Scope: everything, Status: "valid", Now: test.at})
			expired := f.found(ca.CertificateFilter{Scope: everything, Status: "expired", Now: test.at})
			if !slices.Equal(valid, test.valid) || !slices.Equal(expired, test.expired) {
				f.Errorf("at %v: valid %v, expired %v", test.at.Sub(end), valid, expired)
			}
			f.equal(f.found(ca.CertificateFilter{Scope: everything, Status: "revoked", Now: test.at}), []int64{})
		}
	},
	"a revoked certificate stays revoked when it expires": func(f fixture) {
		c := f.ending(f.root(), now.Add(time.Hour))
		_, err := f.revoke(c.ID, keyLost)
		f.ok(err)
		for _, at := range []time.Time{now, now.Add(2 * time.Hour)} {
			f.equal(f.found(ca.CertificateFilter{Scope: everything, Status: "revoked", Now: at}), []int64{c.ID})
			f.equal(f.found(ca.CertificateFilter{Scope: everything, Status: "valid", Now: at}), []int64{})
			f.equal(f.found(ca.CertificateFilter{Scope: everything, Status: "expired", Now: at}), []int64{})
		}
	},
	"an unknown status finds nothing": func(f fixture) {
		f.issue(f.leaf(f.root()))
		f.equal(f.found(ca.CertificateFilter{Scope: everything, Status: "pending", Now: now}), []int64{})
	},
	"expires before is exclusive, whatever the status": func(f fixture) {
		root := f.root()
		early, revoked := f.ending(root, now.Add(time.Hour)), f.ending(root, now.Add(time.Minute))
		f.ending(root, now.Add(3*time.Hour))
		_, err := f.revoke(revoked.ID, keyLost)
		f.ok(err)
		f.equal(f.found(ca.CertificateFilter{Scope: everything, ExpiresBefore: ptr(now.Add(time.Hour))}), []int64{revoked.ID})
		f.equal(f.found(ca.CertificateFilter{Scope: everything, ExpiresBefore: ptr(now.Add(time.Hour + time.Microsecond))}), []int64{early.ID, revoked.ID})
	},
	"a serial number is found whole": func(f fixture) {
		one, two := f.root(), f.root()
		a, b := f.leaf(one), f.leaf(two)
		a.Serial, b.Serial = "abc1", "abc1"
		first, second := f.issue(a).ID, f.issue(b).ID
		f.equal(f.found(ca.CertificateFilter{Scope: everything, Serial: "abc1"}), []int64{first, second})
		f.equal(f.found(ca.CertificateFilter{Scope: everything, Serial: "abc1", IssuerID: &two.ID}), []int64{second})
		f.equal(f.found(ca.CertificateFilter{Scope: everything, Query: "abc1"}), []int64{first, second})
		for _, other := range []string{"abc", "bc1", "ABC1", "abc%", "abc_"} {
			f.equal(f.found(ca.CertificateFilter{Scope: everything, Serial: other}), []int64{})
			f.equal(f.found(ca.CertificateFilter{Scope: everything, Query: other}), []int64{})
		}
	},
	"a query is a part of any name, character by character": func(f fixture) {
		root := f.root()
		web := f.named(root, "www.example", "192.0.2.7\nwww.example\nzürich.example")
		percent := f.named(root, "100%_sure", "100%_sure")
		slash := f.named(root, `back\slash`, `back\slash`)
		quote := f.named(root, "o'brien; DROP TABLE certificates; --", "o'brien; drop table certificates; --")
		for query, want := range map[string][]int64{
			"www":             {web},
			"ww.ex":           {web},
			"192.0.2.7":       {web},
			"zürich":          {web},
			"example":         {web},
			"%":               {percent},
			"_":               {percent},
			"0%_s":            {percent},
			"w%e":             {},
			"ww_":             {},
			`\`:               {slash},
			`k\s`:             {slash},
			`\%`:              {},
			"'":               {quote},
			"' or 1=1 --":     {},
			"; drop table":    {quote},
			"?":               {},
			"missing.example": {},
			"日本":              {},
		} {
			if got := f.found(ca.CertificateFilter{Scope: everything, Query: query}); !slices.Equal(got, want) {
				f.Errorf("%q finds %v, want %v", query, got, want)
			}
		}
	},
	"conditions narrow each other, and never widen the scope": func(f fixture) {
		one, two := f.root(), f.root()
		var mine []int64
		for i := range 5 {
			for _, issuer := range []ca.CA{one, two} {
				c := f.leaf(issuer)
				c.NotAfter, c.Names = now.Add(time.Duration(i)*time.Hour), fmt.Sprintf("host%d.example", i)
				c.OrganizationID, c.CreatedBy = nil, ptr(int64(7+i%2))
				made := f.issue(c)
				if issuer.ID == one.ID && i%2 == 0 && i > 0 {
					mine = append(mine, made.ID)
				}
			}
		}
		own := ca.Scope{UserID: 7}
		f.equal(f.found(ca.CertificateFilter{Scope: own, IssuerID: &one.ID, Status: "valid", Now: now.Add(time.Minute), Query: "host"}), mine)
		f.equal(f.found(ca.CertificateFilter{Scope: own, IssuerID: &one.ID, Status: "valid", Now: now.Add(time.Minute), Query: "host2",
			ExpiresBefore: ptr(now.Add(3 * time.Hour))}), mine[:1])
		f.equal(f.found(ca.CertificateFilter{Scope: own, Query: "host1"}), []int64{})
		f.equal(f.found(ca.CertificateFilter{Query: "host"}), []int64{})
		f.equal(len(f.found(ca.CertificateFilter{Scope: everything, Query: "host"})), 10)
	},
	"what a deleted CA issued is not found": func(f fixture) {
		root := f.root()
		f.named(root, "gone.example", "gone.example")
		f.ok(f.deleteCA(root.ID))
		f.equal(f.found(ca.CertificateFilter{Scope: everything, Query: "gone"}), []int64{})
	},
}
