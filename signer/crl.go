package signer

import (
	"errors"
	"fmt"
	"iter"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Revoked is one entry of a CRL (RFC 5280, section 5.3).
type Revoked struct {
	Serial         string // lower-case hex
	At             time.Time
	Reason         int       // CRLReason; 0 (unspecified) leaves the extension out; 8 (removeFromCRL) in deltas only
	InvalidityDate time.Time // zero leaves the extension out
}

// CRL is what a revocation list shall say. Times are written in whole seconds; fractions are cut off.
type CRL struct {
	Number     *big.Int
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    iter.Seq2[Revoked, error] // each serial number once; nil: none

	Base              *big.Int // the list is a delta to the complete one of this number (RFC 5280, section 5.2.4)
	DistributionPoint string   // URL of the shard that the list is complete for (section 5.2.5); "": everything
	FreshestURL       string   // where its delta is (section 5.2.6); "": there is none
}

// SignCRL signs a CRL with number and authority key identifier, verifies the signature and returns its DER and how many
// entries it has. Entries are encoded as they come: memory is that of the list. Failures of the key wrap [ErrKey]; those of
// Entries are returned as they are.
func (i *Issuer) SignCRL(c CRL) (der []byte, entries int, err error) {
	if err := c.check(); err != nil {
		return nil, 0, fmt.Errorf("build CRL: %w", err)
	}
	extensions, err := c.extensions(i.certificate.SubjectKeyId)
	if err != nil {
		return nil, 0, fmt.Errorf("build extensions of CRL %s: %w", c.Number, err)
	}
	head, err := c.head(i)
	if err != nil {
		return nil, 0, fmt.Errorf("build header of CRL %s: %w", c.Number, err)
	}
	// Headers are written in front of the entries once their length is known.
	list := newPrefixed(len(head) + 3*maxHeader)
	if c.Entries != nil {
		for e, err := range c.Entries {
			if err != nil {
				return nil, 0, err
			}
			if list.data, err = c.appendEntry(list.data, e); err != nil {
				return nil, 0, fmt.Errorf("build CRL %s: %w", c.Number, err)
			}
			entries++
		}
	}
	if entries > 0 {
		list.header(asn1.SEQUENCE)
	}
	list.prepend(head)
	list.data = append(list.data, extensions...)
	list.header(asn1.SEQUENCE)
	tbs := list.bytes()

	signature, err := i.algorithm.sign(i.key, tbs)
	if err != nil {
		return nil, 0, fmt.Errorf("sign CRL %s: %w: %w", c.Number, ErrKey, err)
	}
	if err := i.algorithm.verify(i.certificate.PublicKey, tbs, signature); err != nil {
		return nil, 0, fmt.Errorf("verify signature of CRL %s: %w: %w", c.Number, ErrKey, err)
	}
	b := cryptobyte.NewBuilder(list.data)
	b.AddBytes(i.algorithm.identifier())
	b.AddASN1BitString(signature)
	if list.data, err = b.Bytes(); err != nil {
		return nil, 0, fmt.Errorf("assemble CRL %s: %w", c.Number, err)
	}
	list.header(asn1.SEQUENCE)
	return list.bytes(), entries, nil
}

func (c CRL) check() error {
	this, next := wholeSecond(c.ThisUpdate), wholeSecond(c.NextUpdate)
	switch {
	case c.Number == nil || c.Number.Sign() <= 0:
		return errors.New("CRL number is not positive")
	case c.ThisUpdate.IsZero() || !next.After(this):
		return errors.New("nextUpdate is not after thisUpdate")
	case c.Base != nil && (c.Base.Sign() <= 0 || c.Base.Cmp(c.Number) > 0):
		return fmt.Errorf("base %s of a delta is not a list before number %s", c.Base, c.Number)
	case c.Base != nil && c.FreshestURL != "":
		return errors.New("a delta has no delta (RFC 5280, section 5.2.6)")
	}
	for _, u := range []string{c.DistributionPoint, c.FreshestURL} {
		if u == "" {
			continue
		}
		if err := checkURL(u); err != nil {
			return err
		}
	}
	return nil
}

// checkEntry refuses what a relying party could not read.
func (c CRL) checkEntry(e Revoked) error {
	switch {
	case e.At.IsZero():
		return fmt.Errorf("revocation date of %s is missing", e.Serial)
	case e.Reason == 8 && c.Base == nil:
		return fmt.Errorf("reason 8 (removeFromCRL) of %s is not one of a complete CRL", e.Serial)
	case e.Reason < 0 || e.Reason > 10 || e.Reason == 7: // RFC 5280, section 5.3.1: 7 is not assigned
		return fmt.Errorf("reason %d of %s is unknown", e.Reason, e.Serial)
	}
	return nil
}
