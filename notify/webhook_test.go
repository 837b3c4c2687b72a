package notify_test

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signet/ca"
	"signet/notify"
	"signet/store"
)

const secret = "a secret of the webhook's tests"

// delivery is what a receiver saw.
type delivery struct {
	header http.Header
	body   []byte
	path   string
}

// receiver is a webhook: a real server that answers as it is told.
type receiver struct {
	*httptest.Server
	mu         sync.Mutex
	deliveries []delivery
}

func newReceiver(t *testing.T, answer http.HandlerFunc) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Errorf("read delivery: %v", err)
		}
		r.mu.Lock()
		r.deliveries = append(r.deliveries, delivery{q.Header, body, q.Method + " " + q.URL.Path})
		r.mu.Unlock()
		answer(w, q)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) seen() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.deliveries)
}

// answers gives one status after the other, the last one for ever.
func answers(statuses ...int) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(statuses[0])
		if len(statuses) > 1 {
			statuses = statuses[1:]
		}
	}
}

// office is a database with events, and a clock.
type office struct {
	*testing.T
	db *store.DB

	mu       sync.Mutex
	now      time.Time
	outcomes []notify.Outcome
	errs     []error
}

func newOffice(t *testing.T) *office {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "signet.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &office{T: t, db: db, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func (o *office) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

func (o *office) pass(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = o.now.Add(d)
}

func (o *office) webhook(url string) *notify.Webhook {
	return notify.New(notify.Config{
		URL: url, Secret: []byte(secret), UserAgent: "signet/test", Store: o.db, Leads: func() bool { return true }, Now: o.clock,
		Attempted: func(_ notify.Event, outcome notify.Outcome, err error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.outcomes = append(o.outcomes, outcome)
			if err != nil {
				o.errs = append(o.errs, err)
			}
		},
		Failed: func(err error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.errs = append(o.errs, err)
		},
	})
}

func (o *office) add(keys ...string) {
	o.Helper()
	var all []ca.Notice
	for _, key := range keys {
		all = append(all, ca.Notice{Key: key, Kind: ca.CAExpiring, CreatedAt: o.clock(), Data: map[string]string{"ca_name": "Zürich"}})
	}
	if err := o.db.AddNotices(o.Context(), all); err != nil {
		o.Fatal(err)
	}
}

// deliver runs one batch and checks how many were claimed and delivered.
func (o *office) deliver(w *notify.Webhook, claimed, delivered int) {
	o.Helper()
	c, d, err := w.DeliverDue(o.Context())
	if err != nil || c != claimed || d != delivered {
		o.Errorf("claimed %d, delivered %d, %v; want %d and %d", c, d, err, claimed, delivered)
	}
}

func TestADeliverySaysWhatWhenAndFromWhom(t *testing.T) {
	t.Parallel()
	o, r := newOffice(t), newReceiver(t, answers(http.StatusNoContent))
	o.add("ca-expiring/1/720h")
	o.pass(90 * time.Second)
	o.deliver(o.webhook(r.URL+"/signet?room=1"), 1, 1)
	o.deliver(o.webhook(r.URL), 0, 0)
	if len(r.seen()) != 1 {
		t.Fatalf("%d deliveries, want 1", len(r.seen()))
	}
	d := r.seen()[0]
	if d.path != "POST /signet" || d.header.Get("Content-Type") != "application/json" || d.header.Get("User-Agent") != "signet/test" {
		t.Errorf("%s, headers %v", d.path, d.header)
	}
	var body struct {
		ID, Type string
		Created  string `json:"created_at"`
		Data     map[string]any
	}
	if err := json.Unmarshal(d.body, &body); err != nil {
		t.Fatal(err)
	}
	if body.Type != "ca.expiring" || body.Created != "2026-03-01T12:00:00Z" || body.Data["ca_name"] != "Zürich" {
		t.Errorf("body is %s", d.body)
	}
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(body.ID) || body.ID != d.header.Get("Signet-Event-Id") {
		t.Errorf("id %q in the body, %q in the header", body.ID, d.header.Get("Signet-Event-Id"))
	}
	timestamp := d.header.Get("Signet-Timestamp")
	if timestamp != fmt.Sprint(o.clock().Unix()) {
		t.Errorf("timestamp is %s, want that of the attempt", timestamp)
	}
	if want := notify.Sign([]byte(secret), timestamp, d.body); !hmac.Equal([]byte(d.header.Get("Signet-Signature")), []byte(want)) {
		t.Errorf("signature is %s, want %s", d.header.Get("Signet-Signature"), want)
	}
}

func TestAnEventThatFailedComesAgainUnderTheSameID(t *testing.T) {
	t.Parallel()
	o, r := newOffice(t), newReceiver(t, answers(500, 302, 404, 200))
	w := o.webhook(r.URL)
	o.add("a")
	for _, pause := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		o.deliver(w, 1, 0)
		o.pass(pause/2 - time.Second)
		o.deliver(w, 0, 0) // not before half of the pause
		o.pass(pause/2 + time.Second)
	}
	o.deliver(w, 1, 1)
	o.pass(24 * time.Hour)
	o.deliver(w, 0, 0)
	seen := r.seen()
	if len(seen) != 4 {
		t.Fatalf("%d deliveries, want 4", len(seen))
	}
	for _, d := range seen[1:] {
		if string(d.body) != string(seen[0].body) || d.header.Get("Signet-Event-Id") != seen[0].header.Get("Signet-Event-Id") {
			t.Errorf("another attempt said %s, the first %s", d.body, seen[0].body)
		}
		if d.header.Get("Signet-Timestamp") == seen[0].header.Get("Signet-Timestamp") {
			t.Error("another attempt has the timestamp of the first")
		}
	}
	if want := []notify.Outcome{notify.Failed, notify.Failed, notify.Failed, notify.Delivered}; !slices.Equal(o.outcomes, want) {
		t.Errorf("outcomes are %v, want %v", o.outcomes, want)
	}
}

