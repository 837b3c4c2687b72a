package catest

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

var reserveTests = map[string]func(f fixture){
	"assigns ids that start at 1, apart from those of CAs": func(f fixture) {
		root := f.root()
		id, err := f.reserve(f.leaf(root))
		f.ok(err)
		f.equal([]int64{root.ID, id}, []int64{1, 1})
		f.recorded(audit.CertReserve, audit.ResourceCertificate, id)
	},
	"a serial is used once below one issuer": func(f fixture) {
		root := f.root()
		taken, other := f.issue(f.leaf(root)), f.leaf(root)
		other.Serial = taken.Serial
		f.silent(func() {
			_, err := f.reserve(other)
			f.refused(err, fault.Conflict, "Serial number is already in use")
		})
	},
	"a serial of a child CA is taken": func(f fixture) {
		root := f.root()
		child, c := f.child(root), f.leaf(root)
		c.Serial, c.Type = child.Serial, policy.CA
		_, err := f.reserve(c)
		f.refused(err, fault.Conflict, "Serial number is already in use")
	},
	"a serial of another issuer is free": func(f fixture) {
		one, two := f.root(), f.root()
		taken, c := f.issue(f.leaf(one)), f.leaf(two)
		c.Serial = taken.Serial
		_, err := f.reserve(c)
		f.ok(err)
	},
	"a serial of a reservation is taken for a child CA and a responder": func(f fixture) {
		root := f.root()
		c := f.leaf(root)
		_, err := f.reserve(c)
		f.ok(err)
		child, responder := f.reservation(f.pending(f.plan(&root.ID))), f.responder(root)
		child.Serial, responder.Serial = c.Serial, c.Serial
		f.silent(func() {
			f.refused(f.reserveCA(child), fault.Conflict, "Serial number is already in use")
			_, err := f.reserveResponder(responder)
			f.refused(err, fault.Conflict, "Serial number is already in use")
		})
	},
	"a serial of a responder is taken": func(f fixture) {
		root := f.root()
		responder := f.responder(root)
		_, err := f.reserveResponder(responder)
		f.ok(err)
		c, child := f.leaf(root), f.reservation(f.pending(f.plan(&root.ID)))
		c.Serial, child.Serial = responder.Serial, responder.Serial
		f.silent(func() {
			_, err := f.reserve(c)
			f.refused(err, fault.Conflict, "Serial number is already in use")
			f.refused(f.reserveCA(child), fault.Conflict, "Serial number is already in use")
		})
	},
	"the key of a CA is refused": func(f fixture) {
		root, deleted, lost := f.root(), f.root(), f.reservation(f.pending(f.plan(nil)))
		f.ok(f.deleteCA(deleted.ID))
		f.ok(f.reserveCA(lost))
		_, err := f.s.Abandon(f.Context(), now.Add(time.Hour), now)
		f.ok(err)
		f.pending(f.plan(nil)) // without a key
		pending := f.reservation(f.pending(f.plan(nil)))
		f.ok(f.reserveCA(pending))
		for name, key := range map[string][]byte{"its own": root.PublicKey, "deleted": deleted.PublicKey, "pending": pending.PublicKey, "abandoned": lost.PublicKey} {
			c, hash := f.leaf(root), sha256.Sum256(key)
			c.PublicKeySHA256 = hash[:]
			f.silent(func() {
				if _, err := f.reserve(c); !errors.Is(err, ca.ErrCAKey) {
					f.Errorf("%s: error is %v", name, err)
				}
			})
		}
		c, hash := f.leaf(root), sha256.Sum256([]byte("another"))
		c.PublicKeySHA256 = hash[:]
		_, err = f.reserve(c)
		f.ok(err)
	},
	"an issuer that is gone refuses": func(f fixture) {
		root := f.root()
		revoked, deleted, pending := f.child(root), f.child(root), f.pending(f.plan(&root.ID))
		_, err := f.revokeCA(revoked.ID, keyLost)
		f.ok(err)
		f.ok(f.deleteCA(deleted.ID))
		f.silent(func() {
			for id, message := range map[int64]string{
				revoked.ID: "CA 2 is revoked or deleted", deleted.ID: "CA 3 is revoked or deleted",
				pending.ID: "CA 4 is revoked or deleted", 99: "CA 99 is revoked or deleted",
			} {
				_, err := f.reserve(f.leaf(ca.CA{ID: id}))
				f.refused(err, fault.Conflict, message)
			}
		})
	},
	"an issuer without leaves signs no leaf": func(f fixture) {
		root := f.root()
		f.child(root)
		for _, leaf := range []policy.CertificateType{policy.Server, policy.Client, policy.DualPurpose} {
			c := f.leaf(root)
			c.Type = leaf
			f.silent(func() {
				_, err := f.reserve(c)
				f.refused(err, fault.Conflict, "CA 1 does not allow leaf certificate issuance")
			})
		}
	},
	"an issuer without leaves signs a CA certificate": func(f fixture) {
		root := f.root()
		f.child(root)
		c := f.leaf(root)
		c.Type = policy.CA
		_, err := f.reserve(c)
		f.ok(err)
	},
	"a canceled context reserves nothing": func(f fixture) {
		root := f.root()
		ctx, cancel := context.WithCancel(f.Context())
		cancel()
		f.silent(func() {
			_, err := f.s.Reserve(ctx, f.leaf(root), event(audit.CertReserve, audit.ResourceCertificate))
			if !errors.Is(err, context.Canceled) {
				f.Errorf("error is %v", err)
			}
		})
	},
	"an event that names its object keeps it": func(f fixture) {
		e := event(audit.CertReserve, audit.ResourceCA)
		e.ResourceID = ptr(int64(42))
		_, err := f.s.Reserve(f.Context(), f.leaf(f.root()), e)
		f.ok(err)
		f.recorded(audit.CertReserve, audit.ResourceCA, 42)
	},
}
