package api_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

// status is a certificate with its issuer and the request about it.
type status struct {
	leaf, issuer *x509.Certificate
	id           int64  // of the certificate
	path         string // of the responder
	request      []byte
}

// status issues a certificate, and waits until its CA answers.
func (c *caller) status(authority object, name string) status {
	c.t.Helper()
	issued := c.certificate(idOf(authority), name, nil)
	s := status{leaf: parsed(c.t, issued["certificate"]), issuer: parsed(c.t, authority["certificate"]), id: idOf(issued)}
	u, err := url.Parse(s.leaf.OCSPServer[0])
	if err != nil {
		c.t.Fatal(err)
	}
	s.path = u.Path
	if s.request, err = ocsp.CreateRequest(s.leaf, s.issuer, &ocsp.RequestOptions{Hash: crypto.SHA1}); err != nil {
		c.t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, err := ocsp.ParseResponse(c.ask(s).body, s.issuer); err == nil {
			return s
		} else if time.Since(start) > 10*time.Second {
			c.t.Fatalf("the responder does not answer: %v", err)
		}
	}
}

func (c *caller) ask(s status) answer {
	c.t.Helper()
	return c.nobody().do("POST", s.path, bytes.NewReader(s.request), http.Header{"Content-Type": {"application/ocsp-request"}})
}

func (s status) get() string {
	return s.path + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(s.request))
}

// refusedWith is the status of an OCSP response without an answer.
func refusedWith(a answer) ocsp.ResponseStatus {
	var refused ocsp.ResponseError
	if _, err := ocsp.ParseResponse(a.body, nil); errors.As(err, &refused) {
		return refused.Status
	}
	return ocsp.Success
}