func TestPausesGrowToAnHourAndEndAfterThreeDays(t *testing.T) {
	t.Parallel()
	o, r := newOffice(t), newReceiver(t, answers(503))
	w := o.webhook(r.URL)
	o.add("a")
	start := o.clock()
	for len(o.outcomes) == 0 || o.outcomes[len(o.outcomes)-1] == notify.Failed {
		if o.clock().Sub(start) > 74*time.Hour {
			t.Fatal("it is never given up")
		}
		if _, _, err := w.DeliverDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.pass(5 * time.Second)
	}
	if last, took := o.outcomes[len(o.outcomes)-1], o.clock().Sub(start); last != notify.GivenUp || took < 72*time.Hour {
		t.Errorf("%s after %s, want given up after three days", last, took)
	}
	// 72 hours with pauses of half an hour to an hour, after some shorter ones.
	if n := len(r.seen()); n < 72 || n > 160 {
		t.Errorf("%d attempts in three days", n)
	}
	o.pass(24 * time.Hour)
	o.deliver(w, 0, 0)
}

func TestTwoReplicasDeliverEachEventOnce(t *testing.T) {
	t.Parallel()
	o, r := newOffice(t), newReceiver(t, answers(200))
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("key/%d", i))
	}
	o.add(keys...)
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			w := o.webhook(r.URL)
			for {
				claimed, _, err := w.DeliverDue(context.Background())
				if err != nil {
					t.Error(err)
				}
				if claimed == 0 || err != nil {
					return
				}
			}
		})
	}
	group.Wait()
	ids := map[string]int{}
	for _, d := range r.seen() {
		ids[d.header.Get("Signet-Event-Id")]++
	}
	if len(r.seen()) != 100 || len(ids) != 100 {
		t.Errorf("%d deliveries of %d events, want 100 of 100", len(r.seen()), len(ids))
	}
}

