package signer

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"
)

// Revoked is one entry of a CRL (RFC 5280, section 5.3).
type Revoked struct {
	Serial *big.Int
	At     time.Time
	Reason int // CRLReason; 0 (unspecified) leaves the extension out
}

// CRL is what a revocation list shall say. Times are written in whole seconds; fractions are cut off.
type CRL struct {
	Number     *big.Int
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    []Revoked
}

// SignCRL signs a complete CRL with number and authority key identifier, verifies it and returns its DER. Failures
// of the key wrap [ErrKey].
func (i *Issuer) SignCRL(c CRL) ([]byte, error) {
	list, err := c.list()
	if err != nil {
		return nil, fmt.Errorf("build CRL: %w", err)
	}
	list.SignatureAlgorithm = i.algorithm.id
	key := &witness{Signer: i.key}
	der, err := x509.CreateRevocationList(rand.Reader, list, i.certificate, key)
	switch {
	case err != nil && key.asked:
		return nil, fmt.Errorf("sign CRL %s: %w: %w", c.Number, ErrKey, err)
	case err != nil:
		return nil, fmt.Errorf("build CRL: %w", err)
	}
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("parse CRL %s: %w", c.Number, err)
	}
	// CreateRevocationList verified against what the key says of itself; the certificate has the last word.
	if err := parsed.CheckSignatureFrom(i.certificate); err != nil {
		return nil, fmt.Errorf("verify signature of CRL %s: %w: %w", c.Number, ErrKey, err)
	}
	return der, nil
}

// list checks the CRL and translates it for x509.CreateRevocationList.
func (c CRL) list() (*x509.RevocationList, error) {
	this, next := wholeSecond(c.ThisUpdate), wholeSecond(c.NextUpdate)
	switch {
	case c.Number == nil || c.Number.Sign() <= 0:
		return nil, errors.New("CRL number is not positive")
	case c.ThisUpdate.IsZero() || !next.After(this):
		return nil, errors.New("nextUpdate is not after thisUpdate")
	}
	entries := make([]x509.RevocationListEntry, len(c.Entries))
	seen := make(map[string]bool, len(c.Entries))
	for n, e := range c.Entries {
		switch {
		case !validSerial(e.Serial):
			return nil, errors.New("serial number of an entry is not positive or is longer than 20 octets")
		case seen[string(e.Serial.Bytes())]:
			return nil, fmt.Errorf("serial number %x is listed twice", e.Serial)
		case e.At.IsZero():
			return nil, fmt.Errorf("revocation date of %x is missing", e.Serial)
		case !validReason(e.Reason):
			return nil, fmt.Errorf("reason %d of %x is not one of a complete CRL", e.Reason, e.Serial)
		}
		seen[string(e.Serial.Bytes())] = true
		entries[n] = x509.RevocationListEntry{SerialNumber: e.Serial, RevocationTime: wholeSecond(e.At), ReasonCode: e.Reason}
	}
	return &x509.RevocationList{Number: c.Number, ThisUpdate: this, NextUpdate: next, RevokedCertificateEntries: entries}, nil
}

// validReason reports whether r is a CRLReason that a complete CRL may give: 7 is not assigned, and 8,
// removeFromCRL, is for delta CRLs only (RFC 5280, section 5.3.1).
func validReason(r int) bool { return r >= 0 && r <= 10 && r != 7 && r != 8 }

// witness tells whether the key was asked, which separates failures of the key from defects of the list.
type witness struct {
	crypto.Signer
	asked bool
}

// Sign implements crypto.Signer.
func (w *witness) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	w.asked = true
	return w.Signer.Sign(rand, digest, opts)
}

// SignMessage implements crypto.MessageSigner.
func (w *witness) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	w.asked = true
	return crypto.SignMessage(w.Signer, rand, message, opts)
}
