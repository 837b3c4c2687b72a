package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"signet/softhsm/softhsmtest"
)

// ocspStatus asks the responder that a certificate names for its status, as a client without nonce does.
func (c *client) ocspStatus(leaf, issuer *x509.Certificate) (int, error) {
	request, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return 0, err
	}
	response, err := c.http.Post(c.url+pathOf(leaf.OCSPServer[0]), "application/ocsp-request", bytes.NewReader(request))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	der, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	answer, err := ocsp.ParseResponseForCert(der, leaf, issuer)
	if err != nil {
		return 0, err
	}
	return answer.Status, nil
}

// pathOf is the path of a URL in a certificate: the tests ask the server that they started, whatever it is called.
func pathOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	_, path, _ := strings.Cut(rest, "/")
	return "/" + path
}

// eventually waits until something holds, but not longer than within.
func eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for start := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > within {
			t.Fatalf("after %s still not so: %s", within, what)
		}
	}
}

func (c *client) sign(ca int64, commonName string) (object, *x509.Certificate) {
	c.t.Helper()
	o := c.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": ca, "certificate_type": "server", "csr": csr(c.t, commonName)})
	return o, parseCertificate(c.t, o["certificate"])
}

func TestAnonymousTrafficNeverReachesTheToken(t *testing.T) {
	t.Parallel()
	_, faults := softhsmtest.Faulty(t)
	s := newSite(t, "sqlite")
	r := s.start("signet", faults.Env()...)
	r.firstUser()
	authority := r.createCA("Public")
	issuer := r.caCertificate(authority)
	_, leaf := r.sign(authority, "www.example.com")
	eventually(t, 10*time.Second, "the responder answers", func() bool {
		status, err := r.ocspStatus(leaf, issuer)
		return err == nil && status == ocsp.Good
	})
	r.raw(http.StatusOK, "GET", pathOf(leaf.CRLDistributionPoints[0]), nil)

	before, start := faults.Counts().Calls["C_Sign"], time.Now()
	var clients sync.WaitGroup
	for range 64 {
		clients.Go(func() {
			for range 30 {
				if status, err := r.ocspStatus(leaf, issuer); err != nil || status != ocsp.Good {
					t.Errorf("OCSP status %d, %v", status, err)
				}
				if status, _, err := r.do("GET", pathOf(leaf.CRLDistributionPoints[0]), nil); err != nil || status != http.StatusOK {
					t.Errorf("CRL: status %d, %v", status, err)
				}
			}
		})
	}
	clients.Wait()
	// The health check signs about once a second.
	if n, most := faults.Counts().Calls["C_Sign"]-before, 2+2*int(time.Since(start).Seconds()); n > most {
		t.Errorf("3,840 anonymous requests in %s cost %d signatures, want at most the %d of the health check", time.Since(start), n, most)
	}
}

func TestAFloodOfNoncesDoesNotStarveIssuance(t *testing.T) {
	t.Parallel()
	r := newSite(t, "sqlite", "--ocsp-rate", "5/second").start("signet")
	r.firstUser()
	authority := r.createCA("Flood")
	_, leaf := r.sign(authority, "www.example.com")
	issuer := r.caCertificate(authority)
	eventually(t, 10*time.Second, "the responder answers", func() bool {
		_, err := r.ocspStatus(leaf, issuer)
		return err == nil
	})
	stop := make(chan struct{})
	var flood sync.WaitGroup
	var mu sync.Mutex
	answers := map[ocsp.ResponseStatus]int{}
	for range 16 {
		flood.Go(func() {
			for n := byte(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				status := r.nonced(t, leaf, issuer, []byte{n, 1, 2, 3, 4, 5, 6, 7})
				mu.Lock()
				answers[status]++
				mu.Unlock()
			}
		})
	}
	for start := time.Now(); time.Since(start) < 2*time.Second; {
		began := time.Now()
		r.sign(authority, "api.example.com")
		if took := time.Since(began); took > promptly {
			t.Errorf("a certificate took %s in a flood of nonces", took)
		}
	}
	close(stop)
	flood.Wait()
	if answers[ocsp.Success] == 0 || answers[ocsp.Success] > 40 || answers[ocsp.TryLater] < 20 {
		t.Errorf("answers of a responder with a budget of 5 a second: %v", answers)
	}
}

