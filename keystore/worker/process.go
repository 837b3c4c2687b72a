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

// errLost is the fate of a call whose worker ended before it answered.
var errLost = fmt.Errorf("%w: the token worker ended", keystore.ErrUnavailable)

var errUseless = fmt.Errorf("%w: nothing worked in it for as long as a call may take", errLost)

// descriptor is the worker's end of the socket pair.
const descriptor = 3

// process is one worker: a child, the pipe to it and the calls it has not answered.
type process struct {
	token  *Token
	cmd    *exec.Cmd
	link   *link
	born   time.Time     // when it had opened the token
	dead   chan struct{} // closed when the pipe fails, or the parent gives it up
	exited chan struct{} // closed when the child is reaped
	words  firstLine     // what it said last

	bound sync.Map // *key: the keys that this worker knows by number

	last atomic.Uint64 // call id
	mu   sync.Mutex
	end  error // set when dead
	wait map[uint64]chan answer
	slow int       // of wait, how many make keys
	good time.Time // when the token worked last
	bad  time.Time // since when it has not, zero while it does
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
	slow  bool         // a key is being made
	known bool         // its key is there: not to find it says something of the token
	late  func(answer) // if set, gets an answer that comes when nobody waits for it any more
}

// spawn starts a worker and makes it open the token, within the deadline of an operation.
func (t *Token) spawn(ctx context.Context) (_ *process, err error) {
	start := time.Now()
	defer func() { t.observe("worker", time.Since(start), err) }()
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	p := &process{token: t, born: start, dead: make(chan struct{}), exited: make(chan struct{}), wait: map[uint64]chan answer{}}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
	}
	if _, err := openToken.on(ctx, p, t.cfg.Keystore); err != nil {
		p.fail(err)
		p.kill()
		select {
		case <-p.exited:
		case <-time.After(reaping):
		}
		return nil, err
	}
	p.born = time.Now()
	return p, nil
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
		switch f.kind {
		case kindOK:
			p.answered(f.id, answer{body: f.body})
		case kindError:
			p.answered(f.id, answer{err: decodeError(f.body)})
		case kindNotice:
			p.notice(f.body)
		}
	}
}

// notice passes on what the keystore observed in the worker. A refused login is known even if the worker dies of it.
func (p *process) notice(body []byte) {
	n, err := decodeNotice(body)
	if err != nil {
		p.fail(fmt.Errorf("%w: %w", keystore.ErrUnavailable, err))
		return
	}
	if errors.Is(n.err, keystore.ErrPIN) {
		p.token.refuse(n.err)
	}
	p.token.observe(n.op, n.took, n.err)
}

func (p *process) answered(id uint64, a answer) {
	if errors.Is(a.err, keystore.ErrPIN) {
		p.token.refuse(a.err)
	}
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
	start, waiting := time.Now(), make(chan answer, 1)
	if err := p.expect(r, waiting); err != nil {
		return answer{}, err
	}
	if r.slow {
		defer p.fast()
	}
	if err := p.link.send(r.frame); err != nil {
		p.forget(r.id)
		return answer{}, fmt.Errorf("%w: %w", errLost, err)
	}
	select {
	case a := <-waiting:
		p.judge(r, start, a.err)
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
		err := fmt.Errorf("%w: no answer in time: %w", keystore.ErrUnavailable, context.Cause(ctx))
		p.judge(r, start, err)
		return answer{}, err
	}
}

func (p *process) afterwards(waiting <-chan answer, late func(answer)) {
	select {
	case a := <-waiting:
		late(a)
	case <-p.dead:
	}
}

func (p *process) expect(r request, waiting chan answer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != nil {
		return p.end
	}
	p.wait[r.id] = waiting
	if r.slow {
		p.slow++
	}
	return nil
}

func (p *process) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wait, id)
}

func (p *process) fast() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow--
}

// judge learns how a call went that began at start. When nothing has worked for as long as a call may take, the worker
// is given up: the process is stopped, a call hangs in the module and keeps it from being initialized anew, or the
// module is beyond its own recovery, as SoftHSM2 is when its folder was away for a moment. A module may do nothing else while it makes a key.
func (p *process) judge(r request, start time.Time, err error) {
	if errors.Is(err, context.Canceled) {
		return // by the caller
	}
	now := time.Now()
	p.mu.Lock()
	if !errors.Is(err, keystore.ErrUnavailable) && !(r.known && errors.Is(err, keystore.ErrNotFound)) {
		p.good, p.bad = now, time.Time{}
		p.mu.Unlock()
		return
	}
	if p.bad.IsZero() {
		p.bad = start
		if p.good.After(start) {
			p.bad = p.good
		}
	}
	limit := p.token.timeout
	if p.slow > 0 {
		limit *= slowFactor
	}
	useless := now.Sub(p.bad) >= limit*9/10 // calls that share a deadline end a moment apart
	p.mu.Unlock()
	if useless {
		p.fail(errUseless)
	}
}

// fail ends the worker's service; the supervisor does the rest.
func (p *process) fail(cause error) {
	p.mu.Lock()
	first := p.end == nil
	if first {
		p.end = cause
		clear(p.wait)
	}
	p.mu.Unlock()
	if first {
		p.link.close()
		close(p.dead)
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

func (p *process) kill() { _ = p.cmd.Process.Kill() } // an error means that it has ended already

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
