package signer

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Extensions of CRLs and of their entries (RFC 5280, sections 5.2 and 5.3).
var (
	crlNumber                = asn1.ObjectIdentifier{2, 5, 29, 20}
	deltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	issuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	crlAuthorityKeyID        = asn1.ObjectIdentifier{2, 5, 29, 35}
	freshestCRL              = asn1.ObjectIdentifier{2, 5, 29, 46}
)

// The DER of an Extension up to its value, which has one length always: an ENUMERATED below 128, a GeneralizedTime.
const (
	reasonCodePrefix     = "\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01"
	invalidityDatePrefix = "\x30\x18\x06\x03\x55\x1d\x18\x04\x11"
)

const (
	// maxEntryOctets is the longest entry: 20 octets of serial number, a GeneralizedTime and both extensions. Being shorter
	// than 128, its lengths are of one octet.
	maxEntryOctets = 2 + 22 + 17 + 2 + 12 + 26
	headerOctets   = 6 // tag and length of up to 4 GiB
)

// encoded is a CRL that grows in memory: first the entries, behind free octets in which everything goes that precedes them and
// whose lengths are not known before. One piece of memory is enough when the size was known; else pieces are joined at the end,
// which takes twice the size, where one growing slice would take more, and leave as much again to be collected.
type encoded struct {
	front      int      // free octets at the beginning of the first piece
	pieces     [][]byte // after join: one
	size       int      // octets of the entries
	entries    int
	extensions []byte // DER, explicitly tagged
	begin      int    // of the TBSCertList in the piece
}

// encodeCRL makes the TBSCertList.
func (i *Issuer) encodeCRL(c CRL) (*encoded, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if i.certificate.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return nil, errors.New("the CA certificate does not allow cRLSign")
	}
	extensions, err := i.crlExtensions(c)
	if err != nil {
		return nil, fmt.Errorf("encode extensions: %w", err)
	}
	head := append([]byte{0x02, 0x01, 0x01}, i.algorithm.identifier...) // version 2
	head = append(head, i.certificate.RawSubject...)
	head = appendTime(head, wholeSecond(c.ThisUpdate))
	head = appendTime(head, wholeSecond(c.NextUpdate))

	e := &encoded{front: len(head) + 3*headerOctets, extensions: extensions}
	tail := len(extensions) + len(i.algorithm.identifier) + headerOctets + maxSignature(i.certificate.PublicKey)
	room := 4096
	if c.Size > 0 {
		room = c.Size + c.Size/16 + maxEntryOctets
	}
	e.pieces = [][]byte{make([]byte, e.front, e.front+room+tail)}
	if c.Entries != nil {
		for r, err := range c.Entries {
			if err != nil {
				return nil, fmt.Errorf("get entry %d: %w", e.entries+1, err)
			}
			if err := e.add(r, c.Base != nil); err != nil {
				return nil, err
			}
		}
	}
	e.join(tail)

	list := e.pieces[0]
	begin := e.front
	if e.entries > 0 { // never an empty sequence (section 5.1.2.6)
		begin = putHeader(list, begin, e.size)
	}
	begin -= len(head)
	copy(list[begin:], head)
	list = append(list, extensions...)
	e.begin = putHeader(list, begin, len(list)-begin)
	e.pieces[0] = list
	return e, nil
}

// add encodes one entry.
func (e *encoded) add(r Revoked, delta bool) error {
	last := e.pieces[len(e.pieces)-1]
	if cap(last)-len(last) < maxEntryOctets {
		last = make([]byte, 0, min(max(e.size/16, 4096), 1<<20))
		e.pieces = append(e.pieces, last)
	}
	longer, err := appendEntry(last, r, delta)
	if err != nil {
		return err
	}
	e.size += len(longer) - len(last)
	e.entries++
	e.pieces[len(e.pieces)-1] = longer
	return nil
}

// join makes one piece, with room for the tail.
func (e *encoded) join(tail int) {
	if first := e.pieces[0]; len(e.pieces) == 1 && cap(first)-len(first) >= tail {
		return
	}
	joined := make([]byte, 0, e.front+e.size+tail)
	for n, piece := range e.pieces {
		joined = append(joined, piece...)
		e.pieces[n] = nil
	}
	e.pieces = [][]byte{joined}
}

// tbs is the DER of the TBSCertList.
func (e *encoded) tbs() []byte {
	end := len(e.pieces[0])
	return e.pieces[0][e.begin:end:end]
}

// seal puts the signature behind the TBSCertList and returns the CertificateList.
func (e *encoded) seal(algorithm string, signature []byte) []byte {
	list := append(e.pieces[0], algorithm...)
	var b cryptobyte.Builder
	b.AddASN1BitString(signature)
	list = append(list, b.BytesOrPanic()...)
	return list[putHeader(list, e.begin, len(list)-e.begin):]
}