// nonced asks with a nonce, and returns the status of the response.
func (c *client) nonced(t *testing.T, leaf, issuer *x509.Certificate, nonce []byte) ocsp.ResponseStatus {
	t.Helper()
	response, err := c.http.Post(c.url+pathOf(leaf.OCSPServer[0]), "application/ocsp-request", bytes.NewReader(withNonce(t, leaf, issuer, nonce)))
	if err != nil {
		t.Error(err)
		return ocsp.InternalError
	}
	defer response.Body.Close()
	der, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	_, err = ocsp.ParseResponseForCert(der, leaf, issuer)
	if refused, ok := err.(ocsp.ResponseError); ok {
		return refused.Status
	}
	if err != nil {
		t.Errorf("OCSP response: %v", err)
	}
	return ocsp.Success
}

// replicas are servers on one PostgreSQL database and one token.
func replicas(t *testing.T, n int, flags ...string) (all []*running) {
	t.Helper()
	_, faults := softhsmtest.Faulty(t)
	first := newSite(t, "postgres", append(flags, "--secret-key-file", secretFile(t, strings.Repeat("s", 40), 0o600))...)
	for i := range n {
		s := *first
		s.args = append(slices.Clone(first.args), "--data-dir", t.TempDir()+"/data", "--public-url", "http://pki.example")
		r := s.start("signet", faults.Env()...)
		if i == 0 {
			r.firstUser()
		} else {
			r.token = all[0].token
		}
		all = append(all, r)
	}
	return all
}

func TestReplicasPublishOneSequenceOfLists(t *testing.T) {
	t.Parallel()
	all := replicas(t, 3, "--lease-ttl", "3s")
	authority := all[0].createCA("Shared")
	issuer := all[0].caCertificate(authority)
	list := func(r *running) *x509.RevocationList { return r.crl("Shared", authority, issuer) }
	revoked := 0
	revoke := func(r *running) {
		t.Helper()
		o, leaf := r.sign(authority, "www.example.com")
		for _, other := range all { // an answer that each of them has to forget
			if other.code == 0 {
				eventually(t, 10*time.Second, "the responder answers", func() bool {
					status, err := other.ocspStatus(leaf, issuer)
					return err == nil && status == ocsp.Good
				})
			}
		}
		r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(o)), object{"reason": "superseded"})
		revoked++
		for _, other := range all {
			if other.code == 0 {
				eventually(t, 6*time.Second, "OCSP knows of the revocation on every replica", func() bool {
					status, err := other.ocspStatus(leaf, issuer)
					return err == nil && status == ocsp.Revoked
				})
				eventually(t, 15*time.Second, "the list has the revocation on every replica", func() bool {
					return len(list(other).RevokedCertificateEntries) == revoked
				})
			}
		}
	}
	for _, r := range all {
		revoke(r)
	}
	// Whoever leads dies in the middle of revocations; one of the three does lead.
	for _, dying := range all[:2] {
		dying.stop(syscall.SIGKILL)
		revoke(all[2])
		revoke(all[2])
	}

	last := all[2]
	var numbers []int64
	for _, l := range last.list(fmt.Sprintf("/api/v1/cas/%d/crls?limit=1000", authority)) {
		if l["state"] == "published" {
			numbers = append(numbers, int64(l["number"].(float64)))
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != int64(i+1) {
			t.Fatalf("the numbers of the lists are %v, want no gap and no repeat", numbers)
		}
	}
	if got := list(last).Number.Int64(); got != numbers[len(numbers)-1] {
		t.Errorf("the list served has number %d, want %d", got, numbers[len(numbers)-1])
	}
}
