package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"signet/fault"
)

const (
	// checkEvery is how often database and token are checked. The token makes a signature each time.
	checkEvery = 2 * time.Second
	// checkTimeout is how long a component may take to answer. Each has its own: one that hangs does not make the
	// others look broken.
	checkTimeout = 5 * time.Second
	// checkStale is how old a verdict may be: a check that hangs is a failed one.
	checkStale = 15 * time.Second
)

// component is a part of the server that can be away.
type component struct {
	name    string
	failure string // for callers, who do not see the error itself
	check   func(context.Context) error
	reason  func(error) string // what of the error callers may see; nil: nothing
}

// words is what callers are told of a failed check.
func (c component) words(err error) string {
	if c.reason != nil {
		if reason := c.reason(err); reason != "" {
			return c.failure + ": " + reason
		}
	}
	return c.failure
}

// readiness is the server's opinion of its components. It asks them on its own schedule and answers from memory, so
// that an anonymous caller of /readyz never reaches the token.
type readiness struct {
	components []component
	log        *slog.Logger
	observe    func(component string, ok bool)

	mu     sync.Mutex
	at     time.Time
	errors map[string]error
}

// Check returns nil, or what is wrong as of the last check: a *fault.Error with code Unavailable.
func (r *readiness) Check(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) > checkStale {
		return fault.New(fault.Unavailable, "the health check does not finish")
	}
	for _, c := range r.components {
		if err := r.errors[c.name]; err != nil {
			return fault.Wrap(fault.Unavailable, c.words(err), err)
		}
	}
	return nil
}

// run checks the components until ctx ends.
func (r *readiness) run(ctx context.Context) {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.refresh(ctx)
		}
	}
}

// refresh asks every component now.
func (r *readiness) refresh(ctx context.Context) {
	verdicts := make([]error, len(r.components))
	var group sync.WaitGroup
	for i, c := range r.components {
		group.Go(func() {
			limited, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			verdicts[i] = c.check(limited)
		})
	}
	group.Wait()
	found := map[string]error{}
	for i, c := range r.components {
		found[c.name] = verdicts[i]
	}
	if ctx.Err() != nil { // the server is stopping: what failed, failed because of that
		return
	}
	r.mu.Lock()
	before := r.errors
	r.at, r.errors = time.Now(), found
	r.mu.Unlock()
	for _, c := range r.components {
		err := found[c.name]
		switch {
		case err != nil && before[c.name] == nil:
			r.log.Error(c.failure, "component", c.name, "error", err)
		case err == nil && before[c.name] != nil:
			r.log.Info("the component answers again", "component", c.name)
		}
		r.observe(c.name, err == nil)
	}
}
