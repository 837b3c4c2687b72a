package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"signet/ca"
	"signet/fault"
	"signet/keystore"
	"signet/policy"
	"signet/store"
)

// rotateKEKCommand opens database and token itself, with the settings of the server.
type rotateKEKCommand struct {
	DestroyOld bool          `name:"destroy-old" help:"Destroy the older key-encryption keys once nothing is sealed under them. Backups of the database from before can then no longer export leaf keys, unless the token is restored with them; nor can another database on the same token."`
	Resume     bool          `name:"resume" help:"Make no new key: finish what an earlier run began."`
	Settle     time.Duration `name:"settle" default:"2m" help:"How long to wait before an old key is destroyed, so that certificates whose key was sealed under it are recorded. Shorter only when no server runs."`

	Config
}

const (
	// noticeTime is how long after a rotation some server may still seal under the old key, and a little more.
	noticeTime = keystore.KEKMemory + time.Second
	// resealRounds bounds how often the database is walked until nothing is left under an old key.
	resealRounds = 10
)

// Run rotates: the new key first, then everything under it, then the end of the old ones.
func (c *rotateKEKCommand) Run(in *invocation) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if c.Settle < 0 {
		return usagef("--settle must not be negative")
	}
	if _, err := os.Stat(c.DataDir); errors.Is(err, fs.ErrNotExist) && c.PKCS11Module == "" {
		return fmt.Errorf("there is no data folder %s, and so no token in it: give the settings of the server", c.DataDir)
	}
	log := c.logger(in.stderr)
	db, tokens, err := c.open(in.ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tokens.Close(), db.Close()) }()
	token, err := tokens.Token("")
	if err != nil {
		return err
	}
	keys := &kekKeys{tokenKeys{tokens: tokens, sync: c.syncToken}, token}
	settings := c.authority()
	settings.Store, settings.Keys, settings.Now = db, &keys.tokenKeys, time.Now
	r := &rotation{
		authority: ca.New(settings),
		keys:      keys, out: in.stdout, settle: c.Settle,
	}
	return r.run(in.ctx, !c.Resume, c.DestroyOld)
}

func (c *rotateKEKCommand) open(ctx context.Context, log *slog.Logger) (*store.DB, *keystore.Set, error) {
	configs, err := c.tokenConfigs(log)
	if err != nil {
		return nil, nil, err
	}
	db, err := openDatabase(ctx, &c.Config, log, time.Now, nil)
	if err != nil {
		return nil, nil, err
	}
	tokens, err := keystore.OpenSet(ctx, configs)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, tokens, nil
}

// kekKeys is the tokens with the key-encryption keys of the default one, as the certificate authority sees them.
type kekKeys struct {
	tokenKeys
	token *keystore.Token
}

var _ ca.KeyEncryptionKeys = (*kekKeys)(nil)

// SealedUnder implements [ca.KeyEncryptionKeys].
func (k *kekKeys) SealedUnder(sealed []byte) ([]byte, error) { return keystore.SealedUnder(sealed) }

// CurrentKEK implements [ca.KeyEncryptionKeys].
func (k *kekKeys) CurrentKEK(ctx context.Context) ([]byte, error) {
	id, err := k.token.CurrentKEK(ctx)
	return id, tokenFault(err)
}

// RotateKEK implements [ca.KeyEncryptionKeys]. The key is on disk when it returns.
func (k *kekKeys) RotateKEK(ctx context.Context) ([]byte, error) {
	id, err := k.token.RotateKEK(ctx)
	if err != nil {
		return nil, tokenFault(err)
	}
	return id, k.sync()
}

// DestroyKEK implements [ca.KeyEncryptionKeys].
func (k *kekKeys) DestroyKEK(ctx context.Context, id []byte) error {
	if err := k.token.DestroyKEK(ctx, id); err != nil {
		return tokenFault(err)
	}
	return k.sync()
}

// rotation is one run of the command.
type rotation struct {
	authority *ca.Authority
	keys      *kekKeys
	out       io.Writer
	settle    time.Duration
}

// kekOperator is who the audit trail says it was.
var kekOperator = policy.Caller{Username: "signet token rotate-kek", Role: policy.RoleSuperuser}

func (r *rotation) run(ctx context.Context, makeNew, destroyOld bool) error {
	// 1. The new key. What was never sealed needs none.
	current, err := r.keys.token.CurrentKEK(ctx)
	if errors.Is(err, keystore.ErrNotFound) {
		return fmt.Errorf("the token has no key-encryption key: nothing was sealed with it yet: %w", err)
	} else if err != nil {
		return err
	}
	if makeNew {
		if current, err = r.authority.RotateKEK(ctx, kekOperator, r.keys); err != nil {
			return err
		}
		r.say("made key-encryption key %x", current)
	} else {
		r.say("key-encryption key %x seals", current)
	}

	// 2. Every server has noticed, and then everything is sealed anew.
	if err := pause(ctx, noticeTime); err != nil {
		return err
	}
	lost, err := r.reseal(ctx, current)
	if err != nil {
		return err
	}

	// 3. The end of the old ones.
	ids, err := r.keys.token.KEKs(ctx)
	if err != nil {
		return err
	}
	old := ids[min(1, len(ids)):]
	switch {
	case len(old) == 0:
		return lost
	case !destroyOld:
		r.say("kept %d older key-encryption keys: backups of the database may need them (--destroy-old destroys them)", len(old))
		return lost
	}
	r.say("waiting %s for certificates that are being issued", r.settle)
	if err := pause(ctx, r.settle); err != nil {
		return err
	}
	if lost, err = r.reseal(ctx, current); err != nil {
		return err
	}
	return errors.Join(lost, r.destroy(ctx, old))
}

// destroy ends the old keys, but for those under which something is left.
func (r *rotation) destroy(ctx context.Context, old [][]byte) error {
	var kept []error
	for _, id := range old {
		switch err := r.authority.DestroyKEK(ctx, kekOperator, r.keys, id); {
		case fault.Is(err, fault.Conflict):
			kept = append(kept, err)
		case err != nil:
			return err
		default:
			r.say("destroyed key-encryption key %x", id)
		}
	}
	return errors.Join(kept...)
}

// reseal walks the database until it counts nothing under an older key but what cannot be unsealed, which is lost.
func (r *rotation) reseal(ctx context.Context, current []byte) (lost, err error) {
	sum := 0
	for range resealRounds {
		done, err := r.authority.Reseal(ctx, kekOperator, r.keys)
		sum += done.Resealed
		if err != nil {
			return nil, fmt.Errorf("%d keys were sealed anew, then: %w (--resume goes on)", sum, err)
		}
		count, err := r.authority.SealedUnder(ctx, kekOperator, r.keys)
		if err != nil {
			return nil, err
		}
		left := 0
		for id, n := range count {
			if id != hex.EncodeToString(current) {
				left += n
			}
		}
		if left == 0 || done.Failed > 0 && left <= done.Failed {
			r.say("sealed %d keys anew; %d are under the newest key-encryption key, %d are not", sum, count[hex.EncodeToString(current)], left)
			if left > 0 {
				lost = fmt.Errorf("%d keys could not be unsealed and are as they were: %w", done.Failed, errors.Join(done.Reasons...))
			}
			return lost, nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("after %d rounds some keys are still under an old key-encryption key: does a server of an older release run, or another rotation?", resealRounds)
}

func (r *rotation) say(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...) // words for people: the work goes on without them
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
