package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// document is what anybody may have, and caches may keep: a list, an OCSP answer, the certificate of a CA.
type document struct {
	contentType string
	etag        string // strong, quoted; "": not for caches
	modified    time.Time
	expires     time.Time // not to be used from then on
	fresh       time.Time // to be asked for again from then on
	more        string    // directives of Cache-Control beyond public and max-age
	encoding    string    // Content-Encoding; "": none
	varies      bool      // by Accept-Encoding
	size        int
	body        func(w http.ResponseWriter) error // writes size octets
}

// octets is the size and body of a document that is in memory.
func (d document) octets(b []byte) document {
	d.size, d.body = len(b), func(w http.ResponseWriter) error {
		_, err := w.Write(b)
		return err
	}
	return d
}

// offer answers with a document. A GET whose caller has it already is answered with 304 (RFC 9110, section 13). Ranges are
// not served: what is worth a range here is compressed, or made of shards.
func (s *server) offer(w http.ResponseWriter, r *http.Request, d document) {
	h := w.Header()
	h["Content-Type"] = []string{d.contentType}
	if d.etag == "" {
		h["Cache-Control"] = noStore
	} else {
		s.describe(h, d)
		if r.Method != http.MethodPost && d.isHeldBy(r.Header) {
			delete(h, "Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if d.encoding != "" {
		h["Content-Encoding"] = []string{d.encoding}
	}
	h["Content-Length"] = []string{strconv.Itoa(d.size)}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_ = d.body(w) // a client that hung up does not read it
	}
}

var (
	noStore        = []string{"no-store"}
	acceptEncoding = []string{"Accept-Encoding"}
	acceptNoRanges = []string{"none"}
)

// describe writes the headers that caches go by.
func (s *server) describe(h http.Header, d document) {
	age := max(0, d.fresh.Sub(s.now()))
	h["Etag"] = []string{d.etag}
	h["Last-Modified"] = []string{d.modified.UTC().Format(http.TimeFormat)}
	h["Expires"] = []string{d.expires.UTC().Format(http.TimeFormat)}
	h["Cache-Control"] = []string{"public, max-age=" + strconv.Itoa(int(age/time.Second)) + d.more}
	h["Accept-Ranges"] = acceptNoRanges
	if d.varies {
		h["Vary"] = acceptEncoding
	}
}

// isHeldBy reports whether the caller has this very document. If-None-Match goes before If-Modified-Since.
func (d document) isHeldBy(request http.Header) bool {
	if tags := request["If-None-Match"]; len(tags) > 0 {
		return hasTag(strings.Join(tags, ","), d.etag)
	}
	given := request.Get("If-Modified-Since")
	if given == "" {
		return false
	}
	since, err := http.ParseTime(given)
	return err == nil && !d.modified.Truncate(time.Second).After(since)
}

// hasTag compares a list of entity tags weakly (RFC 9110, section 13.1.2). Our tags have no comma in them.
func hasTag(list, tag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimSpace(one)
		if one == "*" || strings.TrimPrefix(one, "W/") == tag {
			return true
		}
	}
	return false
}

// acceptsGzip reads Accept-Encoding (RFC 9110, section 12.5.3): gzip when it is named, or *, with a weight above 0.
func acceptsGzip(request http.Header) bool {
	accepted := false
	for one := range strings.SplitSeq(strings.Join(request["Accept-Encoding"], ","), ",") {
		coding, parameter, _ := strings.Cut(one, ";")
		weighs := weight(parameter) > 0
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			return weighs
		case "*":
			accepted = weighs
		}
	}
	return accepted
}

// weight reads "q=0.5"; 1 when there is none, 0 when it is malformed.
func weight(parameter string) float64 {
	parameter = strings.TrimSpace(parameter)
	if parameter == "" {
		return 1
	}
	name, value, _ := strings.Cut(parameter, "=")
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || !strings.EqualFold(strings.TrimSpace(name), "q") || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}
