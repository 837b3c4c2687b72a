package keystore

import (
	"context"
	"crypto"
	"time"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// What the tests on a real token need of the inside. They live outside the package because the throwaway tokens of
// softhsmtest import it.

// ErrSealed is what Unseal says of a sealed secret that was changed.
var ErrSealed = errSealed

// Raw runs f on a session of the token, beside everything that guards it.
func (t *Token) Raw(ctx context.Context, f func(*pkcs11.Ctx, pkcs11.SessionHandle) error) error {
	_, err := call(ctx, t, operation[struct{}]{name: "raw", run: func(s *session) (struct{}, error) {
		return struct{}{}, f(s.Ctx, s.handle)
	}})
	return err
}

// Block keeps a session busy until the channel is closed, as a module that hangs would.
func (t *Token) Block(ctx context.Context, until <-chan struct{}) error {
	_, err := call(ctx, t, operation[struct{}]{name: "block", run: func(*session) (struct{}, error) {
		<-until
		return struct{}{}, nil
	}})
	return err
}

// DropSessions closes all sessions of the slot behind the pool's back, as a device reset would, while no call is in
// flight: SoftHSM2 crashes otherwise.
func (t *Token) DropSessions(ctx context.Context) error {
	open, err := t.module.gate.drain(ctx)
	if err != nil {
		return err
	}
	defer open()
	return t.module.ctx.CloseAllSessions(t.slot.id)
}

// OpenSessions is the number of sessions that the pool counts.
func (t *Token) OpenSessions() int { return t.pool.size() }

// SetTimeout changes the deadline of later operations.
func (t *Token) SetTimeout(d time.Duration) { t.timeout = d }

// GenerateWith is Generate of a P-256 key with another private template.
func (t *Token) GenerateWith(ctx context.Context, id []byte, change func(crypto11.AttributeSet)) error {
	spec := Spec{ID: id, Label: "weak", Type: EC, Size: 256}
	k, err := kindOf(spec.Type, spec.Size)
	if err != nil {
		return err
	}
	private := privateTemplate(spec, k)
	change(private)
	_, err = t.generate(ctx, &birth{id: id, class: pkcs11.CKO_PRIVATE_KEY, generate: func(s *session) error {
		return s.generatePair(k.generate, publicTemplate(spec, k, k.parameters[0]), private)
	}})
	return err
}

// Evidence reads the attributes of any private key with this CKA_ID as Generate does after making one.
func (t *Token) Evidence(ctx context.Context, id []byte) error {
	_, err := call(ctx, t, operation[struct{}]{name: "evidence", run: func(s *session) (struct{}, error) {
		return struct{}{}, s.evidence(id, pkcs11.CKO_PRIVATE_KEY, BarBorn)
	}})
	return err
}

// PublicKey reads the public key of the pair with this CKA_ID, whatever its private key shows.
func (t *Token) PublicKey(ctx context.Context, id []byte) (crypto.PublicKey, error) {
	return call(ctx, t, operation[crypto.PublicKey]{name: "find", run: func(s *session) (crypto.PublicKey, error) {
		p, err := t.lookup(s, id)
		return crypto.PublicKey(p.public), err
	}})
}
