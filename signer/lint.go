package signer

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"

	zx509 "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/community" // registers the community's lints
	_ "github.com/zmap/zlint/v3/lints/rfc"       // registers the lints of RFC 5280 and its companions
)

// The lint set is zlint's RFC and community sources, errors only (names that begin with "e_"): what is wrong in any
// PKI. The CA/Browser Forum's, the root programs' and ETSI's sources are for publicly trusted CAs and are not even
// linked. Warnings and notices are advice for such CAs too, and do not run.
//
// Cost, measured on one core of an EPYC for a P-256 server certificate with two DNS names (BenchmarkLint): 0.14 ms,
// two fifths of it zcrypto's parsing, and 5 us when its shape is known (lint_shape.go). Unfiltered it was 5.3 ms, nearly
// all of it in the first and third of the lints excluded below.
var lints = sync.OnceValue(func() []*zlint.CertificateLint {
	all := slices.Clone(zlint.GlobalRegistry().CertificateLints().Lints())
	return slices.DeleteFunc(all, func(l *zlint.CertificateLint) bool {
		_, out := excluded[l.Name]
		return out || !linted[l.Source] || !strings.HasPrefix(l.Name, "e_")
	})
})

var linted = map[zlint.LintSource]bool{
	zlint.RFC3279: true, zlint.RFC5280: true, zlint.RFC5480: true, zlint.RFC5891: true, zlint.RFC6962: true,
	zlint.RFC8813: true, zlint.Community: true,
}

// excluded are lints of these sources that do not run, and why.
var excluded = map[string]string{
	"e_cert_issued_by_compromised_emudhra_ca": "tries eight keys of a public CA on the signature, which is a throwaway one: 5 ms for nothing",
	"e_rsa_fermat_factorization":              "judges the key, not the certificate, which package policy does: 0.4 ms for RSA-2048, 0.9 ms for RSA-4096",
	"e_ecdsa_small_private_key":               "likewise: 0.1 ms for P-256, 1 ms for P-521, and a table to build first",
	"e_subj_email_not_in_san":                 "subjects of servers and CAs may carry emailAddress, and their SAN may not",
	"e_subj_country_not_uppercase":            "countryName is compared without regard to case (X.520), and CSRs come in both",
}

// lint returns what is wrong with the certificate, sorted, or nothing. A plain certificate of a shape that passed the
// lints passes.
func lint(certificate *x509.Certificate) []string {
	var room [maxShape]byte
	shape, plain := appendShape(room[:0], certificate)
	if plain && passed.pass(shape) {
		return nil
	}
	findings := lintAll(certificate)
	if plain {
		passed.learn(shape, len(findings) == 0)
	}
	return findings
}

// lintAll returns what is wrong with the certificate, sorted, or nothing. A lint that panics is a finding.
func lintAll(certificate *x509.Certificate) []string {
	c, err := zx509.ParseCertificate(certificate.Raw)
	if err != nil {
		return []string{"parse: " + err.Error()}
	}
	findings := lintNames(certificate)
	config := zlint.GlobalRegistry().GetConfiguration()
	for _, l := range lints() {
		r := l.Execute(c, config)
		if r.Status < zlint.Error {
			continue
		}
		finding := fmt.Sprintf("%s: %s (%s)", l.Name, l.Description, l.Citation)
		if r.Details != "" {
			finding += ": " + r.Details
		}
		findings = append(findings, finding)
	}
	slices.Sort(findings)
	return findings
}

// lintNames checks the syntax of names, which zlint does in its CA/Browser Forum lints only.
func lintNames(c *x509.Certificate) []string {
	var findings []string
	for _, name := range c.DNSNames {
		if !isHostName(strings.TrimPrefix(name, "*.")) {
			findings = append(findings, fmt.Sprintf("dns_name_syntax: %q is not a host name (RFC 5280: 4.2.1.6)", name))
		}
	}
	for _, address := range c.EmailAddresses {
		if !isMailbox(address) {
			findings = append(findings, fmt.Sprintf("mailbox_syntax: %q is not a mailbox (RFC 5280: 4.2.1.6)", address))
		}
	}
	return findings
}

// isHostName reports whether s has the preferred name syntax of RFC 1034, section 3.5, as modified by RFC 1123.
// Underscores pass: zlint has its own opinion where they matter.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// isMailbox reports whether s is a Local-part@Domain without phrase, comment or quotes (RFC 5280, section 4.2.1.6).
func isMailbox(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || len(local) > 64 || !isHostName(domain) {
		return false
	}
	for i := range len(local) {
		if c := local[i]; c <= ' ' || c > '~' || strings.IndexByte(`()<>[]:;\,"`, c) >= 0 {
			return false
		}
	}
	return true
}
