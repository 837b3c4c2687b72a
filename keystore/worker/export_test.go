package worker

import (
	"context"
	"net"
	"os"
)

// PID is the process id of the live worker, 0 when there is none.
func (t *Token) PID() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == nil || t.current.over() {
		return 0
	}
	return t.current.cmd.Process.Pid
}

// Lie is [Main] in a process whose memory is corrupt: the last byte of every signature is wrong once there is a file of
// that name.
func Lie(file string) error {
	conn, err := net.FileConn(os.NewFile(descriptor, "parent"))
	if err != nil {
		return err
	}
	near, far := net.Pipe()
	parent, keystore := newLink(conn), newLink(far)
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), near) }()
	signs := make(chan uint64, 1024)
	go func() {
		defer keystore.close()
		for {
			f, err := parent.receive()
			if err != nil {
				return
			}
			if f.kind == kindSign {
				signs <- f.id
			}
			_ = keystore.send(sealed(append(newFrame(f.kind, f.id, 0), f.body...)))
		}
	}()
	wanted := map[uint64]bool{}
	for {
		f, err := keystore.receive()
		if err != nil {
			return <-served
		}
		for len(signs) > 0 {
			wanted[<-signs] = true
		}
		if _, err := os.Stat(file); err == nil && f.kind == kindOK && wanted[f.id] {
			f.body[len(f.body)-1] ^= 1
		}
		_ = parent.send(sealed(append(newFrame(f.kind, f.id, 0), f.body...)))
	}
}
