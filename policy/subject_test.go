package policy_test

import (
	"errors"
	"strings"
	"testing"

	"signet/policy"
)

func TestAThousandMistakesGetTwentySentences(t *testing.T) {
	t.Parallel()
	_, err := policy.ParseDN(strings.Repeat("FOO=x,", 999) + "FOO=x")
	var v *policy.Violation
	if !errors.As(err, &v) || len(v.Reasons) != 21 || v.Reasons[20] != "and 980 more" {
		t.Fatalf("%v", err)
	}
}

func TestParseDNRefuses(t *testing.T) {
	t.Parallel()
	const (
		pair   = "is not of the form type=value; a comma or plus sign in a value is written with a backslash"
		escape = "a backslash must be followed by a special character or two hex digits"
		follow = "something other than a comma or plus sign follows the value"
	)
	x := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name, dn string
		want     string // the reason, or its end after "…"
	}{
		{"empty", "", "subject must not be empty: give at least a CN"},
		{"spaces", "   ", "subject must not be empty: give at least a CN"},
		{"a word", "example.com", `subject "example.com": "example.com" ` + pair},
		{"a comma alone", ",", `subject ",": "" ` + pair},
		{"a plus sign alone", "+", `subject "+": "" ` + pair},
		{"a comma at the end", "CN=x,", `subject "CN=x,": "" ` + pair},
		{"a comma at the start", ",CN=x", `subject ",CN=x": "" ` + pair},
		{"two commas", "CN=x,,O=y", `subject "CN=x,,O=y": "" ` + pair},
		{"a plus sign at the end", "CN=x+", `subject "CN=x+": "" ` + pair},
		{"a plus sign before a comma", "CN=x+,O=y", `subject "CN=x+,O=y": "" ` + pair},
		{"a comma in a value without a backslash", "O=Acme, Inc.,C=US", `subject "O=Acme, Inc.,C=US": "Inc." ` + pair},
		{"a plus sign in a value without a backslash", "O=A+B", `subject "O=A+B": "B" ` + pair},

		{"an unknown type", "xyz=1", `unknown attribute type "xyz"`},
		{"every unknown type is told", "CN=x,foo=1,bar=2", `unknown attribute type "foo"; unknown attribute type "bar"`},
		{"an empty type", "=x", `unknown attribute type ""`},
		{"OpenSSL's slashes", "/C=DE/CN=x", `unknown attribute type "/C"`},
		{"an escape in a type", `C\4E=x`, `unknown attribute type "C\\4E"`},
		{"a space in a type", "C N=x", `unknown attribute type "C N"`},
		{"a type in another alphabet", "СN=x", `unknown attribute type "СN"`},
		{"a line break before a type", "CN=x,\nO=y", `subject "CN=x,\nO=y" contains a control character`},
		{"an OID of one arc", "2=x", `unknown attribute type "2"`},
		{"an OID with an empty arc", "2.5..3=x", `unknown attribute type "2.5..3"`},
		{"an OID with a dot at the end", "2.5.4.=x", `unknown attribute type "2.5.4."`},
		{"an OID with leading zeros", "2.5.4.03=x", `unknown attribute type "2.5.4.03"`},
		{"an OID beyond the three roots", "3.1.1=x", `unknown attribute type "3.1.1"`},
		{"an OID with a second arc of 40 below root 1", "1.40.1=x", `unknown attribute type "1.40.1"`},
		{"an OID with a sign", "2.5.4.+3=x", `subject "2.5.4.+3=x": "2.5.4." ` + pair},
		{"an OID with a huge arc", "2.5.4.99999999999999999999=x", `unknown attribute type "2.5.4.99999999999999999999"`},
		{"an OID that overflows its first octets", "2.2147483600.1=x", `unknown attribute type "2.2147483600.1"`},
		{"an OID with a prefix", "OID.2.5.4.3=x", `unknown attribute type "OID.2.5.4.3"`},

		{"an empty value", "CN=", "CN must not be empty"},
		{"an empty value in quotes", `CN=""`, "CN must not be empty"},
		{"a value of spaces", "CN=   ,O=x", "CN must not be empty"},
		{"a value of escaped spaces", `CN=\ \ ,O=x`, "CN must not be empty"},
		{"an empty value in hex", "CN=#0c00", "CN must not be empty"},
		{"every empty value is told", "CN=,O=,OU=x", "CN must not be empty; O must not be empty"},

		{"a semicolon between RDNs", "CN=x;O=y", `subject "CN=x;O=y": ';' in a value is written with a backslash`},
		{"a quote inside a value", `CN=a"b`, `subject "CN=a\"b": '"' in a value is written with a backslash`},
		{"an angle bracket in a value", "CN=<x>", `subject "CN=<x>": '<' in a value is written with a backslash`},
		{"the other one", "CN=x>", `subject "CN=x>": '>' in a value is written with a backslash`},
		{"a quote that is not closed", `CN="x`, `subject "CN=\"x": a quote is not closed`},
		{"a quote closed by an escaped quote only", `CN="x\"`, `subject "CN=\"x\\\"": a quote is not closed`},
		{"text after a quoted value", `CN="a"b`, `subject "CN=\"a\"b": ` + follow + ` "a"`},
		{"two quoted values", `CN="a" "b"`, `subject "CN=\"a\" \"b\"": ` + follow + ` "a"`},
		{"a backslash at the end", `CN=x\`, `subject "CN=x\\": ` + escape},
		{"a backslash before a letter", `CN=\x`, `subject "CN=\\x": ` + escape},
		{"a backslash before one hex digit", `CN=\4`, `subject "CN=\\4": ` + escape},
		{"a backslash before half a hex pair", `CN=\4g`, `subject "CN=\\4g": ` + escape},
		{"a backslash before a letter in quotes", `CN="\x"`, `subject "CN=\"\\x\"": ` + escape},

		{"hex with an odd digit", "CN=#0c0", `subject "CN=#0c0": #0c0 is not the hex form of one encoded value`},
		{"hex of nothing", "CN=#", `subject "CN=#": # is not the hex form of one encoded value`},
		{"hex of text", "CN=#hello", `subject "CN=#hello": #hello is not the hex form of one encoded value`},
		{"hex that ends early", "CN=#0c0561", `subject "CN=#0c0561": #0c0561 is not the hex form of one encoded value`},
		{"hex with more than one value", "CN=#0c01610c0162", `subject "CN=#0c01610c0162": #0c01610c0162 is not the hex form of one encoded value`},
		{"hex of a number", "CN=#020101", `subject "CN=#020101": #020101 is not a character string`},
		{"hex of a sequence", "CN=#30030c0161", `subject "CN=#30030c0161": #30030c0161 is not a character string`},
		{"hex of UTF-8 that is not", "CN=#0c01ff", `subject "CN=#0c01ff": #0c01ff is not valid in its string type`},
		{"text after hex", "CN=#0c0161 b", `subject "CN=#0c0161 b": ` + follow + ` "a"`},

		{"a NUL", "CN=good.example\x00.evil.example", `subject "CN=good.example\x00.evil.example" contains a NUL character`},
		{"an escaped NUL", `CN=good.example\00.evil.example`, `CN "good.example\x00.evil.example" contains a NUL character`},
		{"a NUL in hex", "CN=#0c03610062", `CN "a\x00b" contains a NUL character`},
		{"an escaped line feed", `CN=a\0Ab`, `CN "a\nb" contains a control character`},
		{"an escaped delete", `CN=a\7Fb`, `CN "a\x7fb" contains a control character`},
		{"not UTF-8", "CN=\xff", `subject "CN=\xff" is not valid UTF-8`},
		{"escaped octets that are not UTF-8", `CN=\C3`, `CN "\xc3" is not valid UTF-8`},

		{"a country of three letters", "C=USA", `C "USA" must be a country code of two letters (ISO 3166)`},
		{"a country of one letter", "C=U", `C "U" must be a country code of two letters (ISO 3166)`},
		{"a country with a digit", "C=U1", `C "U1" must be a country code of two letters (ISO 3166)`},
		{"a country beyond ASCII", "C=ÄÖ", `C "ÄÖ" must be a country code of two letters (ISO 3166)`},
		{"a country's name", "C=Germany", `C "Germany" must be a country code of two letters (ISO 3166)`},
		{"65 characters of CN", "CN=" + x(65), `CN "` + x(64) + `…" has more than 64 characters`},
		{"65 characters of CN by its OID", "2.5.4.3=" + x(65), `CN "` + x(64) + `…" has more than 64 characters`},
		{"65 characters of O", "O=" + x(65), `O "` + x(64) + `…" has more than 64 characters`},
		{"65 characters of OU", "OU=" + x(65), `OU "` + x(64) + `…" has more than 64 characters`},
		{"65 characters of OU beyond ASCII", "OU=" + strings.Repeat("é", 65), `OU "` + strings.Repeat("é", 64) + `…" has more than 64 characters`},
		{"129 characters of L", "L=" + x(129), `L "` + x(64) + `…" has more than 128 characters`},
		{"129 characters of ST", "ST=" + x(129), `ST "` + x(64) + `…" has more than 128 characters`},
		{"129 characters of STREET", "STREET=" + x(129), `STREET "` + x(64) + `…" has more than 128 characters`},
		{"129 characters of pseudonym", "pseudonym=" + x(129), `pseudonym "` + x(64) + `…" has more than 128 characters`},
		{"65 characters of serialNumber", "serialNumber=" + x(65), `serialNumber "` + x(64) + `…" has more than 64 characters`},
		{"65 characters of title", "title=" + x(65), `title "` + x(64) + `…" has more than 64 characters`},
		{"17 characters of postalCode", "postalCode=" + x(17), `postalCode "` + x(17) + `" has more than 16 characters`},
		{"256 characters of emailAddress", "E=" + x(244) + "@example.com", `emailAddress "` + x(64) + `…" has more than 255 characters`},
		{"257 characters of givenName", "GN=" + x(257), `GN "` + x(64) + `…" has more than 256 characters`},
		{"257 characters of an unknown OID", "1.2.3=" + x(257), `1.2.3 "` + x(64) + `…" has more than 256 characters`},
		{"a serial number beyond PrintableString", "serialNumber=a_b", `serialNumber "a_b" must have only letters, digits, spaces and '()+,-./:=?`},
		{"a dnQualifier beyond PrintableString", "dnQualifier=ü", `dnQualifier "ü" must have only letters, digits, spaces and '()+,-./:=?`},
		{"an e-mail address beyond ASCII", "E=ü@example.com", `emailAddress "ü@example.com" must have only ASCII characters: write a domain as A-labels (xn--)`},
		{"a domain component beyond ASCII", "DC=bücher", `DC "bücher" must have only ASCII characters: write a domain as A-labels (xn--)`},
		{"a letter that turns the writing direction", "CN=moc.elpmaxe\u202e", `CN "moc.elpmaxe\u202e" contains an invisible character or one that could not be decoded`},
		{"a zero-width space", "O=Ac\u200bme", `O "Ac\u200bme" contains an invisible character or one that could not be decoded`},
		{"the mark of a failed decoding", "CN=\ufffd", "CN \"\ufffd\" contains an invisible character or one that could not be decoded"},
		{"8193 bytes", "CN=" + strings.Repeat("x", 8190), "subject has 8193 bytes: at most 8192 are allowed"},
		{"a common name twice in one RDN", "CN=a+CN=b", "CN occurs twice in one relative distinguished name: separate the two with a comma"},
		{"a common name twice by name and OID", "CN=a+O=c+2.5.4.3=b", "CN occurs twice in one relative distinguished name: separate the two with a comma"},
		{"every reason is told", "CN=,C=USA,O=" + x(65), `CN must not be empty; C "USA" must be a country code of two letters (ISO 3166); O "` + x(64) + `…" has more than 64 characters`},
		{"65 attributes", strings.TrimSuffix(strings.Repeat("OU=x,", 65), ","), "subject has 65 attributes: at most 64 are allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := policy.ParseDN(tt.dn)
			if got := reasons(t, err); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if !d.IsEmpty() {
				t.Errorf("a refused name is %q, want the zero value", d)
			}
		})
	}
}

