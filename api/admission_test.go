package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// routesOf are the routes of a class that their method does not tell.
var routesOf = map[class][]string{
	classRevoke: {
		"POST /api/v1/auth/logout", "POST /api/v1/auth/invalidate", "POST /api/v1/auth/refresh", "PATCH /api/v1/users/{user_id}",
		"DELETE /api/v1/users/{user_id}", "DELETE /api/v1/organizations/{organization_id}",
		"DELETE /api/v1/organizations/{organization_id}/users/{user_id}", "DELETE /api/v1/cas/{ca_id}",
		"POST /api/v1/cas/{ca_id}/revoke", "PUT /api/v1/cas/{ca_id}/revocation-policy", "POST /api/v1/cas/{ca_id}/key-grade",
		"POST /api/v1/certificates/{cert_id}/revoke", "POST /api/v1/certificates/{cert_id}/release",
	},
	classIssue: {
		"POST /api/v1/certificates/", "POST /api/v1/certificates/sign-csr", "GET /api/v1/certificates/{cert_id}/private-key",
		"GET /api/v1/export/certificate/{cert_id}/private-key", "GET /api/v1/cas/{ca_id}/private-key", "GET /api/v1/export/ca/{ca_id}/private-key",
	},
	classChange: {"GET /api/v1/cas/{ca_id}/key-evidence"},
	classLogin:  {"POST /api/v1/auth/token", "POST /api/v1/users/"},
}

func TestEveryRouteHasAClass(t *testing.T) {
	t.Parallel()
	for _, route := range routes(t) {
		method, path, _ := strings.Cut(route, " ")
		want := classChange
		resource, _, _ := strings.Cut(path[1:], "/")
		switch {
		case slices.Contains([]string{"ca", "crl", "ocsp"}, resource):
			want = classPublic
		case !strings.HasPrefix(path, "/api/v1/") || path == "/api/v1/openapi.json":
			want = classElsewhere
		case method == http.MethodGet:
			want = classRead
		}
		for c, all := range routesOf {
			if slices.Contains(all, route) {
				want = c
			}
		}
		concrete := strings.NewReplacer("{user_id}", "7", "{organization_id}", "7", "{ca_id}", "7", "{cert_id}", "7").Replace(path)
		for _, path := range []string{path, concrete, strings.TrimSuffix(concrete, "/")} {
			if got := classOf(method, path); got != want {
				t.Errorf("%s %s is %s, want %s", method, path, classNames[got], classNames[want])
			}
		}
	}
}

// fixed is a lane whose limit does not change.
func fixed(running, burst, standing int, patience time.Duration) *lane {
	return newLane(laneBounds{least: running, most: running, burst: burst, standing: standing, patience: patience})
}

// join enters a lane in the background.
func join(ctx context.Context, l *lane) <-chan error {
	_, _, before := l.load()
	entered := make(chan error, 1)
	go func() { entered <- l.enter(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, _, waiting := l.load(); waiting > before || len(entered) > 0 {
			break
		}
	}
	return entered
}

func TestALaneIsFirstComeFirstServedAndNeverFullerThanItsBounds(t *testing.T) {
	t.Parallel()
	l := fixed(1, 3, 3, time.Minute)
	if err := l.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, second := join(t.Context(), l), join(t.Context(), l)
	ctx, hangUp := context.WithCancel(t.Context())
	gone := join(ctx, l)
	if !l.full() {
		t.Error("three wait, and there is room")
	}
	if err := l.enter(t.Context()); !errors.Is(err, errFull) {
		t.Errorf("the fourth in line: %v", err)
	}
	hangUp()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who hung up: %v", err)
	}
	for i, next := range []<-chan error{first, second} {
		l.leave(0)
		if err := <-next; err != nil {
			t.Errorf("number %d: %v", i+1, err)
		}
	}
	l.leave(0)
	if running, _, waiting := l.load(); running != 0 || waiting != 0 {
		t.Errorf("%d run, %d wait, when all have left", running, waiting)
	}
}

func TestALaneRefusesWhoHasWaitedTooLong(t *testing.T) {
	t.Parallel()
	l := fixed(1, 3, 3, time.Millisecond)
	if err := l.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.enter(t.Context()); !errors.Is(err, errFull) {
		t.Errorf("waited: %v", err)
	}
}

func TestAQueueThatStandsBecomesShort(t *testing.T) {
	t.Parallel()
	l := fixed(1, 5, 2, time.Minute)
	if err := l.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	var waiting []<-chan error
	for range 5 {
		waiting = append(waiting, join(t.Context(), l))
	}
	time.Sleep(standingAfter + 10*time.Millisecond)
	if !l.full() {
		t.Error("a queue stands, and there is room for a burst")
	}
	l.leave(0) // the first gets its place; two may still wait
	for i, want := range map[int]error{0: nil, 3: errFull, 4: errFull} {
		if err := <-waiting[i]; !errors.Is(err, want) {
			t.Errorf("number %d: %v, want %v", i, err, want)
		}
	}
	if _, _, n := l.load(); n != 2 {
		t.Errorf("%d wait, want 2", n)
	}
	for range 2 {
		l.leave(0)
	}
	for _, i := range []int{1, 2} {
		if err := <-waiting[i]; err != nil {
			t.Errorf("number %d: %v", i, err)
		}
	}
}

