package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"
)

// How long a public file may be taken from a cache. A CRL is replaced as soon as something is revoked, so caches ask
// again long before its nextUpdate; the certificate of a CA never changes.
const (
	maxCRLAge         = 5 * time.Minute
	maxCertificateAge = 24 * time.Hour
)

func (s *server) crl(w http.ResponseWriter, r *request) error {
	crl, err := s.ca.PublicCRL(r.Context(), mux.Vars(r.Request)["slug"])
	if err != nil {
		return err
	}
	s.publish(w, r, file{"application/pkix-crl", crl.DER, crl.ThisUpdate, crl.NextUpdate, maxCRLAge})
	return nil
}

func (s *server) crlPEM(w http.ResponseWriter, r *request) error {
	crl, err := s.ca.PublicCRL(r.Context(), mux.Vars(r.Request)["slug"])
	if err != nil {
		return err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl.DER})
	s.publish(w, r, file{pemType, data, crl.ThisUpdate, crl.NextUpdate, maxCRLAge})
	return nil
}

func (s *server) caCertificate(w http.ResponseWriter, r *request) error {
	c, err := s.ca.PublicCA(r.Context(), mux.Vars(r.Request)["slug"])
	if err != nil {
		return err
	}
	s.publish(w, r, file{"application/pkix-cert", c.Certificate, c.NotBefore, c.NotAfter, maxCertificateAge})
	return nil
}

func (s *server) caCertificatePEM(w http.ResponseWriter, r *request) error {
	c, err := s.ca.PublicCA(r.Context(), mux.Vars(r.Request)["slug"])
	if err != nil {
		return err
	}
	s.publish(w, r, file{pemType, certificatePEM(c.Certificate), c.NotBefore, c.NotAfter, maxCertificateAge})
	return nil
}

// file is a public file of a CA.
type file struct {
	contentType string
	data        []byte
	modified    time.Time
	stale       time.Time // not to be used from then on
	maxAge      time.Duration
}

// publish serves a file to anybody, and to caches; conditional requests are answered with 304.
func (s *server) publish(w http.ResponseWriter, r *request, f file) {
	age := max(0, min(f.maxAge, f.stale.Sub(s.now())))
	w.Header().Set("Content-Type", f.contentType)
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(f.data)))
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(age.Seconds())))
	http.ServeContent(w, r.Request, "", f.modified, bytes.NewReader(f.data))
}
