package policy_test

import (
	"strings"
	"testing"

	"signet/policy"
)

func TestDNSNames(t *testing.T) {
	t.Parallel()
	const (
		letters   = "contains characters other than letters, digits, hyphens and dots"
		wholeWild = "a wildcard must be the whole first label, as in *.example.com"
		narrow    = "a wildcard needs at least two labels after it, as in *.example.com"
		number    = "the last label is a number: use san_ip_addresses if this is an IP address"
		isIP      = "is an IP address: use san_ip_addresses"
		hyphen    = "has a label that begins or ends with a hyphen"
		idn       = "is not a valid internationalized domain name"
		emptyPart = "has an empty label"
		reserved  = "has a reserved label (hyphens in the third and fourth place)"
	)
	l63 := strings.Repeat("a", 63)
	longest := strings.Repeat(l63+".", 3) + strings.Repeat("a", 61) // 253
	tests := []struct {
		name, dns string
		want      string
		reason    string
	}{
		{"empty", "", "", "must not be empty"},
		{"a space", " ", "", letters},
		{"a leading space", " a.example", "", letters},
		{"a space inside", "a b.example", "", letters},
		{"a tab", "a\t.example", "", "contains a control character"},
		{"a NUL", "good.example\x00.evil.example", "", "contains a NUL character"},
		{"a line feed at the end", "a.example\n", "", "contains a control character"},
		{"not UTF-8", "a\xc3.example", "", "is not valid UTF-8"},
		{"a single dot", ".", "", emptyPart},
		{"a leading dot", ".example.com", "", emptyPart},
		{"two dots", "a..example", "", emptyPart},
		{"two dots at the end", "a.example..", "", emptyPart},
		{"a label of 64", l63 + "a.example", "", "has a label of more than 63 characters"},
		{"254 characters", longest + "a", "", "has more than 253 characters"},
		{"a kilobyte and more", strings.Repeat("a.", 1000) + "example", "", "has more than 253 characters"},
		{"a leading hyphen", "-a.example", "", hyphen},
		{"a trailing hyphen", "a-.example", "", hyphen},
		{"a hyphen alone", "-.example", "", hyphen},
		{"a hyphen in the last label", "a.example-", "", hyphen},
		{"an underscore", "_acme.example.com", "", "contains an underscore, which host names do not have"},
		{"an underscore inside", "a_b.example.com", "", "contains an underscore, which host names do not have"},
		{"a slash", "example.com/path", "", letters},
		{"a URL", "https://example.com", "", letters},
		{"a port", "example.com:443", "", letters},
		{"an e-mail address", "a@example.com", "", letters},
		{"a second name", "a.example,b.example", "", letters},
		{"a quote", `a".example`, "", letters},
		{"a backslash", `a\.example`, "", letters},
		{"a percent sign", "a%2eexample", "", letters},

		{"an IPv4 address", "192.0.2.1", "", isIP},
		{"an IPv6 address", "2001:db8::1", "", isIP},
		{"an IPv6 address in brackets", "[2001:db8::1]", "", isIP},
		{"too large for IPv4, still not a name", "300.300.300.300", "", number},
		{"an IPv4 address with a dot at the end", "192.0.2.1.", "", number},
		{"three numbers", "10.0.1", "", number},
		{"one number", "3232235777", "", number},
		{"a number as last label", "example.0", "", number},
		{"a wildcard before a network", "*.0.2.1", "", number},

		{"a bare wildcard", "*", "", wholeWild},
		{"a wildcard and a dot", "*.", "", emptyPart},
		{"a wildcard for a top-level domain", "*.com", "", narrow},
		{"the same with a dot at the end", "*.com.", "", narrow},
		{"a wildcard for a single host", "*.localhost", "", narrow},
		{"two wildcards", "*.*.example", "", wholeWild},
		{"a wildcard in the second label", "a.*.example", "", wholeWild},
		{"a wildcard at the end", "example.*", "", wholeWild},
		{"a partial wildcard, at the end of the label", "f*.example.com", "", wholeWild},
		{"a partial wildcard, at its start", "*o.example.com", "", wholeWild},
		{"a partial wildcard, inside", "f*o.example.com", "", wholeWild},
		{"a doubled wildcard", "**.example.com", "", wholeWild},
		{"a wildcard over 253 characters", "*." + longest, "", "has more than 253 characters"},
		{"a wide asterisk", "＊.example.com", "", idn},

		{"an A-label that is not Punycode", "xn--99999999999.example", "", idn},
		{"an empty A-label", "xn--.example", "", idn},
		{"an A-label of ASCII", "xn--example-.com", "", idn},
		{"an A-label of a decomposed letter", "xn--bucher-xyd.example", "", idn},
		{"an A-label of a soft hyphen", "xn--ab-5da.example", "", idn},
		{"an A-label of an upper-case letter", "xn--bcher-2pa.example", "", idn},
		{"a wide dot", "a。example", "", idn},
		{"a wide digit", "１.example", "", idn},
		{"a soft hyphen", "exa\u00admple.com", "", idn},
		{"a zero-width space", "exa\u200bmple.com", "", idn},
		{"a right-to-left override", "exa\u202emple.com", "", idn},
		{"left to right and right to left in one label", "aא.example", "", idn},
		{"a joiner without context", "a\u200db.example", "", idn},
		{"a symbol that is an ASCII sequence in disguise", "℀.example", "", idn},
		{"a U-label that is too long as A-label", strings.Repeat("ü", 60) + ".example", "", idn},
		{"other reserved labels", "ab--cd.example", "", reserved},

		{"a host", "api.example.com", "api.example.com", ""},
		{"a single label", "localhost", "localhost", ""},
		{"upper case", "API.Example.COM", "api.example.com", ""},
		{"a dot at the end", "api.example.com.", "api.example.com", ""},
		{"digits first", "1password.example", "1password.example", ""},
		{"a label of digits, not the last", "1.2.3.in-addr.arpa", "1.2.3.in-addr.arpa", ""},
		{"hyphens inside", "a-b--c.example", "a-b--c.example", ""},
		{"a label of 63", l63 + ".example", l63 + ".example", ""},
		{"253 characters", longest, longest, ""},
		{"253 characters and a dot", longest + ".", longest, ""},
		{"a wildcard", "*.example.com", "*.example.com", ""},
		{"a wildcard deeper down", "*.a.b.example.com", "*.a.b.example.com", ""},
		{"a U-label", "bücher.example", "xn--bcher-kva.example", ""},
		{"a U-label in upper case", "BÜCHER.EXAMPLE", "xn--bcher-kva.example", ""},
		{"a U-label in decomposed form", "bu\u0308cher.example", "xn--bcher-kva.example", ""},
		{"a wildcard before a U-label", "*.bücher.example", "*.xn--bcher-kva.example", ""},
		{"sharp s is a letter of its own", "straße.example", "xn--strae-oqa.example", ""},
		{"an A-label", "XN--Bcher-Kva.example", "xn--bcher-kva.example", ""},
		{"right to left", "שלום.example", "xn--9dbne9b.example", ""},
		{"a U-label at the top", "例え.テスト", "xn--r8jz45g.xn--zckzah", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			names, err := policy.ResolveNames(policy.NameRequest{Type: policy.Server, CommonName: "x", DNS: []string{tt.dns}})
			got := reasons(t, err)
			if tt.reason == "" && got != "" || !strings.HasSuffix(got, tt.reason) || tt.reason != "" && !strings.HasPrefix(got, `DNS name "`) {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if got := strings.Join(names.DNS, " "); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestIPAddresses(t *testing.T) {
	t.Parallel()
	const (
		malformed   = "is not an IPv4 or IPv6 address"
		network     = "is a network: give a single address, without prefix length"
		unspecified = "is the unspecified address: give the address of the host"
		zone        = "has a zone: give the address without it"
	)
	tests := []struct {
		name, ip string
		want     string
		reason   string
	}{
		{"empty", "", "", malformed},
		{"a host name", "example.com", "", malformed},
		{"three octets", "10.0.1", "", malformed},
		{"five octets", "10.0.0.0.1", "", malformed},
		{"an octet too large", "10.0.0.256", "", malformed},
		{"leading zeros, which some read as octal", "010.0.0.1", "", malformed},
		{"hexadecimal", "0x0a000001", "", malformed},
		{"one number", "167772161", "", malformed},
		{"a space", " 10.0.0.1", "", malformed},
		{"a port", "10.0.0.1:443", "", malformed},
		{"brackets", "[::1]", "", malformed},
		{"two addresses", "10.0.0.1,10.0.0.2", "", malformed},
		{"a range", "10.0.0.1-10.0.0.9", "", malformed},
		{"two gaps", "1::2::3", "", malformed},
		{"nine groups", "1:2:3:4:5:6:7:8:9", "", malformed},
		{"a NUL", "10.0.0.1\x00", "", "contains a NUL character"},
		{"a line feed", "10.0.0.1\n", "", "contains a control character"},
		{"not UTF-8", "10.0.0.1\xff", "", "is not valid UTF-8"},
		{"wide digits", "１０.0.0.1", "", malformed},
		{"a network", "10.0.0.0/8", "", network},
		{"a network of one", "10.0.0.1/32", "", network},
		{"an IPv6 network", "2001:db8::/32", "", network},
		{"a zone", "fe80::1%eth0", "", zone},
		{"an empty zone", "fe80::1%", "", malformed},
		{"no address, IPv4", "0.0.0.0", "", unspecified},
		{"no address, IPv6", "::", "", unspecified},
		{"no address, IPv4 in IPv6", "::ffff:0.0.0.0", "", unspecified},

		{"IPv4", "192.0.2.1", "ip4:192.0.2.1", ""},
		{"IPv6", "2001:db8::1", "ip16:2001:db8::1", ""},
		{"IPv6 in full and upper case", "2001:0DB8:0:0:0:0:0:1", "ip16:2001:db8::1", ""},
		{"IPv4 in IPv6 is IPv4", "::ffff:192.0.2.1", "ip4:192.0.2.1", ""},
		{"loopback", "127.0.0.1", "ip4:127.0.0.1", ""},
		{"multicast", "224.0.0.251", "ip4:224.0.0.251", ""},
		{"private", "10.0.0.42", "ip4:10.0.0.42", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			names, err := policy.ResolveNames(policy.NameRequest{Type: policy.Server, CommonName: "x", DNS: []string{"x"}, IPs: []string{tt.ip}})
			got := reasons(t, err)
			if tt.reason == "" && got != "" || !strings.HasSuffix(got, tt.reason) || tt.reason != "" && !strings.HasPrefix(got, `IP address "`) {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if got := show(policy.Names{IPs: names.IPs}); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestEmailAddresses(t *testing.T) {
	t.Parallel()
	const (
		plain = "must be one plain address, without display name, as in user@example.com"
		local = "has characters before the @ that are not allowed there"
	)
	l64 := strings.Repeat("a", 64)
	domain := strings.Repeat(strings.Repeat("d", 63)+".", 2) + strings.Repeat("d", 61) // 189
	tests := []struct {
		name, email string
		want        string
		reason      string
	}{
		{"empty", "", "", "has no @"},
		{"a name", "alice", "", "has no @"},
		{"nothing before the @", "@example.com", "", "has nothing before the @"},
		{"nothing after it", "alice@", "", "its domain: must not be empty"},
		{"two @", "a@b@example.com", "", local},
		{"a display name", "Alice <alice@example.com>", "", plain},
		{"angle brackets", "<alice@example.com>", "", plain},
		{"two addresses", "a@example.com,b@example.com", "", plain},
		{"two addresses, Outlook's way", "a@example.com;b@example.com", "", plain},
		{"a space before", " a@example.com", "", plain},
		{"a space inside", "a b@example.com", "", plain},
		{"a quoted local part", `"a"@example.com`, "", local},
		{"a comment", "a(b)@example.com", "", local},
		{"a backslash", `a\b@example.com`, "", local},
		{"a dot first", ".a@example.com", "", local},
		{"a dot last", "a.@example.com", "", local},
		{"two dots", "a..b@example.com", "", local},
		{"a letter beyond ASCII before the @", "ä@example.com", "", "has characters other than ASCII before the @"},
		{"65 characters before the @", l64 + "a@example.com", "", "has more than 64 characters before the @"},
		{"a NUL", "a@example.com\x00.evil.example", "", "contains a NUL character"},
		{"a header of its own", "a@example.com\r\nBcc: b@example.com", "", "contains a control character"},
		{"not UTF-8", "a\xff@example.com", "", "is not valid UTF-8"},
		{"a domain that is an address", "a@192.0.2.1", "", "its domain: is an IP address: use san_ip_addresses"},
		{"a domain literal", "a@[192.0.2.1]", "", "its domain: is an IP address: use san_ip_addresses"},
		{"a domain with an underscore", "a@b_c.example", "", "its domain: contains an underscore, which host names do not have"},
		{"a domain with an empty label", "a@b..example", "", "its domain: has an empty label"},
		{"a wildcard domain", "a@*.example.com", "", "must not have a wildcard"},
		{"a wildcard inside the domain", "a@b.*.example.com", "", "must not have a wildcard"},
		{"255 characters", l64 + "@d" + domain, "", "has a label of more than 63 characters"},
		{"255 characters in good labels", l64 + "@" + domain + "d.d", "", "has more than 254 characters"},
		{"a mailto URL", "mailto:a@example.com", "", local},

		{"an address", "alice@example.com", "alice@example.com", ""},
		{"the domain becomes lower case, the rest stays", "Alice@Example.COM", "Alice@example.com", ""},
		{"a tag", "alice+ca@example.com", "alice+ca@example.com", ""},
		{"everything an atom may have", "!#$%&'*+-/=?^_`{|}~.1@example.com", "!#$%&'*+-/=?^_`{|}~.1@example.com", ""},
		{"a domain beyond ASCII", "a@bücher.example", "a@xn--bcher-kva.example", ""},
		{"a host without a domain", "root@localhost", "root@localhost", ""},
		{"64 characters before the @", l64 + "@example.com", l64 + "@example.com", ""},
		{"254 characters", l64 + "@" + domain, l64 + "@" + domain, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			names, err := policy.ResolveNames(policy.NameRequest{Type: policy.Client, CommonName: "x", Emails: []string{tt.email}})
			got := reasons(t, err)
			if tt.reason == "" && got != "" || !strings.HasSuffix(got, tt.reason) || tt.reason != "" && !strings.HasPrefix(got, `e-mail address "`) {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if got := strings.Join(names.Emails, " "); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
