package policy

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
)

// dnParser reads the string form of a name from left to right. It is strict where go-ldap's parser is generous: no
// escapes in types, no ';' between RDNs; and it reads quoted values, which that refuses.
type dnParser struct {
	s       string
	pos     int
	unknown []string // reasons for unknown attribute types, collected so that all are told at once
}

func (p *dnParser) parse() (rdns pkix.RDNSequence, reason string) {
	var rdn pkix.RelativeDistinguishedNameSET
	for {
		a, reason := p.attribute()
		if reason != "" {
			return nil, reason
		}
		rdn = append(rdn, a)
		if p.peek() != '+' {
			rdns, rdn = append(rdns, rdn), nil
		}
		if p.done() {
			return rdns, ""
		}
		p.pos++ // the separator that ended the value
	}
}

func (p *dnParser) attribute() (a pkix.AttributeTypeAndValue, reason string) {
	end := strings.IndexAny(p.s[p.pos:], "=,+")
	if end < 0 || p.s[p.pos+end] != '=' {
		rest := p.s[p.pos:]
		if end >= 0 {
			rest = rest[:end]
		}
		return a, fmt.Sprintf("%s is not of the form type=value; a comma or plus sign in a value is written with a backslash", quote(strings.Trim(rest, " ")))
	}
	name := strings.Trim(p.s[p.pos:p.pos+end], " ")
	p.pos += end + 1
	oid, known := lookUpAttribute(name)
	if !known {
		p.unknown = append(p.unknown, "unknown attribute type "+quote(name))
	}
	value, reason := p.value()
	return pkix.AttributeTypeAndValue{Type: oid, Value: value}, reason
}

func (p *dnParser) value() (value, reason string) {
	p.skipSpaces()
	switch p.peek() {
	case '"':
		value, reason = p.quoted()
	case '#':
		value, reason = p.hex()
	default:
		return p.plain()
	}
	if reason != "" {
		return "", reason
	}
	p.skipSpaces()
	if c := p.peek(); !p.done() && c != ',' && c != '+' {
		return "", "something other than a comma or plus sign follows the value " + quote(value)
	}
	return value, ""
}

// plain reads a value up to an unescaped separator. Spaces at its end do not count unless they are escaped.
func (p *dnParser) plain() (value, reason string) {
	var b strings.Builder
	spaces := 0
	for ; !p.done(); p.pos++ {
		c := p.s[p.pos]
		switch c {
		case ',', '+':
			return b.String(), ""
		case ' ':
			spaces++
			continue
		case '"', ';', '<', '>':
			return "", fmt.Sprintf("%q in a value is written with a backslash", c)
		}
		b.WriteString(strings.Repeat(" ", spaces))
		spaces = 0
		if c == '\\' {
			if c, reason = p.escaped(); reason != "" {
				return "", reason
			}
		}
		b.WriteByte(c)
	}
	return b.String(), ""
}

// quoted reads a value in quotes, in which only quotes and backslashes are special (RFC 2253, section 4).
func (p *dnParser) quoted() (value, reason string) {
	var b strings.Builder
	for p.pos++; !p.done(); p.pos++ {
		c := p.s[p.pos]
		switch c {
		case '"':
			p.pos++
			return b.String(), ""
		case '\\':
			if c, reason = p.escaped(); reason != "" {
				return "", reason
			}
		}
		b.WriteByte(c)
	}
	return "", "a quote is not closed"
}

// escaped reads what follows a backslash, a special character or two hex digits, and leaves the position at its end.
func (p *dnParser) escaped() (c byte, reason string) {
	rest := p.s[p.pos+1:]
	if rest != "" && strings.IndexByte(`,+"\<>;=# `, rest[0]) >= 0 {
		p.pos++
		return rest[0], ""
	}
	if len(rest) >= 2 {
		if octet, err := hex.DecodeString(rest[:2]); err == nil {
			p.pos += 2
			return octet[0], ""
		}
	}
	return 0, "a backslash must be followed by a special character or two hex digits"
}

// hex reads the BER encoding of a value after '#' (RFC 4514, section 2.4).
func (p *dnParser) hex() (value, reason string) {
	p.pos++
	end := strings.IndexAny(p.s[p.pos:], ",+ ")
	if end < 0 {
		end = len(p.s) - p.pos
	}
	digits := p.s[p.pos : p.pos+end]
	p.pos += end
	var raw asn1.RawValue
	der, err := hex.DecodeString(digits)
	if err == nil {
		der, err = asn1.Unmarshal(der, &raw)
	}
	if err != nil || len(der) > 0 {
		return "", fmt.Sprintf("#%s is not the hex form of one encoded value", clip(digits))
	}
	value, err = decodeString(raw)
	if err != nil {
		return "", fmt.Sprintf("#%s %v", clip(digits), err)
	}
	return value, ""
}

func (p *dnParser) skipSpaces() {
	for p.peek() == ' ' {
		p.pos++
	}
}

func (p *dnParser) done() bool { return p.pos >= len(p.s) }

// peek returns the next octet, or 0 at the end; the string itself has no NUL.
func (p *dnParser) peek() byte {
	if p.done() {
		return 0
	}
	return p.s[p.pos]
}

// writeAttribute writes type=value. A type without a name has its value in hex (RFC 4514, section 2.4).
func writeAttribute(b *strings.Builder, oid asn1.ObjectIdentifier, value string) {
	b.WriteString(attributeName(oid))
	b.WriteByte('=')
	if t := typeOf(oid); len(t.names) == 0 {
		der, _ := asn1.Marshal(encodeString(t, value)) // a primitive value always encodes
		b.WriteByte('#')
		b.WriteString(hex.EncodeToString(der))
		return
	}
	for i := range len(value) {
		c := value[i]
		switch {
		case strings.IndexByte(`,+"\<>;=`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(value)-1):
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
}
