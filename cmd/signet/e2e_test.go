package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"signet/store/pgtest"
)

// The databases that every end-to-end test runs on, each with a SoftHSM2 token of its own.
var databases = []string{"sqlite", "postgres"}

const (
	rootName     = "root"
	rootPassword = "correct horse battery"
)

// site is a data folder with its database: what outlives a server.
type site struct {
	t    testing.TB
	args []string
	url  string // of the database

	roots *x509.CertPool // what a client trusts, for a server with TLS
	log   *os.File       // takes what servers write to stderr; nil: the tests read it
}

// newSite makes an empty site on a database: "sqlite" or "postgres".
func newSite(t testing.TB, database string, flags ...string) *site {
	t.Helper()
	dir := t.TempDir() + "/data"
	s := &site{t: t, url: "sqlite:" + dir + "/signet.db", args: []string{
		"--data-dir", dir, "--listen", "127.0.0.1:0", "--login-rate", "off", "--password-cost", "4",
		"--access-token-ttl", "24h", "--shutdown-timeout", "60s", "--pkcs11-timeout", "60s", // the machine may be busy
		"--keys-ahead", "0", // and is to stay free for the tests
	}}
	if database == "postgres" {
		s.url = pgtest.Database(t)
	}
	s.args = append(append(s.args, "--database-url", s.url), flags...)
	return s
}

// running is a server process, and a client of it.
type running struct {
	*client
	t      testing.TB
	cmd    *exec.Cmd
	stderr *output
	stdout *output
	exited chan struct{}
	once   sync.Once
	code   int

	stepFile string // of signet-crash
}

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs the program in a process of its own and waits until it serves. env is added to its environment.
func (s *site) start(program string, env ...string) *running {
	s.t.Helper()
	cmd := exec.Command(program, append([]string{"serve"}, s.args...)...)
	if program != "signet" {
		cmd.Args = append([]string{program}, s.args...)
	}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "SIGNET_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r := &running{t: s.t, cmd: cmd, stderr: &output{}, stdout: &output{}, exited: make(chan struct{})}
	cmd.Stderr = r.stderr
	if s.log != nil {
		cmd.Stderr = s.log
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	started := make(chan error, 1)
	address := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // the kernel ends the server with the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		lines := bufio.NewScanner(io.TeeReader(out, r.stdout))
		for lines.Scan() {
			if url, ok := strings.CutPrefix(lines.Text(), "signet: serving on "); ok {
				address <- url
			}
		}
		_ = cmd.Wait() // its verdict is the exit code
		r.code = cmd.ProcessState.ExitCode()
		close(r.exited)
	}()
	if err := <-started; err != nil {
		s.t.Fatalf("start %s: %v", program, err)
	}
	s.t.Cleanup(func() { r.stop(syscall.SIGKILL) })
	select {
	case url := <-address:
		r.client = &client{t: s.t, url: url, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			MaxIdleConnsPerHost: 64, TLSClientConfig: &tls.Config{RootCAs: s.roots}}}}
	case <-r.exited:
		s.t.Fatalf("%s ended with %d before it served:\n%s", program, r.code, r.stderr)
	case <-time.After(time.Minute):
		s.t.Fatalf("%s did not serve within a minute:\n%s", program, r.stderr)
	}
	return r
}

// stop sends a signal and returns the exit code, -1 for a process that a signal ended.
func (r *running) stop(signal syscall.Signal) int {
	r.once.Do(func() {
		_ = r.cmd.Process.Signal(signal) // it may have ended already
		<-r.exited
		if strings.Contains(r.stderr.String(), "DATA RACE") {
			r.t.Errorf("the server has a data race:\n%s", r.stderr)
		}
	})
	return r.code
}

var bootstrapLine = regexp.MustCompile(`X-Bootstrap-Token: (\S+)`)

// bootstrapToken is the one-time token that the server printed at its start.
func (r *running) bootstrapToken(t *testing.T) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if match := bootstrapLine.FindStringSubmatch(r.stdout.String()); match != nil {
			return match[1]
		}
	}
	t.Fatalf("the server printed no bootstrap token:\n%s", r.stdout)
	return ""
}

// startServer runs a new server on the database ("sqlite" or "postgres") with a SoftHSM2 token, creates the superuser
// and logs in. The server ends with the test.
func startServer(t testing.TB, database string) (*site, *running) {
	t.Helper()
	s := newSite(t, database)
	r := s.start("signet")
	r.firstUser()
	return s, r
}

// firstUser creates the superuser and logs in.
func (c *client) firstUser() {
	c.t.Helper()
	c.must(http.StatusCreated, "POST", "/api/v1/users/", object{
		"username": rootName, "email": "root@example.com", "password": rootPassword, "role": "superuser"})
	c.login(rootName, rootPassword)
}

// object is a JSON object.
type object = map[string]any

// client speaks the API as the user whose token it holds.
type client struct {
	t     testing.TB
	url   string
	token string
	http  *http.Client
}

// do sends a request with a JSON body (nil: none). It returns status 0 when there was no whole answer.
func (c *client) do(method, path string, body any) (status int, answer []byte, err error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(context.Background(), method, c.url+path, reader)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(response.Body); err != nil {
		return 0, nil, err
	}
	return response.StatusCode, answer, nil
}

