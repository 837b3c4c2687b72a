package catest

import (
	"fmt"
	"slices"
	"time"

	"signet/ca"
	"signet/notify"
)

// outbox is the store as the webhook sees it: whoever keeps notices also gives them out.
func (f fixture) outbox() notify.Store {
	f.Helper()
	s, ok := f.s.(notify.Store)
	if !ok {
		f.Fatalf("%T is no notify.Store", f.s)
	}
	return s
}

func (f fixture) notice(keys ...string) {
	f.Helper()
	var all []ca.Notice
	for i, key := range keys {
		all = append(all, ca.Notice{Key: key, Kind: ca.CRLLapsing, CreatedAt: now.Add(time.Duration(i) * time.Second), Data: map[string]int{"ca_id": 1}})
	}
	f.ok(f.s.AddNotices(f.Context(), all))
}

// claimed are the keys of the events that are given out.
func (f fixture) claimed(at, until time.Time, limit int) []string {
	f.Helper()
	events, err := f.outbox().ClaimEvents(f.Context(), at, until, limit)
	f.ok(err)
	keys := []string{}
	for _, e := range events {
		keys = append(keys, e.Key)
	}
	slices.Sort(keys)
	return keys
}

var noticeTests = map[string]func(f fixture){
	"an occasion is kept once, as it was told first": func(f fixture) {
		f.notice("a")
		f.ok(f.s.AddNotices(f.Context(), []ca.Notice{
			{Key: "a", Kind: ca.CAExpiring, CreatedAt: now.Add(time.Hour), Data: map[string]int{"ca_id": 2}},
			{Key: "b", Kind: ca.CAExpiring, CreatedAt: now, Data: map[string]int{"ca_id": 3}},
		}))
		f.ok(f.s.AddNotices(f.Context(), nil))
		events, err := f.outbox().ClaimEvents(f.Context(), now, now.Add(time.Minute), 10)
		f.ok(err)
		slices.SortFunc(events, func(a, b notify.Event) int { return int(a.ID - b.ID) })
		if len(events) != 2 || events[0].ID == events[1].ID {
			f.Fatalf("events are %+v", events)
		}
		f.equal(events[0], notify.Event{ID: events[0].ID, Key: "a", Type: "crl.lapsing", Data: `{"ca_id":1}`, CreatedAt: now, Attempts: 1})
		f.equal(events[1], notify.Event{ID: events[1].ID, Key: "b", Type: "ca.expiring", Data: `{"ca_id":3}`, CreatedAt: now, Attempts: 1})
	},
	"what cannot be encoded leaves nothing": func(f fixture) {
		err := f.s.AddNotices(f.Context(), []ca.Notice{{Key: "a", CreatedAt: now, Data: 1}, {Key: "b", CreatedAt: now, Data: func() {}}})
		if err == nil {
			f.Error("a function was encoded")
		}
		f.equal(f.claimed(now, now, 10), []string{})
	},
	"events are given out from their time on, the oldest first, and to one caller": func(f fixture) {
		f.notice("a", "b", "c")
		until := now.Add(time.Minute)
		f.equal(f.claimed(now.Add(-time.Microsecond), until, 10), []string{})
		f.equal(f.claimed(now, until, 10), []string{"a"})
		f.equal(f.claimed(now.Add(time.Hour), now.Add(2*time.Hour), 2), []string{"b", "c"})
		f.equal(f.claimed(now.Add(time.Hour), now.Add(2*time.Hour), 10), []string{"a"})
		f.equal(f.claimed(now.Add(time.Hour), now.Add(2*time.Hour), 10), []string{})
	},
	"an event is given out again when its claim ends, with its attempts counted": func(f fixture) {
		f.notice("a")
		for attempt := range 3 {
			at := now.Add(time.Duration(attempt) * time.Minute)
			events, err := f.outbox().ClaimEvents(f.Context(), at, at.Add(time.Minute), 10)
			f.ok(err)
			if len(events) != 1 || events[0].Attempts != attempt+1 {
				f.Fatalf("attempt %d: %+v", attempt+1, events)
			}
		}
	},
	"an event that failed is due when it was said, and one that is closed never": func(f fixture) {
		f.notice("delivered", "failed", "given up")
		events, err := f.outbox().ClaimEvents(f.Context(), now.Add(time.Minute), now.Add(time.Hour), 10)
		f.ok(err)
		id := map[string]int64{}
		for _, e := range events {
			id[e.Key] = e.ID
		}
		f.ok(f.outbox().EventDelivered(f.Context(), id["delivered"], now))
		f.ok(f.outbox().EventFailed(f.Context(), id["failed"], now.Add(2*time.Minute), "refused"))
		f.ok(f.outbox().EventGivenUp(f.Context(), id["given up"], now, "refused"))
		f.ok(f.outbox().EventFailed(f.Context(), id["delivered"], now, "too late"))
		f.ok(f.outbox().EventFailed(f.Context(), id["given up"], now, "too late"))
		f.equal(f.claimed(now.Add(2*time.Minute-time.Microsecond), now.Add(time.Hour), 10), []string{})
		f.equal(f.claimed(now.Add(2*time.Minute), now.Add(time.Hour), 10), []string{"failed"})
		f.equal(f.claimed(now.Add(24*time.Hour), now.Add(25*time.Hour), 10), []string{"failed"})
	},
	"old events are dropped when they are closed, some at a time": func(f fixture) {
		f.notice("a", "b", "c", "open")
		events, err := f.outbox().ClaimEvents(f.Context(), now.Add(time.Minute), now.Add(time.Hour), 10)
		f.ok(err)
		for _, e := range events {
			switch e.Key {
			case "open":
			case "a":
				f.ok(f.outbox().EventGivenUp(f.Context(), e.ID, now, "refused"))
			default:
				f.ok(f.outbox().EventDelivered(f.Context(), e.ID, now))
			}
		}
		for _, test := range []struct {
			before time.Time
			limit  int
			want   int
		}{{now, 10, 0}, {now.Add(2 * time.Second), 1, 1}, {now.Add(2 * time.Second), 10, 1}, {now.Add(time.Hour), 10, 1}, {now.Add(time.Hour), 10, 0}} {
			n, err := f.outbox().DropEvents(f.Context(), test.before, test.limit)
			f.ok(err)
			f.equal(n, test.want)
		}
		f.notice("a") // forgotten by now, so it is told again
		f.equal(f.claimed(now.Add(2*time.Hour), now.Add(3*time.Hour), 10), []string{"a", "open"})
	},
	"callers at once share the events": func(f fixture) {
		var keys []string
		for i := range 40 {
			keys = append(keys, fmt.Sprintf("key %02d", i))
		}
		f.notice(keys...)
		got := make([][]string, 8)
		errs := parallel(8, func(i int) error {
			for {
				events, err := f.outbox().ClaimEvents(f.Context(), now.Add(time.Hour), now.Add(2*time.Hour), 3)
				if err != nil || len(events) == 0 {
					return err
				}
				for _, e := range events {
					got[i] = append(got[i], e.Key)
				}
			}
		})
		for _, err := range errs {
			f.ok(err)
		}
		all := slices.Concat(got...)
		slices.Sort(all)
		f.equal(slices.Compact(slices.Clone(all)), all)
		// A caller that was told "nothing" while another one took the same rows has left some; they are not lost.
		all = append(all, f.claimed(now.Add(time.Hour), now.Add(2*time.Hour), 100)...)
		slices.Sort(all)
		f.equal(all, keys)
	},
	"a search never goes back": func(f fixture) {
		none, err := f.s.NoticedUntil(f.Context(), "certificate/24h")
		f.ok(err)
		f.equal(none.IsZero(), true)
		for _, test := range []struct{ set, want time.Time }{
			{now, now}, {now.Add(time.Minute), now.Add(time.Minute)}, {now.Add(-time.Hour), now.Add(time.Minute)},
		} {
			f.ok(f.s.SetNoticedUntil(f.Context(), "certificate/24h", test.set))
			got, err := f.s.NoticedUntil(f.Context(), "certificate/24h")
			f.ok(err)
			f.equal(got, test.want)
		}
		other, err := f.s.NoticedUntil(f.Context(), "ca/24h")
		f.ok(err)
		f.equal(other.IsZero(), true)
	},
}
