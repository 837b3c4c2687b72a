package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// InitToken initializes an empty token of the module with the label and user PIN of cfg (C_InitToken, C_InitPIN),
// and finishes one that was left without user PIN. Errors: [ErrExists] when a complete token has this label,
// [ErrPIN] when an incomplete one has another security officer PIN, [ErrUnavailable].
func InitToken(ctx context.Context, cfg Config, soPIN string) error {
	if len(cfg.Token) == 0 || len(cfg.Token) > 32 {
		return fmt.Errorf("initialize token %q: a label has 1 to 32 bytes", cfg.Token)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	_, err := within(ctx, func() (struct{}, error) { return struct{}{}, initToken(ctx, cfg, soPIN) }, func(struct{}) {})
	if err != nil {
		return explain(fmt.Sprintf("initialize token %q", cfg.Token), err)
	}
	return nil
}

func initToken(ctx context.Context, cfg Config, soPIN string) error {
	m, err := useModule(cfg.Module, cfg.InitArgs, false)
	if err != nil {
		return err
	}
	return errors.Join(m.initToken(ctx, cfg, soPIN), m.release(ctx))
}

func (m *module) initToken(ctx context.Context, cfg Config, soPIN string) error {
	reopen, err := m.gate.drain(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer reopen()
	found, err := m.find(cfg.Token)
	switch {
	case errors.Is(err, errNoToken):
		if found, err = m.initEmpty(cfg.Token, soPIN); err != nil {
			return err
		}
	case err != nil:
		return err
	case found.info.Flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0:
		return ErrExists
	}
	return m.initPIN(found.id, soPIN, cfg.PIN)
}

// initEmpty gives an uninitialized token a label and the security officer's PIN.
func (m *module) initEmpty(label, soPIN string) (listed, error) {
	all, err := m.list()
	if err != nil {
		return listed{}, err
	}
	for _, l := range all {
		if l.initialized() {
			continue
		}
		if err := m.ctx.InitToken(l.id, soPIN, label); err != nil {
			return listed{}, fmt.Errorf("C_InitToken: %w", err)
		}
		return m.find(label)
	}
	return listed{}, errors.New("the module has no empty token")
}

func (m *module) initPIN(slot uint, soPIN, pin string) error {
	session, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	defer m.ctx.CloseSession(session)
	if err := m.ctx.Login(session, pkcs11.CKU_SO, soPIN); err != nil {
		return fmt.Errorf("log in as security officer: %w", err)
	}
	defer m.ctx.Logout(session)
	if err := m.ctx.InitPIN(session, pin); err != nil {
		return fmt.Errorf("C_InitPIN: %w", err)
	}
	return nil
}
