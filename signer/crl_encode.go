package signer

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// maxHeader is the longest header of a DER element below 4 GiB.
const maxHeader = 6

// prefixed is DER that grows at its end, and in front as long as there is room: the header of an element is known last.
type prefixed struct {
	data  []byte
	start int
}

func newPrefixed(room int) *prefixed {
	return &prefixed{data: make([]byte, room, room+4096), start: room}
}

func (p *prefixed) bytes() []byte { return p.data[p.start:] }

func (p *prefixed) prepend(b []byte) {
	p.start -= len(b)
	copy(p.data[p.start:], b)
}

// header makes everything so far the content of an element.
func (p *prefixed) header(tag asn1.Tag) {
	n := len(p.data) - p.start
	if n < 0x80 {
		p.prepend([]byte{byte(tag), byte(n)})
		return
	}
	header := []byte{byte(tag), 0}
	for shift := 24; shift >= 0; shift -= 8 {
		if n>>shift > 0 {
			header = append(header, byte(n>>shift))
		}
	}
	header[1] = 0x80 | byte(len(header)-2)
	p.prepend(header)
}

// head is version, signature, issuer, thisUpdate and nextUpdate of the TBSCertList (RFC 5280, section 5.1).
func (c CRL) head(i *Issuer) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1Int64(1) // v2
	b.AddBytes(i.algorithm.identifier())
	b.AddBytes(i.certificate.RawSubject)
	b.AddBytes(appendTime(nil, c.ThisUpdate))
	b.AddBytes(appendTime(nil, c.NextUpdate))
	return b.Bytes()
}

// appendTime writes a Time: UTCTime until 2049, then GeneralizedTime (RFC 5280, section 5.1.2.4).
func appendTime(b []byte, t time.Time) []byte {
	t = wholeSecond(t)
	if t.Year() < 2050 {
		return t.AppendFormat(append(b, byte(asn1.UTCTime), 13), "060102150405Z")
	}
	return appendGeneralizedTime(b, t)
}

func appendGeneralizedTime(b []byte, t time.Time) []byte {
	return wholeSecond(t).AppendFormat(append(b, byte(asn1.GeneralizedTime), 15), "20060102150405Z")
}

// appendEntry writes one of revokedCertificates. It is never longer than 127 octets, so that each length is one octet.
func (c CRL) appendEntry(b []byte, e Revoked) ([]byte, error) {
	if err := c.checkEntry(e); err != nil {
		return nil, err
	}
	start := len(b)
	b = append(b, byte(asn1.SEQUENCE), 0)
	b, err := appendSerial(b, e.Serial)
	if err != nil {
		return nil, fmt.Errorf("serial number %q: %w", e.Serial, err)
	}
	b = appendTime(b, e.At)
	if e.Reason != 0 || !e.InvalidityDate.IsZero() {
		extensions := len(b)
		b = append(b, byte(asn1.SEQUENCE), 0)
		if e.Reason != 0 { // reasonCode: 2.5.29.21, ENUMERATED
			b = append(b, 0x30, 10, 0x06, 3, 0x55, 0x1d, 21, 0x04, 3, byte(asn1.ENUM), 1, byte(e.Reason))
		}
		if !e.InvalidityDate.IsZero() { // invalidityDate: 2.5.29.24, GeneralizedTime
			b = appendGeneralizedTime(append(b, 0x30, 24, 0x06, 3, 0x55, 0x1d, 24, 0x04, 17), e.InvalidityDate)
		}
		b[extensions+1] = byte(len(b) - extensions - 2)
	}
	b[start+1] = byte(len(b) - start - 2)
	return b, nil
}

// appendSerial writes an INTEGER out of the form that [Draft.Serial] has, without a big.Int for each.
func appendSerial(b []byte, s string) ([]byte, error) {
	if s == "" || len(s) > 2*maxSerialOctets || s[0] == '0' {
		return nil, errors.New("it is empty, too long, or has a leading zero")
	}
	start := len(b)
	b = append(b, byte(asn1.INTEGER), 0)
	digit := func(c byte) (byte, bool) {
		switch {
		case c >= '0' && c <= '9':
			return c - '0', true
		case c >= 'a' && c <= 'f':
			return c - 'a' + 10, true
		}
		return 0, false
	}
	first, ok := digit(s[0])
	if !ok {
		return nil, errors.New("it is not lower-case hex")
	}
	if len(s)%2 == 0 && first >= 8 {
		b = append(b, 0) // it is positive
	}
	var high byte
	for i := range len(s) {
		d, ok := digit(s[i])
		if !ok {
			return nil, errors.New("it is not lower-case hex")
		}
		if (len(s)-i)%2 == 0 {
			high = d << 4
			continue
		}
		b = append(b, high|d)
	}
	length := len(b) - start - 2
	if length > maxSerialOctets {
		return nil, fmt.Errorf("it does not fit %d octets as a positive INTEGER", maxSerialOctets)
	}
	b[start+1] = byte(length)
	return b, nil
}

// extensions are the crlExtensions (RFC 5280, section 5.2).
func (c CRL) extensions(authority []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, 35, false, func(b *cryptobyte.Builder) { // authorityKeyIdentifier
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(authority) })
				})
			})
			addExtension(b, 20, false, func(b *cryptobyte.Builder) { b.AddASN1BigInt(c.Number) }) // cRLNumber
			if c.Base != nil {
				addExtension(b, 27, true, func(b *cryptobyte.Builder) { b.AddASN1BigInt(c.Base) }) // deltaCRLIndicator
			}
			if c.DistributionPoint != "" {
				addExtension(b, 28, true, func(b *cryptobyte.Builder) { // issuingDistributionPoint
					addDistributionPoint(b, c.DistributionPoint)
				})
			}
			if c.FreshestURL != "" {
				addExtension(b, 46, false, func(b *cryptobyte.Builder) { // freshestCRL
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addDistributionPoint(b, c.FreshestURL) })
				})
			}
		})
	})
	return b.Bytes()
}

// addExtension writes an Extension below id-ce, 2.5.29.
func addExtension(b *cryptobyte.Builder, id byte, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes([]byte{0x06, 3, 0x55, 0x1d, id})
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(asn1.OCTET_STRING, value)
	})
}

// addDistributionPoint writes a sequence whose distributionPoint is a URL: DistributionPoint and
// IssuingDistributionPoint begin alike.
func addDistributionPoint(b *cryptobyte.Builder, url string) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { // distributionPoint
			b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { // fullName
				b.AddASN1(asn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
			})
		})
	})
}
