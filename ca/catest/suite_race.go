package catest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
)

var raceTests = map[string]func(f fixture){
	"of 8 revocations of a certificate one wins": func(f fixture) {
		root := f.root()
		c := f.issue(f.leaf(root))
		errs := parallel(8, func(int) error {
			_, err := f.revoke(c.ID, keyLost)
			return err
		})
		f.oneWins(errs, fault.Conflict, "Certificate is already revoked")
		f.equal(len(f.events(audit.CertRevoke)), 1)
		f.equal(f.state(root), ca.RevocationState{CAID: root.ID, Sequence: 1})
	},
	"of 8 revocations of a CA one wins": func(f fixture) {
		c := f.child(f.root())
		errs := parallel(8, func(int) error {
			_, err := f.revokeCA(c.ID, keyLost)
			return err
		})
		f.oneWins(errs, fault.Conflict, "CA is already revoked")
		f.equal(len(f.events(audit.CARevoke)), 1)
	},
	"of 8 completions of a certificate one wins": func(f fixture) {
		id, err := f.reserve(f.leaf(f.root()))
		f.ok(err)
		errs := parallel(8, func(int) error {
			_, err := f.complete(id, []byte("sealed"))
			return err
		})
		f.oneWins(errs, fault.Conflict, "Certificate is not reserved, or already completed")
		f.equal(len(f.events(audit.CertCreate)), 1)
	},
	"of 8 reservations of a serial one wins": func(f fixture) {
		c := f.leaf(f.root())
		errs := parallel(8, func(int) error {
			_, err := f.reserve(c)
			return err
		})
		f.oneWins(errs, fault.Conflict, "Serial number is already in use")
		f.equal(len(f.events(audit.CertReserve)), 1)
	},
	"a serial is reserved once, also while its certificate is completed": func(f fixture) {
		root := f.root()
		for range 20 {
			c := f.leaf(root)
			errs := parallel(8, func(i int) error {
				for range 4 {
					if id, err := f.reserve(c); err == nil {
						_, err = f.complete(id, nil)
						return err
					} else if !fault.Is(err, fault.Conflict) {
						return err
					}
				}
				return fault.New(fault.Conflict, "lost")
			})
			f.oneWins(errs, fault.Conflict, "lost")
		}
	},
	"of parallel revocations with other reasons the last one counts": func(f fixture) {
		root := f.root()
		c := f.issue(f.leaf(root))
		errs := parallel(8, func(i int) error {
			_, err := f.s.Revoke(f.Context(), c.ID, ca.Revocation{At: now, Reason: 1 + i%2}, []int{1, 2},
				event(audit.CertRevoke, audit.ResourceCertificate))
			return err
		})
		f.ok(errors.Join(errs...))
		f.equal(len(f.events(audit.CertRevoke)), 8)
		f.equal(f.state(root), ca.RevocationState{CAID: root.ID, Sequence: 8})
		found, err := f.s.Certificate(f.Context(), c.ID)
		f.ok(err)
		changed, err := f.s.ChangedSerials(f.Context(), root.ID, 0, 100)
		f.ok(err)
		f.equal(len(changed), 1)
		f.equal([]any{changed[0].Reason, changed[0].Sequence}, []any{found.Revocation.Reason, int64(8)})
	},
	"of 8 reservations of a CA one wins": func(f fixture) {
		c := f.pending(f.plan(nil))
		before := len(f.events(""))
		errs := parallel(8, func(int) error { return f.reserveCA(f.reservation(c)) })
		f.oneWins(errs, fault.Conflict, "CA is not pending, or already reserved")
		f.equal(len(f.events(""))-before, 1)
	},
	"of 8 deletions of a CA one wins": func(f fixture) {
		root := f.root()
		errs := parallel(8, func(int) error { return f.deleteCA(root.ID) })
		f.oneWins(errs, fault.NotFound, "CA not found")
	},
	"50 revocations of a CA's certificates advance it by 50, one by one": func(f fixture) {
		root := f.root()
		f.ok(f.setPolicy(root, ca.RevocationPolicy{Shards: 3}))
		var leaves []ca.Certificate
		for i := range 50 {
			c := f.leaf(root)
			c.CRLShard = i % 4
			leaves = append(leaves, f.issue(c))
		}
		f.ok(errors.Join(parallel(50, func(i int) error {
			_, err := f.revoke(leaves[i].ID, keyLost)
			return err
		})...))
		f.equal(f.state(root), ca.RevocationState{CAID: root.ID, Sequence: 50})
		changed, err := f.s.ChangedSerials(f.Context(), root.ID, 0, 100)
		f.ok(err)
		last := map[int]int64{}
		for i, e := range changed {
			f.equal(e.Sequence, int64(i)+1)
			last[e.Shard] = e.Sequence
		}
		for _, s := range f.scopes(now) {
			f.equal(s.Changed, last[s.Shard])
		}
	},
	"of two publishers who take a number one completes it, and none is left out": func(f fixture) {
		root := f.root()
		var mu sync.Mutex
		var numbers []int64
		errs := parallel(4, func(int) error {
			for range 5 {
				l, err := f.s.BeginList(f.Context(), complete(root), now)
				if err != nil {
					return err
				}
				err = f.completeLists(f.signed(l, now))
				if fault.Is(err, fault.Conflict) {
					continue
				} else if err != nil {
					return err
				}
				mu.Lock()
				numbers = append(numbers, l.Number)
				mu.Unlock()
			}
			return nil
		})
		f.ok(errors.Join(errs...))
		slices.Sort(numbers)
		for i, n := range numbers {
			f.equal(n, int64(i)+1)
		}
		f.equal(f.state(root).CRLNumber, int64(len(numbers)))
	},
	"of 8 replicas one has a lease": func(f fixture) {
		var mu sync.Mutex
		have := 0
		f.ok(errors.Join(parallel(8, func(i int) error {
			has, err := f.s.Lease(f.Context(), "publisher", fmt.Sprint(i), time.Minute)
			if has {
				mu.Lock()
				have++
				mu.Unlock()
			}
			return err
		})...))
		f.equal(have, 1)
	},
	"64 issuers of certificates are all accounted for": func(f fixture) {
		root, other := f.root(), f.root()
		var mu sync.Mutex
		made := map[int64]string{}
		errs := parallel(64, func(i int) error {
			issuer := root
			if i%3 == 0 {
				issuer = other
			}
			for range 3 {
				c := f.leaf(issuer)
				id, err := f.reserve(c)
				if err != nil {
					return err
				}
				done, err := f.complete(id, []byte(c.Serial))
				if err != nil {
					return err
				}
				if done.ID != id || done.Serial != c.Serial || done.CommonName != c.CommonName || done.IssuerID != c.IssuerID {
					return errors.New("got another one's certificate: " + done.Serial)
				}
				mu.Lock()
				made[id] = c.Serial
				mu.Unlock()
			}
			return nil
		})
		f.ok(errors.Join(errs...))
		f.equal(len(made), 192)
		for id, serial := range made {
			c, err := f.s.Certificate(f.Context(), id)
			f.ok(err)
			if c.Serial != serial || string(c.SealedKey) != serial {
				f.Errorf("certificate %d is %s with the key of %s, want %s", id, c.Serial, c.SealedKey, serial)
			}
		}
		for _, action := range []audit.Action{audit.CertReserve, audit.CertCreate} {
			about := map[int64]bool{}
			for _, e := range f.events(action) {
				about[*e.ResourceID] = true
			}
			f.equal(len(f.events(action)), 192)
			f.equal(len(about), 192)
		}
	},
	"one bad item does not fail the others": func(f fixture) {
		root, closed := f.root(), f.root()
		f.child(closed)
		taken := f.issue(f.leaf(root))
		errs := parallel(48, func(i int) error {
			c := f.leaf(root)
			switch i % 4 {
			case 1:
				c.Serial = taken.Serial
			case 2:
				c.IssuerID = 99
			case 3:
				c.IssuerID = closed.ID
			}
			id, err := f.reserve(c)
			if err != nil {
				return err
			}
			_, err = f.complete(id, nil)
			if _, again := f.complete(id, nil); !fault.Is(again, fault.Conflict) {
				return errors.New("it was completed twice")
			}
			return err
		})
		want := []string{"", "Serial number is already in use", "CA 99 is revoked or deleted", "CA 2 does not allow leaf certificate issuance"}
		for i, err := range errs {
			if i%4 == 0 {
				f.ok(err)
			} else {
				f.refused(err, fault.Conflict, want[i%4])
			}
		}
		f.equal(len(f.events(audit.CertCreate)), 13)
	},
	"a caller who gives up gets all or nothing": func(f fixture) {
		root := f.root()
		done := make([]bool, 64)
		parallel(64, func(i int) error {
			ctx, cancel := context.WithTimeout(f.Context(), time.Duration(i)*20*time.Microsecond)
			defer cancel()
			_, err := f.s.Reserve(ctx, f.leaf(root), event(audit.CertReserve, audit.ResourceCertificate))
			done[i] = err == nil
			return nil
		})
		reserved, err := f.s.Abandon(f.Context(), now.Add(time.Second), now)
		f.ok(err)
		f.equal(reserved, len(f.events(audit.CertReserve)))
		answered := 0
		for _, ok := range done {
			if ok {
				answered++
			}
		}
		if answered > reserved {
			f.Errorf("%d callers were told that they have a reservation, %d have one", answered, reserved)
		}
	},
	"nothing is reserved after the issuer was revoked": func(f fixture) {
		issuer := f.child(f.root())
		errs := parallel(16, func(i int) error {
			if i == 8 {
				_, err := f.revokeCA(issuer.ID, keyLost)
				return err
			}
			_, err := f.reserve(f.leaf(issuer))
			return err
		})
		f.ok(errs[8])
		var first int64
		for _, e := range f.events("") {
			switch {
			case e.Action == audit.CARevoke:
				first = e.ID
			case e.Action == audit.CertReserve && first != 0:
				f.Errorf("entry %d reserves after the revocation in entry %d", e.ID, first)
			}
		}
	},
	"a CA is deleted or gets a child, not both": func(f fixture) {
		for range 4 {
			root := f.root()
			c := f.pending(f.plan(&root.ID))
			errs := parallel(2, func(i int) error {
				if i == 0 {
					return f.deleteCA(root.ID)
				}
				return f.reserveCA(f.reservation(c))
			})
			f.refused(errs[0], fault.Conflict, "CA has child CAs; delete them first")
			f.ok(errs[1])
		}
	},
	"abandoning and completing exclude each other": func(f fixture) {
		root := f.root()
		var reserved []int64
		for range 16 {
			id, err := f.reserve(f.leaf(root))
			f.ok(err)
			reserved = append(reserved, id)
		}
		var closed int
		errs := parallel(17, func(i int) error {
			if i == 16 {
				n, err := f.s.Abandon(f.Context(), now.Add(time.Second), now)
				closed = n
				return err
			}
			_, err := f.complete(reserved[i], nil)
			return err
		})
		f.ok(errs[16])
		for _, err := range errs[:16] {
			if err != nil {
				f.refused(err, fault.Conflict, "Certificate is not reserved, or already completed")
				closed--
			}
		}
		f.equal(closed, 0)
	},
}
