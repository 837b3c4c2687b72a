package ca

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"signet/audit"
	"signet/fault"
	"signet/policy"
)

const (
	// retainEvery is how often records are looked through whose time may be over.
	retainEvery = time.Hour
	// removeBatch is how many records one transaction removes.
	removeBatch = 500
	// removeTimeout bounds one batch.
	removeTimeout = time.Minute
	// removeRest is how many times as long as it took a batch is followed by none, and minRemovePause how long at least: issuance
	// has the rest.
	removeRest     = 3
	minRemovePause = 10 * time.Millisecond
)

// Removed counts what was removed of one kind, of one CA.
type Removed struct {
	Kind   RecordKind
	CAID   int64 // 0 for entries of the audit trail
	CAName string
	Count  int64
	Bytes  int64 // of the lines that tell of them
}

// PlanRetention counts what a policy would remove now, and removes nothing. Superusers only.
func (a *Authority) PlanRetention(ctx context.Context, caller policy.Caller, p RetentionPolicy) ([]Removable, error) {
	if err := a.allow(policy.AllowSuperuser(caller)); err != nil {
		return nil, err
	}
	now := a.cfg.Now()
	all, err := a.cfg.Store.Removable(ctx, now, before(now, p.Expired), before(now, p.Audit))
	if err != nil {
		return nil, fmt.Errorf("count what may be removed: %w", err)
	}
	return all, nil
}

// Retain removes the records that a policy does not keep any longer, batch by batch with pauses, until none is left or ctx ends. Each
// batch goes to the archive first, if there is one, and is in the audit trail. What was removed until then is returned with an
// error, too. Superusers only.
func (a *Authority) Retain(ctx context.Context, caller policy.Caller, p RetentionPolicy, archive Archive) ([]Removed, error) {
	if err := a.allow(policy.AllowSuperuser(caller)); err != nil {
		return nil, err
	}
	return a.retain(ctx, caller, p, archive)
}

// retainInBackground removes what the policy of the settings does not keep, until ctx ends.
func (a *Authority) retainInBackground(ctx context.Context) {
	if a.cfg.Retention == (RetentionPolicy{}) {
		return
	}
	failing := alarm{task: "retention"}
	var next time.Time
	every(ctx, time.Second, func() { // so that a replica that comes to lead begins at once
		if !a.leads() || time.Now().Before(next) {
			return
		}
		next = time.Now().Add(retainEvery)
		if _, err := a.retain(ctx, policy.Caller{}, a.cfg.Retention, a.cfg.Archive); err == nil {
			failing.end()
		} else if ctx.Err() == nil {
			failing.raise(a, err)
		}
	})
}

// before is when what is kept so long must have ended; zero when it is kept for ever.
func before(now time.Time, kept time.Duration) time.Time {
	if kept <= 0 {
		return time.Time{}
	}
	return now.Add(-max(kept, MinRetention))
}

func (a *Authority) retain(ctx context.Context, caller policy.Caller, p RetentionPolicy, archive Archive) ([]Removed, error) {
	r := &remover{Authority: a, caller: caller, archive: archive, now: a.cfg.Now()}
	var done []Removed
	run := func(kind RecordKind, c CA, before time.Time, next func(context.Context, *Removed, time.Time) (more bool, err error)) error {
		sum := Removed{Kind: kind, CAID: c.ID, CAName: c.Name}
		err := r.batches(ctx, func(ctx context.Context) (bool, error) { return next(ctx, &sum, before) })
		if sum.Count > 0 {
			done = append(done, sum)
		}
		if err != nil {
			return fmt.Errorf("remove %s: %w", kind, err)
		}
		return nil
	}
	if at := before(r.now, p.Expired); !at.IsZero() {
		for after := int64(0); ; {
			page, err := a.cfg.Store.EveryCA(ctx, Page{After: after, Limit: removeBatch})
			if err != nil {
				return done, fmt.Errorf("list CAs: %w", err)
			}
			for _, c := range page {
				after = c.ID
				if err := run(CertificateRecords, c, at, r.certificates(c)); err != nil {
					return done, err
				}
				if err := run(ListRecords, c, at, r.lists(c)); err != nil {
					return done, err
				}
			}
			if len(page) < removeBatch {
				break
			}
		}
	}
	if at := before(r.now, p.Audit); !at.IsZero() {
		if err := run(AuditRecords, CA{}, at, r.entries()); err != nil {
			return done, err
		}
	}
	return done, nil
}

// remover is one run of a policy.
type remover struct {
	*Authority
	caller  policy.Caller
	archive Archive
	now     time.Time // of the start: what ends meanwhile is for the next run
}

// batches repeats a step until there is no more to do, with pauses.
func (r *remover) batches(ctx context.Context, step func(context.Context) (more bool, err error)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !r.leads() {
			return nil // another replica goes on
		}
		start := time.Now()
		limited, cancel := context.WithTimeout(ctx, removeTimeout)
		more, err := step(limited)
		cancel()
		if err != nil || !more {
			return err
		}
		if err := pause(ctx, max(removeRest*time.Since(start), minRemovePause)); err != nil {
			return err
		}
	}
}

