package signer

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"sync/atomic"
)

var errSpent = errors.New("the draft has been signed, or tried, before")

// Draft is a certificate before its signature. It is safe for concurrent use.
type Draft struct {
	serial      string
	tbs         []byte
	algorithmID []byte // DER of the AlgorithmIdentifier, as inside the tbs
	algorithm   *algorithm
	key         crypto.Signer
	public      crypto.PublicKey // of the issuer, as its certificate says
	spent       atomic.Bool
}

// signed is a Certificate (RFC 5280, section 4.1).
type signed struct {
	TBS       asn1.RawValue
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

// draft lints what was built and keeps everything of it but the throwaway signature.
func (b built) draft(a *algorithm, key crypto.Signer, public crypto.PublicKey) (*Draft, error) {
	if findings := lint(b.certificate); len(findings) > 0 {
		return nil, &LintError{Findings: findings}
	}
	var parts signed
	if _, err := asn1.Unmarshal(b.der, &parts); err != nil {
		return nil, fmt.Errorf("take certificate apart: %w", err)
	}
	return &Draft{
		serial:      b.certificate.SerialNumber.Text(16),
		tbs:         parts.TBS.FullBytes,
		algorithmID: parts.Algorithm.FullBytes,
		algorithm:   a,
		key:         key,
		public:      public,
	}, nil
}

// Serial is the serial number in lower-case hex without leading zeros: positive, at most 20 octets, 64 or more
// random bits (RFC 5280, section 4.1.2.2).
func (d *Draft) Serial() string { return d.serial }

// TBS is the DER of the TBSCertificate, exactly the bytes that Sign signs. The caller owns the copy.
func (d *Draft) TBS() []byte { return bytes.Clone(d.tbs) }

// Sign signs the draft with the CA key, verifies the signature and returns the certificate in DER. It works once:
// a second call fails, even if the first one failed, so one draft never becomes two certificates. Failures of the
// key wrap [ErrKey]; the caller may retry with a new draft.
func (d *Draft) Sign() ([]byte, error) {
	if !d.spent.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("sign certificate %s: %w", d.serial, errSpent)
	}
	signature, err := d.algorithm.sign(d.key, d.tbs)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w: %w", d.serial, ErrKey, err)
	}
	if err := d.algorithm.verify(d.public, d.tbs, signature); err != nil {
		return nil, fmt.Errorf("verify signature of certificate %s: %w: %w", d.serial, ErrKey, err)
	}
	der, err := asn1.Marshal(signed{
		TBS:       asn1.RawValue{FullBytes: d.tbs},
		Algorithm: asn1.RawValue{FullBytes: d.algorithmID},
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
	if err != nil {
		return nil, fmt.Errorf("assemble certificate %s: %w", d.serial, err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate %s: %w", d.serial, err)
	}
	if !bytes.Equal(c.RawTBSCertificate, d.tbs) {
		return nil, fmt.Errorf("certificate %s does not contain what was signed", d.serial)
	}
	return der, nil
}