func TestTheLimitFollowsTheProcessors(t *testing.T) {
	t.Parallel()
	wait := 10 * contended
	p := newPace(8, 64, func() time.Duration { return wait })
	now := p.since
	after := func(worked time.Duration, full bool) int {
		p.full = full
		now = now.Add(paceEvery)
		p.end(now, worked)
		return p.limit
	}
	if got := after(4*quickEnough/2, true); got != 32 {
		t.Errorf("twice too slow: limit %d, want 32", got)
	}
	if got := after(100*quickEnough, true); got != 16 {
		t.Errorf("a hundred times too slow: limit %d, want no less than half", got)
	}
	for range 5 {
		after(100*quickEnough, true)
	}
	if p.limit != 8 {
		t.Errorf("limit %d, want the least", p.limit)
	}
	if got := after(quickEnough/2, false); got != 8 {
		t.Errorf("not reached: limit %d, want 8", got)
	}
	if got := after(quickEnough/2, true); got != 10 {
		t.Errorf("quick and reached: limit %d, want 10", got)
	}
	wait = 10 * time.Microsecond // a token far away, and nothing to compute
	for range 20 {
		after(10*quickEnough, true)
	}
	if p.limit != 64 {
		t.Errorf("the token is slow, not the processors: limit %d, want 64", p.limit)
	}
	if p.end(now, time.Hour); p.limit != 64 {
		t.Error("the limit changes with every request")
	}
}

func TestWaitingForAProcessorIsMeasured(t *testing.T) {
	t.Parallel()
	wait := processorWait()
	if wait() <= 0 {
		t.Error("no goroutine has waited since the start")
	}
	if again := wait(); again < 0 || again > time.Minute {
		t.Errorf("waited %s since", again)
	}
}

func TestAHoardCutsOffWhoHasTakenLongest(t *testing.T) {
	t.Parallel()
	h := newHoard(100)
	cut := map[string]bool{}
	enter := func(name string, n int) *holding {
		held := h.enter(func() { cut[name] = true })
		held.grow(n)
		return held
	}
	a, b, c := enter("a", 40), enter("b", 40), enter("c", 20)
	b.settle() // its body has arrived
	if len(cut) != 0 {
		t.Fatalf("cut %v, and there is room", cut)
	}
	d := enter("d", 10)
	if !cut["a"] || len(cut) != 1 || !a.wasCut() || d.wasCut() {
		t.Fatalf("cut %v, want a", cut)
	}
	e := enter("e", 90)
	if !cut["c"] || !cut["d"] || cut["b"] || !cut["e"] || !e.wasCut() {
		t.Fatalf("cut %v, want all but b: who asks for more than there is gets nothing", cut)
	}
	for _, held := range []*holding{a, b, c, d, e} {
		held.leave()
	}
	if h.total != 0 || h.slow.Len() != 0 {
		t.Errorf("%d octets and %d clients are left", h.total, h.slow.Len())
	}
	for range maxSlow {
		h.enter(func() {})
	}
	clear(cut)
	first := h.slow.Front().Value.(*holding)
	if enter("last", 0); !first.wasCut() || h.slow.Len() != maxSlow {
		t.Errorf("%d clients are slow, want %d", h.slow.Len(), maxSlow)
	}
}

func TestASlowReaderHoldsNoPlaceAndGivesWay(t *testing.T) {
	t.Parallel()
	const long = 32 << 20 // more than the kernel buffers
	l, h := fixed(1, 1, 1, time.Minute), newHoard(long*3/2)
	wrote := make(chan error, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := l.enter(r.Context()); err != nil {
			t.Error(err)
		}
		a := &answer{ResponseWriter: w, lane: l, begun: time.Now(), hoard: h}
		defer a.release()
		_, err := a.Write(make([]byte, long))
		wrote <- err
	}))
	t.Cleanup(server.Close)
	ask := func() net.Conn {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1024)); err != nil { // it is being answered
			t.Fatal(err)
		}
		return conn
	}
	slow := ask()
	defer slow.Close()
	if running, _, _ := l.load(); running != 0 {
		t.Error("a slow reader holds a place")
	}
	second := ask()
	defer second.Close()
	if err := <-wrote; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the first of two slow readers: %v", err)
	}
	if _, err := io.Copy(io.Discard, second); err != nil {
		t.Error(err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("the second: %v", err)
	}
}
