package keystore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// modules holds the PKCS#11 libraries of this process. C_Initialize is per process and library, so that all tokens
// of one library share one entry. A library that was loaded stays loaded: unloading one whose threads have run is
// not safe; C_Finalize gives its resources back.
var modules = struct {
	sync.Mutex
	byPath map[string]*module
}{byPath: map[string]*module{}}

// module is one loaded PKCS#11 library.
type module struct {
	path string
	ctx  *pkcs11.Ctx
	gate gate

	epoch atomic.Uint64 // C_Initialize so far; sessions and handles from before the last one are void

	mu       sync.Mutex // held over C_Initialize and C_Finalize
	refs     int
	ready    bool             // C_Initialize was done, by us or by somebody else
	ours     bool             // by us
	since    time.Time        // of the last C_Initialize
	blocked  time.Time        // when calls in flight last prevented a restart
	reserved []byte           // pReserved; the module may keep the pointer
	slots    map[string]*slot // by label

	refused sync.Map // by slot.refusal: logins that the token refused, which are never tried again
}

// slot is what the tokens of this process that share a PKCS#11 slot have to share: the login belongs to the
// application, not to a session.
type slot struct {
	label string

	// What the module said last; it changes only while the gate is drained.
	id     uint
	serial string
	login  bool // CKF_LOGIN_REQUIRED
	absent bool // the module does not list the token

	// doors is held over C_OpenSession and C_CloseSession. Closing the last session logs out, and tpm2-pkcs11 loses
	// its TPM for good when a session is opened and logged in at the same time.
	doors sync.Mutex

	mu         sync.Mutex // held over C_Login
	pin        [sha256.Size]byte
	generation atomic.Uint64 // grows with each login and each C_Initialize; object handles from before are void
	generating chan struct{} // serializes key generation: SoftHSM2's store fails now and then under two at once
}

// resolve makes one key of the many paths of a library, which the dynamic linker loads only once.
func resolvePath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return path
}

// useModule loads and initializes the library, or joins those who use it already. release must follow. With later, the
// library may refuse to be initialized as long as what it needs is away: a restart does it then.
func useModule(path, initArgs string, later bool) (*module, error) {
	if path == "" {
		return nil, errors.New("no PKCS#11 module is configured")
	}
	modules.Lock()
	m := modules.byPath[resolvePath(path)]
	if m == nil {
		ctx := pkcs11.New(path)
		if ctx == nil {
			modules.Unlock()
			return nil, fmt.Errorf("load PKCS#11 module %s: not a PKCS#11 library of this platform", path)
		}
		m = &module{path: path, ctx: ctx, slots: map[string]*slot{}}
		modules.byPath[resolvePath(path)] = m
	}
	modules.Unlock()

	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ready {
		if err := m.initialize(initArgs); err != nil && !later {
			return nil, err
		}
	} else if m.ours && initArgs != m.initArgs() {
		return nil, fmt.Errorf("PKCS#11 module %s is in use with other initialization arguments", path)
	}
	m.refs++
	return m, nil
}

func (m *module) initialize(initArgs string) error {
	var options []pkcs11.InitializeOption
	m.reserved = nil
	if initArgs != "" {
		m.reserved = append([]byte(initArgs), 0)
		options = append(options, pkcs11.InitializeWithReserved(unsafe.Pointer(&m.reserved[0])))
	}
	err := m.ctx.Initialize(options...) // with CKF_OS_LOCKING_OK: SoftHSM2 crashes under threads without it
	switch {
	case err == nil:
		m.ours = true
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)):
		m.ours = false // and so not ours to finalize
	default:
		return fmt.Errorf("initialize PKCS#11 module %s: %w: %w", m.path, ErrUnavailable, err)
	}
	m.ready, m.since = true, time.Now()
	m.epoch.Add(1)
	return nil
}

func (m *module) initArgs() string {
	if len(m.reserved) == 0 {
		return ""
	}
	return string(m.reserved[:len(m.reserved)-1])
}

// release ends one use; the last one finalizes the library. With a call still in flight when ctx ends, the library
// stays initialized: finalizing it would crash the process.
func (m *module) release(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs--
	if m.refs > 0 || !m.ours || !m.ready {
		return nil
	}
	open, err := m.gate.drain(ctx)
	if err != nil {
		return fmt.Errorf("finalize PKCS#11 module: calls are still in flight: %w", err)
	}
	defer open()
	m.ready = false
	if err := m.ctx.Finalize(); err != nil {
		return fmt.Errorf("finalize PKCS#11 module: %w", err)
	}
	return nil
}

