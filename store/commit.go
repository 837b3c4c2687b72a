package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/fault"
	"signet/idempotency"
)

// A committer does what concurrent callers ask in common transactions: each takes as many jobs as wait when the one
// before has ended. One caller alone never waits for company. It is what makes a durable commit cheap under load.
type committer struct {
	queue   chan *job
	closing chan struct{}
	once    sync.Once
	ended   chan struct{}
	run     func(ctx context.Context, jobs []*job) error
	observe func(op string, took time.Duration, err error)
	waiting atomic.Int64 // callers of do
}

const (
	maxGroup      = 64       // jobs in one transaction
	commitTimeout = patience // of one transaction; nobody else can end it
)

// job is a reservation, a completion, a revocation or, in SQLite, a claim. The committer sets the fields below done.
type job struct {
	reserve  *reservation
	complete *completion
	revoke   *ending
	claim    *idempotency.Claim
	event    audit.Event

	taken atomic.Bool   // by the committer, or by the caller who gave up: whoever sets it decides
	done  chan struct{} // closed when the fields below are set

	err    error
	result certificateRow
	sealed []byte // the private key of a revoked certificate
}

// reservation is a certificate to be announced.
type reservation struct {
	certificateRow
	keySHA256 []byte // of its public key; nil: not looked for among those of CAs
}

// completion is what a reservation becomes.
type completion struct {
	id             int64
	der, sealedKey []byte
	claim          *idempotency.Claim // to be completed with it; nil: none
}

// ending is the revocation of a certificate, valid or revoked for one of the reasons that are replaced.
type ending struct {
	id int64
	ca.Revocation
	replaces []int
}

var errClosed = fault.New(fault.Unavailable, "the database is closed")

func startCommitter(run func(context.Context, []*job) error, observe func(string, time.Duration, error)) *committer {
	c := &committer{
		queue: make(chan *job, maxGroup), closing: make(chan struct{}), ended: make(chan struct{}),
		run: run, observe: observe,
	}
	go c.loop()
	return c
}

// close commits what waits and ends the committer. It may be called twice.
func (c *committer) close() {
	c.once.Do(func() { close(c.closing) })
	<-c.ended
}

func (c *committer) loop() {
	defer close(c.ended)
	for {
		select {
		case j := <-c.queue:
			c.commit(c.group(j))
		case <-c.closing:
			for {
				select {
				case j := <-c.queue:
					c.commit(c.group(j))
				default:
					return
				}
			}
		}
	}
}

