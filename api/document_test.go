package api

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"
)

func TestGzipIsForThoseWhoAcceptIt(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		accept []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"gzip"}, true},
		{[]string{"GZIP"}, true},
		{[]string{"x-gzip"}, true},
		{[]string{"br, gzip;q=0.5"}, true},
		{[]string{"br", "gzip"}, true},
		{[]string{"gzip;q=0"}, false},
		{[]string{"gzip; q=0.000"}, false},
		{[]string{"gzip ; Q = 0.001"}, true},
		{[]string{"*"}, true},
		{[]string{"*;q=0"}, false},
		{[]string{"*, gzip;q=0"}, false},
		{[]string{"gzip;q=0, *"}, false},
		{[]string{"*;q=0, gzip;q=1.0"}, true},
		{[]string{"identity"}, false},
		{[]string{"deflate, br"}, false},
		{[]string{"gzip;q=high"}, false},
		{[]string{"gzip;q=NaN"}, false},
		{[]string{"gzip;q=2"}, false},
		{[]string{"gzip;level=9"}, false},
		{[]string{"gzipped"}, false},
	} {
		if got := acceptsGzip(http.Header{"Accept-Encoding": row.accept}); got != row.want {
			t.Errorf("%q: %t", row.accept, got)
		}
	}
}

func TestADocumentThatTheCallerHasIsNotSentAgain(t *testing.T) {
	t.Parallel()
	modified := time.Date(2030, 1, 2, 3, 4, 5, 678, time.UTC)
	before, then, after := "Wed, 02 Jan 2030 03:04:04 GMT", "Wed, 02 Jan 2030 03:04:05 GMT", "Wed, 02 Jan 2030 03:04:06 GMT"
	for _, row := range []struct {
		name, method string
		header       http.Header
		status       int
	}{
		{"nothing said", "GET", nil, 200},
		{"its tag", "GET", http.Header{"If-None-Match": {`"a"`}}, 304},
		{"its tag, HEAD", "HEAD", http.Header{"If-None-Match": {`"a"`}}, 304},
		{"its tag, POST", "POST", http.Header{"If-None-Match": {`"a"`}}, 200},
		{"a weak tag", "GET", http.Header{"If-None-Match": {`W/"a"`}}, 304},
		{"among others", "GET", http.Header{"If-None-Match": {`"b", "a" , "c"`}}, 304},
		{"in another line", "GET", http.Header{"If-None-Match": {`"b"`, `"a"`}}, 304},
		{"any", "GET", http.Header{"If-None-Match": {"*"}}, 304},
		{"another tag", "GET", http.Header{"If-None-Match": {`"b"`}}, 200},
		{"the tag of another representation", "GET", http.Header{"If-None-Match": {`"a-gzip"`}}, 200},
		{"a tag without quotes", "GET", http.Header{"If-None-Match": {"a"}}, 200},
		{"the tag goes first", "GET", http.Header{"If-None-Match": {`"b"`}, "If-Modified-Since": {after}}, 200},
		{"since its time", "GET", http.Header{"If-Modified-Since": {then}}, 304},
		{"since later", "GET", http.Header{"If-Modified-Since": {after}}, 304},
		{"since earlier", "GET", http.Header{"If-Modified-Since": {before}}, 200},
		{"since no time", "GET", http.Header{"If-Modified-Since": {"yesterday"}}, 200},
		{"a range", "GET", http.Header{"Range": {"bytes=0-1"}}, 200},
	} {
		s := &server{now: func() time.Time { return modified.Add(time.Minute) }}
		w, r := httptest.NewRecorder(), httptest.NewRequest(row.method, "/", nil)
		if row.header != nil {
			r.Header = row.header
		}
		s.offer(w, r, document{
			contentType: "application/test", etag: `"a"`, modified: modified, expires: modified.Add(time.Hour),
			fresh: modified.Add(90 * time.Second), varies: true,
		}.octets([]byte("body")))
		h := w.Header()
		if w.Code != row.status || h.Get("ETag") != `"a"` || h.Get("Last-Modified") != then || h.Get("Expires") != "Wed, 02 Jan 2030 04:04:05 GMT" ||
			h.Get("Cache-Control") != "public, max-age=30" || h.Get("Vary") != "Accept-Encoding" || h.Get("Accept-Ranges") != "none" {
			t.Errorf("%s: %d %v", row.name, w.Code, h)
		}
		wantBody, wantLength := "body", "4"
		if row.status == 304 {
			wantBody, wantLength = "", ""
		} else if row.method == "HEAD" {
			wantBody = ""
		}
		if w.Body.String() != wantBody || h.Get("Content-Length") != wantLength {
			t.Errorf("%s: body %q, Content-Length %q", row.name, w.Body, h.Get("Content-Length"))
		}
	}
}

func TestWhatHasNoTagIsNotForCaches(t *testing.T) {
	t.Parallel()
	s := &server{now: time.Now}
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	r.Header.Set("If-None-Match", "*")
	s.offer(w, r, document{contentType: "application/test"}.octets([]byte("body")))
	if h := w.Header(); w.Code != 200 || h.Get("Cache-Control") != "no-store" || h["Etag"] != nil || h["Last-Modified"] != nil || h["Expires"] != nil {
		t.Errorf("%d %v", w.Code, h)
	}
}

func TestADocumentPastItsTimeIsNotForKeeping(t *testing.T) {
	t.Parallel()
	s := &server{now: time.Now}
	w := httptest.NewRecorder()
	past := time.Now().Add(-time.Hour)
	s.offer(w, httptest.NewRequest("GET", "/", nil), document{etag: `"a"`, modified: past, expires: past, fresh: past}.octets(nil))
	if got := w.Header().Get("Cache-Control"); got != "public, max-age=0" {
		t.Errorf("Cache-Control %q", got)
	}
}

func TestTheSizeOfAPEMBlockIsKnownBefore(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 2, 3, 47, 48, 49, 50, 95, 96, 97, 1000, 4096} {
		if got, want := pemSize(crlBlock, n), len(pem.EncodeToMemory(&pem.Block{Type: crlBlock, Bytes: bytes.Repeat([]byte{1}, n)})); got != want {
			t.Errorf("%d octets: %d, want %d", n, got, want)
		}
	}
}

func TestThereIsOneWayToWriteAShard(t *testing.T) {
	t.Parallel()
	for digits, want := range map[string]int{
		"1": 1, "10": 10, "1024": 1024, "0": 0, "01": 0, "+1": 0, "-1": 0, "1.0": 0, "": 0, "x": 0, "0x1": 0, "99999999999999999999": 0, "1_0": 0, "１": 0,
	} {
		if got, err := shardOf(digits); got != want || (err == nil) != (want != 0) {
			t.Errorf("shard %q is %d, %v", digits, got, err)
		}
	}
	if got, err := shardOf(strconv.Itoa(1 << 40)); err == nil {
		t.Errorf("shard 2^40 is %d", got)
	}
}
