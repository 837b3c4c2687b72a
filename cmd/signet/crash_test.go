package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// operation is a request that signs with a CA key, and the steps at which the process may die while it runs. What is
// durable before a step is what was durable after the one before it, so "after" is enough but for the first.
type operation struct {
	name  string
	steps []string
	send  func(c *client, authority int64) // the answer never comes
}

func operations(t *testing.T) []operation {
	createCA := func(c *client, parent any) {
		_, _, _ = c.do("POST", "/api/v1/cas/", object{
			"name": "Crash", "subject_dn": "CN=Crash", "key_type": "ec", "key_size": 256, "parent_ca_id": parent})
	}
	return []operation{
		{
			name:  "sign a CSR",
			steps: []string{"before Reserve", "after Reserve", "after Sign", "after Complete"},
			send: func(c *client, authority int64) {
				_, _, _ = c.do("POST", "/api/v1/certificates/sign-csr", object{
					"ca_id": authority, "certificate_type": "server", "csr": csr(t, "crash.example.com")})
			},
		},
		{
			name: "create a root CA",
			steps: []string{"before CreateCA", "after CreateCA", "after Generate", "after ReserveCA", "after Sign", "after CompleteCA",
				"after BeginList", "after CompleteLists"},
			send: func(c *client, _ int64) { createCA(c, nil) },
		},
		{
			name:  "create an intermediate CA",
			steps: []string{"after ReserveCA", "after Sign", "after CompleteCA"},
			send:  func(c *client, authority int64) { createCA(c, authority) },
		},
		{
			name:  "revoke",
			steps: []string{"before Revoke", "after Revoke", "after BeginList", "after Sign", "after CompleteLists"},
			send: func(c *client, authority int64) {
				all := c.list(fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority))
				i := slices.IndexFunc(all, func(o object) bool { return o["status"] == "valid" })
				_, _, _ = c.do("POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(all[i])), object{"reason": "keyCompromise"})
			},
		},
	}
}

// The process dies at each step of each operation. The next start finds nothing lost and nothing unaccounted for, and
// then dies at the next step.
func TestAProcessThatDiesAtAnyStepLosesNothing(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		for _, operation := range operations(t) {
			t.Run(database+"/"+operation.name, func(t *testing.T) {
				t.Parallel()
				s, r := startServer(t, database)
				authority := r.createCA("Authority")
				for i := range operation.steps {
					r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
						"ca_id": authority, "certificate_type": "server", "csr": csr(t, fmt.Sprintf("kept%d.example.com", i))})
				}
				if code := r.stop(syscall.SIGTERM); code != 0 {
					t.Fatalf("exit code %d:\n%s", code, r.stderr)
				}
				for i, at := range append(operation.steps, "") {
					r := s.startAhead(i, filepath.Join(t.TempDir(), "step"))
					r.accountsForEverything(len(operation.steps))
					if at == "" {
						break
					}
					r.dieAt(at, func() { operation.send(r.client, authority) })
				}
			})
		}
	}
}

// startAhead starts the server that can crash, with a clock that is ahead by so many times more than the age at which
// a replica closes the reservations of another, and logs in.
func (s *site) startAhead(times int, stepFile string) *running {
	s.t.Helper()
	r := s.start("signet-crash", crashFile+"="+stepFile, fmt.Sprintf("%s=%s", crashClock, time.Duration(times)*(othersGrace+time.Minute)))
	r.stepFile = stepFile
	r.login(rootName, rootPassword)
	return r
}

// dieAt arms the step, does what leads to it, and waits for the end of the process.
func (r *running) dieAt(at string, request func()) {
	r.t.Helper()
	if err := os.WriteFile(r.stepFile, []byte(at), 0o600); err != nil {
		r.t.Fatal(err)
	}
	request()
	select {
	case <-r.exited:
	case <-time.After(20 * time.Second):
		r.t.Fatalf("%s: the process never came to this step", at)
	}
}

