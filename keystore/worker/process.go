package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"signet/keystore"
)

// descriptor is the worker's end of the socket pair.
const descriptor = 3

// lost is the fate of a call whose worker ended before it answered.
type lost struct{ error }

func (l lost) Unwrap() error { return l.error }

// Reason is for [keystore.Reason].
func (lost) Reason() string { return "its process ended" }

var (
	errLost   error = lost{fmt.Errorf("%w: the token worker ended", keystore.ErrUnavailable)}
	errFrozen       = fmt.Errorf("%w: it did not answer in time", errLost)
)

// process is one worker: a child, the pipe to it and the calls it has not answered.
type process struct {
	token  *Token
	cmd    *exec.Cmd
	link   *link
	born   time.Time
	dead   chan struct{} // closed when the pipe fails, or the parent gives it up
	exited chan struct{} // closed when the child is reaped
	words  firstLine     // what it said last

	bound sync.Map     // *key: the keys that this worker knows by number
	heard atomic.Int64 // when the last frame came, in nanoseconds since born

	state keystore.State // as it was told last; guarded by token.mu
	pin   string         // that it was told last; guarded by token.mu

	last atomic.Uint64 // call id
	mu   sync.Mutex
	end  error // set when dead
	wait map[uint64]chan answer
}

// answer is what came back for a call: a body or an error.
type answer struct {
	body []byte
	err  error
}

// request is a call to be sent.
type request struct {
	id    uint64
	frame []byte
	late  func(answer) // if set, gets an answer that comes when nobody waits for it any more
}

// spawn starts a worker and makes it open the token, within the deadline of an operation.
func (t *Token) spawn(ctx context.Context, later bool) (_ *process, err error) {
	cfg := t.cfg.Keystore
	cfg.Later = later
	if cfg.PIN, err = t.nextPIN(); err != nil {
		return nil, err
	}
	start := time.Now()
	defer func() { t.observe("worker", time.Since(start), err) }()
	ctx, cancel := context.WithTimeout(ctx, t.Timeout())
	defer cancel()
	p := &process{
		token: t, pin: cfg.PIN, born: start, state: keystore.State{Up: true},
		dead: make(chan struct{}), exited: make(chan struct{}), wait: map[uint64]chan answer{},
	}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
	}
	if _, err := openToken.on(ctx, p, openRequest{cfg, cfg.PINSource != nil}); err != nil {
		p.fail(err)
		p.bury()
		return nil, err
	}
	return p, nil
}

// bury ends the child and waits for it, but not for ever: one that hangs in a device driver cannot be killed. One that has
// closed the pipe itself is about to say why.
func (p *process) bury() {
	if cause := p.cause(); errors.Is(cause, errLost) && !errors.Is(cause, errFrozen) {
		select {
		case <-p.exited:
		case <-time.After(lastWords):
		}
	}
	_ = p.cmd.Process.Kill() // an error means that it has ended already
	select {
	case <-p.exited:
	case <-time.After(reaping):
	}
}

func (p *process) start() error {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "parent")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return fmt.Errorf("use socket pair: %w", err)
	}
	c := &p.token.cfg
	p.words.next = c.Stderr
	p.cmd = exec.Command(c.Program, c.Args...)
	p.cmd.Args[0] = os.Args[0] // it is the same program, and lists of processes show it as that
	p.cmd.Env, p.cmd.ExtraFiles, p.cmd.Stderr = environment(c.Env), []*os.File{theirs}, &p.words
	p.cmd.SysProcAttr, p.cmd.WaitDelay = dieWithParent(), reaping
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the child dies with the thread that started it: keep the thread as long as the child
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // its verdict is in ProcessState
		}
		close(p.exited)
	}()
	if err := <-started; err != nil {
		conn.Close()
		return fmt.Errorf("start %s: %w", c.Program, err)
	}
	p.link = newLink(conn)
	go p.read()
	go p.watch()
	return nil
}

// environment is that of the worker. The settings of the server, some of which are secrets, are not for the module.
func environment(given []string) []string {
	if given != nil {
		return given
	}
	env := []string{}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "SIGNET_") {
			env = append(env, variable)
		}
	}
	return env
}

// read hands out the answers until the pipe ends.
func (p *process) read() {
	for {
		f, err := p.link.receive()
		if err != nil {
			p.fail(errLost)
			return
		}
		p.heard.Store(int64(time.Since(p.born)))
		switch f.kind {
		case kindOK:
			p.answered(f.id, answer{body: f.body})
		case kindError:
			p.answered(f.id, answer{err: decodeError(f.body)})
		case kindNotice, kindState:
			if err := p.noticed(f); err != nil {
				p.fail(fmt.Errorf("%w: %w", errLost, err))
				return
			}
		case kindPIN:
			go p.tellPIN()
		}
	}
}

