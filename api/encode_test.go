package api

import (
	"net/http/httptest"
	"testing"
)

func TestAPageCountsAsHeldUntilItsClientHasReadIt(t *testing.T) {
	t.Parallel()
	const records = 10_000
	h := newHoard(maxBuffered)
	w := &recorder{&answer{ResponseWriter: httptest.NewRecorder(), hoard: h}, &exchange{}}
	seen := 0
	writeList(w, make([]int, records), func(n int) int {
		if h.total >= records*recordSize {
			seen++
		}
		return n
	})
	if seen != records || h.total != 0 || h.slow.Len() != 0 {
		t.Errorf("the page was held for %d of %d records; afterwards there are %d octets of %d clients", seen, records, h.total, h.slow.Len())
	}
}
