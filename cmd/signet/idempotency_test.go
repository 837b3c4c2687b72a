package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
)

// A client repeats its request after the server died at any step, and has exactly one certificate, or CA.
func TestARetryAfterACrashCreatesNothingTwice(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		for name, c := range map[string]struct {
			steps []string
			path  string
			body  func(authority int64, name string) object
			list  string
		}{
			"certificate": {
				steps: []string{"before Reserve", "after Reserve", "after Sign", "after Complete"},
				path:  "/api/v1/certificates/sign-csr",
				body: func(authority int64, name string) object {
					return object{"ca_id": authority, "certificate_type": "server", "csr": csr(t, name), "common_name": name}
				},
				list: "/api/v1/certificates/?status=valid&limit=1000",
			},
			"CA": {
				steps: []string{"after CreateCA", "after ReserveCA", "after CompleteCA"},
				path:  "/api/v1/cas/",
				body: func(_ int64, name string) object {
					return object{"name": name, "subject_dn": "CN=" + name, "key_type": "ec", "key_size": 256}
				},
				list: "/api/v1/cas/?limit=1000",
			},
		} {
			t.Run(database+"/"+name, func(t *testing.T) {
				t.Parallel()
				s, r := startServer(t, database)
				authority := r.createCA("Authority")
				r.stop(9)
				for i, at := range c.steps {
					r := s.startAhead(2*i, filepath.Join(t.TempDir(), "step"))
					subject := fmt.Sprintf("retry%d.example.com", i)
					v := &visitor{url: r.url, access: r.token, key: "key-" + subject}
					body := c.body(authority, subject)
					r.dieAt(at, func() { v.ask("POST", c.path, body) })

					r = s.startAhead(2*i+1, filepath.Join(t.TempDir(), "step"))
					v = &visitor{url: r.url, access: r.token, key: v.key}
					status, first, _ := v.ask("POST", c.path, body)
					if status != http.StatusCreated {
						t.Fatalf("%s, then again: %d %v", at, status, first)
					}
					status, second, header := v.ask("POST", c.path, body)
					if status != http.StatusCreated || header.Get("Idempotency-Replayed") != "true" || id(second) != id(first) {
						t.Errorf("%s, then a third time: %d, replayed %q, id %v after %v", at, status, header.Get("Idempotency-Replayed"),
							second["id"], first["id"])
					}
					found := 0
					for _, o := range r.list(c.list) {
						if o["common_name"] == subject || o["name"] == subject {
							found++
						}
					}
					if found != 1 {
						t.Errorf("%s: there are %d of %s", at, found, subject)
					}
					r.stop(9)
				}
			})
		}
	}
}

func TestParallelRetriesOnAllReplicasCreateOneCertificate(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--login-rate", "off")
	authority := c.replicas[0].createCA("Shared")
	body := object{"ca_id": authority, "certificate_type": "server", "csr": csr(t, "www.example.com")}
	var mu sync.Mutex
	ids := map[int64]bool{}
	answers := map[int]int{}
	var group sync.WaitGroup
	for i := range 24 {
		v := &visitor{url: c.replicas[i%3].url, access: c.replicas[0].token, key: "one"}
		group.Go(func() {
			status, o, _ := v.ask("POST", "/api/v1/certificates/sign-csr", body)
			mu.Lock()
			defer mu.Unlock()
			if answers[status]++; status == http.StatusCreated {
				ids[id(o)] = true
			}
		})
	}
	group.Wait()
	if answers[http.StatusCreated]+answers[http.StatusConflict] != 24 || answers[http.StatusCreated] == 0 {
		t.Errorf("answers %v, want 201 and 409 only", answers)
	}
	if all := c.replicas[1].list("/api/v1/certificates/"); len(ids) != 1 || len(all) != 1 {
		t.Errorf("%d certificates were answered and %d exist, want one", len(ids), len(all))
	}
}
