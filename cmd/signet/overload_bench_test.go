package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet/softhsm/softhsmtest"
)

// BenchmarkOverload finds the most certificates per second that 32 clients get, then offers twice as many, whatever comes back,
// while somebody revokes 50 certificates a second, as he did before, alone. One operation is one turn of both; the figures are medians over the
// turns. The generator and PostgreSQL share the processors with the server, so what a refusal costs the client is
// missing from the goodput as well.
func BenchmarkOverload(b *testing.B) {
	for _, c := range []struct {
		name string
		ca   object
		wait time.Duration // of each signature
	}{
		{name: "P-256", ca: object{"key_type": "ec", "key_size": 256}},
		{name: "P-256/5ms", ca: object{"key_type": "ec", "key_size": 256}, wait: 5 * time.Millisecond},
		{name: "RSA-4096", ca: object{"key_type": "rsa", "key_size": 4096}},
	} {
		b.Run(c.name, func(b *testing.B) {
			_, faults := softhsmtest.Faulty(b)
			r := newSite(b, "postgres").start("signet", faults.Env()...)
			r.firstUser()
			c.ca["name"], c.ca["subject_dn"] = "Bench", "CN=Bench"
			authority := id(r.must(http.StatusCreated, "POST", "/api/v1/cas/", c.ca))
			faults.Delay("C_Sign", c.wait)
			o := &overload{running: r, b: b, request: r.prebuilt(b, "POST", "/api/v1/certificates/sign-csr", object{
				"ca_id": authority, "certificate_type": "server", "csr": csr(b, "www.example.com")})}
			o.peak(time.Second)
			var peaks, goodputs, ratios, refused []float64
			var issued, revoked, alone []time.Duration
			for range b.N {
				o.refill(authority, 300)
				alone = append(alone, o.revokeAlone(time.Second)...)
				before := o.peak(2 * time.Second)
				flood := o.flood(2*before, 4*time.Second)
				peak := (before + o.peak(2*time.Second)) / 2
				peaks, goodputs, ratios = append(peaks, peak), append(goodputs, flood.goodput), append(ratios, flood.goodput/peak)
				refused = append(refused, flood.refused)
				issued, revoked = append(issued, flood.issued...), append(revoked, flood.revoked...)
			}
			for name, all := range map[string][]float64{"peak/s": peaks, "goodput/s": goodputs, "ratio": ratios, "refused/s": refused} {
				slices.Sort(all)
				b.ReportMetric(all[len(all)/2], name)
			}
			slices.Sort(issued)
			slices.Sort(revoked)
			slices.Sort(alone)
			b.ReportMetric(milliseconds(alone[len(alone)*99/100]), "revoke-alone-p99-ms")
			b.ReportMetric(milliseconds(issued[len(issued)*99/100]), "issue-p99-ms")
			b.ReportMetric(milliseconds(revoked[len(revoked)/2]), "revoke-p50-ms")
			b.ReportMetric(milliseconds(revoked[len(revoked)*99/100]), "revoke-p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// maxFlood bounds the connections of the generator.
const maxFlood = 2000

type overload struct {
	*running
	b         *testing.B
	request   []byte
	revocable [][]byte // requests that revoke, each once
}

// prebuilt are the octets of a request.
func (r *running) prebuilt(b *testing.B, method, path string, body object) []byte {
	b.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, r.token, len(data), data)
}

// wireConn is one keep-alive connection that reads of an answer what must be read.
type wireConn struct {
	net.Conn
	in *bufio.Reader
}

func (r *running) dial() (*wireConn, error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		return nil, err
	}
	return &wireConn{c, bufio.NewReaderSize(c, 8<<10)}, nil
}

func (c *wireConn) ask(request []byte) (status int, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil || len(line) < 12 {
		return 0, fmt.Errorf("no status line: %w", err)
	}
	status, length := int(line[9]-'0')*100+int(line[10]-'0')*10+int(line[11]-'0'), 0
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, contentLength); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		}
	}
	_, err = io.CopyN(io.Discard, c.in, int64(length))
	return status, err
}