// trail is what the audit log says of the reservations, by resource: "certificate 7".
type trail struct {
	serial    map[string]string // announced
	completed map[string]int
	abandoned map[string]int

	responders []string // serials of the OCSP responders that were abandoned
}

var serialInDetail = regexp.MustCompile(`serial ([0-9a-f]+)`)

func (c *client) auditTrail() trail {
	c.t.Helper()
	l := trail{serial: map[string]string{}, completed: map[string]int{}, abandoned: map[string]int{}}
	for skip := 0; ; skip += 1000 {
		page := c.list(fmt.Sprintf("/api/v1/audit-logs/?limit=1000&skip=%d", skip))
		for _, entry := range page {
			text, err := json.Marshal(entry)
			if err != nil {
				c.t.Fatal(err)
			}
			resource := fmt.Sprintf("%v %v", entry["resource_type"], entry["resource_id"])
			switch entry["action"] {
			case "ca_reserve", "cert_reserve":
				if match := serialInDetail.FindSubmatch(text); match != nil {
					l.serial[resource] = string(match[1])
				} else if _, known := l.serial[resource]; !known {
					l.serial[resource] = "" // a CA before its certificate is prepared
				}
			case "ca_create", "cert_create":
				l.completed[resource]++
			case "ca_abandon", "cert_abandon":
				l.abandoned[resource]++
			case "responder_abandon":
				l.responders = append(l.responders, string(serialInDetail.FindSubmatch(text)[1]))
			}
		}
		if len(page) < 1000 {
			return l
		}
	}
}

// accountsForEverything checks a server that was just started: every certificate that was answered is there, every
// reservation was completed or abandoned, and every CA serves a CRL with what was revoked or abandoned, no more.
func (r *running) accountsForEverything(kept int) {
	r.t.Helper()
	log := r.auditTrail()
	for resource := range log.serial {
		if log.completed[resource]+log.abandoned[resource] != 1 {
			r.t.Errorf("%s was announced, completed %d times and abandoned %d times", resource, log.completed[resource], log.abandoned[resource])
		}
	}
	answered := 0
	revoked := map[any]map[string]bool{} // serials that the CRL must have, by CA id
	for _, certificate := range r.list("/api/v1/certificates/?limit=10000") {
		serial := certificate["serial_number"].(string)
		if got := fmt.Sprintf("%x", parseCertificate(r.t, certificate["certificate"]).SerialNumber); got != serial {
			r.t.Errorf("certificate %v: the record has serial %s, the certificate %s", certificate["id"], serial, got)
		}
		if log.completed[fmt.Sprintf("certificate %v", certificate["id"])] != 1 {
			r.t.Errorf("certificate %v is not in the audit log", certificate["id"])
		}
		if strings.HasPrefix(certificate["common_name"].(string), "kept") {
			answered++
		}
		if certificate["status"] == "revoked" {
			add(revoked, certificate["issuer_id"], serial)
		}
	}
	if answered != kept {
		r.t.Errorf("%d certificates were answered, %d are there", kept, answered)
	}
	cas := r.list("/api/v1/cas/")
	for resource := range log.abandoned {
		if kind, _, _ := strings.Cut(resource, " "); kind == "certificate" {
			add(revoked, cas[0]["id"], log.serial[resource])
		}
	}
	for _, c := range cas {
		r.awaitCRL(c, revoked[c["id"]], log)
	}
}

func add(sets map[any]map[string]bool, key any, serial string) {
	if sets[key] == nil {
		sets[key] = map[string]bool{}
	}
	sets[key][serial] = true
}

