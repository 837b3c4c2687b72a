package ca

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

// SealedKey is the private key that is kept for a certificate, as it lies in the database.
type SealedKey struct {
	CertificateID int64
	IssuerID      int64
	Serial        string
	Sealed        []byte
}

// KeyReplacement is one sealed form for another of the same private key.
type KeyReplacement struct {
	CertificateID int64
	Old, New      []byte
}

// KeyEncryptionKeys is a token with generations of key-encryption keys, of which one seals. They are named by their
// CKA_ID. Errors are those of [Keys].
type KeyEncryptionKeys interface {
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error)
	// SealedUnder reads which key a sealed secret names.
	SealedUnder(sealed []byte) (id []byte, err error)
	// CurrentKEK asks the token which key seals.
	CurrentKEK(ctx context.Context) (id []byte, err error)
	// RotateKEK makes the key that seals from now on; every other process notices within seconds.
	RotateKEK(ctx context.Context) (id []byte, err error)
	// DestroyKEK deletes one that seals no more.
	DestroyKEK(ctx context.Context, id []byte) error
}

const (
	// resealPage is how many keys are sealed anew in one transaction, countPage how many are read to be counted.
	resealPage = 100
	countPage  = 500
	// resealAttempts bounds how often a page is read again that somebody else has changed meanwhile.
	resealAttempts = 10
	// keptFailures is how many reasons are kept of keys that could not be sealed anew.
	keptFailures = 10
)

// Resealed is what a run over the sealed keys did.
type Resealed struct {
	Current  int     // were under the newest key already
	Resealed int     // are now
	Failed   int     // could not be unsealed, and are as they were
	Reasons  []error // of the first failures, each with its certificate
}

// RotateKEK makes the next key-encryption key, which seals from now on. What was sealed before stays under its own key
// until [Authority.Reseal]. The intent is recorded before the token is touched.
func (a *Authority) RotateKEK(ctx context.Context, caller policy.Caller, keys KeyEncryptionKeys) ([]byte, error) {
	if err := a.operates(caller); err != nil {
		return nil, err
	}
	if err := a.recordKEK(ctx, caller, audit.KEKRotate, "about to make the next key-encryption key"); err != nil {
		return nil, err
	}
	id, err := keys.RotateKEK(ctx)
	if err != nil {
		return nil, fmt.Errorf("rotate key-encryption key: %w", err)
	}
	ctx, cancel := finish(ctx, issueTimeout)
	defer cancel()
	return id, a.recordKEK(ctx, caller, audit.KEKRotate, fmt.Sprintf("key-encryption key %x seals from now on", id))
}

// Reseal seals every private key anew that is not under the newest key-encryption key, while others go on issuing and
// exporting. It keeps no state: a run that was cut short is continued by the next one. A key that cannot be unsealed is
// counted and left as it is; the run ends when token or database are away.
func (a *Authority) Reseal(ctx context.Context, caller policy.Caller, keys KeyEncryptionKeys) (Resealed, error) {
	var sum Resealed
	if err := a.operates(caller); err != nil {
		return sum, err
	}
	for after, attempt := int64(0), 0; ; {
		// 1. The page, and the key that seals now.
		page, err := a.cfg.Store.SealedKeys(ctx, after, resealPage)
		if err != nil {
			return sum, fmt.Errorf("list sealed keys: %w", err)
		}
		if len(page) == 0 {
			return sum, nil
		}
		current, err := keys.CurrentKEK(ctx)
		if err != nil {
			return sum, fmt.Errorf("find key-encryption key: %w", err)
		}

		// 2. The token, outside any transaction.
		done, replaced, err := resealAll(ctx, keys, current, page)
		if err != nil {
			return sum, err
		}

		// 3. All of the page or, when somebody changed one of its keys, nothing.
		if err := a.replaceSealed(ctx, caller, current, replaced); fault.Is(err, fault.Conflict) && attempt < resealAttempts {
			attempt++
			continue
		} else if err != nil {
			return sum, fmt.Errorf("replace sealed keys: %w", err)
		}
		sum.add(done)
		after, attempt = page[len(page)-1].CertificateID, 0
	}
}

// resealAll seals those keys of a page anew that are not under the current key-encryption key.
func resealAll(ctx context.Context, keys KeyEncryptionKeys, current []byte, page []SealedKey) (done Resealed, replaced []KeyReplacement, err error) {
	for _, k := range page {
		if id, err := keys.SealedUnder(k.Sealed); err == nil && bytes.Equal(id, current) {
			done.Current++
			continue
		}
		sealed, err := reseal(ctx, keys, k)
		switch {
		case err == nil:
			done.Resealed++
			replaced = append(replaced, KeyReplacement{CertificateID: k.CertificateID, Old: k.Sealed, New: sealed})
		case fault.Is(err, fault.Unavailable) || ctx.Err() != nil:
			return done, nil, fmt.Errorf("reseal key of certificate %d: %w", k.CertificateID, err)
		default:
			done.Failed++
			done.Reasons = append(done.Reasons, fmt.Errorf("certificate %d: %w", k.CertificateID, err))
		}
	}
	return done, replaced, nil
}