// refill issues certificates to be revoked.
func (o *overload) refill(authority int64, n int) {
	o.revocable = o.revocable[:0]
	for range n {
		issued, _ := o.sign(authority, "revoke.example.com")
		o.revocable = append(o.revocable, o.prebuilt(o.b, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(issued)), object{"reason": "superseded"}))
	}
}

// peak is how many certificates per second 32 clients get.
func (o *overload) peak(d time.Duration) float64 {
	var signed atomic.Int64
	var group sync.WaitGroup
	start := time.Now()
	for range 32 {
		group.Go(func() {
			c, err := o.dial()
			if err != nil {
				o.b.Error(err)
				return
			}
			defer c.Close()
			for time.Since(start) < d {
				status, err := c.ask(o.request)
				if err != nil || status != http.StatusCreated {
					o.b.Errorf("status %d, %v", status, err)
					return
				}
				signed.Add(1)
			}
		})
	}
	group.Wait()
	return float64(signed.Load()) / time.Since(start).Seconds()
}

// flooded is what came of a flood.
type flooded struct {
	goodput, refused float64 // per second
	issued, revoked  []time.Duration
}

// flood offers so many requests per second, and revokes meanwhile.
func (o *overload) flood(rate float64, d time.Duration) flooded {
	var out flooded
	var mu sync.Mutex
	var refused, missed int
	arrivals := make(chan struct{})
	var group sync.WaitGroup
	client := func() {
		c, err := o.dial()
		if err != nil {
			o.b.Error(err)
			return
		}
		defer c.Close()
		for range arrivals {
			start := time.Now()
			status, err := c.ask(o.request)
			took := time.Since(start)
			mu.Lock()
			switch {
			case err != nil || status != http.StatusCreated && status != http.StatusServiceUnavailable:
				o.b.Errorf("status %d, %v", status, err)
			case status == http.StatusServiceUnavailable:
				refused++
			default:
				out.issued = append(out.issued, took)
			}
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}
	start := time.Now()
	stop := make(chan struct{})
	var revoker sync.WaitGroup
	revoker.Go(func() { out.revoked = o.revokeSteadily(stop) })
	clients, sent := 0, 0
	for tick := time.NewTicker(2 * time.Millisecond); time.Since(start) < d; <-tick.C {
		for due := int(rate * time.Since(start).Seconds()); sent < due; sent++ {
			select {
			case arrivals <- struct{}{}:
				continue
			default:
			}
			if clients == maxFlood {
				missed++
				continue
			}
			clients++
			group.Go(client)
			arrivals <- struct{}{}
		}
	}
	took := time.Since(start).Seconds()
	mu.Lock()
	out.goodput, out.refused = float64(len(out.issued))/took, float64(refused)/took
	mu.Unlock()
	close(stop)
	revoker.Wait()
	close(arrivals)
	group.Wait()
	if missed > 0 {
		o.b.Logf("%d of %d requests were not sent: all %d connections wait", missed, sent, clients)
	}
	return out
}

// revokeAlone revokes while nothing else is asked.
func (o *overload) revokeAlone(d time.Duration) []time.Duration {
	stop := make(chan struct{})
	time.AfterFunc(d, func() { close(stop) })
	took := o.revokeSteadily(stop)
	o.revocable = o.revocable[min(len(took)+1, len(o.revocable)):]
	return took
}

// revokeSteadily revokes 50 certificates a second.
func (o *overload) revokeSteadily(stop <-chan struct{}) (took []time.Duration) {
	c, err := o.dial()
	if err != nil {
		o.b.Error(err)
		return nil
	}
	defer c.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, request := range o.revocable {
		select {
		case <-stop:
			return took
		case <-tick.C:
		}
		start := time.Now()
		if status, err := c.ask(request); err != nil || status != http.StatusOK {
			o.b.Errorf("revocation: status %d, %v", status, err)
			return took
		}
		took = append(took, time.Since(start))
	}
	return took
}
