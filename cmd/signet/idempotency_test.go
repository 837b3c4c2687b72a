package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// under sends a request with an Idempotency-Key. The status is 0 when there was no whole answer.
func (c *client) under(key, path string, body any) (status int, answer object, header http.Header) {
	data, err := json.Marshal(body)
	if err != nil {
		c.t.Error(err)
		return 0, nil, nil
	}
	request, err := http.NewRequest("POST", c.url+path, bytes.NewReader(data))
	if err != nil {
		c.t.Error(err)
		return 0, nil, nil
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+c.token)
	request.Header.Set("Idempotency-Key", key)
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, nil
	}
	defer response.Body.Close()
	if json.NewDecoder(response.Body).Decode(&answer) != nil {
		return 0, nil, nil
	}
	return response.StatusCode, answer, response.Header
}

// once is a request that creates something, and how many of it there are.
type once struct {
	name  string
	steps []string
	path  string
	body  func(i int, authority int64) object
	count func(c *client, i int) int
}

func named(all []object, field, value string) (n int) {
	for _, o := range all {
		if o[field] == value {
			n++
		}
	}
	return n
}

func requestsDoneOnce(t *testing.T) []once {
	requests := map[int]string{}
	var mu sync.Mutex
	return []once{
		{
			name:  "sign a CSR",
			steps: []string{"before ClaimRequest", "after ClaimRequest", "after Reserve", "after Sign", "after Complete"},
			path:  "/api/v1/certificates/sign-csr",
			body: func(i int, authority int64) object {
				mu.Lock()
				defer mu.Unlock()
				if requests[i] == "" {
					requests[i] = csr(t, fmt.Sprintf("kept%d.example.com", i))
				}
				return object{"ca_id": authority, "certificate_type": "server", "csr": requests[i]}
			},
			count: func(c *client, i int) int {
				return named(c.list("/api/v1/certificates/?limit=10000"), "common_name", fmt.Sprintf("kept%d.example.com", i))
			},
		},
		{
			name:  "create a CA",
			steps: []string{"after ClaimRequest", "after CreateCA", "after ReserveCA", "after CompleteCA"},
			path:  "/api/v1/cas/",
			body: func(i int, _ int64) object {
				return object{"name": fmt.Sprintf("Kept%d", i), "subject_dn": "CN=Kept", "key_type": "ec", "key_size": 256}
			},
			count: func(c *client, i int) int { return named(c.list("/api/v1/cas/"), "name", fmt.Sprintf("Kept%d", i)) },
		},
		{
			name:  "create a user",
			steps: []string{"after ClaimRequest"},
			path:  "/api/v1/users/",
			body: func(i int, _ int64) object {
				return object{"username": "anna", "email": "anna@example.com", "password": rootPassword}
			},
			count: func(c *client, _ int) int { return named(c.list("/api/v1/users/"), "username", "anna") },
		},
	}
}

// The process dies at each step of a request with a key. The request is sent again: at once, to the process that follows, and
// when nobody can be at it any more. It is done once, and its abandoned attempts are accounted for.
func TestARequestThatIsSentAgainAfterACrashIsDoneOnce(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		for _, request := range requestsDoneOnce(t) {
			t.Run(database+"/"+request.name, func(t *testing.T) {
				t.Parallel()
				s, r := startServer(t, database)
				authority := r.createCA("Authority")
				r.stop(syscall.SIGTERM)
				for i, at := range request.steps {
					key, body := fmt.Sprintf("key-%d", i), request.body(i, authority)
					r = s.startAhead(i, filepath.Join(t.TempDir(), "step"))
					r.dieAt(at, func() { r.under(key, request.path, body) })

					r = s.startAhead(i, "")
					status, answer, header := r.under(key, request.path, body)
					done := slices.Contains([]string{"after Complete", "after CompleteCA"}, at)
					switch wait, _ := strconv.Atoi(header.Get("Retry-After")); {
					case done && (status != http.StatusCreated || header.Get("Idempotency-Replayed") != "true"):
						t.Errorf("%s: it was done, and the next process answers %d %v", at, status, answer)
					case done:
					case database == "postgres" && at != "before ClaimRequest": // another replica may be at it
						if status != http.StatusConflict || wait < 1 {
							t.Errorf("%s: the next process answers %d %v, Retry-After %d", at, status, answer, wait)
						}
					case status != http.StatusCreated:
						t.Errorf("%s: the next process answers %d %v", at, status, answer)
					}
					r.stop(syscall.SIGTERM)

					r = s.startAhead(i+1, "")
					_, first, _ := r.under(key, request.path, body)
					status, second, header := r.under(key, request.path, body)
					if status != http.StatusCreated || header.Get("Idempotency-Replayed") != "true" || fmt.Sprint(first) != fmt.Sprint(second) {
						t.Errorf("%s: in the end it answers %v, then %d %v", at, first, status, second)
					}
					if n := request.count(r.client, i); n != 1 {
						t.Errorf("%s: it was done %d times", at, n)
					}
					if request.name == "sign a CSR" {
						r.accountsForEverything(i + 1)
					}
					r.stop(syscall.SIGTERM)
				}
				if request.name != "sign a CSR" {
					return
				}
				r = s.start("signet-crash", crashClock+"=25h")
				r.login(rootName, rootPassword)
				status, answer, header := r.under("key-0", request.path, request.body(0, authority))
				if status != http.StatusCreated || header.Get("Idempotency-Replayed") != "" || request.count(r.client, 0) != 2 {
					t.Errorf("a day later: %d %v, %v", status, answer, header)
				}
			})
		}
	}
}

