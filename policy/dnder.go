package policy

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// DNFromDER reads the DER of a Name, such as the subject of a CSR, attribute by attribute: no value is ever read as
// part of a string form. Every string type of X.520 is understood; attribute types without a name keep their OID.
// The error is a [*Violation].
func DNFromDER(der []byte) (DN, error) {
	var name []rawRDNSET
	rest, err := asn1.Unmarshal(der, &name)
	if err != nil {
		return DN{}, violation("subject is not the DER encoding of a Name")
	}
	if len(rest) > 0 {
		return DN{}, violation("subject is followed by other data")
	}
	var reasons []string
	var rdns pkix.RDNSequence
	for _, raw := range name {
		if len(raw) == 0 {
			reasons = append(reasons, "subject has an empty relative distinguished name")
		}
		var rdn pkix.RelativeDistinguishedNameSET
		for _, a := range raw {
			value, err := decodeString(a.Value)
			if err != nil {
				reasons = append(reasons, fmt.Sprintf("%s %v", attributeName(a.Type), err))
			}
			rdn = append(rdn, pkix.AttributeTypeAndValue{Type: a.Type, Value: value})
		}
		rdns = append(rdns, rdn)
	}
	if err := violation(reasons...); err != nil {
		return DN{}, err
	}
	return newDN(rdns)
}

// DER encodes the name (RFC 5280, section 4.1.2.4): PrintableString where its alphabet suffices and UTF8String
// otherwise; IA5String for emailAddress and domainComponent.
func (d DN) DER() ([]byte, error) {
	name := make(pkix.RDNSequence, len(d.rdns))
	for i, rdn := range d.rdns {
		for _, a := range rdn {
			value := encodeString(typeOf(a.Type), a.Value.(string))
			name[i] = append(name[i], pkix.AttributeTypeAndValue{Type: a.Type, Value: value})
		}
	}
	der, err := asn1.Marshal(name)
	if err != nil {
		return nil, fmt.Errorf("encode name: %w", err)
	}
	return der, nil
}

// rawRDNSET is a RelativeDistinguishedName; the suffix makes encoding/asn1 read a SET.
type rawRDNSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// Tags that encoding/asn1 does not name (X.680, table 1).
const (
	tagVisibleString   = 26
	tagUniversalString = 28
)

var (
	errNotString = errors.New("is not a character string")
	errMalformed = errors.New("is not valid in its string type")
)

// decodeString returns the text of any ASN.1 string type. T61String is read as ISO 8859-1: that is what those who
// write it mean.
func decodeString(v asn1.RawValue) (string, error) {
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		return "", errNotString
	}
	switch v.Tag {
	case asn1.TagUTF8String:
		if !utf8.Valid(v.Bytes) {
			return "", errMalformed
		}
		return string(v.Bytes), nil
	case asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString, tagVisibleString:
		if !isASCII(string(v.Bytes)) {
			return "", errMalformed
		}
		return string(v.Bytes), nil
	case asn1.TagT61String:
		return decodeUnits(v.Bytes, 1)
	case asn1.TagBMPString:
		return decodeUnits(v.Bytes, 2)
	case tagUniversalString:
		return decodeUnits(v.Bytes, 4)
	}
	return "", errNotString
}

// decodeUnits reads big-endian code points of the given width in octets. Pairs of surrogates are read too: they are
// not allowed in a BMPString, and common.
func decodeUnits(octets []byte, width int) (string, error) {
	if len(octets)%width != 0 {
		return "", errMalformed
	}
	var runes []rune
	for ; len(octets) > 0; octets = octets[width:] {
		var r uint32
		for _, o := range octets[:width] {
			r = r<<8 | uint32(o)
		}
		c := rune(r)
		if n := len(runes); width == 2 && n > 0 && utf16.IsSurrogate(runes[n-1]) {
			c = utf16.DecodeRune(runes[n-1], c)
			runes = runes[:n-1]
		}
		runes = append(runes, c)
	}
	for _, r := range runes {
		if !utf8.ValidRune(r) || r == utf8.RuneError {
			return "", errMalformed
		}
	}
	return string(runes), nil
}

// encodeString returns the value of an attribute in the string type that RFC 5280, section 4.1.2.4, asks for.
func encodeString(t attributeType, value string) asn1.RawValue {
	tag := asn1.TagUTF8String
	switch {
	case t.syntax == ia5String:
		tag = asn1.TagIA5String
	case t.syntax == printableString || isPrintable(value):
		tag = asn1.TagPrintableString
	}
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: tag, Bytes: []byte(value)}
}
