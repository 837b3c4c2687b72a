package keystore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"
)

// session returns an idle session, or opens one and makes sure that it is logged in. A fresh one is asked for after a
// failure: the idle ones may have died together, and one of them makes way. The caller holds a permit and a place in
// the gate.
func (t *Token) session(fresh bool) (*session, error) {
	s := t.pool.take(t.module.epoch.Load())
	switch {
	case s != nil && !fresh:
		return s, nil
	case s != nil:
		t.discard(s)
	}
	return t.openSession()
}

// openSession opens a session and makes sure that it is logged in. The caller has a place in the gate.
func (t *Token) openSession() (*session, error) {
	if t.slot.absent {
		return nil, fmt.Errorf("find token %q: %w", t.slot.label, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT))
	}
	t.slot.doors.Lock()
	handle, err := t.module.ctx.OpenSession(t.slot.id, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	t.slot.doors.Unlock()
	if err != nil {
		return nil, fmt.Errorf("open session: %w", err)
	}
	t.pool.count(1)
	s := &session{Ctx: t.module.ctx, handle: handle, epoch: t.module.epoch.Load()}
	if err := t.login(s); err != nil {
		t.discard(s)
		return nil, err
	}
	return s, nil
}

// discard closes a session that nobody uses. What the module answers does not matter: the session is over. One from
// before a C_Initialize ended with it, and its handle may be somebody else's by now.
func (t *Token) discard(s *session) {
	if s.epoch == t.module.epoch.Load() {
		t.slot.doors.Lock()
		_ = s.CloseSession(s.handle)
		t.slot.doors.Unlock()
	}
	t.pool.count(-1)
}

// login logs the application in unless it is. A PIN is tried once in the life of the process: some tokens lock after
// three refusals. After a refusal the source of the PIN is asked again, for an operator who has changed it.
func (t *Token) login(s *session) error {
	if !t.slot.login {
		return nil
	}
	t.slot.mu.Lock()
	defer t.slot.mu.Unlock()
	if t.pin == nil { // a recovery may outlive Close by a moment
		return errClosed
	}
	in, err := s.loggedIn()
	if err != nil {
		return err
	}
	if in {
		if t.slot.generation.Load() > 0 && t.slot.pin != pinSum(t.pin) {
			return fmt.Errorf("%w: this process is logged in with another one", ErrPIN)
		}
		return nil
	}
	if t.refused() {
		t.readPIN()
	}
	if t.refused() {
		return fmt.Errorf("%w before; it is not tried again", ErrPIN)
	}
	start := time.Now()
	err = s.Login(s.handle, pkcs11.CKU_USER, string(t.pin))
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		err = nil
	}
	if t.observe != nil {
		t.observe("login", time.Since(start), err)
	}
	if classOf(err) == classPIN {
		t.module.refused.Store(t.slot.refusal(t.pin), true)
	}
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	t.slot.pin = pinSum(t.pin)
	t.slot.generation.Add(1)
	return nil
}

// pinSum tells PINs apart without keeping them.
func pinSum(pin []byte) [sha256.Size]byte { return sha256.Sum256(pin) }

// refused reports whether the token refused the PIN before. The slot is locked.
func (t *Token) refused() bool {
	_, refused := t.module.refused.Load(t.slot.refusal(t.pin))
	return refused
}

// readPIN asks the source of the PIN. The slot is locked.
func (t *Token) readPIN() {
	if t.pinSource == nil {
		return
	}
	if pin, err := t.pinSource(); err == nil && pin != "" {
		t.pin = []byte(pin)
	}
}

// loggedIn asks the token whether the session may see private objects.
func (s *session) loggedIn() (bool, error) {
	info, err := s.GetSessionInfo(s.handle)
	if err != nil {
		return false, fmt.Errorf("read session state: %w", err)
	}
	return info.State == pkcs11.CKS_RW_USER_FUNCTIONS || info.State == pkcs11.CKS_RO_USER_FUNCTIONS, nil
}

// handles is the generation that object handles found now belong to. It takes no lock: a login that hangs in the
// module holds one.
func (s *slot) handles() uint64 { return s.generation.Load() }

// find returns the objects that match, at most max of them.
func (s *session) find(max int, template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := s.FindObjectsInit(s.handle, template); err != nil {
		return nil, fmt.Errorf("find objects: %w", err)
	}
	var all []pkcs11.ObjectHandle
	for len(all) < max {
		some, _, err := s.FindObjects(s.handle, max-len(all))
		if err != nil {
			return nil, fmt.Errorf("find objects: %w", err)
		}
		if len(some) == 0 {
			break
		}
		all = append(all, some...)
	}
	if err := s.FindObjectsFinal(s.handle); err != nil {
		return nil, fmt.Errorf("find objects: %w", err)
	}
	return all, nil
}

// attributeTries is how often an attribute is read when the token gives the answer of a broken device: an accident must
// not make a key look as if its token did not speak for it.
const attributeTries = 4

// attribute reads one attribute. Tokens fail the whole call for one attribute they do not know, so one at a time.
func (s *session) attribute(object pkcs11.ObjectHandle, kind uint) (value []byte, err error) {
	for range attributeTries {
		var read []*pkcs11.Attribute
		read, err = s.GetAttributeValue(s.handle, object, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
		switch {
		case err == nil:
			return read[0].Value, nil
		case classOf(err) != classModule:
			return nil, err
		}
	}
	return nil, err
}

// broken is nil when the answer of a broken device to one attribute was about the attribute (p11-kit says so of those
// that it does not know), because the token answers to another one of the same key.
func (s *session) broken(object pkcs11.ObjectHandle, err error) error {
	if classOf(err) != classModule {
		return nil
	}
	_, err = s.attribute(object, pkcs11.CKA_KEY_TYPE)
	return err
}