func TestAtMostFourDeliveriesAreInFlight(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now, most := 0, 0
	o, r := newOffice(t), newReceiver(t, func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
	})
	for i := range 16 {
		o.add(fmt.Sprint(i))
	}
	o.deliver(o.webhook(r.URL), 16, 16)
	if most != 4 {
		t.Errorf("%d deliveries were in flight at once, want 4", most)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := newReceiver(t, answers(200))
	for _, status := range []int{301, 302, 303, 307, 308} {
		o, r := newOffice(t), newReceiver(t, func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, elsewhere.URL, status)
		})
		o.add("a")
		o.deliver(o.webhook(r.URL), 1, 0)
	}
	if n := len(elsewhere.seen()); n != 0 {
		t.Errorf("%d deliveries went to the place of the redirect", n)
	}
}

func TestAnAnswerWithoutEndIsCutOff(t *testing.T) {
	t.Parallel()
	o, r := newOffice(t), newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		for chunk := make([]byte, 32<<10); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	o.add("a")
	o.deliver(o.webhook(r.URL), 1, 1)
}

func TestAServerThatStopsLeavesTheEventToTheNext(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	first := make(chan struct{}, 1)
	first <- struct{}{}
	o, r := newOffice(t), newReceiver(t, func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-first:
			stop()
			<-q.Context().Done()
		default:
		}
	})
	o.add("a")
	w := o.webhook(r.URL)
	if _, delivered, err := w.DeliverDue(ctx); err != nil || delivered != 0 {
		t.Errorf("delivered %d, %v", delivered, err)
	}
	if len(o.outcomes) != 0 || len(o.errs) != 0 {
		t.Errorf("the receiver is blamed: %v, %v", o.outcomes, o.errs)
	}
	o.deliver(w, 1, 1)
}

func TestRunDeliversWhileItLeads(t *testing.T) {
	t.Parallel()
	o, r := newOffice(t), newReceiver(t, answers(200))
	for i := range 40 {
		o.add(fmt.Sprint(i))
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { o.webhook(r.URL).Run(ctx) })
	for deadline := time.Now().Add(10 * time.Second); len(r.seen()) < 40 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	group.Wait()
	if len(r.seen()) != 40 || len(o.errs) != 0 {
		t.Errorf("%d of 40 events were delivered, errors %v", len(r.seen()), o.errs)
	}

	o.add("later")
	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	idle := notify.New(notify.Config{URL: r.URL, Secret: []byte(secret), Store: o.db, Now: o.clock, Leads: func() bool { stop(); return false }})
	idle.Run(ctx)
	if len(r.seen()) != 40 {
		t.Error("a replica that does not lead delivered")
	}
}

func TestErrorsTellNeitherTheSecretNorTheURL(t *testing.T) {
	t.Parallel()
	away := httptest.NewServer(nil)
	away.Close()
	for name, url := range map[string]string{
		"refused": away.URL + "/hidden-path?hidden-query=1",
		"answers": newReceiver(t, answers(500)).URL + "/hidden-path?hidden-query=1",
		"no TLS":  strings.Replace(newReceiver(t, answers(200)).URL, "http:", "https:", 1) + "/hidden-path?hidden-query=1",
		"not HTTP": newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			panic(http.ErrAbortHandler)
		}).URL + "/hidden-path?hidden-query=1",
	} {
		o := newOffice(t)
		o.add("a")
		o.deliver(o.webhook(url), 1, 0)
		if len(o.errs) != 1 {
			t.Fatalf("%s: %d errors", name, len(o.errs))
		}
		if text := o.errs[0].Error(); strings.Contains(text, secret) || strings.Contains(text, "hidden") {
			t.Errorf("%s: the error says too much: %s", name, text)
		}
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://hooks.example/a?b=c":     "",
		"http://127.0.0.1:9000":           "",
		"https://[::1]:1/":                "",
		"":                                "must start with",
		"hooks.example":                   "must start with",
		"ftp://hooks.example":             "must start with",
		"https://":                        "must start with",
		"https://:443/":                   "must start with",
		"https://user@hooks.example":      "must not have a user",
		"https://u:hidden@hooks.example/": "must not have a user",
		"https://hooks.example/#hidden":   "fragment",
		"https://hooks.example/%zz":       "not a URL",
		"https://hidden hooks/":           "not a URL",
	} {
		err := notify.CheckURL(url)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q is refused: %v", url, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: error is %v, want %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), "hidden"):
			t.Errorf("%q: the error repeats it: %v", url, err)
		}
	}
}