func TestAnOCSPAnswerIsForCaches(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	s := root.status(root.authority("Root", nil), "a.example.com")
	nobody := root.nobody()
	first := nobody.call(http.StatusOK, "GET", s.get(), nil)
	r, err := ocsp.ParseResponseForCert(first.body, s.leaf, s.issuer)
	if err != nil || r.Status != ocsp.Good {
		t.Fatalf("answer %+v, %v", r, err)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/ocsp-response", "Content-Length": fmt.Sprint(len(first.body)),
		"Last-Modified": r.ThisUpdate.Format(http.TimeFormat), "Expires": r.NextUpdate.Format(http.TimeFormat),
	} {
		if got := first.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := first.header.Get("Cache-Control"); !strings.HasPrefix(got, "public, max-age=") || !strings.HasSuffix(got, ", no-transform, must-revalidate") {
		t.Errorf("Cache-Control is %q", got)
	}
	tag := first.header.Get("ETag")
	if !strongTag.MatchString(tag) {
		t.Errorf("ETag is %q", tag)
	}
	for _, row := range []struct {
		name, method, path string
		header             http.Header
		status             int
	}{
		{"again", "GET", s.get(), nil, 200},
		{"without padding", "GET", strings.ReplaceAll(s.get(), "%3D", ""), nil, 200},
		{"with a query", "GET", s.get() + "?x=y", nil, 200},
		{"HEAD", "HEAD", s.get(), nil, 200},
		{"held", "GET", s.get(), http.Header{"If-None-Match": {tag}}, 304},
		{"held since", "GET", s.get(), http.Header{"If-Modified-Since": {first.header.Get("Last-Modified")}}, 304},
		{"another held", "GET", s.get(), http.Header{"If-None-Match": {`"x"`}}, 200},
	} {
		a := nobody.do(row.method, row.path, nil, row.header)
		if a.status != row.status || a.header.Get("ETag") != tag || a.header.Get("Expires") != first.header.Get("Expires") {
			t.Errorf("%s: %d %v", row.name, a.status, a.header)
		}
		if body := row.status == 200 && row.method == "GET"; body != bytes.Equal(a.body, first.body) || !body && len(a.body) > 0 {
			t.Errorf("%s: %d octets", row.name, len(a.body))
		}
	}
	if posted := root.ask(s); !bytes.Equal(posted.body, first.body) || posted.header.Get("ETag") != tag {
		t.Errorf("posted: %v", posted.header)
	}
	if log := root.log.String(); strings.Contains(log, `"route":"/ocsp/`) {
		t.Errorf("logged %s", log)
	}

	root.call(http.StatusOK, "POST", path("/certificates/%d/revoke", s.id), object{"reason": "keyCompromise"})
	revoked := nobody.do("GET", s.get(), nil, http.Header{"If-None-Match": {tag}})
	if r, err := ocsp.ParseResponseForCert(revoked.body, s.leaf, s.issuer); err != nil || r.Status != ocsp.Revoked || r.RevocationReason != ocsp.KeyCompromise {
		t.Errorf("after the revocation: %d, %+v, %v", revoked.status, r, err)
	}
}

// Base64 has slashes, and not every client escapes them. The contract cannot say that a part of a path has some.
func TestARequestInAPathMayHaveSlashes(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	s := root.status(root.authority("Root", nil), "a.example.com")
	for i := 0; ; i++ {
		if strings.Contains(base64.StdEncoding.EncodeToString(s.request), "/") {
			break
		}
		s = root.status(object{"id": 1.0, "certificate": root.get("/api/v1/cas/1")["certificate"]}, fmt.Sprintf("%d.example.com", i))
	}
	for _, encoded := range []string{base64.StdEncoding.EncodeToString(s.request), base64.RawURLEncoding.EncodeToString(s.request)} {
		response, err := http.Get(root.url + s.path + "/" + encoded)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if _, parseErr := ocsp.ParseResponseForCert(body, s.leaf, s.issuer); err != nil || parseErr != nil {
			t.Errorf("%s: %v, %v", encoded, err, parseErr)
		}
	}
}

func TestWhatIsNoOCSPRequestGetsTheProtocolsError(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	s := root.status(root.authority("Root", nil), "a.example.com")
	other := root.status(root.authority("Other", nil), "a.example.com")
	nobody := root.nobody()
	post := func(path string, body []byte, kind string) answer {
		return nobody.do("POST", path, bytes.NewReader(body), http.Header{"Content-Type": {kind}})
	}
	for _, row := range []struct {
		name string
		got  answer
		want ocsp.ResponseStatus
	}{
		{"nothing", post(s.path, nil, "application/ocsp-request"), ocsp.Malformed},
		{"a text", post(s.path, []byte("hello"), "text/plain"), ocsp.Malformed},
		{"half of it", post(s.path, s.request[:40], "application/ocsp-request"), ocsp.Malformed},
		{"too much", post(s.path, make([]byte, 64<<10+1), "application/ocsp-request"), ocsp.Malformed},
		{"much too much", post(s.path, make([]byte, 200<<10), "application/ocsp-request"), ocsp.Malformed},
		{"a path that is none", nobody.do("GET", s.path+"/hello!", nil, nil), ocsp.Malformed},
		{"a path with a wrong escape", nobody.do("GET", s.path+"/MA%3D%3D%3D", nil, nil), ocsp.Malformed},
		{"octets that are none", nobody.do("GET", s.path+"/AAAA", nil, nil), ocsp.Malformed},
		{"a long path", nobody.do("GET", s.path+"/"+strings.Repeat("A", 20000), nil, nil), ocsp.Malformed},
		{"a long nonce", post(s.path, withNonce(t, s, 129), "application/ocsp-request"), ocsp.Malformed},
		{"a certificate of another CA", post(s.path, other.request, "application/ocsp-request"), ocsp.Unauthorized},
		{"another type", post(s.path, s.request, "text/plain"), ocsp.Success},
		{"no type", post(s.path, s.request, ""), ocsp.Success},
	} {
		if got := refusedWith(row.got); row.got.status != http.StatusOK || got != row.want || row.got.header.Get("Content-Type") != "application/ocsp-response" {
			t.Errorf("%s: %d, %s, %v", row.name, row.got.status, got, row.got.header)
		}
		if cached := row.got.header.Get("Cache-Control") != "no-store"; cached != (row.want == ocsp.Success) {
			t.Errorf("%s: Cache-Control %q", row.name, row.got.header.Get("Cache-Control"))
		}
	}
	for _, row := range []struct {
		name, method, path string
		status             int
		allow              string
	}{
		{"no such CA", "POST", "/ocsp/root-9", 404, ""},
		{"no such CA, GET", "GET", strings.Replace(s.get(), s.path, "/ocsp/root-9", 1), 404, ""},
		{"another name", "POST", "/ocsp/toor-1", 404, ""},
		{"GET without a request", "GET", s.path, 405, "POST"},
		{"PUT", "PUT", s.path, 405, "POST"},
		{"DELETE", "DELETE", s.get(), 405, "GET, HEAD"},
		{"POST to a request", "POST", s.get(), 405, "GET, HEAD"},
		{"no CA", "POST", "/ocsp/", 404, ""},
	} {
		a := nobody.do(row.method, row.path, bytes.NewReader(s.request), http.Header{"Content-Type": {"application/ocsp-request"}})
		if a.status != row.status || a.header.Get("Allow") != row.allow || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d, Allow %q, %v", row.name, a.status, a.header.Get("Allow"), a.header)
		}
	}
}

