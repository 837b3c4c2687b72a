package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"signet/softhsm/softhsmtest"
)

// refusal is the answer to one request.
type refusal struct {
	status int
	header http.Header
	detail string
	took   time.Duration
}

// post sends a JSON body, with the token of the client or without.
func (c *client) post(path, body string, anonymous bool) (r refusal, err error) {
	start := time.Now()
	request, err := http.NewRequest("POST", c.url+path, strings.NewReader(body))
	if err != nil {
		return r, err
	}
	request.Header.Set("Content-Type", "application/json")
	if !anonymous {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return r, err
	}
	defer response.Body.Close()
	var problem struct{ Detail any }
	if err := json.NewDecoder(response.Body).Decode(&problem); err != nil {
		return r, err
	}
	return refusal{response.StatusCode, response.Header, fmt.Sprint(problem.Detail), time.Since(start)}, nil
}

func TestBeyondItsCapacityTheServerRefusesAtOnceAndStillRevokes(t *testing.T) {
	t.Parallel()
	_, faults := softhsmtest.Faulty(t)
	r := newSite(t, "sqlite", "--max-issuing", "2").start("signet", faults.Env()...)
	r.firstUser()
	authority := r.createCA("Busy")
	issued, _ := r.sign(authority, "www.example.com")
	body, err := json.Marshal(object{"ca_id": authority, "certificate_type": "server", "csr": csr(t, "www.example.com")})
	if err != nil {
		t.Fatal(err)
	}
	const sign = "/api/v1/certificates/sign-csr"
	resume := faults.Hang("C_Sign")
	answers := make(chan refusal, 100)
	for range cap(answers) {
		go func() {
			answer, err := r.client.post(sign, string(body), false)
			if err != nil {
				t.Error(err)
			}
			answers <- answer
		}()
	}
	first := <-answers
	if first.status != http.StatusServiceUnavailable || first.detail != "The server is busy: try again later" {
		t.Fatalf("the first answer is %+v", first)
	}
	if seconds, err := strconv.Atoi(first.header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 3 || first.header.Get("X-Request-ID") == "" {
		t.Errorf("headers %v", first.header)
	}
	for range cap(answers) - 3 { // two are worked on; those that wait, wait for two seconds at most
		if answer := <-answers; answer.status != http.StatusServiceUnavailable {
			t.Errorf("status %d after %s: %s", answer.status, answer.took, answer.detail)
		}
	}
	if answer, err := r.client.post(sign, "", true); err != nil || answer.status != http.StatusServiceUnavailable {
		t.Errorf("without a token: %+v, %v: who is asking was looked at", answer, err)
	}
	r.raw(http.StatusOK, "GET", "/healthz", nil)
	r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(issued)), object{"reason": "keyCompromise"})
	r.list(fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority))
	r.login(rootName, rootPassword)
	text := string(r.raw(http.StatusOK, "GET", "/metrics", nil))
	for _, want := range []string{
		`signet_http_requests_shed_total{class="issue"} `, `signet_http_requests_shed_total{class="revoke"} 0`,
		`signet_http_requests_limit{class="issue"} 2`, `signet_http_requests_running{class="issue"} 2`,
		`signet_http_requests_waiting{class="issue"} `, "signet_connections ", "signet_connections_shed_total 0",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	resume()
	for range 2 {
		if answer := <-answers; answer.status != http.StatusCreated {
			t.Errorf("a request that was worked on: status %d: %s", answer.status, answer.detail)
		}
	}
	r.sign(authority, "afterwards.example.com")
	if log := r.stderr.String(); !strings.Contains(log, "too many requests: some were refused") || strings.Count(log, "\n") > 60 {
		t.Errorf("the log has not one line for many refusals:\n%s", log)
	}
}

func TestAServerWithoutFileDescriptorsLivesOn(t *testing.T) {
	t.Parallel()
	_, r := startServer(t, "sqlite")
	authority := r.createCA("Files")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	setFiles(t, r.cmd.Process.Pid, uint64(len(open)+8))
	var flood []net.Conn
	for range 50 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://")) // the kernel accepts what the server cannot
		if err != nil {
			t.Fatal(err)
		}
		flood = append(flood, conn)
	}
	eventually(t, 20*time.Second, "the server has no file descriptor left", func() bool {
		return strings.Contains(r.stderr.String(), "too many open files")
	})
	for _, conn := range flood {
		conn.Close()
	}
	r.raw(http.StatusOK, "GET", "/healthz", nil)
	setFiles(t, r.cmd.Process.Pid, 1024)
	r.sign(authority, "www.example.com")
	if code := r.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d:\n%s", code, r.stderr)
	}
}

// setFiles sets how many files a process may have open (prlimit(2)).
func setFiles(t *testing.T, pid int, n uint64) {
	t.Helper()
	var limit syscall.Rlimit // whose hard limit the server has, too
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = min(n, limit.Max)
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
}

func TestTheDefaultsFollowFromTheMachine(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		config Config
		want   int
	}{
		{Config{MaxIssuing: 7}, 7},
		{Config{PKCS11MaxSessions: 100}, 200},
		{Config{PKCS11MaxSessions: 5, Tokens: furtherTokens{map[string]furtherToken{"spare": {MaxSessions: 10}}}}, 30},
	} {
		if got := row.config.maxIssuing(); got != row.want {
			t.Errorf("%+v: %d requests at once, want %d", row.config, got, row.want)
		}
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if got := (&Config{MaxConnections: 1 << 40}).maxConnections(); got < 1 || uint64(got) >= files.Cur {
		t.Errorf("%d connections with %d files", got, files.Cur)
	}
	if got := (&Config{MaxConnections: 9}).maxConnections(); got != 9 {
		t.Errorf("%d connections, want 9", got)
	}
}
