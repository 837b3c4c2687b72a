package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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
			{"a", 59 * time.Second, 60 * time.Second, 2}, // on a replica whose clock is behind
			{"a", 0, 60 * time.Second, 3},
			{"a", -time.Second, -time.Second, 1}, // the clock was set back by more than a window
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
		attempt("older", now.Add(-2*time.Hour))
		if err := db.Prune(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if n := attempt("older", now.Add(-2*time.Hour)); n != 1 {
			t.Errorf("the hourly pruning kept a window of two hours ago: attempt %d", n)
		}
		if n := attempt("new", now); n != 3 {
			t.Errorf("the hourly pruning forgot an open window: attempt %d", n)
		}
	})
}

// A window that is opened anew while it is being forgotten stays: its client would have its attempts once more.
func TestAWindowOpenedAnewIsNotForgotten(t *testing.T) {
	t.Parallel()
	url := databases["PostgreSQL"](t)
	db := open(t, store.Config{URL: url})
	start := time.Now().Add(-time.Hour)
	if _, _, err := db.LoginAttempt(t.Context(), "a", 5, time.Minute, start); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "UPDATE login_attempts SET opened_at = now(), attempts = 5"); err != nil {
		t.Fatal(err)
	}
	pruned := make(chan error, 1)
	go func() { pruned <- db.PruneLoginAttempts(t.Context(), start.Add(time.Minute)) }()
	waiting := func() (n int) {
		if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for deadline := time.Now().Add(10 * time.Second); waiting() == 0; time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-pruned:
			t.Fatalf("the pruning did not wait for the attempt: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the pruning does not wait for the attempt")
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-pruned; err != nil {
		t.Fatal(err)
	}
	if _, n, err := db.LoginAttempt(t.Context(), "a", 5, time.Minute, time.Now()); err != nil || n != 6 {
		t.Errorf("attempt %d, %v; want the sixth", n, err)
	}
}