// Clients send each request again until it is answered, to whichever replica, while one of them is killed.
func TestReplicasDoARequestThatIsSentAgainOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--login-rate", "off")
	authority := c.replicas[0].createCA("Shared")
	everywhere := make([]*client, 3)
	for i, r := range c.replicas {
		everywhere[i] = &client{t: t, url: r.url, token: c.replicas[0].token, http: &http.Client{Timeout: 30 * time.Second}}
	}
	const path = "/api/v1/certificates/sign-csr"
	body := func(name string) object {
		return object{"ca_id": authority, "certificate_type": "server", "csr": csr(t, name)}
	}

	together := body("together.example.com")
	var group sync.WaitGroup
	for i := range 33 {
		group.Go(func() {
			if status, answer, _ := everywhere[i%3].under("together", path, together); status != http.StatusCreated && status != http.StatusConflict {
				t.Errorf("%d %v", status, answer)
			}
		})
	}
	group.Wait()

	var stop atomic.Bool
	var mu sync.Mutex
	answers := map[string][]int64{} // ids, by name
	for i := range 6 {
		group.Go(func() {
			for n := 0; !stop.Load(); n++ {
				name := fmt.Sprintf("c%dn%d.example.com", i, n)
				request := body(name)
				for attempt, got := i, 0; got < 2 && !stop.Load(); attempt++ {
					status, answer, _ := everywhere[attempt%3].under(name, path, request)
					switch status {
					case http.StatusCreated:
						got++ // twice, at two replicas
						mu.Lock()
						answers[name] = append(answers[name], id(answer))
						mu.Unlock()
					case 0, http.StatusServiceUnavailable, http.StatusConflict:
						if attempt > i+60 { // the replica that died had it: nobody may take it for two minutes
							got = 2
						}
						time.Sleep(20 * time.Millisecond)
					default:
						t.Errorf("%s: %d %v", name, status, answer)
						got = 2
					}
				}
			}
		})
	}
	done := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(answers)
	}
	eventually(t, 30*time.Second, "clients are answered", func() bool { return done() >= 20 })
	c.replicas[2].stop(syscall.SIGKILL)
	before := done()
	eventually(t, 60*time.Second, "clients are answered while one is dead", func() bool { return done() >= before+20 })
	stop.Store(true)
	group.Wait()

	found := map[any][]int64{}
	for _, o := range c.replicas[0].list("/api/v1/certificates/?limit=10000") {
		found[o["common_name"]] = append(found[o["common_name"]], id(o))
	}
	if len(found["together.example.com"]) != 1 {
		t.Errorf("33 requests with one key made the certificates %v", found["together.example.com"])
	}
	for name, ids := range found {
		if len(ids) != 1 {
			t.Errorf("%s has the certificates %v", name, ids)
		}
	}
	for name, ids := range answers {
		if slices.Sort(ids); ids[0] != ids[len(ids)-1] || !slices.Equal(found[name], ids[:1]) {
			t.Errorf("%s was answered as %v and is %v", name, ids, found[name])
		}
	}
	t.Logf("%d requests, %d certificates", len(answers), len(found))
}
