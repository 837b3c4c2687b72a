package signer

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Revoked is one entry of a CRL (RFC 5280, section 5.3). Times are written in whole seconds; fractions are cut off.
type Revoked struct {
	Serial         string // lower-case hex, as [ParseSerial] reads it
	At             time.Time
	Reason         int       // CRLReason; 0 (unspecified) leaves the extension out; 8 (removeFromCRL) in delta CRLs only
	InvalidityDate time.Time // when the key was or may have been lost; zero leaves the extension out
}

// CRL is what a revocation list shall say (RFC 5280, section 5). Times are written in whole seconds; fractions are cut off.
type CRL struct {
	Number     *big.Int
	ThisUpdate time.Time
	NextUpdate time.Time

	// Entries are read once and encoded as they come; nil: none. An error ends the list, which is not signed then. No serial
	// number may come twice: whoever keeps them has to see to that, because SignCRL does not remember them.
	Entries iter.Seq2[Revoked, error]

	// Base makes this a delta CRL: the number of the complete CRL that it starts from (delta CRL indicator, section 5.2.4).
	Base *big.Int

	DistributionPoint string // issuing distribution point (section 5.2.5), absolute http or https; "" leaves it out
	FreshestURL       string // freshest CRL (section 5.2.6), likewise; never in a delta

	// Size is how many octets the list is going to have, about: those of its predecessor will do. Then it is encoded in one
	// piece of memory; 0: not known, and it takes twice its size for a moment.
	Size int
}

// SignCRL signs a version 2 CRL with number and authority key identifier and returns its DER and how many entries it has.
// Memory grows with the encoded list and nothing else. The signature is verified, and what the header says is read again,
// before anyone sees the list. Failures of the key wrap [ErrKey]; those of Entries are wrapped as they are.
func (i *Issuer) SignCRL(c CRL) (der []byte, entries int, err error) {
	e, err := i.encodeCRL(c)
	if err != nil {
		return nil, 0, fmt.Errorf("build CRL: %w", err)
	}
	tbs := e.tbs()
	signature, err := i.algorithm.sign(i.key, i.certificate.PublicKey, tbs)
	if err != nil {
		return nil, 0, fmt.Errorf("sign CRL %s: %w", c.Number, err)
	}
	der = e.seal(i.algorithm.identifier, signature)
	if err := i.reread(der, c, tbs, e.extensions); err != nil {
		return nil, 0, fmt.Errorf("read CRL %s again: %w", c.Number, err)
	}
	return der, e.entries, nil
}

// check refuses a list that relying parties would not understand, or would understand as something else.
func (c CRL) check() error {
	this, next := wholeSecond(c.ThisUpdate), wholeSecond(c.NextUpdate)
	switch {
	case !validSerial(c.Number): // the bounds are the same (section 5.2.3)
		return errors.New("CRL number is not positive or is longer than 20 octets")
	case c.ThisUpdate.IsZero() || !next.After(this):
		return errors.New("nextUpdate is not after thisUpdate")
	case !validTime(this) || !validTime(next):
		return errors.New("thisUpdate or nextUpdate is out of range")
	case c.Base != nil && c.Base.Sign() <= 0:
		return errors.New("base CRL number is not positive")
	case c.Base != nil && c.Base.Cmp(c.Number) > 0:
		return errors.New("base CRL number is greater than the number of the delta")
	case c.Base != nil && c.FreshestURL != "":
		return errors.New("a delta CRL names a freshest CRL")
	}
	for _, u := range []string{c.DistributionPoint, c.FreshestURL} {
		if err := checkURL(u); u != "" && err != nil {
			return err
		}
	}
	return nil
}

// reread holds the framing of a list and all of it but the entries against what was asked for.
func (i *Issuer) reread(der []byte, c CRL, tbs, extensions []byte) error {
	var outer, signed, body, algorithm, issuer, revoked cryptobyte.String
	var signature asn1.BitString
	var version int
	in := cryptobyte.String(der)
	if !in.ReadASN1(&outer, tag.SEQUENCE) || !in.Empty() || !outer.ReadASN1Element(&signed, tag.SEQUENCE) ||
		!outer.ReadASN1Element(&algorithm, tag.SEQUENCE) || !outer.ReadASN1BitString(&signature) || !outer.Empty() {
		return errors.New("it is not a CertificateList")
	}
	if !bytes.Equal(signed, tbs) || string(algorithm) != i.algorithm.identifier {
		return errors.New("it does not contain what was signed")
	}
	if !signed.ReadASN1(&body, tag.SEQUENCE) || !body.ReadASN1Integer(&version) || !body.ReadASN1Element(&algorithm, tag.SEQUENCE) ||
		!body.ReadASN1Element(&issuer, tag.SEQUENCE) {
		return errors.New("it does not contain a TBSCertList")
	}
	this, thisOK := readTime(&body)
	next, nextOK := readTime(&body)
	entries := body.PeekASN1Tag(tag.SEQUENCE)
	for _, field := range []struct {
		name string
		same bool
	}{
		{"version", version == 1},
		{"signature", string(algorithm) == i.algorithm.identifier},
		{"issuer", bytes.Equal(issuer, i.certificate.RawSubject)},
		{"thisUpdate", thisOK && this.Equal(wholeSecond(c.ThisUpdate))},
		{"nextUpdate", nextOK && next.Equal(wholeSecond(c.NextUpdate))},
		{"revokedCertificates", !entries || body.ReadASN1(&revoked, tag.SEQUENCE) && len(revoked) > 0},
		{"crlExtensions", bytes.Equal(body, extensions)},
	} {
		if !field.same {
			return fmt.Errorf("%s is not what was asked for", field.name)
		}
	}
	return nil
}

func readTime(s *cryptobyte.String) (time.Time, bool) {
	var t time.Time
	if s.PeekASN1Tag(tag.UTCTime) {
		return t, s.ReadASN1UTCTime(&t)
	}
	return t, s.ReadASN1GeneralizedTime(&t)
}

// validReason reports whether r is a CRLReason that an entry may give: 7 is not assigned, and 8, removeFromCRL, is for delta
// CRLs only (RFC 5280, section 5.3.1).
func validReason(r int, delta bool) bool { return r >= 0 && r <= 10 && r != 7 && (r != 8 || delta) }