// awaitCRL waits until the CRL of a CA has the serials, and checks that it has no others but those of CAs below
// and responders that were abandoned.
func (r *running) awaitCRL(c object, want map[string]bool, log trail) {
	r.t.Helper()
	issuer := parseCertificate(r.t, c["certificate"])
	path := fmt.Sprintf("/crl/%s-%d", strings.ToLower(c["name"].(string)), id(c))
	have := map[string]bool{}
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		status, answer, err := r.do("GET", path, nil)
		if err != nil || status != http.StatusOK && status != http.StatusServiceUnavailable {
			r.t.Fatalf("GET %s: status %d, %v: %s", path, status, err, answer)
		}
		if status != http.StatusOK {
			continue
		}
		have = map[string]bool{}
		for _, entry := range parseCRL(r.t, answer, issuer).RevokedCertificateEntries {
			have[fmt.Sprintf("%x", entry.SerialNumber)] = true
		}
		for resource := range log.abandoned {
			if strings.HasPrefix(resource, "ca ") {
				delete(have, log.serial[resource])
			}
		}
		for _, serial := range log.responders {
			delete(have, serial)
		}
		if maps.Equal(have, want) {
			return
		}
	}
	r.t.Errorf("GET %s: the CRL has %v, want %v", path, slices.Collect(maps.Keys(have)), slices.Collect(maps.Keys(want)))
}

// An intermediate CA whose certificate may have been signed is revoked by the list of its parent.
func TestAnAbandonedIntermediateIsRevoked(t *testing.T) {
	t.Parallel()
	s, r := startServer(t, "sqlite")
	authority := r.createCA("Authority")
	eventually(t, 30*time.Second, "the responder has its certificate: the next signature is that of the request", func() bool {
		status, _, err := r.do("GET", fmt.Sprintf("/api/v1/cas/%d/ocsp", authority), nil)
		return err == nil && status == http.StatusOK
	})
	r.stop(syscall.SIGTERM)
	r = s.startAhead(0, filepath.Join(t.TempDir(), "step"))
	r.dieAt("after Sign", func() {
		_, _, _ = r.do("POST", "/api/v1/cas/", object{
			"name": "Below", "subject_dn": "CN=Below", "key_type": "ec", "key_size": 256, "parent_ca_id": authority})
	})
	r = s.startAhead(1, filepath.Join(t.TempDir(), "step"))
	log := r.auditTrail()
	for resource := range log.abandoned {
		want := log.serial[resource]
		issuer := r.caCertificate(authority)
		for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			for _, entry := range r.crl("Authority", authority, issuer).RevokedCertificateEntries {
				if fmt.Sprintf("%x", entry.SerialNumber) == want {
					return
				}
			}
		}
		t.Fatalf("serial %s of the abandoned %s is not in the CRL", want, resource)
	}
	t.Fatal("nothing was abandoned")
}

// loadTime is how long the clients sign before the process is killed.
const loadTime = 2 * time.Second

func TestKillUnderLoadLosesNothingThatWasAnswered(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s, r := startServer(t, database)
			authority := r.createCA("Authority")
			request := object{"ca_id": authority, "certificate_type": "server", "csr": csr(t, "kept.example.com")}

			var mu sync.Mutex
			var clients sync.WaitGroup
			answers := map[int64]string{}
			for range 8 {
				clients.Go(func() {
					for {
						status, answer, err := r.do("POST", "/api/v1/certificates/sign-csr", request)
						if err != nil {
							return // the server is dead
						}
						var certificate object
						if err := json.Unmarshal(answer, &certificate); err != nil || status != http.StatusCreated {
							t.Errorf("status %d, %v: %s", status, err, answer)
							return
						}
						mu.Lock()
						answers[id(certificate)] = certificate["certificate"].(string)
						mu.Unlock()
					}
				})
			}
			time.Sleep(loadTime)
			r.stop(syscall.SIGKILL)
			clients.Wait()
			if len(answers) < 8 {
				t.Fatalf("only %d certificates in %s: no load", len(answers), loadTime)
			}

			r = s.startAhead(1, "")
			found := map[int64]string{}
			for _, c := range r.list("/api/v1/certificates/?limit=10000") {
				found[id(c)] = c["certificate"].(string)
			}
			for id, text := range answers {
				if found[id] != text {
					t.Errorf("certificate %d was answered and is gone or changed", id)
				}
			}
			// A certificate may be complete whose answer was still on its way.
			r.accountsForEverything(len(found))
			t.Logf("%d certificates answered before the kill, %d found after it", len(answers), len(found))
		})
	}
}
