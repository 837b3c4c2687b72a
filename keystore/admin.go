package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Listing describes a token as anybody sees it, without login.
type Listing struct {
	Slot                                         uint
	Label, Manufacturer, Model, Serial, Firmware string
	Initialized                                  bool // it has a label and a security officer's PIN
	PINSet                                       bool // it has a user PIN
	PINLow                                       bool // the user PIN was refused since the last login
	PINLocked                                    bool // the user PIN is locked
}

// ListTokens lists the tokens of a module. It logs in nowhere. Errors: [ErrUnavailable], or what is wrong with the module.
func ListTokens(ctx context.Context, module, initArgs string) ([]Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	all, err := within(ctx, func() ([]Listing, error) {
		m, err := useModule(module, initArgs, false)
		if err != nil {
			return nil, err
		}
		listings, err := m.listings(ctx)
		return listings, errors.Join(err, m.release(ctx))
	}, func([]Listing) {})
	if err != nil {
		return nil, explain("list tokens", err)
	}
	return all, nil
}

func (m *module) listings(ctx context.Context) ([]Listing, error) {
	reopen, err := m.gate.drain(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer reopen()
	all, err := m.list()
	if err != nil {
		return nil, err
	}
	listings := []Listing{}
	for _, l := range all {
		has := func(flag uint) bool { return l.info.Flags&flag != 0 }
		listings = append(listings, Listing{
			Slot: l.id, Label: l.info.Label, Manufacturer: l.info.ManufacturerID, Model: l.info.Model, Serial: l.info.SerialNumber,
			Firmware:    fmt.Sprintf("%d.%d", l.info.FirmwareVersion.Major, l.info.FirmwareVersion.Minor),
			Initialized: l.initialized(), PINSet: has(pkcs11.CKF_USER_PIN_INITIALIZED),
			PINLow: has(pkcs11.CKF_USER_PIN_COUNT_LOW), PINLocked: has(pkcs11.CKF_USER_PIN_LOCKED),
		})
	}
	return listings, nil
}

// SetPIN changes the user PIN (C_SetPIN). It is asked once: whether a call that was not answered has changed the PIN, only
// a login tells. Other processes that are logged in stay so. Errors: [ErrPIN] when the token refuses the new PIN (too
// short, too long), [ErrUnavailable].
func (t *Token) SetPIN(ctx context.Context, pin string) error {
	_, err := call(ctx, t, operation[struct{}]{name: "set PIN", once: true, run: func(s *session) (struct{}, error) {
		t.slot.mu.Lock()
		defer t.slot.mu.Unlock()
		if err := s.SetPIN(s.handle, string(t.pin), pin); err != nil {
			return struct{}{}, err
		}
		t.pin = []byte(pin)
		t.slot.pin = pinSum(t.pin)
		return struct{}{}, nil
	}})
	return err
}
