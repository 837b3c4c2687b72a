package policy

import (
	"encoding/asn1"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// attributeType is what a distinguished name may contain: the names under which ParseDN knows the type, the first
// being the one that String writes, the most characters a value may have, and the string types it may be encoded in.
type attributeType struct {
	oid    asn1.ObjectIdentifier
	names  []string
	limit  int
	syntax syntax
}

// syntax is the ASN.1 type of an attribute's value.
type syntax int

const (
	directoryString syntax = iota // PrintableString or UTF8String, whichever suffices
	printableString
	ia5String
)

// otherLimit bounds the values for which RFC 5280 has either no upper bound or 32768 characters.
const otherLimit = 256

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
var oidCountry = asn1.ObjectIdentifier{2, 5, 4, 6}

// attributeTypes has the names of RFC 4514, section 3, RFC 4519, and OpenSSL; the upper bounds of RFC 5280, appendix
// A, where it has any, and of X.520 for streetAddress, businessCategory and postalCode (there ub-postal-code of
// RFC 5280's ORAddress is stricter, and linters apply it).
var attributeTypes = []attributeType{
	{oidCommonName, []string{"CN", "commonName"}, maxCommonName, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 10}, []string{"O", "organizationName"}, 64, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 11}, []string{"OU", "organizationalUnitName"}, 64, directoryString},
	{oidCountry, []string{"C", "countryName"}, 2, printableString},
	{asn1.ObjectIdentifier{2, 5, 4, 8}, []string{"ST", "S", "stateOrProvinceName"}, 128, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 7}, []string{"L", "localityName"}, 128, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 9}, []string{"STREET", "streetAddress"}, 128, directoryString},
	{asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, []string{"DC", "domainComponent"}, otherLimit, ia5String},
	{asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, []string{"UID", "userId"}, otherLimit, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 5}, []string{"serialNumber"}, 64, printableString},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, []string{"emailAddress", "E", "EMAIL"}, 255, ia5String},
	{asn1.ObjectIdentifier{2, 5, 4, 42}, []string{"GN", "givenName"}, otherLimit, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 4}, []string{"SN", "surname"}, otherLimit, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 12}, []string{"title", "T"}, 64, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 17}, []string{"postalCode"}, 16, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 15}, []string{"businessCategory"}, 128, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 43}, []string{"initials"}, otherLimit, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 44}, []string{"generationQualifier"}, otherLimit, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 65}, []string{"pseudonym"}, 128, directoryString},
	{asn1.ObjectIdentifier{2, 5, 4, 46}, []string{"dnQualifier"}, otherLimit, printableString},
	{asn1.ObjectIdentifier{2, 5, 4, 97}, []string{"organizationIdentifier"}, otherLimit, directoryString},
}

// typeOf returns the type of the OID; types that are not in the table have no names and the general limit.
func typeOf(oid asn1.ObjectIdentifier) attributeType {
	for _, t := range attributeTypes {
		if t.oid.Equal(oid) {
			return t
		}
	}
	return attributeType{oid: oid, limit: otherLimit}
}

// attributeName returns the name of the OID for a person: the short name, or the dotted form.
func attributeName(oid asn1.ObjectIdentifier) string {
	if t := typeOf(oid); len(t.names) > 0 {
		return t.names[0]
	}
	return oid.String()
}

// lookUpAttribute finds an attribute type by its name, in any case, or by its dotted OID.
func lookUpAttribute(name string) (asn1.ObjectIdentifier, bool) {
	for _, t := range attributeTypes {
		for _, n := range t.names {
			if strings.EqualFold(n, name) {
				return t.oid, true
			}
		}
	}
	return parseOID(name)
}

// parseOID reads a dotted OID (RFC 4512, section 1.4). Arcs beyond 31 bits are refused, as encoding/asn1 does.
func parseOID(s string) (asn1.ObjectIdentifier, bool) {
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || arc != strconv.FormatUint(n, 10) {
			return nil, false
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 2 || oid[0] > 2 || oid[0] < 2 && oid[1] >= 40 || oid[1] > math.MaxInt32-80 {
		return nil, false
	}
	return oid, true
}

// checkAttribute returns the value in its proper form, or why it is not acceptable.
func checkAttribute(oid asn1.ObjectIdentifier, value string) (proper, reason string) {
	t := typeOf(oid)
	name := attributeName(oid)
	switch {
	case strings.TrimSpace(value) == "":
		return "", name + " must not be empty"
	case checkVisible(value) != "":
		return "", fmt.Sprintf("%s %s %s", name, quote(value), checkVisible(value))
	case oid.Equal(oidCountry):
		if len(value) != 2 || !isLetter(value[0]) || !isLetter(value[1]) {
			return "", fmt.Sprintf("C %s must be a country code of two letters (ISO 3166)", quote(value))
		}
		return strings.ToUpper(value), ""
	case utf8.RuneCountInString(value) > t.limit:
		return "", fmt.Sprintf("%s %s has more than %d characters", name, quote(value), t.limit)
	case t.syntax == printableString && !isPrintable(value):
		return "", fmt.Sprintf("%s %s must have only letters, digits, spaces and '()+,-./:=?", name, quote(value))
	case t.syntax == ia5String && !isASCII(value):
		return "", fmt.Sprintf("%s %s must have only ASCII characters: write a domain as A-labels (xn--)", name, quote(value))
	}
	return value, ""
}

// isPrintable reports whether the alphabet of PrintableString suffices (X.680, section 41.4).
func isPrintable(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte(" '()+,-./:=?", s[i]) < 0 {
			return false
		}
	}
	return true
}
