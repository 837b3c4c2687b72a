package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// target is a CA of a server that is under load: the minimal service, or Signet.
type target struct {
	server   *running
	address  string
	requests [][]byte // whole HTTP requests, with CSRs of different keys
	issuer   *x509.Certificate
	database int // process id of the PostgreSQL server, or 0
}

// newTarget creates a CA and prepares the requests.
func newTarget(b testing.TB, r *running, database int, k caKey) *target {
	b.Helper()
	authority := r.must(http.StatusCreated, "POST", "/api/v1/cas/", object{
		"name": k.Name, "subject_dn": "CN=" + k.Name + ",O=Example", "key_type": string(k.Type), "key_size": k.Size})
	base, err := url.Parse(r.url)
	if err != nil {
		b.Fatal(err)
	}
	t := &target{server: r, address: base.Host, issuer: parseCertificate(b, authority["certificate"]), database: database}
	for i := range 8 {
		body, err := json.Marshal(object{"ca_id": id(authority), "certificate_type": "server", "csr": csr(b, fmt.Sprintf("www%d.example.com", i))})
		if err != nil {
			b.Fatal(err)
		}
		t.requests = append(t.requests, fmt.Appendf(nil,
			"POST /api/v1/certificates/sign-csr HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			base.Host, r.token, len(body), body))
	}
	return t
}

// turn is what a target, or a ceiling, did in a while. Times are per certificate.
type turn struct {
	made, failed   int
	rate           float64 // certificates a second
	p50, p99       time.Duration
	server         time.Duration // processor time of the server and its children
	database       time.Duration // that of the PostgreSQL server and its children
	client         time.Duration // that of this process
	firstOfFailure error
}

// turn puts the target under load: so many clients with a connection each, and each with its next request as soon as the last is
// answered. The last answer to each client is verified.
func (t *target) turn(b testing.TB, clients int, d time.Duration) turn {
	b.Helper()
	all := make([]*requester, clients)
	for i := range all {
		all[i] = &requester{target: t, next: i, took: make([]time.Duration, 0, 8192)}
		if err := all[i].dial(); err != nil {
			b.Fatal(err)
		}
	}
	used := t.used()
	start := time.Now()
	every(clients, func(i int) { all[i].until(start.Add(d)) })
	elapsed := time.Since(start)
	used = t.used().minus(used)

	var result turn
	var took []time.Duration
	for _, r := range all {
		r.connection.Close()
		if err := r.verify(); err != nil {
			r.fail(err)
		}
		took = append(took, r.took...)
		if result.failed += r.failed; result.firstOfFailure == nil {
			result.firstOfFailure = r.err
		}
	}
	if result.made = len(took); result.made == 0 {
		b.Fatalf("no certificate within %s: %v", d, result.firstOfFailure)
	}
	slices.Sort(took)
	n := time.Duration(result.made)
	result.rate = float64(result.made) / elapsed.Seconds()
	result.p50, result.p99 = took[len(took)/2], took[len(took)*99/100]
	result.server, result.database, result.client = used.server/n, used.database/n, used.client/n
	return result
}

// every runs f(0) to f(n-1) at the same time and waits for them.
func every(n int, f func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { f(i) })
	}
	group.Wait()
}

// requester is one client: it reads no more of an answer than it must, because it shares the processor with the server.
type requester struct {
	target     *target
	connection net.Conn
	reader     *bufio.Reader
	next       int
	body       []byte // of the last answer
	took       []time.Duration
	failed     int
	err        error // the first
}

func (r *requester) dial() (err error) {
	r.connection, err = net.Dial("tcp", r.target.address)
	r.reader = bufio.NewReader(r.connection)
	return err
}

// answerWithin bounds the wait for one answer.
const answerWithin = 30 * time.Second

func (r *requester) until(end time.Time) {
	for start := time.Now(); start.Before(end); start = time.Now() {
		if err := r.one(start); err != nil {
			r.fail(err)
			time.Sleep(10 * time.Millisecond)
			r.connection.Close()
			if err := r.dial(); err != nil {
				return
			}
		}
	}
}

func (r *requester) one(start time.Time) error {
	if err := r.connection.SetDeadline(start.Add(answerWithin)); err != nil {
		return err
	}
	r.next++
	if _, err := r.connection.Write(r.target.requests[r.next%len(r.target.requests)]); err != nil {
		return err
	}
	status, err := r.answer()
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("status %d: %.200s", status, r.body)
	}
	if err == nil {
		r.took = append(r.took, time.Since(start))
	}
	return err
}

func (r *requester) fail(err error) {
	r.failed++
	if r.err == nil {
		r.err = err
	}
}

var contentLength = []byte("Content-Length: ")

// answer reads status and body. Both servers give the length and write the header's name so.
func (r *requester) answer() (status int, err error) {
	line, err := r.reader.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("no status: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length := -1
	for {
		if line, err = r.reader.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, contentLength); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("an answer without Content-Length")
	}
	r.body = slices.Grow(r.body[:0], length)[:length]
	_, err = io.ReadFull(r.reader, r.body)
	return status, err
}

// verify holds the last certificate against the CA.
func (r *requester) verify() error {
	if len(r.took) == 0 || r.failed > 0 {
		return nil
	}
	var answer struct {
		Certificate string `json:"certificate"`
	}
	if err := json.Unmarshal(r.body, &answer); err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(answer.Certificate))
	if block == nil {
		return fmt.Errorf("no certificate: %.200s", r.body)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	return certificate.CheckSignatureFrom(r.target.issuer)
}

// usage is processor time of the server, of PostgreSQL and of this process.
type usage struct{ server, database, client time.Duration }

func (u usage) minus(v usage) usage {
	return usage{u.server - v.server, u.database - v.database, u.client - v.client}
}

func (t *target) used() usage {
	all := processes()
	u := usage{server: all.cpu(t.server.cmd.Process.Pid), database: all.cpu(t.database)}
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err == nil {
		u.client = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	}
	return u
}

// process is what proc(5) says of one in /proc/PID/stat.
type process struct {
	pid, parent int
	cpu         time.Duration // of itself and of the children that it has waited for
}

type processTable []process

// processes lists those of this machine.
func processes() (all processTable) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		number := func(i int) int { // counted from 3, as proc(5) does
			n, _ := strconv.Atoi(string(fields[i-3]))
			return n
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		ticks := number(14) + number(15) + number(16) + number(17) // Linux has 100 a second
		all = append(all, process{pid, number(4), time.Duration(ticks) * 10 * time.Millisecond})
	}
	return all
}

// cpu is the processor time of a process and its children; 0 for no process.
func (all processTable) cpu(pid int) (used time.Duration) {
	for _, p := range all {
		if pid != 0 && (p.pid == pid || p.parent == pid) {
			used += p.cpu
		}
	}
	return used
}

func (all processTable) parent(pid int) int {
	for _, p := range all {
		if p.pid == pid {
			return p.parent
		}
	}
	return 0
}

// resetPeak makes peak count from now on (proc(5): clear_refs).
func (r *running) resetPeak(b *testing.B) {
	b.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", r.cmd.Process.Pid), []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
}

var peakLine = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak is the most memory that the server had, in MiB.
func (r *running) peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	kb, err := strconv.Atoi(string(peakLine.FindSubmatch(status)[1]))
	if err != nil {
		b.Fatal(err)
	}
	return float64(kb) / 1024
}
