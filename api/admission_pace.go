package api

import (
	rt "runtime/metrics"
	"time"
)

const (
	// quickEnough is how long a request may be worked on when the processors are what it waits for. Everything else that
	// runs on them, a revocation for one, has to wait in between.
	quickEnough = 50 * time.Millisecond
	// contended is the mean time from when a goroutine could run to when it does, from which on the processors are what is
	// missing. On an idle machine it is some 10 us.
	contended = time.Millisecond
	paceEvery = 200 * time.Millisecond
)

// pace finds how many requests of a class are worked on at once: at most as many as configured, which keeps a distant token
// busy, and fewer when the processors are what they wait for. There, by Little's law, half as many are done in half the
// time each, and no fewer in all; what the token or the database takes without a processor of ours is no reason.
type pace struct {
	least, most int
	wait        func() time.Duration // for a processor, the mean since the last call

	limit  int
	since  time.Time
	worked time.Duration // of the requests that ended since then, the sum
	ended  int
	full   bool // the limit was reached since then
}

func newPace(least, most int, wait func() time.Duration) *pace {
	return &pace{least: min(least, most), most: most, wait: wait, limit: most, since: time.Now()}
}

// end counts a request that was worked on for so long, and adapts the limit from time to time.
func (p *pace) end(now time.Time, worked time.Duration) {
	p.worked += worked
	p.ended++
	if p.least == p.most || now.Sub(p.since) < paceEvery {
		return
	}
	mean, wait := p.worked/time.Duration(p.ended), p.wait()
	switch {
	case mean > quickEnough && wait > contended:
		p.limit = max(p.least, p.limit/2, int(int64(p.limit)*int64(quickEnough)/int64(mean)))
	case p.full && (mean < quickEnough*3/4 || wait < contended/2):
		p.limit = min(p.most, p.limit+max(1, p.limit/4))
	}
	p.since, p.worked, p.ended, p.full = now, 0, 0, false
}

// processorWait returns a function that returns the mean time that goroutines have waited for a processor since it was
// called last. Threads of a token that compute count, because they take the processors from the scheduler.
func processorWait() func() time.Duration {
	sample := []rt.Sample{{Name: "/sched/latencies:seconds"}}
	var before []uint64
	return func() time.Duration {
		rt.Read(sample)
		histogram := sample[0].Value.Float64Histogram()
		var sum float64
		var n uint64
		for i, count := range histogram.Counts {
			if before != nil {
				count -= before[i]
			}
			n += count
			if i > 0 { // the first bucket begins at minus infinity
				sum += float64(count) * histogram.Buckets[i]
			}
		}
		before = append(before[:0], histogram.Counts...)
		if n == 0 {
			return 0
		}
		return time.Duration(sum / float64(n) * float64(time.Second))
	}
}
