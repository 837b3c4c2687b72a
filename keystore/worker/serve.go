package worker

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
)

const (
	farewell   = time.Second // how long a worker whose parent is gone tries to log out
	pinTimeout = 2 * time.Second
	watchEvery = 250 * time.Millisecond
	slowFactor = 12 // how much longer a module may hang while it makes a key
)

// Main is the worker's whole program: it serves its parent until that closes the pipe or ends. Interrupt and SIGTERM
// are ignored, because a terminal or an init system sends them to parent and worker alike, and the parent decides when
// the last signature was made.
func Main(ctx context.Context) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	// A crash must not leave the PIN in a file.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	file := os.NewFile(descriptor, "parent")
	conn, err := net.FileConn(file)
	if err != nil {
		return errors.New("the token worker is started by the server, not by hand")
	}
	file.Close()
	return Serve(ctx, conn)
}

// Serve answers the requests that come over conn until it ends, and closes conn and token.
func Serve(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{link: newLink(conn), keys: map[uint32]keystore.Signer{}, calls: map[uint64]context.CancelFunc{}, pins: make(chan string, 1)}
	defer s.link.close()
	defer context.AfterFunc(ctx, s.link.close)()
	for {
		f, err := s.link.receive()
		if err != nil {
			if hang := s.hang.Load(); hang != nil {
				return *hang
			}
			s.abandon()
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("read request: %w", err)
		}
		switch f.kind {
		case kindSign:
			go s.sign(f)
		case kindCall:
			limited, done := context.WithCancel(ctx)
			s.begin(f.id, done)
			go s.call(limited, f)
		case kindCancel:
			s.end(f.id)
		case kindPing:
			_ = s.link.send(sealed(newFrame(kindPing, 0, 0))) // without a pipe, nobody waits
		case kindPIN:
			select {
			case s.pins <- string(f.body):
			default:
			}
			clear(f.body)
		}
	}
}

// server is the worker's side of the pipe.
type server struct {
	link  *link
	token *keystore.Token // set by the call "open", which is the first
	pins  chan string     // answers of the parent
	slow  atomic.Int32    // how many calls make keys
	hang  atomic.Pointer[error]

	reporting sync.Mutex // held from the reading of the state until it is on its way

	mu     sync.RWMutex
	keys   map[uint32]keystore.Signer
	calls  map[uint64]context.CancelFunc
	closed bool
}

func (s *server) sign(f frame) {
	signature, err := s.signature(f.body)
	if err != nil {
		_ = s.link.send(encodeError(f.id, err)) // without a pipe, nobody waits
		return
	}
	_ = s.link.send(encodeOK(f.id, signature))
}

func (s *server) signature(body []byte) ([]byte, error) {
	r, err := decodeSign(body)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	signer := s.keys[r.key]
	s.mu.RUnlock()
	if signer == nil {
		return nil, fmt.Errorf("%w: key %d was never named", errFrame, r.key)
	}
	ctx, cancel := r.within(context.Background())
	defer cancel()
	return signer.SignRequest(ctx, r.request())
}

func (s *server) call(ctx context.Context, f frame) {
	defer s.end(f.id)
	body, err := s.run(ctx, f.body)
	clear(f.body)
	if err != nil {
		_ = s.link.send(encodeError(f.id, err))
		return
	}
	_ = s.link.send(encodeOK(f.id, body))
	clear(body)
}

func (s *server) run(ctx context.Context, request []byte) ([]byte, error) {
	limits, method, argument, err := decodeCall(request)
	if err != nil {
		return nil, err
	}
	handler, known := handlers[method]
	if !known {
		return nil, fmt.Errorf("%w: no method %q", errFrame, method)
	}
	s.mu.RLock()
	open := s.token != nil
	s.mu.RUnlock()
	if !open && method != openToken.name {
		return nil, fmt.Errorf("%w: no token is open", errFrame)
	}
	if handler.slow {
		s.slow.Add(1)
		defer s.slow.Add(-1)
	}
	ctx, cancel := limits.within(ctx)
	defer cancel()
	return handler.run(ctx, s, argument)
}

func (s *server) begin(id uint64, cancel context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[id] = cancel
}

// end cancels the call if it still runs.
func (s *server) end(id uint64) {
	s.mu.Lock()
	cancel := s.calls[id]
	delete(s.calls, id)
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

func (s *server) remember(number uint32, signer crypto.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[number] = signer.(keystore.Signer)
}

// open opens the token. What the parent does not see itself is reported to it.
func (s *server) open(ctx context.Context, r openRequest) error {
	cfg := r.Config
	cfg.Observe = func(op string, took time.Duration, err error) {
		switch {
		case op == "login":
			_ = s.link.sendNow(notice{op, took, refusal(err)}.frame()) // at once: the next call may be the module's last
		case slices.Contains(noticed, op):
			_ = s.link.send(notice{op, took, err}.frame())
		}
	}
	cfg.Changed = func(keystore.State) { s.report() }
	if r.HasSource {
		cfg.PINSource = s.askPIN
	}
	token, err := keystore.Open(ctx, cfg)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.token = token
	s.mu.Unlock()
	s.report()
	go s.watch(token)
	return nil
}

// report tells the parent how the token is doing. The state is read when it is told, so that what was told last is so.
func (s *server) report() {
	s.mu.RLock()
	token := s.token
	s.mu.RUnlock()
	if token == nil {
		return // it is being opened, and will be reported then
	}
	s.reporting.Lock()
	defer s.reporting.Unlock()
	_ = s.link.send(encodeState(token.State()))
}

// askPIN is the source of the PIN: the parent knows where it comes from.
func (s *server) askPIN() (string, error) {
	if err := s.link.send(sealed(newFrame(kindPIN, 0, 0))); err != nil {
		return "", err
	}
	select {
	case pin := <-s.pins:
		return pin, nil
	case <-time.After(pinTimeout):
		return "", errors.New("the server does not tell the PIN")
	}
}

// watch ends the worker when its module hangs: calls that do not return hold sessions, threads and the way to
// C_Initialize, and only the end of the process takes them away. A module may do nothing else while it makes a key.
func (s *server) watch(token *keystore.Token) {
	var since time.Time
	for range time.Tick(watchEvery) {
		state := token.State()
		limit := token.Timeout() / 2 // it took as long to find out
		if s.slow.Load() > 0 {
			limit *= slowFactor
		}
		switch {
		case !state.Hung:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
			s.report()
		case time.Since(since) > limit:
			err := fmt.Errorf("the module hangs: %w", state.Cause)
			s.hang.Store(&err)
			s.link.close()
			return
		}
	}
}

// refusal marks a refused PIN, which the keystore names only when the whole operation has failed.
func refusal(err error) error {
	ckr, ok := errors.AsType[pkcs11.Error](err)
	if ok && (ckr >= pkcs11.CKR_PIN_INCORRECT && ckr <= pkcs11.CKR_PIN_LOCKED || ckr == pkcs11.CKR_USER_PIN_NOT_INITIALIZED) {
		return fmt.Errorf("log in: %w: %w", keystore.ErrPIN, err)
	}
	return err
}

func (s *server) close() error {
	s.mu.Lock()
	token := s.token
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if token == nil || closed {
		return nil
	}
	return token.Close()
}

// abandon logs out when the parent is gone, unless the module hangs.
func (s *server) abandon() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.close() // nobody is left to be told
	}()
	select {
	case <-done:
	case <-time.After(farewell):
	}
}
