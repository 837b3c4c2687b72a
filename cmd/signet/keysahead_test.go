package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Lines of /metrics.
const (
	keysAhead  = `signet_keys_ahead{size="2048",type="rsa"} `
	takenAhead = `signet_rsa_leaf_keys_total{made="ahead"} `
)

// metric is the value of a line of /metrics that begins with the name and labels.
func (r *running) metric(line string) int {
	r.t.Helper()
	for l := range strings.Lines(string(r.raw(http.StatusOK, "GET", "/metrics", nil))) {
		if value, found := strings.CutPrefix(l, line); found {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				r.t.Fatal(err)
			}
			return n
		}
	}
	r.t.Fatalf("no line of /metrics begins with %s", line)
	return 0
}

func TestKeysMadeAheadAreHandedOut(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sqlite", "--keys-ahead", "2")
	r := s.start("signet")
	r.firstUser()
	path := fmt.Sprintf("/api/v1/certificates/?ca_id=%d", r.createCA("Ahead"))
	issue := func() {
		t.Helper()
		c := r.must(http.StatusCreated, "POST", path, object{"common_name": "www.example.com", "subject_dn": "CN=www.example.com", "certificate_type": "server"})
		if _, err := tls.X509KeyPair([]byte(c["certificate"].(string)), []byte(c["private_key"].(string))); err != nil {
			t.Error(err)
		}
		kept := r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%v/private-key", c["id"]), nil)
		if kept["private_key"] != c["private_key"] {
			t.Error("another key is kept than was handed out")
		}
	}
	fill := func() {
		t.Helper()
		for end := time.Now().Add(time.Minute); r.metric(keysAhead) < 2; time.Sleep(300 * time.Millisecond) { // to ask is a request too
			if time.Now().After(end) {
				t.Fatal("no keys are made ahead")
			}
		}
	}
	fill()
	issue()
	if n := r.metric(takenAhead); n != 1 {
		t.Errorf("%d keys were made ahead of the request", n)
	}
	fill()
	s.runs("token", "rotate-kek", "--destroy-old", "--settle", "3s")
	issue() // whatever the token still opens
	fill()
	issue()
}
