package signer

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// The leaves of one CA differ in serial number, dates, key, and the text of their names, and in nothing else that a lint
// looks at. So the lints of a certificate are those of its shape, which is all of it but those, as long as those are
// plain: such that no lint has anything to say of them. A shape that passed all lints is remembered, and a plain
// certificate of that shape passes. Everything else is linted: what is not plain, what has a new shape, every CA, and
// one in [relinted] of the others. A certificate is only ever refused for what the lints themselves said of it.

const (
	relinted  = 64
	maxShapes = 1024 // of less than 2 KiB each
	maxShape  = 2048 // octets
)

// verdicts are the shapes that passed.
type verdicts struct {
	mu   sync.Mutex
	seen map[string]int // how often they did
}

var passed = verdicts{seen: map[string]int{}}

// pass reports whether the shape has passed and it is not time to look again.
func (v *verdicts) pass(shape []byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.seen[string(shape)]
	if n == 0 || n%relinted == 0 {
		return false
	}
	v.seen[string(shape)] = n + 1
	return true
}

// learn is told what the lints said of a plain certificate of the shape.
func (v *verdicts) learn(shape []byte, clean bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !clean {
		delete(v.seen, string(shape))
		return
	}
	if _, known := v.seen[string(shape)]; !known && len(v.seen) >= maxShapes {
		clear(v.seen)
	}
	v.seen[string(shape)]++
}

// newestLint is the last date from or until which a lint applies, by notBefore.
var newestLint = sync.OnceValue(func() time.Time {
	var newest time.Time
	for _, l := range lints() {
		for _, date := range []time.Time{l.EffectiveDate, l.IneffectiveDate} {
			if date.After(newest) {
				newest = date
			}
		}
	}
	return newest
})

// appendShape adds the shape of a plain certificate to b. Any other one has none.
func appendShape(b []byte, c *x509.Certificate) (shape []byte, plain bool) {
	if c.IsCA || c.NotBefore.Before(newestLint()) || c.NotAfter.Before(c.NotBefore) {
		return nil, false
	}
	in, outer, tbs := cryptobyte.String(c.Raw), cryptobyte.String(nil), cryptobyte.String(nil)
	if !in.ReadASN1(&outer, tag.SEQUENCE) || !outer.ReadASN1(&tbs, tag.SEQUENCE) {
		return nil, false
	}
	s := shaper{b: b, in: &tbs}
	s.keep(tag.Tag(0).ContextSpecific().Constructed()) // version
	s.serial()
	s.keep(tag.SEQUENCE) // signature
	s.keep(tag.SEQUENCE) // issuer
	s.validity()
	s.subject()
	s.key(c)
	s.extensions()
	s.in = &outer
	s.keep(tag.SEQUENCE) // signatureAlgorithm
	return s.b, !s.odd && tbs.Empty() && len(s.b) <= maxShape
}

// shaper reads a TBSCertificate (RFC 5280, section 4.1) and keeps what belongs to the shape.
type shaper struct {
	b   []byte
	in  *cryptobyte.String
	odd bool // something is not plain
}

// keep adds the next element as it is.
func (s *shaper) keep(t tag.Tag) {
	var element cryptobyte.String
	s.need(s.in.ReadASN1Element(&element, t))
	s.b = append(s.b, element...)
}

func (s *shaper) need(ok bool) { s.odd = s.odd || !ok }

// serial wants a positive number of at most 20 octets.
func (s *shaper) serial() {
	var n cryptobyte.String
	s.need(s.in.ReadASN1(&n, tag.INTEGER) && len(n) > 0 && len(n) <= maxSerialOctets && n[0] < 0x80 &&
		strings.Trim(string(n), "\x00") != "")
}

// validity wants dates before 2050, in seconds and UTC.
func (s *shaper) validity() {
	var dates, date cryptobyte.String
	s.need(s.in.ReadASN1(&dates, tag.SEQUENCE))
	for range 2 {
		s.need(dates.ReadASN1(&date, tag.UTCTime) && len(date) == len("YYMMDDhhmmssZ") && date[len(date)-1] == 'Z')
	}
	s.need(dates.Empty())
}

// subject keeps the types of the attributes, and wants each alone in its RDN and its text plain.
func (s *shaper) subject() {
	var name, rdn, attribute, oid, text cryptobyte.String
	var kind tag.Tag
	s.need(s.in.ReadASN1(&name, tag.SEQUENCE))
	for !name.Empty() && !s.odd {
		s.need(name.ReadASN1(&rdn, tag.SET) && rdn.ReadASN1(&attribute, tag.SEQUENCE) && rdn.Empty() &&
			attribute.ReadASN1Element(&oid, tag.OBJECT_IDENTIFIER) && attribute.ReadAnyASN1(&text, &kind) && attribute.Empty() &&
			plainAttribute(string(oid), kind, string(text)))
		s.b = append(append(s.b, oid...), byte(kind))
	}
	s.b = append(s.b, 0)
}