func TestParseDNReads(t *testing.T) {
	t.Parallel()
	x := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct{ name, dn, want string }{
		{"the user's document", "CN=api.example.com,O=Acme Corp,C=US", "CN=api.example.com,O=Acme Corp,C=US"},
		{"the order is kept", "C=US,O=Acme Corp,CN=api.example.com", "C=US,O=Acme Corp,CN=api.example.com"},
		{"several OUs", "OU=a,OU=b,OU=a", "OU=a,OU=b,OU=a"},
		{"spaces around separators", "  CN = x , O = Acme Corp  + OU = y  ", "CN=x,O=Acme Corp+OU=y"},
		{"spaces inside a value", "O=a  b", "O=a  b"},
		{"types in any case", "cn=x,o=y,Ou=z,SerialNumber=1,EMAILADDRESS=a@b,dc=d", "CN=x,O=y,OU=z,serialNumber=1,emailAddress=a@b,DC=d"},
		{"other names of types", "E=a@b,S=x,T=y", "emailAddress=a@b,ST=x,title=y"},
		{"EMAIL", "EMAIL=a@b", "emailAddress=a@b"},
		{"long names of types", "commonName=x,countryName=de,stateOrProvinceName=y,localityName=z,organizationName=a,organizationalUnitName=b,streetAddress=c,domainComponent=d,userId=e,givenName=f,surname=g", "CN=x,C=DE,ST=y,L=z,O=a,OU=b,STREET=c,DC=d,UID=e,GN=f,SN=g"},
		{"the remaining types", "postalCode=1,businessCategory=2,initials=3,generationQualifier=4,pseudonym=5,dnQualifier=6,organizationIdentifier=7", "postalCode=1,businessCategory=2,initials=3,generationQualifier=4,pseudonym=5,dnQualifier=6,organizationIdentifier=7"},
		{"a country becomes upper case", "C=de", "C=DE"},
		{"an OID with a name", "2.5.4.3=x", "CN=x"},
		{"an OID with a name and a hex value", "2.5.4.3=#0C0178", "CN=x"},
		{"an OID without a name is written in hex", "1.2.3.4=foo", "1.2.3.4=#1303666f6f"},
		{"the largest OID arc", "2.5.4.2147483647=x", "2.5.4.2147483647=#130178"},
		{"a hex value before a separator", "CN=#0c0178 ,O=#130179+OU=#1e02007a", "CN=x,O=y+OU=z"},
		{"a multi-valued RDN", "CN=x+UID=1,O=y", "CN=x+UID=1,O=y"},

		{"an escaped comma", `O=Acme\, Inc.`, `O=Acme\, Inc.`},
		{"a quoted comma", `O="Acme, Inc."`, `O=Acme\, Inc.`},
		{"a CN in an O stays in the O", `O="x,CN=evil.example"`, `O=x\,CN\=evil.example`},
		{"the same with a backslash", `O=x\,CN=evil.example`, `O=x\,CN\=evil.example`},
		{"the same in hex", `O=x\2CCN\3Devil.example`, `O=x\,CN\=evil.example`},
		{"the same with a plus sign", `O="x+CN=evil.example"`, `O=x\+CN\=evil.example`},
		{"an equals sign needs no escape", "CN=a=b", `CN=a\=b`},
		{"every special character, escaped", `CN=\,\+\"\\\<\>\;\=\#\ x`, `CN=\,\+\"\\\<\>\;\=# x`},
		{"every special character, quoted", `CN=",+\"\\<>;=# x"`, `CN=\,\+\"\\\<\>\;\=# x`},
		{"a hash sign first", `CN=\#x`, `CN=\#x`},
		{"a hash sign first, quoted", `CN="#0c0178"`, `CN=\#0c0178`},
		{"a hash sign later", "CN=x#y", "CN=x#y"},
		{"a space first and last", `CN=\ x\ `, `CN=\ x\ `},
		{"a space first and last, quoted", `CN=" x "`, `CN=\ x\ `},
		{"a space first and last, in hex", `CN=\20x\20`, `CN=\ x\ `},
		{"spaces after an escaped space", `CN=x\    `, `CN=x\ `},
		{"spaces after a backslash", `CN=x\\  `, `CN=x\\`},
		{"spaces after a quoted value", `CN="x"  ,O=y`, "CN=x,O=y"},
		{"UTF-8", "CN=Zürich,O=株式会社", "CN=Zürich,O=株式会社"},
		{"UTF-8 in hex escapes", `CN=Z\C3\BCrich`, "CN=Zürich"},
		{"a slash and an at sign", "CN=HTTP/a@b", "CN=HTTP/a@b"},

		{"64 characters of CN", "CN=" + x(64), "CN=" + x(64)},
		{"64 characters beyond ASCII", "O=" + strings.Repeat("é", 64), "O=" + strings.Repeat("é", 64)},
		{"128 characters of L", "L=" + x(128), "L=" + x(128)},
		{"255 characters of emailAddress", "E=" + x(243) + "@example.com", "emailAddress=" + x(243) + "@example.com"},
		{"64 attributes", strings.TrimSuffix(strings.Repeat("OU=x,", 64), ","), strings.TrimSuffix(strings.Repeat("OU=x,", 64), ",")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := policy.ParseDN(tt.dn)
			if got := reasons(t, err); got != "" {
				t.Fatal(got)
			}
			if got := d.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			again, err := policy.ParseDN(d.String())
			if err != nil || again.String() != d.String() {
				t.Errorf("reading %s again gives %s, %v", d, again, err)
			}
		})
	}
}

