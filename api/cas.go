package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"signet/api/wire"
	"signet/ca"
	"signet/evidence"
	"signet/policy"
)

const defaultCAKeySize = 4096 // of RSA

func (s *server) createCA(w http.ResponseWriter, r *request) error {
	var body wire.CACreate
	r.body(&body)
	if body.CRLBaseURL != nil {
		base, reason := parseBaseURL(*body.CRLBaseURL)
		if reason != "" {
			r.checker.add("value_error", "Value error, "+reason, []any{"body", "crl_base_url"}, echo(*body.CRLBaseURL, 0))
		}
		body.CRLBaseURL = &base
	}
	if err := r.err(); err != nil {
		return err
	}
	wanted := ca.CreateCARequest{
		Name: body.Name, SubjectDN: body.SubjectDN, Description: body.Description,
		Key: keySpec(body.KeyType, body.KeySize, defaultCAKeySize), ValidDays: or(body.ValidDays, 0),
		ParentID: body.ParentCAID, PathLength: body.PathLength, AllowLeafCerts: body.AllowLeafCerts, CRLBaseURL: body.CRLBaseURL,
		Token: or(body.Token, ""), AcceptKeyGrade: evidence.Grade(or(body.AcceptKeyGrade, "")),
	}
	c, err := once(s, w, r,
		func(ctx context.Context) (ca.CA, error) { return s.ca.CreateCA(ctx, r.caller(), wanted) },
		func(ctx context.Context, id int64) (ca.CA, error) { return s.ca.CA(ctx, r.caller(), id) })
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, wire.CACreated{CA: s.caOf(c)})
	return nil
}

// keySpec fills in what a request leaves open. EC and Ed25519 keys have a default size of their own.
func keySpec(t *wire.KeyType, size *int, rsaDefault int) policy.KeySpec {
	spec := policy.KeySpec{Type: policy.KeyType(or(t, wire.KeyTypeRsa))}
	switch {
	case size != nil:
		spec.Size = *size
	case spec.Type == policy.RSA:
		spec.Size = rsaDefault
	}
	return spec
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// parseBaseURL checks a URL that is going to be the beginning of URLs in certificates, where only ASCII may stand (RFC
// 5280, section 4.2.1.6), and returns it without slash at the end.
func parseBaseURL(s string) (base, reason string) {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`{|}", r) }) {
		return "", "the URL must consist of the ASCII characters that URLs may hold"
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "", "the URL must be absolute, with scheme http or https"
	case u.User != nil || strings.ContainsAny(s, "?#"):
		return "", "the URL must not have user information, query or fragment"
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", "the port of the URL must be between 1 and 65535"
		}
	}
	if address, err := netip.ParseAddr(u.Hostname()); (err != nil || address.Zone() != "") && !hostName.MatchString(u.Hostname()) {
		return "", "the URL must name a host"
	}
	return strings.TrimRight(s, "/"), ""
}

func (s *server) listCAs(w http.ResponseWriter, r *request) error {
	var query wire.ListCAsParams
	r.query(&query)
	p := r.page(query.Skip, query.Limit, query.Cursor)
	if err := r.err(); err != nil {
		return err
	}
	all, total, err := s.ca.CAs(r.Context(), r.caller(), p.records())
	if err != nil {
		return err
	}
	return writePage(w, r, p, all, exactly(total), func(c ca.CA) int64 { return c.ID }, s.caOf)
}

func (s *server) getCA(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	c, err := s.ca.CA(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.caOf(c))
	return nil
}

func (s *server) getCAChain(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	chain, err := s.ca.Chain(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, each(chain, s.caOf))
	return nil
}

func (s *server) listChildren(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	children, err := s.ca.Children(r.Context(), r.caller(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, each(children, s.caOf))
	return nil
}

// refuseCAKey is behind both doors at which somebody may ask for a CA's private key.
func (s *server) refuseCAKey(_ http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	return s.ca.RefuseCAKey(r.Context(), r.caller(), id)
}

func (s *server) deleteCA(w http.ResponseWriter, r *request) error {
	id := r.id("ca_id")
	if err := r.err(); err != nil {
		return err
	}
	if err := s.ca.DeleteCA(r.Context(), r.caller(), id); err != nil {
		return err
	}
	return noContent(w)
}

// records is the page as package ca takes it.
func (p page) records() ca.Page { return ca.Page{After: p.cursor, Skip: p.skip, Limit: p.limit + 1} }

func (s *server) caOf(c ca.CA) wire.CA {
	return wire.CA{
		ID: c.ID, Name: c.Name, Description: c.Description, SubjectDN: c.SubjectDN,
		KeyType: wire.KeyType(c.KeyType), KeySize: c.KeySize, ValidDays: c.ValidDays,
		ParentCAID: c.ParentID, PathLength: c.PathLength, AllowLeafCerts: c.AllowLeafCerts, CRLBaseURL: c.CRLBaseURL,
		Certificate: string(certificatePEM(c.Certificate)),
		Status:      caStatus(c, s.now()), RevokedAt: instant(c.Revocation.At),
		OrganizationID: c.OrganizationID, CreatedByUserID: c.CreatedBy,
		CreatedAt: c.CreatedAt.UTC(), UpdatedAt: c.UpdatedAt.UTC(), IsRoot: c.IsRoot(),
		Token: s.ca.TokenOf(c), KeyGrade: text(string(c.Proof.Grade)), KeyLocked: text(c.Proof.Locked),
		KeyGradeAccepted: text(string(c.Proof.Accepted.Grade)),
		RevocationReason: reasonOf(c.Revocation), RevocationText: text(c.Revocation.Text), InvalidityDate: instant(c.Revocation.InvalidityDate),
	}
}

func caStatus(c ca.CA, now time.Time) wire.CertificateStatus {
	// A CA's certificate stands as any other does.
	return wire.CertificateStatus(ca.Certificate{State: c.State, NotAfter: c.NotAfter}.Status(now))
}

// certificatePEM is what package pem makes, without a copy for each line: a page of a list has a thousand certificates.
func certificatePEM(der []byte) []byte {
	const begin, end, line = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", 48 // octets to a line of 64 characters
	out := make([]byte, 0, len(begin)+base64.StdEncoding.EncodedLen(len(der))+len(der)/line+1+len(end))
	out = append(out, begin...)
	for part := range slices.Chunk(der, line) {
		out = append(base64.StdEncoding.AppendEncode(out, part), '\n')
	}
	return append(out, end...)
}