// raw is do with exactly this status.
func (c *client) raw(want int, method, path string, body any) []byte {
	c.t.Helper()
	status, answer, err := c.do(method, path, body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if status != want {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, status, want, answer)
	}
	return answer
}

// must is raw for an answer that is an object.
func (c *client) must(want int, method, path string, body any) object {
	c.t.Helper()
	var o object
	if answer := c.raw(want, method, path, body); len(answer) > 0 {
		if err := json.Unmarshal(answer, &o); err != nil {
			c.t.Fatalf("%s %s: %v: %s", method, path, err, answer)
		}
	}
	return o
}

// list is raw for an answer that is an array of objects.
func (c *client) list(path string) []object {
	c.t.Helper()
	var all []object
	if err := json.Unmarshal(c.raw(http.StatusOK, "GET", path, nil), &all); err != nil {
		c.t.Fatalf("GET %s: %v", path, err)
	}
	return all
}

func (c *client) login(username, password string) {
	c.t.Helper()
	response, err := c.http.PostForm(c.url+"/api/v1/auth/token", map[string][]string{"username": {username}, "password": {password}})
	if err != nil {
		c.t.Fatalf("log in: %v", err)
	}
	defer response.Body.Close()
	var tokens struct {
		Access string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&tokens); err != nil || tokens.Access == "" {
		c.t.Fatalf("log in: status %d, %v", response.StatusCode, err)
	}
	c.token = tokens.Access
}

// createCA makes a root CA with a P-256 key and returns its id.
func (c *client) createCA(name string) int64 {
	c.t.Helper()
	return id(c.must(http.StatusCreated, "POST", "/api/v1/cas/", object{
		"name": name, "subject_dn": "CN=" + name + ",O=Example", "key_type": "ec", "key_size": 256}))
}

func id(o object) int64 { return int64(o["id"].(float64)) }

// csr makes a request for a server certificate with a new P-256 key.
func csr(t testing.TB, commonName string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return csrFor(t, commonName, key)
}

func csrFor(t testing.TB, commonName string, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func parseCertificate(t testing.TB, text any) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(fmt.Sprint(text)))
	if block == nil {
		t.Fatalf("not PEM: %v", text)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// crl fetches the published revocation list of a CA and verifies it.
func (c *client) crl(name string, id int64, issuer *x509.Certificate) *x509.RevocationList {
	c.t.Helper()
	return parseCRL(c.t, c.raw(http.StatusOK, "GET", fmt.Sprintf("/crl/%s-%d", strings.ToLower(name), id), nil), issuer)
}

func parseCRL(t testing.TB, der []byte, issuer *x509.Certificate) *x509.RevocationList {
	t.Helper()
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatalf("parse CRL: %v", err)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		t.Fatalf("CRL of %s: %v", issuer.Subject, err)
	}
	return list
}

func (c *client) caCertificate(id int64) *x509.Certificate {
	c.t.Helper()
	return parseCertificate(c.t, c.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/cas/%d", id), nil)["certificate"])
}

func TestAStrangerGetsCertificatesThatSurviveARestart(t *testing.T) {
	t.Parallel()
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s, r := startServer(t, database)
			authority := r.createCA("Demo")
			issued := r.must(http.StatusCreated, "POST", fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority), object{
				"common_name": "www.example.com", "subject_dn": "CN=www.example.com,O=Example", "certificate_type": "server"})
			signed := r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
				"ca_id": authority, "certificate_type": "server", "csr": csr(t, "api.example.com")})
			r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(signed)), object{"reason": "superseded"})
			if code := r.stop(syscall.SIGTERM); code != 0 {
				t.Fatalf("SIGTERM: exit code %d, want 0:\n%s", code, r.stderr)
			}

			r = s.start("signet")
			r.login(rootName, rootPassword)
			root := r.caCertificate(authority)
			roots := x509.NewCertPool()
			roots.AddCert(root)
			leaf := parseCertificate(t, r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%d", id(issued)), nil)["certificate"])
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "www.example.com"}); err != nil {
				t.Errorf("verify certificate: %v", err)
			}
			key := r.must(http.StatusOK, "GET", fmt.Sprintf("/api/v1/certificates/%d/private-key", id(issued)), nil)
			if key["private_key"] != issued["private_key"] {
				t.Error("the private key is not the one that was handed out")
			}
			list := r.crl("Demo", authority, root)
			if len(list.RevokedCertificateEntries) != 1 || fmt.Sprintf("%x", list.RevokedCertificateEntries[0].SerialNumber) != signed["serial_number"] {
				t.Errorf("the CRL has %v, want the serial %v alone", list.RevokedCertificateEntries, signed["serial_number"])
			}
			// A new certificate from the old key: the token was found again.
			r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
				"ca_name": "Demo", "certificate_type": "client", "csr": csr(t, "client")})
			noSecretLeaked(t, r)
		})
	}
}

// noSecretLeaked looks for what must not be in the log of a server.
func noSecretLeaked(t *testing.T, r *running) {
	t.Helper()
	for _, secret := range []string{rootPassword, "PRIVATE KEY", r.token} {
		if strings.Contains(r.stderr.String()+r.stdout.String(), secret) {
			t.Errorf("the output of the server holds a secret (%.12s…)", secret)
		}
	}
}
