package ca

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// keepPause is how long answers are gathered before they are stored together.
	keepPause = 50 * time.Millisecond
	// keepTimeout bounds one transaction.
	keepTimeout = 10 * time.Second
	// maxUnkept bounds the answers that wait to be stored. What is beyond is signed again where it is missed.
	maxUnkept = 4096
	// dropInterval is how often answers that have ended are deleted, so many at a time.
	dropInterval = time.Minute
	dropBatch    = 500
)

// keeper stores answers behind the back of whoever asked: a restart and other replicas find them.
type keeper struct {
	mu      sync.Mutex
	waiting []SignedAnswer
	idle    chan struct{} // closed when nothing waits any more; nil when nothing does
	failing alarm
}

func (a *Authority) keepAnswer(s SignedAnswer) {
	k := &a.ocsp.kept
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.waiting) < maxUnkept {
		k.waiting = append(k.waiting, s)
	}
	if k.idle == nil {
		k.idle = make(chan struct{})
		go a.storeAnswers()
	}
}

// flush returns when what waits now is stored.
func (k *keeper) flush() {
	k.mu.Lock()
	idle := k.idle
	k.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

// storeAnswers stores what waits, until nothing does.
func (a *Authority) storeAnswers() {
	k := &a.ocsp.kept
	for {
		time.Sleep(keepPause)
		k.mu.Lock()
		all := k.waiting
		k.waiting = nil
		if len(all) == 0 {
			close(k.idle)
			k.idle = nil
		}
		k.mu.Unlock()
		if len(all) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), keepTimeout)
		err := a.cfg.Store.KeepAnswers(ctx, all)
		cancel()
		if err != nil {
			k.failing.raise(a, fmt.Errorf("store %d OCSP answers: %w", len(all), err))
			continue
		}
		k.failing.end()
	}
}

// dropAnswers deletes answers that have ended, in small steps, until ctx ends.
func (a *Authority) dropAnswers(ctx context.Context) {
	failing := alarm{task: "ocsp"}
	every(ctx, dropInterval, func() {
		for a.leads() && ctx.Err() == nil {
			dropped, err := a.cfg.Store.DropAnswers(ctx, a.cfg.Now(), dropBatch)
			if err != nil {
				if ctx.Err() == nil {
					failing.raise(a, fmt.Errorf("delete OCSP answers that have ended: %w", err))
				}
				return
			}
			failing.end()
			if dropped < dropBatch {
				return
			}
			_ = pause(ctx, keepPause)
		}
	})
}
