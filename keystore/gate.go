package keystore

import (
	"context"
	"sync"
)

// gate counts the calls in flight in a PKCS#11 module, so that what needs the module for itself (C_InitToken,
// C_Finalize) waits until none is left. Modules crash the process otherwise.
type gate struct {
	mu    sync.Mutex
	calls int
	shut  chan struct{} // set while a drain has the module for itself; closed when it opens again
	idle  chan struct{} // set while a drain waits; closed when the last call leaves
}

// enter admits one call; leave must follow.
func (g *gate) enter(ctx context.Context) error {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			g.calls++
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		if err := wait(ctx, shut); err != nil {
			return err
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	if g.calls == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// drain keeps new calls out, waits for those in flight, and returns the function that lets calls in again. When ctx
// ends first, the gate stays open.
func (g *gate) drain(ctx context.Context) (open func(), err error) {
	g.mu.Lock()
	for g.shut != nil {
		shut := g.shut
		g.mu.Unlock()
		if err := wait(ctx, shut); err != nil {
			return nil, err
		}
		g.mu.Lock()
	}
	g.shut = make(chan struct{})
	var idle chan struct{}
	if g.calls > 0 {
		idle = make(chan struct{})
		g.idle = idle
	}
	g.mu.Unlock()
	if idle != nil {
		if err := wait(ctx, idle); err != nil {
			g.open()
			return nil, err
		}
	}
	return g.open, nil
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut, g.idle = nil, nil
}

// wait returns nil when c is closed, or why ctx ended before.
func wait(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