// certificates is the step that removes those of a CA.
func (r *remover) certificates(c CA) func(context.Context, *Removed, time.Time) (bool, error) {
	var after RecordPlace
	return func(ctx context.Context, sum *Removed, before time.Time) (bool, error) {
		all, err := r.cfg.Store.ExpiredCertificates(ctx, c.ID, r.now, before, after, removeBatch)
		if err != nil || len(all) == 0 {
			return false, err
		}
		last := all[len(all)-1]
		after = RecordPlace{last.NotAfter, last.ID}
		_, err = cut(r, c, sum, before, all, func(x ExpiredCertificate) int64 { return x.ID }, certificateLine,
			func(k Cut, e audit.Event) error { return r.cfg.Store.RemoveCertificates(ctx, k, all, e) })
		return len(all) == removeBatch, err
	}
}

// lists is the step that removes what is known of those of a CA. Nothing is passed over, so after a conflict it ends.
func (r *remover) lists(c CA) func(context.Context, *Removed, time.Time) (bool, error) {
	return func(ctx context.Context, sum *Removed, before time.Time) (bool, error) {
		all, err := r.cfg.Store.RetiredLists(ctx, c.ID, before, removeBatch)
		if err != nil || len(all) == 0 {
			return false, err
		}
		ok, err := cut(r, c, sum, before, all, func(l List) int64 { return l.Number }, listLine,
			func(k Cut, e audit.Event) error { return r.cfg.Store.RemoveLists(ctx, k, all, e) })
		return ok && len(all) == removeBatch, err
	}
}

// entries is the step that removes those of the audit trail.
func (r *remover) entries() func(context.Context, *Removed, time.Time) (bool, error) {
	var after RecordPlace
	return func(ctx context.Context, sum *Removed, before time.Time) (bool, error) {
		all, err := r.cfg.Store.OldEntries(ctx, before, after, removeBatch)
		if err != nil || len(all) == 0 {
			return false, err
		}
		last := all[len(all)-1]
		after = RecordPlace{last.CreatedAt, last.ID}
		_, err = cut(r, CA{}, sum, before, all, func(e audit.Entry) int64 { return e.ID }, entryLine,
			func(k Cut, e audit.Event) error { return r.cfg.Store.RemoveEntries(ctx, k, all, e) })
		return len(all) == removeBatch, err
	}
}

// cut archives a batch and removes it. It reports false when somebody changed or removed a record meanwhile: the batch stays, for the
// next run to look at.
func cut[T any](r *remover, c CA, sum *Removed, before time.Time, all []T, id func(T) int64, line func(T) ([]byte, error),
	remove func(Cut, audit.Event) error) (bool, error) {
	k := Cut{Kind: sum.Kind, CAID: c.ID, First: id(all[0]), Last: id(all[0]), Count: len(all), At: r.cfg.Now(), Before: before}
	var lines []byte
	for _, record := range all {
		k.First, k.Last = min(k.First, id(record)), max(k.Last, id(record))
		text, err := line(record)
		if err != nil {
			return false, fmt.Errorf("encode record %d: %w", id(record), err)
		}
		lines = append(append(lines, text...), '\n')
	}
	hash := sha256.Sum256(lines)
	k.SHA256 = hash[:]
	if r.archive != nil {
		k.Archive = k.file()
		if err := r.archive.Keep(k.Archive, lines); err != nil {
			return false, fmt.Errorf("archive %d records: %w", len(all), err)
		}
	}
	err := remove(k, r.removal(c, k))
	if fault.Is(err, fault.Conflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sum.Count += int64(len(all))
	sum.Bytes += int64(len(lines))
	if r.cfg.Hooks.Removed != nil {
		r.cfg.Hooks.Removed(k.Kind, len(all))
	}
	return true, nil
}

// file is the name of the file that keeps what a cut removed. It follows from the content.
func (k Cut) file() string {
	name := string(k.Kind)
	if k.CAID != 0 {
		name += fmt.Sprintf("-ca%d", k.CAID)
	}
	return fmt.Sprintf("%s-%012d-%012d-%s.jsonl.gz", name, k.First, k.Last, hex.EncodeToString(k.SHA256[:6]))
}

// removal is what the trail keeps of a cut for ever.
func (r *remover) removal(c CA, k Cut) audit.Event {
	what := map[RecordKind]string{
		CertificateRecords: "%d certificates, ids %d to %d, that ended before %s",
		ListRecords:        "what is known of %d lists, numbers %d to %d, that ended before %s",
		AuditRecords:       "%d entries of the audit trail, ids %d to %d, written before %s",
	}[k.Kind]
	detail := fmt.Sprintf("removed "+what+"; SHA-256 of the lines %x", k.Count, k.First, k.Last, k.Before.UTC().Format(time.RFC3339), k.SHA256)
	if k.Archive == "" {
		detail += ", not archived"
	} else {
		detail += ", archived in " + k.Archive
	}
	e := audit.Event{Action: audit.Retention, Username: r.caller.Username, Detail: detail}
	if r.caller.UserID != 0 {
		e.UserID = &r.caller.UserID
	}
	if c.ID != 0 {
		e.ResourceType, e.ResourceID, e.OrganizationID = audit.ResourceCA, &c.ID, c.OrganizationID
	}
	return e
}
