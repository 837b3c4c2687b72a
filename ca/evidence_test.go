package ca_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/ca"
	"signet/ca/catest"
	"signet/evidence"
)

// crowded counts how many ask its tokens about keys at once.
type crowded struct {
	*catest.Keys
	now, most atomic.Int32
}

func (c *crowded) Inspect(ctx context.Context, r ca.KeyRef) (evidence.Key, error) {
	defer c.now.Add(-1)
	for n := c.now.Add(1); ; {
		if most := c.most.Load(); n <= most || c.most.CompareAndSwap(most, n) {
			break
		}
	}
	time.Sleep(2 * time.Millisecond)
	return c.Keys.Inspect(ctx, r)
}

func TestManyWhoWantEvidenceLeaveTheTokenToSigning(t *testing.T) {
	t.Parallel()
	keys := &crowded{Keys: catest.NewKeys("main")}
	v := newVault(t, func(c *ca.Config) { c.Keys = keys })
	c := v.createCA(t, acmeAdmin, nil)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if _, err := v.KeyEvidence(context.WithoutCancel(t.Context()), acmeUser, c.ID, "", ca.EvidenceJSON); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most := keys.most.Load(); most > 2 {
		t.Errorf("%d at once", most)
	}
}
