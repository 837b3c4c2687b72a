// Package signer makes X.509 certificates, CRLs and OCSP responses out of a crypto.Signer. It knows no database and no
// token: a key is whatever signs.
//
// What must never happen: a signature that was not verified leaves this package; a certificate is signed by the CA
// key that has not passed the linter first; one draft becomes two certificates.
//
// The key is not trusted: it may fail, lie about its public half, or sign something else. The template is trusted as
// far as permission goes (package policy has decided that these names and this validity may be) but not as far as
// form goes: what cannot be encoded faithfully, or what the linter refuses, is not signed.
package signer

import (
	"crypto"
	"errors"
	"net"
	"strings"
	"time"
)

// ErrKey wraps every failure of the key itself, a CA's or a responder's: the token refused, was away, or returned a signature
// that does not verify. The request is not at fault and may be tried again.
var ErrKey = errors.New("the key did not sign")

// LintError is a certificate that the linter refused. Nothing was signed by the CA key.
type LintError struct {
	Findings []string // in sorted order, each "name: words"; see lint.go for which lints run
}

func (e *LintError) Error() string {
	return "the certificate was refused by the linter: " + strings.Join(e.Findings, "; ")
}

// Usage is the purpose of a certificate, which decides keyUsage and extendedKeyUsage.
type Usage int

// The usages. The zero value is not a usage: it is refused.
const (
	UsageServer Usage = iota + 1
	UsageClient
	UsageDualPurpose
	UsageCA
)

// Template is what a certificate shall say. Serial, issuer name, key identifiers and signature algorithm are added
// by Prepare.
type Template struct {
	Subject    []byte // DER of the Name (RFC 5280, section 4.1.2.4); the empty sequence is allowed with SANs
	PublicKey  crypto.PublicKey
	Usage      Usage
	PathLength *int // UsageCA only; nil leaves it out
	NotBefore  time.Time
	NotAfter   time.Time // the last second of validity (RFC 5280, section 4.1.2.5); fractions are cut off
	DNS        []string  // ASCII; internationalized names as A-labels
	IPs        []net.IP  // 4 or 16 octets
	Emails     []string  // rfc822Name: ASCII
	CRLURL     string    // CRL distribution point, absolute http or https; "" leaves it out
	IssuerURL  string    // authority information access, caIssuers, likewise; "" leaves it out
	OCSPURL    string    // authority information access, ocsp, likewise; "" leaves it out
}