// crlExtensions encodes the extensions of the list.
func (i *Issuer) crlExtensions(c CRL) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, crlAuthorityKeyID, false, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(tag.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(i.certificate.SubjectKeyId) })
				})
			})
			addExtension(b, crlNumber, false, func(b *cryptobyte.Builder) { b.AddASN1BigInt(c.Number) })
			if c.Base != nil {
				addExtension(b, deltaCRLIndicator, true, func(b *cryptobyte.Builder) { b.AddASN1BigInt(c.Base) })
			}
			if c.DistributionPoint != "" {
				addExtension(b, issuingDistributionPoint, true, func(b *cryptobyte.Builder) { addDistributionPoint(b, c.DistributionPoint) })
			}
			if c.FreshestURL != "" {
				addExtension(b, freshestCRL, false, func(b *cryptobyte.Builder) {
					b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { addDistributionPoint(b, c.FreshestURL) })
				})
			}
		})
	})
	return b.Bytes()
}

// addExtension adds an Extension (RFC 5280, section 4.1).
func addExtension(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool, value cryptobyte.BuilderContinuation) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(tag.OCTET_STRING, value)
	})
}

// addDistributionPoint adds a DistributionPoint or an IssuingDistributionPoint with one URI as full name and nothing else, which
// are the same octets (RFC 5280, sections 4.2.1.13 and 5.2.5).
func addDistributionPoint(b *cryptobyte.Builder, uri string) {
	zero := explicit(0)
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(zero, func(b *cryptobyte.Builder) { // distributionPoint
			b.AddASN1(zero, func(b *cryptobyte.Builder) { // fullName
				b.AddASN1(tag.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(uri)) })
			})
		})
	})
}

// appendEntry adds an element of revokedCertificates. When it fails, the octets behind b are worth nothing.
func appendEntry(b []byte, r Revoked, delta bool) ([]byte, error) {
	at := wholeSecond(r.At)
	switch {
	case r.At.IsZero():
		return nil, fmt.Errorf("revocation date of %s is missing", r.Serial)
	case !validTime(at):
		return nil, fmt.Errorf("revocation date of %s is out of range", r.Serial)
	case !validReason(r.Reason, delta):
		return nil, fmt.Errorf("reason %d of %s is not one of such a CRL", r.Reason, r.Serial)
	}
	begin := len(b)
	b = append(b, 0x30, 0, 0x02, 0)
	var scratch [maxSerialOctets]byte
	serial, err := appendSerial(scratch[:0], r.Serial)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", r.Serial, err)
	}
	if serial[0] >= 0x80 {
		b = append(b, 0)
	}
	b = append(b, serial...)
	b[begin+3] = byte(len(b) - begin - 4)
	b = appendTime(b, at)

	if r.Reason != 0 || !r.InvalidityDate.IsZero() {
		extensions := len(b)
		b = append(b, 0x30, 0)
		if !r.InvalidityDate.IsZero() {
			date := wholeSecond(r.InvalidityDate)
			if !validTime(date) {
				return nil, fmt.Errorf("invalidity date of %s is out of range", r.Serial)
			}
			b = append(b, invalidityDatePrefix...)
			b = appendGeneralizedTime(b, date)
		}
		if r.Reason != 0 {
			b = append(b, reasonCodePrefix...)
			b = append(b, byte(r.Reason))
		}
		b[extensions+1] = byte(len(b) - extensions - 2)
	}
	b[begin+1] = byte(len(b) - begin - 2)
	return b, nil
}

// validTime reports whether t can be written: UTCTime begins in 1950, GeneralizedTime ends with 9999.
func validTime(t time.Time) bool { return t.Year() >= 1950 && t.Year() <= 9999 }

// appendTime adds a Time: UTCTime through 2049, GeneralizedTime from then on (RFC 5280, section 5.1.2.4). t is in UTC and valid.
func appendTime(b []byte, t time.Time) []byte {
	if t.Year() >= 2050 {
		return appendGeneralizedTime(b, t)
	}
	return t.AppendFormat(append(b, 0x17, 13), "060102150405Z")
}

func appendGeneralizedTime(b []byte, t time.Time) []byte {
	return t.AppendFormat(append(b, 0x18, 15), "20060102150405Z")
}

// putHeader writes the tag of a SEQUENCE and its length before b[at:] and returns where they begin.
func putHeader(b []byte, at, length int) int {
	end := at
	if length < 0x80 {
		at--
		b[at] = byte(length)
	} else {
		for ; length > 0; length >>= 8 {
			at--
			b[at] = byte(length)
		}
		octets := end - at
		at--
		b[at] = 0x80 | byte(octets)
	}
	at--
	b[at] = 0x30
	return at
}

// maxSignature is how many octets a signature has at most.
func maxSignature(pub crypto.PublicKey) int {
	if k, ok := pub.(*rsa.PublicKey); ok {
		return k.Size()
	}
	return 2*(66+3) + 3 // ECDSA on P-521: two INTEGERs in a SEQUENCE
}