// withNonce is the request of s with a nonce of so many octets.
func withNonce(t *testing.T, s status, octets int) []byte {
	t.Helper()
	outer, tbs := cryptobyte.String(s.request), cryptobyte.String(nil)
	if !outer.ReadASN1(&outer, tags.SEQUENCE) || !outer.ReadASN1(&tbs, tags.SEQUENCE) {
		t.Fatal("not a request")
	}
	var b cryptobyte.Builder
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(tbs)
			b.AddASN1(tags.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier([]int{1, 3, 6, 1, 5, 5, 7, 48, 1, 2})
						b.AddASN1(tags.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(bytes.Repeat([]byte{9}, octets)) })
					})
				})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAnswersWithANonceAreForNobodyElse(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	s := root.status(root.authority("Root", nil), "a.example.com")
	for _, octets := range []int{1, 32, 128} {
		nonced := s
		nonced.request = withNonce(t, s, octets)
		for _, a := range []answer{root.ask(nonced), root.nobody().call(http.StatusOK, "GET", nonced.get(), nil)} {
			r, err := ocsp.ParseResponseForCert(a.body, s.leaf, s.issuer)
			if err != nil || r.Status != ocsp.Good || !bytes.Contains(a.body, bytes.Repeat([]byte{9}, octets)) {
				t.Errorf("a nonce of %d octets: %+v, %v", octets, r, err)
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("ETag") != "" || a.header.Get("Expires") != "" {
				t.Errorf("a nonce of %d octets: %v", octets, a.header)
			}
		}
	}
}

func TestTheResponderOfACA(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	authority := root.authority("Root", nil)
	s := root.status(authority, "a.example.com")
	at := path("/cas/%d/ocsp", idOf(authority))
	o := root.get(at)
	c := parsed(t, o["certificate"])
	if err := c.CheckSignatureFrom(s.issuer); err != nil || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning {
		t.Errorf("certificate %v, usage %v, %v", c.Subject, c.ExtKeyUsage, err)
	}
	if o["serial_number"] != c.SerialNumber.Text(16) || o["not_after"] != c.NotAfter.Format(time.RFC3339) || o["responder_id"] != "key" ||
		o["url"] != s.leaf.OCSPServer[0] || o["key_id"] == "" {
		t.Errorf("responder %v", o)
	}
	root.user("stranger", nil).call(http.StatusForbidden, "GET", at, nil)
	root.nobody().call(http.StatusUnauthorized, "GET", at, nil)
	root.call(http.StatusNotFound, "GET", path("/cas/4711/ocsp"), nil)
	root.call(http.StatusUnprocessableEntity, "GET", path("/cas/x/ocsp"), nil)
}

func TestABodyThatDoesNotArriveIsNoSuccess(t *testing.T) {
	t.Parallel()
	root := withRoot(t)
	server := httptest.NewUnstartedServer(root.handler)
	server.Config.ReadTimeout = 200 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	for _, path := range []string{"/api/v1/cas/", "/ocsp/root-1"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 50\r\n\r\n{", path, root.token)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != http.StatusRequestTimeout {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
}
