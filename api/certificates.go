package api

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"

	"signet/api/wire"
	"signet/ca"
	"signet/fault"
	"signet/policy"
)

const defaultLeafKeySize = 2048 // of RSA

// discarded is the warning (RFC 7234, section 5.5, code 299) of a key pair whose private half nobody will ever see.
const discarded = `299 signet "The private half of the new key was discarded; send public_key to certify a key of your own"`

func (s *server) issueCertificate(w http.ResponseWriter, r *request) error {
	var query wire.IssueCertificateParams
	r.query(&query)
	var body wire.CertificateCreate
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	public, err := publicKeyOf(body)
	if err != nil {
		return err
	}
	keep := or(body.IncludePrivateKey, public == nil)
	wanted := ca.IssueRequest{
		IssuerID: query.CAID, CommonName: body.CommonName, SubjectDN: body.SubjectDN,
		Type: policy.CertificateType(body.CertificateType), Key: keySpec(body.KeyType, body.KeySize, defaultLeafKeySize),
		PublicKey: public, KeepKey: keep, ValidDays: or(body.ValidDays, 0),
		DNS: or(body.SanDNSNames, nil), IPs: or(body.SanIPAddresses, nil), Emails: or(body.SanEmailAddresses, nil),
	}
	issued, err := once(s, w, r,
		func(ctx context.Context) (ca.Issued, error) { return s.ca.Issue(ctx, r.caller(), wanted) },
		func(ctx context.Context, id int64) (ca.Issued, error) { return s.ca.Issued(ctx, r.caller(), id) })
	if err != nil {
		return err
	}
	if public == nil && !keep {
		w.Header().Set("Warning", discarded)
	}
	writeJSON(w, http.StatusCreated, wire.CertificateWithKey{
		Certificate: s.certificateOf(issued.Certificate), PrivateKey: text(string(issued.PrivateKeyPEM)),
	})
	return nil
}

// publicKeyOf parses the caller's own key; nil when the server is to make one.
func publicKeyOf(body wire.CertificateCreate) (crypto.PublicKey, error) {
	if body.PublicKey == nil {
		return nil, nil
	}
	if or(body.IncludePrivateKey, false) {
		return nil, fault.New(fault.Invalid, "include_private_key must not be true with public_key: the private key is yours alone")
	}
	block, rest := pem.Decode([]byte(*body.PublicKey))
	switch {
	case block == nil:
		return nil, fault.New(fault.Invalid, "Invalid public_key: no PEM block found")
	case block.Type != "PUBLIC KEY":
		return nil, fault.New(fault.Invalid, "Invalid public_key: the PEM block is a %q, not a PUBLIC KEY (SubjectPublicKeyInfo)", block.Type)
	case strings.TrimSpace(string(rest)) != "":
		return nil, fault.New(fault.Invalid, "Invalid public_key: there is more after the PEM block")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "Invalid public_key: "+err.Error(), err)
	}
	return key, nil
}

func (s *server) signCSR(w http.ResponseWriter, r *request) error {
	var body wire.CSRSignRequest
	r.body(&body)
	if err := r.err(); err != nil {
		return err
	}
	wanted := ca.CSRRequest{
		CSR: []byte(body.CSR), IssuerID: body.CAID, IssuerName: body.CAName,
		Type: policy.CertificateType(body.CertificateType), ValidDays: or(body.ValidDays, 0),
		CommonName: or(body.CommonName, ""), SubjectDN: or(body.SubjectDN, ""),
		DNS: or(body.SanDNSNames, nil), IPs: or(body.SanIPAddresses, nil), Emails: or(body.SanEmailAddresses, nil),
	}
	c, err := once(s, w, r,
		func(ctx context.Context) (ca.Certificate, error) { return s.ca.SignCSR(ctx, r.caller(), wanted) },
		func(ctx context.Context, id int64) (ca.Certificate, error) {
			return s.ca.Certificate(ctx, r.caller(), id)
		})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, s.certificateOf(c))
	return nil
}

func (s *server) listCertificates(w http.ResponseWriter, r *request) error {
	var query wire.ListCertificatesParams
	r.query(&query)
	p := r.page(query.Skip, query.Limit, query.Cursor)
	filter := ca.CertificateFilter{
		IssuerID: query.CAID, Status: string(or(query.Status, "")), ExpiresBefore: query.ExpiresBefore,
		Serial: r.serial(query.Serial), Query: strings.ToLower(or(query.Q, "")),
	}
	if err := r.err(); err != nil {
		return err
	}
	all, total, err := s.ca.Certificates(r.Context(), r.caller(), filter, p.records())
	if err != nil {
		return err
	}
	return writePage(w, r, p, all, total, func(c ca.Certificate) int64 { return c.ID }, s.certificateOf)
}

// serial reads a serial number in any of the spellings of tools: 0x1F, 00:1F, 1f.
func (r *request) serial(value *string) string {
	if value == nil {
		return ""
	}
	digits := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(*value), ":", ""))
	n, ok := new(big.Int).SetString(strings.TrimPrefix(digits, "0x"), 16)
	if !ok || n.Sign() < 0 {
		r.checker.add("value_error", "Value error, not a serial number in hex", []any{"query", "serial"}, echo(*value, 0))
		return ""
	}
	return n.Text(16)
}

func (s *server) getCertificate(w http.ResponseWriter, r *request) error {
	id := r.id("cert_id")
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.Certificate(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.certificateOf(c))
	return nil
}

func (s *server) getPrivateKey(w http.ResponseWriter, r *request) error {
	id := r.id("cert_id")
	if err := r.err(); err != nil {
		return err
	}
	c, key, err := s.ca.PrivateKey(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wire.CertificateWithKey{Certificate: s.certificateOf(c), PrivateKey: text(string(key))})
	return nil
}

func (s *server) certificateOf(c ca.Certificate) wire.Certificate {
	return wire.Certificate{
		ID: c.ID, CommonName: c.CommonName, SubjectDN: c.SubjectDN, CertificateType: wire.CertificateType(c.Type),
		KeySize: c.KeySize, ValidDays: c.ValidDays, Status: wire.CertificateStatus(c.Status(s.now())),
		Certificate: string(certificatePEM(c.DER)), SerialNumber: c.Serial,
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), RevokedAt: instant(c.Revocation.At),
		CreatedAt: c.CreatedAt.UTC(), UpdatedAt: c.UpdatedAt.UTC(),
		IssuerID: c.IssuerID, OrganizationID: c.OrganizationID, CreatedByUserID: c.CreatedBy,
		RevocationReason: reasonOf(c.Revocation), RevocationText: text(c.Revocation.Text), InvalidityDate: instant(c.Revocation.InvalidityDate),
	}
}