// plainAttribute knows countryName, localityName, stateOrProvinceName, organizationName, organizationalUnitName and
// commonName (X.520) of at most 64 characters.
func plainAttribute(oid string, kind tag.Tag, text string) bool {
	also := ""
	switch kind {
	case tag.PrintableString:
	case tag.UTF8String:
		also = "*@_"
	default:
		return false
	}
	const oidCountry = "\x06\x03\x55\x04\x06"
	switch oid {
	case oidCountry:
		return kind == tag.PrintableString && len(text) == 2 && isText(text, "")
	case "\x06\x03\x55\x04\x03", "\x06\x03\x55\x04\x07", "\x06\x03\x55\x04\x08", "\x06\x03\x55\x04\x0a", "\x06\x03\x55\x04\x0b":
		return text != "" && len(text) <= 64 && isText(text, " '()+,-./:=?"+also)
	}
	return false
}

// isText reports whether s has letters and digits of ASCII only, and what else is allowed.
func isText(s, also string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(also, c) < 0 {
			return false
		}
	}
	return true
}

// key keeps algorithm, size and, for RSA, exponent: what of a key lints look at.
func (s *shaper) key(c *x509.Certificate) {
	var info, bits cryptobyte.String
	s.need(s.in.ReadASN1(&info, tag.SEQUENCE))
	outside := s.in
	s.in = &info
	s.keep(tag.SEQUENCE)
	s.in = outside
	s.need(info.ReadASN1(&bits, tag.BIT_STRING) && info.Empty())
	s.b = binary.BigEndian.AppendUint16(s.b, uint16(len(bits)))
	if k, ok := c.PublicKey.(*rsa.PublicKey); ok {
		s.b = binary.BigEndian.AppendUint64(s.b, uint64(k.E))
		s.b = binary.BigEndian.AppendUint16(s.b, uint16(k.N.BitLen()))
	}
}

// extensions keeps them all, but of the subject key identifier only that it is one of 20 octets, and of the subject
// alternative name which kinds of names there are.
func (s *shaper) extensions() {
	const ski, san = "\x06\x03\x55\x1d\x0e", "\x06\x03\x55\x1d\x11"
	var wrapped, list, extension, whole, oid, value cryptobyte.String
	s.need(s.in.ReadASN1(&wrapped, explicit(3)) && wrapped.ReadASN1(&list, tag.SEQUENCE) && wrapped.Empty())
	for !list.Empty() && !s.odd {
		s.need(list.ReadASN1Element(&whole, tag.SEQUENCE))
		body := whole
		s.need(body.ReadASN1(&extension, tag.SEQUENCE) && extension.ReadASN1Element(&oid, tag.OBJECT_IDENTIFIER))
		if id := string(oid); id != ski && id != san {
			s.b = append(s.b, whole...)
			continue
		}
		s.b = append(s.b, oid...)
		if extension.PeekASN1Tag(tag.BOOLEAN) {
			var critical cryptobyte.String
			s.need(extension.ReadASN1Element(&critical, tag.BOOLEAN))
			s.b = append(s.b, critical...)
		}
		s.need(extension.ReadASN1(&value, tag.OCTET_STRING) && extension.Empty())
		if string(oid) == ski {
			s.need(len(value) == 22 && value[0] == 0x04 && value[1] == 20)
		} else {
			s.names(value)
		}
	}
}

// names keeps which kinds of GeneralName there are, and wants each name plain.
func (s *shaper) names(value cryptobyte.String) {
	var list, name cryptobyte.String
	var kind tag.Tag
	var kinds byte
	s.need(value.ReadASN1(&list, tag.SEQUENCE) && value.Empty() && !list.Empty())
	for !list.Empty() && !s.odd {
		s.need(list.ReadAnyASN1(&name, &kind))
		switch kind {
		case tag.Tag(1).ContextSpecific():
			s.need(isPlainMailbox(string(name)))
		case tag.Tag(2).ContextSpecific():
			s.need(isPlainHost(strings.TrimPrefix(string(name), "*.")))
		case tag.Tag(7).ContextSpecific():
			s.need(len(name) == 4 || len(name) == 16)
		default:
			s.odd = true
		}
		kinds |= 1 << (kind & 7)
	}
	s.b = append(s.b, kinds)
}

// isPlainHost reports whether s is a host name without underscores, A-labels and what looks like one.
func isPlainHost(s string) bool {
	if !isHostName(s) || strings.Contains(s, "_") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) >= 4 && label[2:4] == "--" {
			return false
		}
	}
	return true
}

// isPlainMailbox reports whether s is a dot-atom of the most usual characters at a plain host.
func isPlainMailbox(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && len(local) <= 64 && isPlainHost(domain) && isText(local, ".+-_") && !strings.HasPrefix(local, ".") &&
		!strings.HasSuffix(local, ".") && !strings.Contains(local, "..") && local != ""
}
