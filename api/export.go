package api

import (
	"fmt"
	"net/http"
	"slices"

	"signet/fault"
)

func (s *server) exportCA(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.CA(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	return attach(w, pemType, fmt.Sprintf("ca_%d_certificate.pem", id), certificatePEM(c.Certificate))
}

func (s *server) exportCertificate(w http.ResponseWriter, r *request) error {
	id := r.id("cert_id")
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.Certificate(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	return attach(w, pemType, fmt.Sprintf("certificate_%d.pem", id), certificatePEM(c.DER))
}

func (s *server) exportPrivateKey(w http.ResponseWriter, r *request) error {
	id := r.id("cert_id")
	if err := r.err(); err != nil {
		return err
	}
	_, key, err := s.ca.PrivateKey(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	if key == nil {
		return fault.New(fault.NotFound, "No private key is kept for this certificate")
	}
	return attach(w, pemType, fmt.Sprintf("certificate_%d_private_key.pem", id), key)
}

func (s *server) exportChain(w http.ResponseWriter, r *request) error {
	id := r.id("cert_id")
	if err := r.err(); err != nil {
		return err
	}
	c, issuers, err := s.ca.CertificateChain(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	chain := [][]byte{certificatePEM(c.DER)}
	for _, issuer := range issuers {
		chain = append(chain, certificatePEM(issuer.Certificate))
	}
	return attach(w, pemType, fmt.Sprintf("certificate_%d_chain.pem", id), slices.Concat(chain...))
}

const pemType = "application/x-pem-file"

func attach(w http.ResponseWriter, contentType, name string, data []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Disposition", "attachment; filename="+name)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data) // a client that hung up does not read it
	return nil
}
