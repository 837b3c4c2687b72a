package fresh_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"signet/fresh"
)

const age = 500 * time.Millisecond

// source counts how often it is read.
type source struct{ reads atomic.Int64 }

func (s *source) read(context.Context) (int64, error) { return s.reads.Add(1), nil }

func TestAValueIsReadAgainWhenItIsTooOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache, s := fresh.New[string, int64](age, 10), &source{}
		for _, step := range []struct {
			wait time.Duration
			want int64
		}{{0, 1}, {0, 1}, {age - 1, 1}, {1, 2}, {age - 1, 2}, {age, 3}} {
			time.Sleep(step.wait)
			if got, err := cache.Get(t.Context(), "key", s.read); err != nil || got != step.want {
				t.Errorf("after another %s: read %d, %v; want read %d", step.wait, got, err, step.want)
			}
		}
	})
}

func TestTheAgeCountsFromBeforeTheRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache, s := fresh.New[string, int64](age, 10), &source{}
		slow := func(ctx context.Context) (int64, error) {
			n, err := s.read(ctx)
			time.Sleep(age - 1)
			return n, err
		}
		cache.Get(t.Context(), "key", slow)
		if got, _ := cache.Get(t.Context(), "key", s.read); got != 1 {
			t.Errorf("read %d, want the first one", got)
		}
		time.Sleep(1)
		if got, _ := cache.Get(t.Context(), "key", s.read); got != 2 {
			t.Errorf("read %d, want another one: the record may have changed %s ago", got, age)
		}
	})
}

func TestThoseWhoAskAtOnceShareOneRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache, s := fresh.New[string, int64](age, 10), &source{}
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				got, err := cache.Get(t.Context(), "key", func(ctx context.Context) (int64, error) {
					time.Sleep(time.Millisecond)
					return s.read(ctx)
				})
				if got != 1 || err != nil {
					t.Errorf("read %d, %v", got, err)
				}
			})
		}
		group.Wait()
	})
}

func TestNobodyGetsWhatWasReadBeforeAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache := fresh.New[string, string](age, 10)
		var record atomic.Value
		record.Store("old")
		var group sync.WaitGroup
		group.Go(func() {
			got, _ := cache.Get(t.Context(), "key", func(context.Context) (string, error) {
				read := record.Load().(string)
				time.Sleep(age / 2)
				return read, nil
			})
			if got != "old" {
				t.Errorf("the slow reader got %q", got)
			}
		})
		time.Sleep(age / 4)
		record.Store("new")
		cache.Forget()
		load := func(context.Context) (string, error) { return record.Load().(string), nil }
		for _, when := range []string{"while the old read is under way", "after it"} {
			if got, _ := cache.Get(t.Context(), "key", load); got != "new" {
				t.Errorf("%s: got %q", when, got)
			}
			group.Wait()
		}
	})
}

func TestErrorsAreNotHeld(t *testing.T) {
	t.Parallel()
	cache, s := fresh.New[string, int64](time.Hour, 10), &source{}
	away := errors.New("away")
	if _, err := cache.Get(t.Context(), "key", func(context.Context) (int64, error) { return 0, away }); !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
	if got, err := cache.Get(t.Context(), "key", s.read); got != 1 || err != nil {
		t.Errorf("after the error: %d, %v", got, err)
	}
}

func TestAReaderWhoLeavesDoesNotEndTheReadOfOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache := fresh.New[string, int64](age, 10)
		ctx, leave := context.WithCancel(t.Context())
		load := func(ctx context.Context) (int64, error) {
			time.Sleep(age / 2)
			return 1, ctx.Err()
		}
		var group sync.WaitGroup
		group.Go(func() { cache.Get(ctx, "key", load) })
		synctest.Wait()
		impatient, stop := context.WithTimeout(t.Context(), age/8)
		defer stop()
		group.Go(func() {
			if got, err := cache.Get(t.Context(), "key", load); got != 1 || err != nil {
				t.Errorf("who waited got %d, %v", got, err)
			}
		})
		leave()
		if _, err := cache.Get(impatient, "key", load); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who would not wait got %v", err)
		}
		group.Wait()
	})
}

func TestAPanicDoesNotLeaveOthersWaiting(t *testing.T) {
	t.Parallel()
	cache, s := fresh.New[string, int64](time.Hour, 10), &source{}
	func() {
		defer func() { recover() }()
		cache.Get(t.Context(), "key", func(context.Context) (int64, error) { panic("defect") })
	}()
	if got, err := cache.Get(t.Context(), "key", s.read); got != 1 || err != nil {
		t.Errorf("after the panic: %d, %v", got, err)
	}
}

func TestACacheIsBounded(t *testing.T) {
	t.Parallel()
	cache, s := fresh.New[int, int64](time.Hour, 2), &source{}
	for key := range 3 {
		cache.Get(t.Context(), key, s.read)
	}
	if got, _ := cache.Get(t.Context(), 2, s.read); got != 3 {
		t.Errorf("the last of three keys was read again: %d", got)
	}
	if got, _ := cache.Get(t.Context(), 0, s.read); got != 4 {
		t.Errorf("a cache of two held the first of three keys: %d", got)
	}
}

func TestWithoutAnAgeNothingIsHeld(t *testing.T) {
	t.Parallel()
	cache, s := fresh.New[string, int64](0, 10), &source{}
	cache.Get(t.Context(), "key", s.read)
	if got, _ := cache.Get(t.Context(), "key", s.read); got != 2 {
		t.Errorf("read %d times, want 2", got)
	}
}
