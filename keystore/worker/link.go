package worker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxFrame bounds a frame: an Ed25519 key signs the whole list of revoked certificates, not its digest.
const maxFrame = 64 << 20

// maxQueue is how many bytes may wait for the other side to read.
const maxQueue = 8 << 20

// What send refuses on a link that works.
var (
	errQueue = errors.New("the other side does not read")
	errLong  = errors.New("the request is too long")
)

// The kinds of frames. A frame is its length without these four bytes (u32), its kind (u8), the call's id (u64) and a
// body; all numbers are little-endian.
const (
	kindSign   = 1 // a signature is wanted
	kindCall   = 2 // anything else is wanted
	kindCancel = 3 // nobody waits for this call any more
	kindOK     = 4 // the answer
	kindError  = 5 // the call failed
	kindNotice = 6 // something happened in the worker; the id is 0, as in the following
	kindState  = 7 // how the worker's token is doing now
	kindPIN    = 8 // the worker wants another PIN; the parent answers with one, or with nothing
	kindPing   = 9 // the worker sends it back
)

const headSize = 13

type frame struct {
	kind byte
	id   uint64
	body []byte
}

// newFrame begins a frame; sealed completes it.
func newFrame(kind byte, id uint64, size int) []byte {
	b := make([]byte, 4, headSize+size)
	b = append(b, kind)
	return binary.LittleEndian.AppendUint64(b, id)
}

// sealed writes the length.
func sealed(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// link carries frames over a stream. What is sent while a write is under way goes out together in the next one.
type link struct {
	conn io.ReadWriteCloser
	in   *bufio.Reader
	wake chan struct{}
	done chan struct{}
	once sync.Once

	writing sync.Mutex // held over each write

	mu    sync.Mutex
	queue []byte
	err   error
}

func newLink(conn io.ReadWriteCloser) *link {
	l := &link{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.write()
	return l
}

// send queues a frame and never blocks: a worker that is stopped reads nothing.
func (l *link) send(b []byte) error {
	if len(b)-4 > maxFrame {
		return fmt.Errorf("%w: %d bytes", errLong, len(b))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		return l.err
	case len(l.queue) > maxQueue:
		return errQueue
	}
	l.queue = append(l.queue, b...)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// sendNow returns when the frame has left this process. It may overtake queued frames.
func (l *link) sendNow(b []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	_, err := l.conn.Write(b)
	return err
}

func (l *link) write() {
	var spare []byte
	for {
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
		l.mu.Lock()
		if len(l.queue) == 0 {
			l.mu.Unlock()
			continue
		}
		out := l.queue
		l.queue = spare[:0]
		l.mu.Unlock()
		l.writing.Lock()
		_, err := l.conn.Write(out)
		l.writing.Unlock()
		clear(out) // the PIN and sealed secrets pass through here
		if spare = out; cap(spare) > 1<<20 {
			spare = nil
		}
		if err != nil {
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
			l.close()
			return
		}
	}
}

// receive returns the next frame, whose body the caller may keep.
func (l *link) receive() (frame, error) { return readFrame(l.in) }

func readFrame(r io.Reader) (frame, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := int64(binary.LittleEndian.Uint32(head[:])) - (headSize - 4)
	if size < 0 || size > maxFrame {
		return frame{}, fmt.Errorf("a frame of %d bytes", size)
	}
	f := frame{kind: head[4], id: binary.LittleEndian.Uint64(head[5:])}
	if size <= 64<<10 {
		f.body = make([]byte, size)
		_, err := io.ReadFull(r, f.body)
		return f, err
	}
	body, err := io.ReadAll(io.LimitReader(r, size)) // grows with what is there, not with what was promised
	if err == nil && int64(len(body)) < size {
		err = io.ErrUnexpectedEOF
	}
	f.body = body
	return f, err
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.done)
		l.conn.Close()
	})
}
