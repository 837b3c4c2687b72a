package api_test

import (
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// long issues and revokes until the list of a CA is worth compressing, and returns its path.
func (c *caller) long(authority object) string {
	c.t.Helper()
	list := fmt.Sprintf("/crl/root-%d", idOf(authority))
	for i := range 12 {
		leaf := c.certificate(idOf(authority), fmt.Sprintf("%d.example.com", i), nil)
		c.call(http.StatusOK, "POST", path("/certificates/%d/revoke", idOf(leaf)), object{"reason": "superseded"})
	}
	for start := time.Now(); len(reasons(c.crl(list, authority["certificate"]))) < 12; time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			c.t.Fatal("the revocations are not in the list")
		}
	}
	return list
}

func TestAListIsCompressedForThoseWhoAskForIt(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	list := root.long(root.authority("Root", nil))
	ask := func(method, accept string, header ...string) answer {
		h := http.Header{"Accept-Encoding": {accept}}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return root.nobody().do(method, list, nil, h)
	}
	plain, zipped := ask("GET", "identity"), ask("GET", "br, gzip;q=0.8")
	tag := plain.header.Get("ETag")
	if plain.header.Get("Content-Encoding") != "" || plain.header.Get("Vary") != "Accept-Encoding" || plain.header.Get("Accept-Ranges") != "none" {
		t.Errorf("plain: %v", plain.header)
	}
	if zipped.header.Get("Content-Encoding") != "gzip" || zipped.header.Get("Vary") != "Accept-Encoding" || zipped.header.Get("Content-Type") != "application/pkix-crl" ||
		zipped.header.Get("ETag") != strings.TrimSuffix(tag, `"`)+`-gzip"` || len(zipped.body) >= len(plain.body) {
		t.Errorf("compressed from %d to %d: %v", len(plain.body), len(zipped.body), zipped.header)
	}
	reader, err := gzip.NewReader(bytes.NewReader(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	if der, err := io.ReadAll(reader); err != nil || !bytes.Equal(der, plain.body) {
		t.Errorf("uncompressed to %d octets, %v; want %d", len(der), err, len(plain.body))
	}
	if a := ask("GET", "gzip;q=0, *"); a.header.Get("Content-Encoding") != "" {
		t.Errorf("compressed for somebody who refuses it: %v", a.header)
	}
	for _, row := range []struct {
		name, method, accept, held string
		status                     int
	}{
		{"plain", "GET", "identity", tag, 304},
		{"plain, HEAD", "HEAD", "identity", tag, 304},
		{"compressed", "GET", "gzip", zipped.header.Get("ETag"), 304},
		{"plain held, compressed asked for", "GET", "gzip", tag, 200},
		{"compressed held, plain asked for", "GET", "identity", zipped.header.Get("ETag"), 200},
	} {
		a := ask(row.method, row.accept, "If-None-Match", row.held)
		if a.status != row.status || a.header.Get("Vary") != "Accept-Encoding" || a.header.Get("Expires") == "" {
			t.Errorf("%s: %d %v", row.name, a.status, a.header)
		}
		if a.status == 304 && (len(a.body) > 0 || a.header.Get("ETag") != row.held || a.header.Get("Content-Encoding") != "") {
			t.Errorf("%s: %d octets, %v", row.name, len(a.body), a.header)
		}
	}
	if a := ask("GET", "identity", "Range", "bytes=0-9"); a.status != 200 || !bytes.Equal(a.body, plain.body) {
		t.Errorf("a range: %d, %d octets", a.status, len(a.body))
	}
	if a := ask("GET", "identity", "If-Modified-Since", plain.header.Get("Last-Modified")); a.status != 304 {
		t.Errorf("not modified since its thisUpdate: %d", a.status)
	}
	if again := ask("GET", "identity"); again.header.Get("ETag") != tag || again.header.Get("Last-Modified") != plain.header.Get("Last-Modified") {
		t.Errorf("the tag changed from %s to %s", tag, again.header.Get("ETag"))
	}
	text := root.nobody().call(http.StatusOK, "GET", list+".pem", nil)
	if block, rest := pem.Decode(text.body); block == nil || !bytes.Equal(block.Bytes, plain.body) || len(rest) > 0 || text.header.Get("ETag") == tag {
		t.Errorf("PEM: %v\n%s", text.header, text.body)
	}
	if log := root.log.String(); strings.Contains(log, `"route":"/crl/`) {
		t.Errorf("logged %s", log)
	}
}

func TestAListFollowsARevocation(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	authority := root.authority("Root", nil)
	list := fmt.Sprintf("/crl/root-%d", idOf(authority))
	before := root.nobody().call(http.StatusOK, "GET", list, nil)
	leaf := root.certificate(idOf(authority), "a.example.com", nil)
	root.call(http.StatusOK, "POST", path("/certificates/%d/revoke", idOf(leaf)), nil)
	after := root.nobody().do("GET", list, nil, http.Header{"If-None-Match": before.header["Etag"]})
	if after.status != 200 || after.header.Get("ETag") == before.header.Get("ETag") {
		t.Errorf("after the revocation: %d %v", after.status, after.header)
	}
	if age := after.header.Get("Cache-Control"); age != "public, max-age=300" && age != "public, max-age=299" {
		t.Errorf("Cache-Control %q", age)
	}
}

func TestShardsAndDeltasHavePlacesOfTheirOwn(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	authority := root.authority("Root", nil)
	id := idOf(authority)
	base, nobody := fmt.Sprintf("/crl/root-%d", id), root.nobody()
	for _, place := range []string{base + "/delta", base + "/1", base + "/1/delta"} {
		if a := nobody.call(http.StatusNotFound, "GET", place, nil); a.detail(t) != "CRL not found" {
			t.Errorf("%s before there is one: %s", place, a.body)
		}
	}
	root.call(http.StatusOK, "PUT", path("/cas/%d/revocation-policy", id), object{"crl_shards": 2, "crl_delta": true})
	published := func(place string) bool {
		a := nobody.call(0, "GET", place, nil)
		if a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v", place, a.header)
		}
		return a.status == http.StatusOK
	}
	for _, place := range []string{base, base + "/1", base + "/2", base + "/delta", base + "/1/delta", base + "/2/delta"} {
		for start := time.Now(); !published(place); time.Sleep(50 * time.Millisecond) {
			if time.Since(start) > 20*time.Second {
				t.Fatalf("%s is not published: %s", place, nobody.call(0, "GET", place, nil).body)
			}
		}
		root.crl(place, authority["certificate"])
	}
	leaf := parsed(t, root.certificate(id, "a.example.com", nil)["certificate"])
	if got := leaf.CRLDistributionPoints; !slices.Contains([]string{"http://pki.example" + base + "/1", "http://pki.example" + base + "/2"}, got[0]) {
		t.Errorf("distribution points %q", got)
	}
	var urls []string
	for _, l := range root.list(path("/cas/%d/crls", id)) {
		urls = append(urls, fmt.Sprintf("%v %v %v", l["shard"], l["delta"], l["url"]))
	}
	for _, want := range []string{"0 false " + base, "1 false " + base + "/1", "2 true " + base + "/2/delta"} {
		if want = strings.Replace(want, "/crl", "http://pki.example/crl", 1); !slices.Contains(urls, want) {
			t.Errorf("%q is not among the lists: %q", want, urls)
		}
	}
	for _, place := range []string{base + "/0", base + "/01", base + "/3", base + "/x", base + "/-1", base + "/3/delta", base + "/01/delta", base + "/%31x"} {
		if a := nobody.call(http.StatusNotFound, "GET", place, nil); a.detail(t) != "CRL not found" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s %v", place, a.body, a.header)
		}
	}
	for _, place := range []string{"/crl/nobody-9/1", "/crl/nobody-9/delta", "/crl/root-1.pem/delta"} {
		if a := nobody.call(http.StatusNotFound, "GET", place, nil); a.detail(t) != "CA not found" {
			t.Errorf("%s: %s", place, a.body)
		}
	}
	if a := nobody.call(http.StatusMethodNotAllowed, "POST", base+"/1", nil); a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %v", a.header)
	}
}