// Initialized reports whether this process has the library initialized, so that its environment and configuration
// files no longer matter.
func Initialized(path string) bool {
	modules.Lock()
	m := modules.byPath[resolvePath(path)]
	modules.Unlock()
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ready
}

// listed is a slot with a token in it.
type listed struct {
	id   uint
	info pkcs11.TokenInfo
}

func (l listed) initialized() bool { return l.info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 }

// list reads the slots that hold a token. The gate must be drained: SoftHSM2 changes its slot list, without a lock,
// while it is being read.
func (m *module) list() ([]listed, error) {
	ids, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	var all []listed
	for _, id := range ids {
		if info, err := m.ctx.GetTokenInfo(id); err == nil {
			all = append(all, listed{id, info})
		}
	}
	return all, nil
}

// find returns the one initialized token with this label.
func (m *module) find(label string) (listed, error) {
	all, err := m.list()
	if err != nil {
		return listed{}, fmt.Errorf("list slots: %w: %w", ErrUnavailable, err)
	}
	var found []listed
	var labels []string
	for _, l := range all {
		if !l.initialized() {
			continue
		}
		labels = append(labels, l.info.Label)
		if l.info.Label == label {
			found = append(found, l)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return listed{}, fmt.Errorf("no token is labelled %q; PKCS#11 module %s has %q: %w", label, m.path, labels, errNoToken)
	}
	return listed{}, fmt.Errorf("%d tokens are labelled %q", len(found), label)
}

// slotOf returns the shared state of a token's slot. The gate must be drained.
func (m *module) slotOf(label string, l *listed) *slot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.slots[label]
	if s == nil {
		s = &slot{label: label, generating: make(chan struct{}, 1)}
		m.slots[label] = s
	}
	s.found(l)
	return s
}

// found notes where the module has the token now; nil says nowhere.
func (s *slot) found(l *listed) {
	s.absent = l == nil
	if l != nil {
		s.id, s.serial, s.login = l.id, l.info.SerialNumber, l.info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0
	}
}

// restart is what helps when nothing else does: C_Finalize and C_Initialize, with no call in flight. Every session,
// login and handle of the module is void afterwards, of all its tokens. Whoever asks for it names the epoch that has
// failed, so that one restart serves all. Calls that do not come back by the end of ctx prevent it.
func (m *module) restart(ctx context.Context, failed uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.epoch.Load() != failed:
		return nil
	case m.refs == 0:
		return errClosed
	}
	if m.ready && !m.ours {
		return fmt.Errorf("restart PKCS#11 module %s: another part of this process has initialized it", m.path)
	}
	open, err := m.gate.drain(ctx)
	if err != nil {
		m.blocked = time.Now()
		return fmt.Errorf("restart PKCS#11 module %s: %w: %w", m.path, errInFlight, err)
	}
	defer open()
	if m.ready {
		_ = m.ctx.Finalize() // whatever it says: what counts is whether C_Initialize works
		m.ready = false
	}
	if err := m.initialize(m.initArgs()); err != nil {
		return err
	}
	all, err := m.list()
	for _, s := range m.slots {
		s.found(only(all, s.label))
		s.generation.Add(1)
	}
	if err != nil {
		return fmt.Errorf("list slots: %w: %w", ErrUnavailable, err)
	}
	return nil
}

// rests reports whether the module has other users, who are to be left alone for a while: it was restarted often enough, or
// calls in flight have just prevented that, for which everybody else had to wait.
func (m *module) rests(often bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refs > 1 && (often && time.Since(m.since) < othersRest || time.Since(m.blocked) < othersRest)
}

// only returns the one initialized token with this label, or nil.
func only(all []listed, label string) *listed {
	var found *listed
	for i, l := range all {
		if l.initialized() && l.info.Label == label {
			if found != nil {
				return nil
			}
			found = &all[i]
		}
	}
	return found
}

// refusal names a login without holding the PIN.
func (s *slot) refusal(pin []byte) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%d %s%d %s%s", len(s.label), s.label, len(s.serial), s.serial, pin))
}