// noticed passes on what the keystore in the worker says unasked. A refused PIN is known even if the worker dies of it.
func (p *process) noticed(f frame) error {
	t := p.token
	if f.kind == kindState {
		s, err := decodeState(f.body)
		if err == nil {
			t.change(func() {
				if p.state = s; p == t.current {
					t.state = t.told(p)
				}
			})
		}
		return err
	}
	n, err := decodeNotice(f.body)
	if err != nil {
		return err
	}
	if n.op == "login" && errors.Is(n.err, keystore.ErrPIN) {
		p.refused(n.err)
	}
	t.observe(n.op, n.took, n.err)
	return nil
}

// watch gives the worker up when nothing has come from it for as long as an operation may take, although it was asked to
// show that it lives: the process is stopped, or beyond help.
func (p *process) watch() {
	limit := p.token.Timeout()
	ticker := time.NewTicker(limit / 4)
	defer ticker.Stop()
	for {
		select {
		case <-p.dead:
			return
		case <-ticker.C:
		}
		if time.Since(p.born)-time.Duration(p.heard.Load()) > limit {
			p.fail(errFrozen)
			return
		}
		_ = p.link.send(sealed(newFrame(kindPing, 0, 0))) // a queue that is full is as good as a ping
	}
}

func (p *process) answered(id uint64, a answer) {
	p.mu.Lock()
	waiting := p.wait[id]
	delete(p.wait, id)
	p.mu.Unlock()
	if waiting != nil {
		waiting <- a
	}
}

// exchange sends a request and waits for its answer. When ctx ends first, the worker is told. Errors: [errLost] when the
// worker ends.
func (p *process) exchange(ctx context.Context, r request) (answer, error) {
	waiting := make(chan answer, 1)
	if err := p.expect(r.id, waiting); err != nil {
		return answer{}, err
	}
	if err := p.link.send(r.frame); err != nil {
		if errors.Is(err, errQueue) || errors.Is(err, errLong) {
			p.forget(r.id)
			return answer{}, fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
		}
		p.fail(fmt.Errorf("%w: %w", errLost, err)) // at once, so that nobody turns to it any more
		return answer{}, p.cause()
	}
	select {
	case a := <-waiting:
		return a, nil
	case <-p.dead:
		select {
		case a := <-waiting: // it came before the end
			return a, nil
		default:
			return answer{}, p.cause()
		}
	case <-ctx.Done():
		if r.late == nil {
			p.forget(r.id)
		} else {
			go p.afterwards(waiting, r.late)
		}
		_ = p.link.send(encodeCancel(r.id))
		return answer{}, unanswered(ctx)
	}
}

func (p *process) afterwards(waiting <-chan answer, late func(answer)) {
	select {
	case a := <-waiting:
		late(a)
	case <-p.dead:
	}
}

func (p *process) expect(id uint64, waiting chan answer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != nil {
		return p.end
	}
	p.wait[id] = waiting
	return nil
}

func (p *process) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wait, id)
}

// fail ends the worker's service; the supervisor does the rest.
func (p *process) fail(cause error) {
	p.mu.Lock()
	first := p.end == nil
	if first {
		p.end = cause
		clear(p.wait)
		close(p.dead)
	}
	p.mu.Unlock()
	if first {
		p.link.close()
	}
}

// cause is why the worker ended, with its exit status and its last words once it is reaped.
func (p *process) cause() error {
	p.mu.Lock()
	end := p.end
	p.mu.Unlock()
	select {
	case <-p.exited:
		if errors.Is(end, errLost) {
			return fmt.Errorf("%w: %s%s", end, p.cmd.ProcessState, p.words.said())
		}
	default:
	}
	return end
}

// over reports whether the worker has ended or was given up.
func (p *process) over() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// firstLine passes on what a worker writes and keeps the beginning, which is the reason when it crashes.
type firstLine struct {
	next io.Writer
	mu   sync.Mutex
	line []byte
}

func (f *firstLine) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !bytes.ContainsRune(f.line, '\n') && len(f.line) < 200 {
		f.line = append(f.line, b[:min(len(b), 200-len(f.line))]...)
	}
	if f.next != nil {
		return f.next.Write(b)
	}
	return len(b), nil
}

func (f *firstLine) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	line, _, _ := bytes.Cut(f.line, []byte("\n"))
	if len(line) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%q)", line)
}