// block returns the first block of code in this language in the manual.
func block(t *testing.T, language string) string {
	t.Helper()
	manual, err := os.ReadFile("../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	after := manual[strings.Index(string(manual), "## A receiver's check"):]
	found := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(after)
	if found == nil {
		t.Fatalf("the manual has no block of %s", language)
	}
	return string(found[1])
}

func TestTheManualsVerifierInPythonAcceptsOursAndNothingElse(t *testing.T) {
	t.Parallel()
	o, r := newOffice(t), newReceiver(t, answers(200))
	o.now = time.Now()
	o.add("a")
	o.deliver(o.webhook(r.URL), 1, 1)
	d := r.seen()[0]
	timestamp, signature := d.header.Get("Signet-Timestamp"), d.header.Get("Signet-Signature")
	old := fmt.Sprint(time.Now().Add(-time.Hour).Unix())
	for name, test := range map[string]struct {
		secret, timestamp, signature, body string
		want                               bool
	}{
		"ours":              {secret, timestamp, signature, string(d.body), true},
		"another secret":    {secret + "x", timestamp, signature, string(d.body), false},
		"another body":      {secret, timestamp, signature, string(d.body) + " ", false},
		"another time":      {secret, timestamp + "0", signature, string(d.body), false},
		"an old one":        {secret, old, notify.Sign([]byte(secret), old, d.body), string(d.body), false},
		"no signature":      {secret, timestamp, "", string(d.body), false},
		"not ASCII":         {secret, timestamp, "v1=é", string(d.body), false},
		"no timestamp":      {secret, "", signature, string(d.body), false},
		"a strange number":  {secret, "²", signature, string(d.body), false},
		"another algorithm": {secret, timestamp, strings.Replace(signature, "v1", "v2", 1), string(d.body), false},
	} {
		input, err := json.Marshal([]string{test.secret, test.timestamp, test.signature, test.body})
		if err != nil {
			t.Fatal(err)
		}
		program := exec.CommandContext(t.Context(), "python3", "-c", block(t, "python")+`
import json, sys
secret, timestamp, signature, body = json.load(sys.stdin)
print(verify(secret.encode(), {"Signet-Timestamp": timestamp, "Signet-Signature": signature}, body.encode()))
`)
		program.Stdin = strings.NewReader(string(input))
		out, err := program.Output()
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("%s: %v: %s", name, err, failed.Stderr)
		} else if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(out)) == "True"; got != test.want {
			t.Errorf("%s: accepted %t, want %t", name, got, test.want)
		}
	}
}

func TestTheManualsLineOfOpenSSLComputesTheSignature(t *testing.T) {
	t.Parallel()
	body := `{"id":"1","data":{"name":"Zürich\n"}}`
	path := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{secret, "ends in spaces   ", "with 'quotes' and : colons", strings.Repeat("long ", 40)} {
		shell := exec.CommandContext(t.Context(), "sh", "-c", block(t, "sh"))
		shell.Env = append(os.Environ(), "TIMESTAMP=1767225600", "BODY="+path, "SECRET="+secret)
		out, err := shell.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		digits, _, _ := strings.Cut(string(out), " ")
		if want := notify.Sign([]byte(secret), "1767225600", []byte(body)); "v1="+digits != want {
			t.Errorf("openssl says %s, want %s", digits, want)
		}
	}
}
