package policy_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"signet/policy"
)

// unhex reads hex in which spaces show the structure.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// tlv encodes a tag, a length and a value.
func tlv(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	length := []byte{byte(len(content))}
	switch n := len(content); {
	case n > 0xff:
		length = []byte{0x82, byte(n >> 8), byte(n)}
	case n > 0x7f:
		length = []byte{0x81, byte(n)}
	}
	return append(append([]byte{tag}, length...), content...)
}

func name(rdns ...[]byte) []byte      { return tlv(0x30, rdns...) }
func rdn(attributes ...[]byte) []byte { return tlv(0x31, attributes...) }
func attr(oid, value []byte) []byte   { return tlv(0x30, tlv(0x06, oid), value) }
func text(tag byte, s string) []byte  { return tlv(tag, []byte(s)) }
func only(oid, value []byte) []byte   { return name(rdn(attr(oid, value))) }
func cnOf(tag byte, s string) []byte  { return only(oidCN, text(tag, s)) }
func two(a, b []byte) []byte          { return append(bytes.Clone(a), b...) }

var (
	oidCN, oidO, oidOU, oidC = []byte{0x55, 4, 3}, []byte{0x55, 4, 10}, []byte{0x55, 4, 11}, []byte{0x55, 4, 6}
	oidEmail                 = unhex("2a864886f70d010901")
)

const utf8String, numericString, printableString, t61String, ia5String, visibleString, universalString, bmpString = 12, 18, 19, 20, 22, 26, 28, 30

func TestDNFromDERRefuses(t *testing.T) {
	t.Parallel()
	const malformed = "subject is not the DER encoding of a Name"
	good := cnOf(utf8String, "x")
	tests := []struct {
		name string
		der  []byte
		want string
	}{
		{"nothing", nil, malformed},
		{"a name cut short", good[:len(good)-1], malformed},
		{"a set instead of a sequence", tlv(0x31), malformed},
		{"a string instead of a sequence", text(utf8String, "CN=x"), malformed},
		{"a sequence of sequences", name(tlv(0x30)), malformed},
		{"a set of nothing but a number", name(rdn(tlv(0x02, []byte{1}))), malformed},
		{"an attribute without value", name(rdn(tlv(0x30, tlv(0x06, oidCN)))), malformed},
		{"an attribute without type", name(rdn(tlv(0x30, text(utf8String, "x"), text(utf8String, "x")))), malformed},
		{"an empty OID", only(nil, text(utf8String, "x")), malformed},
		{"an OID cut short", only([]byte{0x55, 0x84}, text(utf8String, "x")), malformed},
		{"an OID with an arc beyond 31 bits", only(unhex("69 90 80 80 80 00"), text(utf8String, "x")), malformed},
		{"an indefinite length", unhex("3080 0000"), malformed},
		{"a length that is not minimal", two([]byte{0x30, 0x81, byte(len(good) - 2)}, good[2:]), malformed},
		{"a length beyond the end", []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, malformed},
		{"data after the name", two(good, []byte{0}), "subject is followed by other data"},
		{"a second name", two(good, good), "subject is followed by other data"},
		{"an empty RDN", name(rdn()), "subject has an empty relative distinguished name"},
		{"an empty RDN after a good one", name(rdn(attr(oidCN, text(utf8String, "x"))), rdn()), "subject has an empty relative distinguished name"},

		{"a number", only(oidCN, tlv(2, []byte{1})), "CN is not a character string"},
		{"a bit string", only(unhex("55042d"), tlv(3, []byte{0, 1})), "2.5.4.45 is not a character string"},
		{"octets", only(oidCN, text(4, "x")), "CN is not a character string"},
		{"null", only(oidCN, tlv(5)), "CN is not a character string"},
		{"a sequence", only(oidCN, tlv(0x30, text(utf8String, "x"))), "CN is not a character string"},
		{"a string in parts", only(oidCN, tlv(0x2c, text(utf8String, "x"))), "CN is not a character string"},
		{"a tag of the context", only(oidCN, text(0x8c, "x")), "CN is not a character string"},
		{"every wrong type is told", name(rdn(attr(oidCN, tlv(5))), rdn(attr(oidO, tlv(5)))), "CN is not a character string; O is not a character string"},

		{"UTF8String that is not UTF-8", cnOf(utf8String, "\xc3"), "CN is not valid in its string type"},
		{"UTF8String with an encoded surrogate", cnOf(utf8String, "\xed\xa0\x80"), "CN is not valid in its string type"},
		{"UTF8String with an overlong NUL", cnOf(utf8String, "\xc0\x80"), "CN is not valid in its string type"},
		{"PrintableString beyond ASCII", cnOf(printableString, "Z\xfcrich"), "CN is not valid in its string type"},
		{"IA5String beyond ASCII", cnOf(ia5String, "Z\xc3\xbcrich"), "CN is not valid in its string type"},
		{"BMPString of odd length", cnOf(bmpString, "\x00x\x00"), "CN is not valid in its string type"},
		{"BMPString with half a pair", cnOf(bmpString, "\x00x\xd8\x3d"), "CN is not valid in its string type"},
		{"BMPString with the second half only", cnOf(bmpString, "\xde\x00\x00x"), "CN is not valid in its string type"},
		{"BMPString with two first halves", cnOf(bmpString, "\xd8\x3d\xd8\x3d"), "CN is not valid in its string type"},
		{"UniversalString of odd length", cnOf(universalString, "\x00\x00x"), "CN is not valid in its string type"},
		{"UniversalString beyond Unicode", cnOf(universalString, "\x00\x11\x00\x00"), "CN is not valid in its string type"},
		{"UniversalString with a surrogate", cnOf(universalString, "\x00\x00\xd8\x3d"), "CN is not valid in its string type"},
		{"UniversalString of negative numbers", cnOf(universalString, "\xff\xff\xff\xff"), "CN is not valid in its string type"},

		{"an empty value", cnOf(utf8String, ""), "CN must not be empty"},
		{"a blank value", cnOf(printableString, "  "), "CN must not be empty"},
		{"a NUL", cnOf(utf8String, "good.example\x00.evil.example"), `CN "good.example\x00.evil.example" contains a NUL character`},
		{"a NUL in a PrintableString", cnOf(printableString, "a\x00b"), `CN "a\x00b" contains a NUL character`},
		{"a NUL in a BMPString", cnOf(bmpString, "\x00a\x00\x00"), `CN "a\x00" contains a NUL character`},
		{"a line feed", cnOf(utf8String, "a\nb"), `CN "a\nb" contains a control character`},
		{"a C1 control in a T61String", cnOf(t61String, "a\x85b"), `CN "a\u0085b" contains a control character`},
		{"65 characters of CN", cnOf(utf8String, strings.Repeat("x", 65)), `CN "` + strings.Repeat("x", 64) + `…" has more than 64 characters`},
		{"65 characters of a BMPString", cnOf(bmpString, strings.Repeat("\x00x", 65)), `CN "` + strings.Repeat("x", 64) + `…" has more than 64 characters`},
		{"a country of three letters", only(oidC, text(printableString, "USA")), `C "USA" must be a country code of two letters (ISO 3166)`},
		{"an e-mail address beyond ASCII", only(oidEmail, text(utf8String, "ü@example.com")), `emailAddress "ü@example.com" must have only ASCII characters: write a domain as A-labels (xn--)`},
		{"a common name twice in one RDN", name(rdn(attr(oidCN, text(utf8String, "a")), attr(oidCN, text(utf8String, "b")))), "CN occurs twice in one relative distinguished name: separate the two with a comma"},
		{"65 attributes", name(bytes.Repeat(rdn(attr(oidOU, text(utf8String, "x"))), 65)), "subject has 65 attributes: at most 64 are allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := policy.DNFromDER(tt.der)
			if got := reasons(t, err); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if !d.IsEmpty() {
				t.Errorf("a refused name is %q, want the zero value", d)
			}
		})
	}
}

