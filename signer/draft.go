package signer

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/crypto/cryptobyte"
)

var errSpent = errors.New("the draft has been signed, or tried, before")

// Draft is a certificate before its signature. It is safe for concurrent use.
type Draft struct {
	serial    string
	tbs       []byte
	algorithm *algorithm
	key       crypto.Signer
	public    crypto.PublicKey // of the issuer, as its certificate says
	spent     atomic.Bool
}

// draft lints what was built and keeps what is to be signed.
func (b built) draft(a *algorithm, key crypto.Signer, public crypto.PublicKey) (*Draft, error) {
	if findings := lint(b.certificate); len(findings) > 0 {
		return nil, &LintError{Findings: findings}
	}
	return &Draft{
		serial:    b.certificate.SerialNumber.Text(16),
		tbs:       b.tbs,
		algorithm: a,
		key:       key,
		public:    public,
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
	signature, err := d.algorithm.sign(d.key, d.public, d.tbs)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w", d.serial, err)
	}
	return d.algorithm.join(d.tbs, signature), nil
}

// join puts to-be-signed octets, the identifier of the algorithm and a signature together: a Certificate (RFC 5280,
// section 4.1).
func (a *algorithm) join(tbs, signature []byte) []byte {
	var bits cryptobyte.Builder
	bits.AddASN1BitString(signature)
	der := slices.Concat(make([]byte, headerOctets), tbs, []byte(a.identifier), bits.BytesOrPanic())
	return der[putHeader(der, headerOctets, len(der)-headerOctets):]
}