// group is the job and all that wait behind it.
func (c *committer) group(first *job) []*job {
	jobs := []*job{first}
	for len(jobs) < maxGroup {
		select {
		case j := <-c.queue:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// commit does the jobs whose callers still wait. Two revocations of one certificate are not for one transaction.
func (c *committer) commit(group []*job) {
	var now, later []*job
	revoked := map[int64]bool{}
	for _, j := range group {
		if !j.taken.CompareAndSwap(false, true) {
			continue
		}
		if j.revoke != nil && revoked[j.revoke.id] {
			later = append(later, j)
			continue
		}
		if now = append(now, j); j.revoke != nil {
			revoked[j.revoke.id] = true
		}
	}
	c.together(now)
	for i := range later {
		c.together(later[i : i+1])
	}
}

// together does the jobs in one transaction. When that fails for a reason in one of the jobs, each gets its own.
func (c *committer) together(jobs []*job) {
	if len(jobs) == 0 {
		return
	}
	err := c.try(jobs)
	for _, j := range jobs {
		switch {
		case err == nil:
		case len(jobs) == 1 || isUnavailable(err):
			j.err = err
		default:
			if err := c.try([]*job{j}); err != nil {
				j.err = err
			}
		}
		close(j.done)
	}
}

// try runs one transaction. The callers' contexts do not reach it: they must not end each other's work.
func (c *committer) try(jobs []*job) (err error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	err = retry(ctx, func() error {
		for _, j := range jobs {
			j.err, j.result, j.sealed = nil, certificateRow{}, nil
		}
		return c.run(ctx, jobs)
	})
	c.observe("Commit", time.Since(start), err)
	return err
}

// do queues a job and waits for its end. When ctx ends first, the job is either dropped as a whole or still done.
func (c *committer) do(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.waiting.Add(1)
	defer c.waiting.Add(-1)
	j.done = make(chan struct{})
	select {
	case c.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closing:
		return errClosed
	}
	var gaveUp error
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		gaveUp = ctx.Err()
	case <-c.ended:
		gaveUp = errClosed
	}
	if j.taken.CompareAndSwap(false, true) {
		return gaveUp
	}
	<-j.done
	return j.err
}

func (db *DB) startCommitters() {
	if db.dialect == onSQLite {
		db.reserves = startCommitter(db.commitSQLite, db.observe)
		db.completes, db.revokes = db.reserves, db.reserves
		return
	}
	db.reserves = startCommitter(db.reservePostgres, db.observe)
	db.completes = startCommitter(db.completePostgres, db.observe)
	db.revokes = startCommitter(db.revokePostgres, db.observe)
}

// Waiting is how many calls of Reserve, Complete and Revoke wait for their commit. In SQLite, where one queue is for all,
// each is the number of them together.
func (db *DB) Waiting() (reserve, complete, revoke int64) {
	return db.reserves.waiting.Load(), db.completes.waiting.Load(), db.revokes.waiting.Load()
}

// submit gives a job to a committer.
func (db *DB) submit(ctx context.Context, op string, c *committer, j *job) (err error) {
	start := time.Now()
	defer func() { db.observe(op, time.Since(start), err) }()
	return db.classify(c.do(ctx, j))
}

// Reserve implements ca.Store.
func (db *DB) Reserve(ctx context.Context, c ca.Certificate, e audit.Event) (int64, error) {
	created := db.created(c.CreatedAt)
	j := &job{event: e, reserve: &reservation{keySHA256: c.PublicKeySHA256, certificateRow: certificateRow{
		IssuerID: c.IssuerID, CommonName: c.CommonName, SubjectDN: c.SubjectDN, Type: string(c.Type),
		KeyType: string(c.KeyType), KeySize: c.KeySize, ValidDays: c.ValidDays,
		OrganizationID: c.OrganizationID, CreatedBy: c.CreatedBy,
		Serial: c.Serial, Names: c.Names, CRLShard: c.CRLShard, TBS: c.TBS,
		NotBefore: at(c.NotBefore), NotAfter: at(c.NotAfter), Created: created,
	}}}
	err := db.submit(ctx, "Reserve", db.reserves, j)
	return j.result.ID, err
}

// Complete implements ca.Store.
func (db *DB) Complete(ctx context.Context, id int64, der, sealedKey []byte, e audit.Event) (ca.Certificate, error) {
	j := &job{event: e, complete: &completion{id: id, der: der, sealedKey: sealedKey, claim: idempotency.From(ctx)}}
	if err := db.submit(ctx, "Complete", db.completes, j); err != nil {
		return ca.Certificate{}, err
	}
	c := j.result.certificate()
	c.DER, c.SealedKey = der, sealedKey
	return c, nil
}

// Revoke implements ca.Store.
func (db *DB) Revoke(ctx context.Context, id int64, r ca.Revocation, replaces []int, e audit.Event) (ca.Certificate, error) {
	j := &job{event: e, revoke: &ending{id: id, Revocation: r, replaces: replaces}}
	err := db.submit(ctx, "Revoke", db.revokes, j)
	if errors.Is(err, errCertificateEnded) {
		err = db.classify(whyNotEnded(db.reader.WithContext(ctx), id, errCertificateEnded))
	}
	if err != nil {
		return ca.Certificate{}, err
	}
	c := j.result.certificate()
	c.SealedKey = j.sealed
	return c, nil
}

// standing is what an issuer may do.
type standing struct{ signs, leaves, locked bool }

// whyNotReserved is the answer when an issuer in this state did not reserve a serial.
func whyNotReserved(r *reservation, issuer standing, keyOfCA bool) error {
	switch {
	case !issuer.signs:
		return errIssuerGone(r.IssuerID)
	case issuer.locked:
		return errIssuerLocked(r.IssuerID)
	case !issuer.leaves && r.Type != "ca":
		return errNoLeaves(r.IssuerID)
	case keyOfCA:
		return ca.ErrCAKey
	}
	return errSerialTaken
}
