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
	"sync"
	"syscall"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
)

// farewell is how long a worker whose parent is gone tries to log out.
const farewell = time.Second

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
	s := &server{link: newLink(conn), keys: map[uint32]crypto.Signer{}, calls: map[uint64]context.CancelFunc{}}
	defer s.link.close()
	defer context.AfterFunc(ctx, s.link.close)()
	for {
		f, err := s.link.receive()
		if err != nil {
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
		}
	}
}

// server is the worker's side of the pipe.
type server struct {
	link  *link
	token *keystore.Token // set by the call "open", which is the first

	mu     sync.RWMutex
	keys   map[uint32]crypto.Signer
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
	return signer.Sign(nil, r.digest, r.opts())
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
	left, method, argument, err := decodeCall(request)
	if err != nil {
		return nil, err
	}
	handler := handlers[method]
	if handler == nil {
		return nil, fmt.Errorf("%w: no method %q", errFrame, method)
	}
	s.mu.RLock()
	open := s.token != nil
	s.mu.RUnlock()
	if !open && method != openToken.name {
		return nil, fmt.Errorf("%w: no token is open", errFrame)
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	return handler(ctx, s, argument)
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
	s.keys[number] = signer
}

// open opens the token. What the parent does not see itself is reported to it.
func (s *server) open(ctx context.Context, cfg keystore.Config) error {
	cfg.Observe = func(op string, took time.Duration, err error) {
		if op == "login" || op == "connect" || op == "find" {
			_ = s.link.sendNow(notice{op, took, refusal(err)}.frame()) // at once: the next call may be the module's last
		}
	}
	token, err := keystore.Open(ctx, cfg)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
	return nil
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