func TestDNFromDERReads(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		der  []byte
		want string
	}{
		{"the empty name", name(), ""},
		{"UTF8String", cnOf(utf8String, "Zürich"), "CN=Zürich"},
		{"PrintableString", cnOf(printableString, "x"), "CN=x"},
		{"PrintableString with an asterisk, as many write it", cnOf(printableString, "*.example.com"), "CN=*.example.com"},
		{"IA5String", only(oidEmail, text(ia5String, "a@example.com")), "emailAddress=a@example.com"},
		{"an e-mail address in the wrong string type", only(oidEmail, text(utf8String, "a@example.com")), "emailAddress=a@example.com"},
		{"NumericString", cnOf(numericString, "12"), "CN=12"},
		{"VisibleString", cnOf(visibleString, "x"), "CN=x"},
		{"T61String is read as Latin-1", cnOf(t61String, "Z\xfcrich"), "CN=Zürich"},
		{"BMPString", cnOf(bmpString, "\x00Z\x00\xfc\x00r"), "CN=Zür"},
		{"BMPString with a pair", cnOf(bmpString, "\xd8\x3d\xde\x00\x00x"), "CN=😀x"},
		{"UniversalString", cnOf(universalString, "\x00\x00\x00Z\x00\x01\xf6\x00"), "CN=Z😀"},
		{"a CN in an O stays in the O", only(oidO, text(utf8String, "x,CN=evil.example")), `O=x\,CN\=evil.example`},
		{"string syntax in a value is text", cnOf(utf8String, `#0c0178\2C"+O=y`), `CN=\#0c0178\\2C\"\+O\=y`},
		{"the order is kept", name(rdn(attr(oidC, text(printableString, "us"))), rdn(attr(oidO, text(utf8String, "y"))), rdn(attr(oidCN, text(utf8String, "x")))), "C=US,O=y,CN=x"},
		{"a multi-valued RDN", name(rdn(attr(oidCN, text(utf8String, "x")), attr(oidOU, text(utf8String, "y")))), "CN=x+OU=y"},
		{"several OUs", name(rdn(attr(oidOU, text(utf8String, "a"))), rdn(attr(oidOU, text(utf8String, "a")))), "OU=a,OU=a"},
		{"an OID without a name", only(unhex("2a0304"), text(utf8String, "ü")), "1.2.3.4=#0c02c3bc"},
		{"64 characters beyond ASCII", cnOf(utf8String, strings.Repeat("é", 64)), "CN=" + strings.Repeat("é", 64)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := policy.DNFromDER(tt.der)
			if got := reasons(t, err); got != "" {
				t.Fatal(got)
			}
			if got := d.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if d.IsEmpty() != (tt.want == "") {
				t.Errorf("IsEmpty is %t", d.IsEmpty())
			}
		})
	}
}

