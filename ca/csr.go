package ca

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"strings"

	"signet/fault"
	"signet/policy"
)

// SignCSR certifies the key of a certificate signing request (PKCS#10, RFC 2986). Subject, names and key come from
// the request; what the caller says explicitly wins.
func (a *Authority) SignCSR(ctx context.Context, caller policy.Caller, r CSRRequest) (Certificate, error) {
	// 1. May the caller, and may this certificate exist?
	issuer, err := a.issuerFor(ctx, caller, r.IssuerID, r.IssuerName)
	if err != nil {
		return Certificate{}, err
	}
	if err := a.mayIssue(caller, issuer, r.Type); err != nil {
		return Certificate{}, err
	}
	csr, err := parseCSR(r.CSR)
	if err != nil {
		return Certificate{}, a.refuse(err)
	}
	key, err := provenKey(csr)
	if err != nil {
		return Certificate{}, a.refuse(err)
	}

	// 2. What the certificate shall say: the CSR, overridden by the request.
	p, err := fromCSR(csr, r)
	if err != nil {
		return Certificate{}, a.refuse(err)
	}
	l, err := a.plan(issuer, p)
	if err != nil {
		return Certificate{}, a.refuse(err)
	}
	l.publicKey, l.key = csr.PublicKey, key
	return a.issue(ctx, caller, l)
}

// issuerFor finds the CA a CSR names by id or by name; with both, they must agree.
func (a *Authority) issuerFor(ctx context.Context, caller policy.Caller, id *int64, name *string) (CA, error) {
	if id != nil {
		c, err := a.issuing(ctx, *id)
		if err != nil {
			return CA{}, fmt.Errorf("find issuer: %w", err)
		}
		if name != nil && *name != "" && *name != c.Name {
			return CA{}, fault.New(fault.Invalid, "ca_id and ca_name name different CAs; give one of them")
		}
		return c, nil
	}
	if name == nil || *name == "" {
		return CA{}, fault.New(fault.Invalid, "Either ca_id or ca_name must be provided")
	}
	found, err := a.cfg.Store.CAsByName(ctx, scopeOf(caller), *name)
	if err != nil {
		return CA{}, fmt.Errorf("find issuer by name: %w", err)
	}
	switch len(found) {
	case 0:
		return CA{}, fault.New(fault.NotFound, "CA '%s' not found", *name)
	case 1:
		return found[0], nil
	}
	return CA{}, fault.New(fault.Conflict, "CA '%s' is ambiguous: %d CAs have this name; give ca_id", *name, len(found))
}

// parseCSR reads a PEM certificate request. Its signature is not verified yet.
func parseCSR(text []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, fault.New(fault.Invalid, "Invalid CSR: no PEM block found")
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, fault.New(fault.Invalid, "Invalid CSR: the PEM block is a %q, not a CERTIFICATE REQUEST", block.Type)
	case strings.TrimSpace(string(rest)) != "":
		return nil, fault.New(fault.Invalid, "Invalid CSR: there is more after the PEM block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "Invalid CSR: "+err.Error(), err)
	}
	if csr.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm || csr.PublicKey == nil {
		return nil, fault.New(fault.Invalid, "Invalid CSR: the public key is of an unknown type")
	}
	return csr, nil
}

// provenKey judges the key of a certificate request and checks the proof of its possession, in this order: verifying takes
// as long as the stranger's key is large.
func provenKey(csr *x509.CertificateRequest) (policy.KeySpec, error) {
	key, err := policy.CheckPublicKey(csr.PublicKey)
	if err != nil {
		return policy.KeySpec{}, err
	}
	if err := csr.CheckSignature(); err != nil {
		return policy.KeySpec{}, fault.Wrap(fault.Invalid, "CSR signature verification failed", err)
	}
	return key, nil
}

// fromCSR merges a CSR and the overrides beside it. Names of kinds that certificates here do not carry, such as
// URIs, are left out.
func fromCSR(csr *x509.CertificateRequest, r CSRRequest) (planRequest, error) {
	base, err := policy.DNFromDER(csr.RawSubject)
	if err != nil {
		return planRequest{}, err
	}
	p := planRequest{
		typ: r.Type, validDays: r.ValidDays, commonName: r.CommonName, subjectDN: r.SubjectDN, base: base,
		dns: csr.DNSNames, ips: texts(csr.IPAddresses), emails: csr.EmailAddresses,
	}
	if len(r.DNS) > 0 {
		p.dns = r.DNS
	}
	if len(r.IPs) > 0 {
		p.ips = r.IPs
	}
	if len(r.Emails) > 0 {
		p.emails = r.Emails
	}
	if p.commonName == "" && r.SubjectDN != "" {
		dn, err := policy.ParseDN(r.SubjectDN)
		if err != nil {
			return planRequest{}, err
		}
		p.commonName = dn.CommonName()
	}
	if p.commonName == "" {
		p.commonName = base.CommonName()
	}
	if p.commonName == "" {
		return planRequest{}, fault.New(fault.Invalid, "No common name in CSR or request")
	}
	return p, nil
}

func texts(ips []net.IP) []string {
	var out []string
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}