// errSealedWrong is a new sealed form that does not give back what was sealed.
var errSealedWrong = errors.New("what the token sealed anew does not open to the same key; the old form is kept")

// reseal seals one key anew, and opens it again: the old form is overwritten and its key destroyed, so that a token
// which sealed it wrong would lose it for good.
func reseal(ctx context.Context, keys KeyEncryptionKeys, k SealedKey) ([]byte, error) {
	place := sealedPlace(Certificate{IssuerID: k.IssuerID, Serial: k.Serial})
	plaintext, err := keys.Unseal(ctx, k.Sealed, place)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	sealed, err := keys.Seal(ctx, plaintext, place)
	if err != nil {
		return nil, err
	}
	again, err := keys.Unseal(ctx, sealed, place)
	defer clear(again)
	switch {
	case fault.Is(err, fault.Unavailable):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errSealedWrong, err)
	case !bytes.Equal(again, plaintext):
		return nil, errSealedWrong
	}
	return sealed, nil
}

func (a *Authority) replaceSealed(ctx context.Context, caller policy.Caller, current []byte, all []KeyReplacement) error {
	if len(all) == 0 {
		return nil
	}
	detail := fmt.Sprintf("sealed the keys of %d certificates anew (ids %d to %d), key-encryption key %x",
		len(all), all[0].CertificateID, all[len(all)-1].CertificateID, current)
	return a.cfg.Store.ReplaceSealedKeys(ctx, all, a.event(ctx, caller, audit.KeyReseal, nil, audit.ResourceCertificate, nil, detail))
}

func (r *Resealed) add(done Resealed) {
	r.Current += done.Current
	r.Resealed += done.Resealed
	r.Failed += done.Failed
	r.Reasons = append(r.Reasons, done.Reasons[:min(len(done.Reasons), keptFailures-len(r.Reasons))]...)
}

// SealedUnder counts the private keys that are kept, by the key-encryption key that each names, in hexadecimal; "" is
// what names none.
func (a *Authority) SealedUnder(ctx context.Context, caller policy.Caller, keys KeyEncryptionKeys) (map[string]int, error) {
	if err := a.operates(caller); err != nil {
		return nil, err
	}
	count := map[string]int{}
	for after := int64(0); ; {
		page, err := a.cfg.Store.SealedKeys(ctx, after, countPage)
		if err != nil {
			return nil, fmt.Errorf("list sealed keys: %w", err)
		}
		if len(page) == 0 {
			return count, nil
		}
		for _, k := range page {
			id, _ := keys.SealedUnder(k.Sealed) // what cannot be read names no key
			count[hex.EncodeToString(id)]++
		}
		after = page[len(page)-1].CertificateID
	}
}

// DestroyKEK deletes an old key-encryption key, after counting that no private key is left under it (Conflict
// otherwise). Keys of certificates that are being issued at this moment are not counted yet: the caller waits between
// the rotation and this. The intent is recorded before the token is touched.
func (a *Authority) DestroyKEK(ctx context.Context, caller policy.Caller, keys KeyEncryptionKeys, id []byte) error {
	count, err := a.SealedUnder(ctx, caller, keys)
	if err != nil {
		return err
	}
	if n := count[hex.EncodeToString(id)]; n > 0 {
		return fault.New(fault.Conflict, "%d private keys are sealed under key-encryption key %x", n, id)
	}
	if err := a.recordKEK(ctx, caller, audit.KEKDestroy, fmt.Sprintf("about to destroy key-encryption key %x, under which nothing is sealed", id)); err != nil {
		return err
	}
	if err := keys.DestroyKEK(ctx, id); err != nil {
		return fmt.Errorf("destroy key-encryption key %x: %w", id, err)
	}
	ctx, cancel := finish(ctx, issueTimeout)
	defer cancel()
	return a.recordKEK(ctx, caller, audit.KEKDestroy, fmt.Sprintf("key-encryption key %x is destroyed", id))
}

func (a *Authority) recordKEK(ctx context.Context, caller policy.Caller, action audit.Action, detail string) error {
	if err := a.cfg.Store.Record(ctx, a.event(ctx, caller, action, nil, "", nil, detail)); err != nil {
		return fmt.Errorf("record %s: %w", action, err)
	}
	return nil
}

// operates admits superusers, and the operator beside the server, who has no account.
func (a *Authority) operates(caller policy.Caller) error {
	if caller.Role != policy.RoleSuperuser {
		return a.allow(policy.ErrDenied)
	}
	return nil
}