func TestCommonName(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, dn, first, with, want, reason string }{
		{"empty", "CN=x,O=y", "x", "", "", "CN must not be empty"},
		{"too long", "O=y", "", strings.Repeat("x", 65), "", `CN "` + strings.Repeat("x", 64) + `…" has more than 64 characters`},
		{"a NUL", "O=y", "", "a\x00b", "", `CN "a\x00b" contains a NUL character`},
		{"a line feed", "CN=x", "x", "a\n", "", `CN "a\n" contains a control character`},
		{"replaced in its place", "C=US,CN=x,O=y", "x", "z", "C=US,CN=z,O=y", ""},
		{"replaced in its RDN", "OU=a+CN=x,O=y", "x", "z", "OU=a+CN=z,O=y", ""},
		{"put first when there is none", "O=y,C=US", "", "z", "CN=z,O=y,C=US", ""},
		{"put into the empty name", "", "", "z", "CN=z", ""},
		{"further ones are removed", "CN=x,O=y,CN=evil.example", "x", "z", "CN=z,O=y", ""},
		{"further ones are removed from their RDN", "CN=x,CN=evil.example+OU=a", "x", "z", "CN=z,OU=a", ""},
		{"it is text, not a string form", "CN=x", "x", "a,CN=b", `CN=a\,CN\=b`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var d policy.DN
			if tt.dn != "" {
				d = mustParse(t, tt.dn)
			}
			if got := d.CommonName(); got != tt.first {
				t.Errorf("common name %q, want %q", got, tt.first)
			}
			changed, err := d.WithCommonName(tt.with)
			if got := reasons(t, err); got != tt.reason {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if got := changed.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if err == nil && changed.CommonName() != tt.with {
				t.Errorf("common name %q, want %q", changed.CommonName(), tt.with)
			}
			if d.String() != tt.dn {
				t.Errorf("the original became %s", d)
			}
		})
	}
}

func mustParse(t testing.TB, s string) policy.DN {
	t.Helper()
	d, err := policy.ParseDN(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
