package catest

import (
	"signet/audit"
	"signet/ca"
	"signet/fault"
)

// kept makes a valid certificate whose private key is kept.
func (f fixture) kept(issuer ca.CA, sealed string) ca.SealedKey {
	f.Helper()
	id, err := f.reserve(f.leaf(issuer))
	f.ok(err)
	c, err := f.complete(id, []byte(sealed))
	f.ok(err)
	return ca.SealedKey{CertificateID: id, IssuerID: issuer.ID, Serial: c.Serial, Sealed: []byte(sealed)}
}

func (f fixture) sealedKeys(after int64, limit int) []ca.SealedKey {
	f.Helper()
	all, err := f.s.SealedKeys(f.Context(), after, limit)
	f.ok(err)
	return all
}

var (
	resealed = audit.Event{Action: audit.KeyReseal, Username: "operator", ResourceType: audit.ResourceCertificate, Detail: "sealed anew"}

	errChanged = "Sealed key has changed"
)

var sealTests = map[string]func(f fixture){
	"keys are listed whatever became of their certificates": func(f fixture) {
		root, deleted := f.root(), f.root()
		one := f.kept(root, "one")
		f.issue(f.leaf(root)) // keeps none
		two, three := f.kept(deleted, "two"), f.kept(root, "three")
		_, err := f.revoke(one.CertificateID, keyLost)
		f.ok(err)
		f.ok(f.deleteCA(deleted.ID))
		f.equal(f.sealedKeys(0, 10), []ca.SealedKey{one, two, three})
		f.equal(f.sealedKeys(0, 2), []ca.SealedKey{one, two})
		f.equal(f.sealedKeys(two.CertificateID, 2), []ca.SealedKey{three})
		f.equal(len(f.sealedKeys(three.CertificateID, 2)), 0)
		f.equal(len(f.sealedKeys(0, 0)), 0)
	},
	"keys are replaced with one event": func(f fixture) {
		root := f.root()
		one, two, other := f.kept(root, "one"), f.kept(root, "two"), f.kept(root, "other")
		f.ok(f.s.ReplaceSealedKeys(f.Context(), []ca.KeyReplacement{
			{CertificateID: one.CertificateID, Old: one.Sealed, New: []byte("uno")},
			{CertificateID: two.CertificateID, Old: two.Sealed, New: []byte("due")},
		}, resealed))
		one.Sealed, two.Sealed = []byte("uno"), []byte("due")
		f.equal(f.sealedKeys(0, 10), []ca.SealedKey{one, two, other})
		c, err := f.s.Certificate(f.Context(), two.CertificateID)
		f.ok(err)
		f.equal(string(c.SealedKey), "due")
		events := f.events(audit.KeyReseal)
		f.equal(len(events), 1)
		f.equal(events[0].Event, resealed)
	},
	"none is replaced when one has changed": func(f fixture) {
		root := f.root()
		one, two := f.kept(root, "one"), f.kept(root, "two")
		none := f.issue(f.leaf(root))
		for _, wrong := range []ca.KeyReplacement{
			{CertificateID: two.CertificateID, Old: []byte("too"), New: []byte("due")},
			{CertificateID: two.CertificateID, New: []byte("due")},
			{CertificateID: none.ID, New: []byte("due")},
			{CertificateID: 99, Old: []byte("two"), New: []byte("due")},
		} {
			f.silent(func() {
				err := f.s.ReplaceSealedKeys(f.Context(), []ca.KeyReplacement{
					{CertificateID: one.CertificateID, Old: one.Sealed, New: []byte("uno")}, wrong}, resealed)
				f.refused(err, fault.Conflict, errChanged)
			})
		}
		f.equal(f.sealedKeys(0, 10), []ca.SealedKey{one, two})
	},
	"of 8 replacements of a key one wins": func(f fixture) {
		root := f.root()
		one, two := f.kept(root, "one"), f.kept(root, "two")
		errs := parallel(8, func(int) error {
			return f.s.ReplaceSealedKeys(f.Context(), []ca.KeyReplacement{
				{CertificateID: one.CertificateID, Old: one.Sealed, New: []byte("uno")},
				{CertificateID: two.CertificateID, Old: two.Sealed, New: []byte("due")}}, resealed)
		})
		f.oneWins(errs, fault.Conflict, errChanged)
		f.equal(len(f.events(audit.KeyReseal)), 1)
	},
}
