package api

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"signet/ca"
	"signet/fault"
)

// How long a public file may be taken from a cache. A CRL is replaced as soon as something is revoked, so caches ask
// again long before its nextUpdate; the certificate of a CA never changes.
const (
	maxCRLAge         = 5 * time.Minute
	maxCertificateAge = 24 * time.Hour
)

// crl serves the complete or delta CRL of a CA, or of one of its shards.
func (s *server) crl(delta bool) handler {
	return func(w http.ResponseWriter, r *request) error {
		vars := mux.Vars(r.Request)
		shard := 0
		if digits, ok := vars["shard"]; ok {
			var err error
			if shard, err = shardOf(digits); err != nil {
				return err
			}
		}
		list, err := s.ca.PublicList(r.Context(), vars["slug"], shard, delta)
		if err != nil {
			return err
		}
		d := s.listed(list)
		d.contentType, d.varies = "application/pkix-crl", true
		if acceptsGzip(r.Header) {
			if compressed := list.Gzip(); compressed != nil {
				d.encoding, d.etag = "gzip", variant(list.ETag, "gzip")
				s.offer(w, r.Request, d.octets(compressed))
				return nil
			}
		}
		s.offer(w, r.Request, d.octets(list.DER))
		return nil
	}
}

// shardOf reads the number of a shard as it stands in URLs: there is one way to write it, so that caches hold it once.
func shardOf(digits string) (int, error) {
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
		return 0, fault.New(fault.NotFound, "CRL not found")
	}
	return int(n), nil
}

// listed is what the caching of a list goes by.
func (s *server) listed(list *ca.PublishedList) document {
	return document{etag: list.ETag, modified: list.ThisUpdate, expires: list.NextUpdate, fresh: earliest(list.FreshUntil, list.NextUpdate, s.now().Add(maxCRLAge))}
}

func earliest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.Before(first) {
			first = t
		}
	}
	return first
}

// variant is the tag of another representation of what a strong tag names.
func variant(etag, name string) string { return strings.TrimSuffix(etag, `"`) + "-" + name + `"` }

func (s *server) crlPEM(w http.ResponseWriter, r *request) error {
	list, err := s.ca.PublicList(r.Context(), mux.Vars(r.Request)["slug"], 0, false)
	if err != nil {
		return err
	}
	d := s.listed(list)
	d.contentType, d.etag, d.size = pemType, variant(list.ETag, "pem"), pemSize(crlBlock, len(list.DER))
	d.body = func(w http.ResponseWriter) error { return pem.Encode(w, &pem.Block{Type: crlBlock, Bytes: list.DER}) }
	s.offer(w, r.Request, d)
	return nil
}

const crlBlock = "X509 CRL"

// pemSize is the length of a PEM block without headers that holds n octets: lines of 64 characters (RFC 7468, section 2).
func pemSize(block string, n int) int {
	characters := (n + 2) / 3 * 4
	lines := (characters + 63) / 64
	return len("-----BEGIN -----\n-----END -----\n") + 2*len(block) + characters + lines
}

func (s *server) caCertificate(w http.ResponseWriter, r *request) error {
	return s.caFile(w, r, "application/pkix-cert", func(der []byte) []byte { return der })
}

func (s *server) caCertificatePEM(w http.ResponseWriter, r *request) error {
	return s.caFile(w, r, pemType, certificatePEM)
}

func (s *server) caFile(w http.ResponseWriter, r *request, contentType string, encode func(der []byte) []byte) error {
	c, err := s.ca.PublicCA(r.Context(), mux.Vars(r.Request)["slug"])
	if err != nil {
		return err
	}
	data := encode(c.Certificate)
	s.offer(w, r.Request, document{
		contentType: contentType, etag: fmt.Sprintf(`"%x"`, sha256.Sum256(data)),
		modified: c.NotBefore, expires: c.NotAfter, fresh: earliest(c.NotAfter, s.now().Add(maxCertificateAge)),
	}.octets(data))
	return nil
}