func TestDNToDER(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, dn string
		want     []byte
	}{
		{"PrintableString where it suffices", "CN=x", cnOf(printableString, "x")},
		{"every punctuation of PrintableString", `CN='()\+\,-./:\=? x`, cnOf(printableString, "'()+,-./:=? x")},
		{"UTF8String for an asterisk", "CN=*.example.com", cnOf(utf8String, "*.example.com")},
		{"UTF8String for an at sign", "CN=a@b", cnOf(utf8String, "a@b")},
		{"UTF8String for an ampersand", "O=A & B", only(oidO, text(utf8String, "A & B"))},
		{"UTF8String for an underscore", "O=a_b", only(oidO, text(utf8String, "a_b"))},
		{"UTF8String beyond ASCII", "CN=ü", cnOf(utf8String, "ü")},
		{"PrintableString for C", "C=de", only(oidC, text(printableString, "DE"))},
		{"PrintableString for serialNumber", "serialNumber=HRB 1", only(unhex("550405"), text(printableString, "HRB 1"))},
		{"IA5String for emailAddress", "E=a@b", only(oidEmail, text(ia5String, "a@b"))},
		{"IA5String for DC", "DC=example", only(unhex("0992268993f22c640119"), text(ia5String, "example"))},
		{"a given BMPString becomes UTF8String", "CN=#1e0200fc", cnOf(utf8String, "ü")},
		{"the order of RDNs is that of the string", "CN=x,C=DE", name(rdn(attr(oidCN, text(printableString, "x"))), rdn(attr(oidC, text(printableString, "DE"))))},
		{"a set is in DER order", "OU=y+CN=x", name(rdn(attr(oidCN, text(printableString, "x")), attr(oidOU, text(printableString, "y"))))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			der, err := mustParse(t, tt.dn).DER()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(der, tt.want) {
				t.Errorf("got  %x\nwant %x", der, tt.want)
			}
		})
	}
}

func TestTheEmptyNameIsAnEmptySequence(t *testing.T) {
	t.Parallel()
	der, err := policy.DN{}.DER()
	if err != nil || !bytes.Equal(der, []byte{0x30, 0}) {
		t.Errorf("got %x, %v", der, err)
	}
	if s := (policy.DN{}).String(); s != "" {
		t.Errorf("got %q", s)
	}
}

// Others must read what we write: the standard library the DER, and another implementation of RFC 4514 the string.
func TestOthersReadTheSameName(t *testing.T) {
	t.Parallel()
	for _, dn := range []string{
		"CN=api.example.com,O=Acme Corp,C=US",
		`O="x,CN=evil.example"`,
		`CN=\ \#a\, \"b\" \\ \; \< \> \= \+ ,OU=ü+O=\20x\20`,
		"DC=example,DC=com,UID=alice,E=alice@example.com",
		`CN=\#0c0178`,
	} {
		t.Run(dn, func(t *testing.T) {
			t.Parallel()
			d := mustParse(t, dn)
			der, err := d.DER()
			if err != nil {
				t.Fatal(err)
			}
			checkOthers(t, d, der)
		})
	}
}

// checkOthers compares the values that the standard library reads in the DER with those that go-ldap reads in the
// string. Within a multi-valued RDN the two may differ in order.
func checkOthers(t *testing.T, d policy.DN, der []byte) {
	t.Helper()
	var seq pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &seq); err != nil || len(rest) > 0 {
		t.Fatalf("the standard library reads %x: %v", der, err)
	}
	parsed, err := ldap.ParseDN(d.String())
	if err != nil {
		t.Fatalf("go-ldap reads %s: %v", d, err)
	}
	if len(parsed.RDNs) != len(seq) {
		t.Fatalf("%s has %d RDNs in the string, %d in DER", d, len(parsed.RDNs), len(seq))
	}
	for i, rdn := range parsed.RDNs {
		if len(rdn.Attributes) != len(seq[i]) {
			t.Fatalf("RDN %d of %s has %d attributes in the string, %d in DER", i, d, len(rdn.Attributes), len(seq[i]))
		}
		values := map[any]int{}
		for j, a := range rdn.Attributes {
			values[a.Value]++
			values[seq[i][j].Value]--
		}
		for value, n := range values {
			if n != 0 {
				t.Errorf("RDN %d of %s: %q is in only one of the string and the DER", i, d, value)
			}
		}
	}
}
