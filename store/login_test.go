package store_test

import (
	"sync"
	"testing"
	"time"

	"signet/store"
)

func TestLoginAttemptsAreCountedInWindows(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		const limit, per = 2, time.Minute
		start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		for _, try := range []struct {
			client string
			after  time.Duration
			opened time.Duration
			want   int
		}{
			{"a", 0, 0, 1},
			{"a", time.Second, 0, 2},
			{"b", time.Second, time.Second, 1},
			{"a", 2 * time.Second, 0, 3},
			{"a", 59 * time.Second, 0, 3}, // it does not count for ever
			{"a", 60 * time.Second, 60 * time.Second, 1},
			{"a", 0, 0, 1}, // the clock was set back
		} {
			opened, attempts, err := db.LoginAttempt(t.Context(), try.client, limit, per, start.Add(try.after))
			if err != nil || attempts != try.want || !opened.Equal(start.Add(try.opened)) {
				t.Errorf("%s after %s: attempt %d of the window of %s, %v; want %d of that of %s", try.client, try.after,
					attempts, opened.Sub(start), err, try.want, try.opened)
			}
		}
	})
}

func TestParallelLoginAttemptsAreAllCounted(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		var mu sync.Mutex
		seen := map[int]int{}
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				_, attempts, err := db.LoginAttempt(t.Context(), "a", 10, time.Hour, time.Now())
				mu.Lock()
				defer mu.Unlock()
				if seen[attempts]++; err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		for n := 1; n <= 10; n++ {
			if seen[n] != 1 {
				t.Errorf("%d attempts were the %d. one", seen[n], n)
			}
		}
		if seen[11] != 10 {
			t.Errorf("%d attempts were too many, want 10", seen[11])
		}
	})
}

func TestClosedWindowsAreForgotten(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		now := time.Now()
		attempt := func(client string, at time.Time) int {
			_, attempts, err := db.LoginAttempt(t.Context(), client, 5, time.Hour, at)
			if err != nil {
				t.Fatal(err)
			}
			return attempts
		}
		attempt("old", now.Add(-time.Minute))
		attempt("new", now)
		if err := db.PruneLoginAttempts(t.Context(), now.Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if n := attempt("old", now); n != 1 {
			t.Errorf("the closed window was kept: attempt %d", n)
		}
		if n := attempt("new", now); n != 2 {
			t.Errorf("the open window was forgotten: attempt %d", n)
		}
	})
}
