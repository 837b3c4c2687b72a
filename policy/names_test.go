package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"signet/policy"
)

// show writes names on one line, so that a row of a table is readable.
func show(n policy.Names) string {
	var all []string
	for _, s := range n.DNS {
		all = append(all, "dns:"+s)
	}
	for _, ip := range n.IPs {
		all = append(all, fmt.Sprintf("ip%d:%s", len(ip), ip))
	}
	for _, s := range n.Emails {
		all = append(all, "email:"+s)
	}
	return strings.Join(all, " ")
}

func TestResolveNamesByType(t *testing.T) {
	t.Parallel()
	type request = policy.NameRequest
	tests := []struct {
		name    string
		request request
		want    string
		reason  string
	}{
		{name: "the zero request", reason: `certificate_type must be server, client, dual_purpose or ca, not ""`},
		{name: "an unknown type", request: request{Type: "codesigning", CommonName: "a.example"}, reason: `certificate_type must be server, client, dual_purpose or ca, not "codesigning"`},
		{name: "types are compared exactly", request: request{Type: "SERVER", CommonName: "a.example"}, reason: `certificate_type must be server, client, dual_purpose or ca, not "SERVER"`},

		{name: "server: e-mail is refused", request: request{Type: policy.Server, CommonName: "a.example", Emails: []string{"a@a.example"}}, reason: "server certificates do not take e-mail SANs"},
		{name: "server: e-mail is refused beside DNS", request: request{Type: policy.Server, CommonName: "a.example", DNS: []string{"a.example"}, Emails: []string{"a@a.example"}}, reason: "server certificates do not take e-mail SANs"},
		{name: "server: a person's name is no DNS name", request: request{Type: policy.Server, CommonName: "My Server"}, reason: `common name "My Server" is not a DNS name (contains characters other than letters, digits, hyphens and dots): give san_dns_names`},
		{name: "server: IP addresses do not stand in for the DNS name", request: request{Type: policy.Server, CommonName: "My Server", IPs: []string{"10.0.0.1"}}, reason: `common name "My Server" is not a DNS name (contains characters other than letters, digits, hyphens and dots): give san_dns_names`},
		{name: "server: an address is no DNS name", request: request{Type: policy.Server, CommonName: "alice@a.example"}, reason: `common name "alice@a.example" is not a DNS name (contains characters other than letters, digits, hyphens and dots): give san_dns_names`},
		{name: "server: an underscore is no DNS name", request: request{Type: policy.Server, CommonName: "a_b.example"}, reason: `common name "a_b.example" is not a DNS name (contains an underscore, which host names do not have): give san_dns_names`},
		{name: "server: 10.0.0.256 is neither", request: request{Type: policy.Server, CommonName: "10.0.0.256"}, reason: `common name "10.0.0.256" is not a DNS name (the last label is a number: use san_ip_addresses if this is an IP address): give san_dns_names`},
		{name: "server: the unspecified address as common name", request: request{Type: policy.Server, CommonName: "0.0.0.0"}, reason: `IP address "0.0.0.0": is the unspecified address: give the address of the host`},
		{name: "server: an address with a zone as common name", request: request{Type: policy.Server, CommonName: "fe80::1%eth0"}, reason: `IP address "fe80::1%eth0": has a zone: give the address without it`},
		{name: "server: a bare wildcard as common name", request: request{Type: policy.Server, CommonName: "*"}, reason: `common name "*" is not a DNS name (a wildcard must be the whole first label, as in *.example.com): give san_dns_names`},
		{name: "server: every reason is told", request: request{Type: policy.Server, CommonName: "a b", IPs: []string{"x"}, Emails: []string{"y"}}, reason: `server certificates do not take e-mail SANs; common name "a b" is not a DNS name (contains characters other than letters, digits, hyphens and dots): give san_dns_names; IP address "x": is not an IPv4 or IPv6 address; e-mail address "y": has no @`},

		{name: "client: DNS is refused", request: request{Type: policy.Client, CommonName: "alice", DNS: []string{"a.example"}}, reason: "client certificates do not take DNS SANs"},
		{name: "client: IP is refused", request: request{Type: policy.Client, CommonName: "alice", IPs: []string{"10.0.0.1"}}, reason: "client certificates do not take IP address SANs"},
		{name: "client: DNS and IP are refused beside e-mail", request: request{Type: policy.Client, CommonName: "alice", DNS: []string{"a.example"}, IPs: []string{"10.0.0.1"}, Emails: []string{"a@a.example"}}, reason: "client certificates do not take DNS SANs; client certificates do not take IP address SANs"},
		{name: "client: a bad e-mail", request: request{Type: policy.Client, CommonName: "alice", Emails: []string{"alice"}}, reason: `e-mail address "alice": has no @`},
		{name: "client: an empty e-mail in the list is not an absent list", request: request{Type: policy.Client, CommonName: "alice@a.example", Emails: []string{""}}, reason: `e-mail address "": has no @`},

		{name: "dual_purpose: one word is a DNS name", request: request{Type: policy.DualPurpose, CommonName: "Alice"}, want: "dns:alice"},
		{name: "dual_purpose: two words are no DNS name", request: request{Type: policy.DualPurpose, CommonName: "Alice A."}, reason: `common name "Alice A." is not a DNS name (contains characters other than letters, digits, hyphens and dots): give san_dns_names`},
		{name: "dual_purpose: e-mail does not stand in for the DNS name", request: request{Type: policy.DualPurpose, CommonName: "Alice A.", Emails: []string{"a@a.example"}}, reason: `common name "Alice A." is not a DNS name (contains characters other than letters, digits, hyphens and dots): give san_dns_names`},

		{name: "ca: DNS is refused", request: request{Type: policy.CA, CommonName: "Sub CA", DNS: []string{"a.example"}}, reason: "ca certificates do not take DNS SANs"},
		{name: "ca: IP is refused", request: request{Type: policy.CA, CommonName: "Sub CA", IPs: []string{"10.0.0.1"}}, reason: "ca certificates do not take IP address SANs"},
		{name: "ca: e-mail is refused", request: request{Type: policy.CA, CommonName: "Sub CA", Emails: []string{"a@a.example"}}, reason: "ca certificates do not take e-mail SANs"},

		{name: "server: the common name is the DNS name", request: request{Type: policy.Server, CommonName: "api.example.com"}, want: "dns:api.example.com"},
		{name: "server: an empty list counts as absent", request: request{Type: policy.Server, CommonName: "api.example.com", DNS: []string{}}, want: "dns:api.example.com"},
		{name: "server: the common name does not join the DNS names given", request: request{Type: policy.Server, CommonName: "api.example.com", DNS: []string{"api-v2.example.com"}}, want: "dns:api-v2.example.com"},
		{name: "server: with DNS names given, the common name is free", request: request{Type: policy.Server, CommonName: "My Server", DNS: []string{"a.example"}}, want: "dns:a.example"},
		{name: "server: the user's document", request: request{Type: policy.Server, CommonName: "api.example.com", DNS: []string{"api.example.com", "api-v2.example.com"}, IPs: []string{"10.0.0.42"}}, want: "dns:api.example.com dns:api-v2.example.com ip4:10.0.0.42"},
		{name: "server: IP addresses do not replace the default", request: request{Type: policy.Server, CommonName: "a.example", IPs: []string{"10.0.0.1"}}, want: "dns:a.example ip4:10.0.0.1"},
		{name: "server: a common name that is an IPv4 address", request: request{Type: policy.Server, CommonName: "192.0.2.1"}, want: "ip4:192.0.2.1"},
		{name: "server: a common name that is an IPv6 address", request: request{Type: policy.Server, CommonName: "2001:db8::1"}, want: "ip16:2001:db8::1"},
		{name: "server: a common name that is an IP address joins those given", request: request{Type: policy.Server, CommonName: "192.0.2.1", IPs: []string{"192.0.2.2"}}, want: "ip4:192.0.2.2 ip4:192.0.2.1"},
		{name: "server: and is not there twice", request: request{Type: policy.Server, CommonName: "192.0.2.1", IPs: []string{"192.0.2.1"}}, want: "ip4:192.0.2.1"},
		{name: "server: with DNS names given, an IP address as common name is an IP SAN too", request: request{Type: policy.Server, CommonName: "192.0.2.1", DNS: []string{"a.example"}}, want: "dns:a.example ip4:192.0.2.1"},
		{name: "server: a wildcard as common name", request: request{Type: policy.Server, CommonName: "*.example.com"}, want: "dns:*.example.com"},
		{name: "server: an IDN as common name", request: request{Type: policy.Server, CommonName: "Bücher.example"}, want: "dns:xn--bcher-kva.example"},

		{name: "dual_purpose: the common name is the DNS name", request: request{Type: policy.DualPurpose, CommonName: "node1.example.com"}, want: "dns:node1.example.com"},
		{name: "dual_purpose: the default stays beside an e-mail", request: request{Type: policy.DualPurpose, CommonName: "node1.example.com", Emails: []string{"ops@example.com"}}, want: "dns:node1.example.com email:ops@example.com"},
		{name: "dual_purpose: all kinds", request: request{Type: policy.DualPurpose, CommonName: "x", DNS: []string{"a.example"}, IPs: []string{"::1"}, Emails: []string{"a@a.example"}}, want: "dns:a.example ip16:::1 email:a@a.example"},
		{name: "dual_purpose: an address as common name", request: request{Type: policy.DualPurpose, CommonName: "alice@Example.com"}, want: "email:alice@example.com"},
		{name: "dual_purpose: an address as common name steps back before other names", request: request{Type: policy.DualPurpose, CommonName: "alice@example.com", IPs: []string{"10.0.0.1"}}, want: "ip4:10.0.0.1"},
		{name: "dual_purpose: an IP address as common name", request: request{Type: policy.DualPurpose, CommonName: "10.0.0.1"}, want: "ip4:10.0.0.1"},

		{name: "client: a name that is no address has no SAN", request: request{Type: policy.Client, CommonName: "alice"}, want: ""},
		{name: "client: a name that is nearly an address has no SAN", request: request{Type: policy.Client, CommonName: "alice@under_score.example"}, want: ""},
		{name: "client: an address as common name", request: request{Type: policy.Client, CommonName: "alice@example.com"}, want: "email:alice@example.com"},
		{name: "client: the address given replaces it", request: request{Type: policy.Client, CommonName: "alice@example.com", Emails: []string{"a@example.com"}}, want: "email:a@example.com"},
		{name: "client: a host as common name is no DNS SAN", request: request{Type: policy.Client, CommonName: "host.example.com"}, want: ""},

		{name: "ca: no names", request: request{Type: policy.CA, CommonName: "Sub CA 1"}, want: ""},
		{name: "ca: a common name that looks like a host is no DNS SAN", request: request{Type: policy.CA, CommonName: "ca.example.com"}, want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			given := slices.Clone(tt.request.IPs)
			names, err := policy.ResolveNames(tt.request)
			if got := reasons(t, err); got != tt.reason {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if got := show(names); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if names.Empty() != (tt.want == "") {
				t.Errorf("Empty is %t", names.Empty())
			}
			if !slices.Equal(given, tt.request.IPs) {
				t.Error("the request was changed")
			}
		})
	}
}

func TestResolveNamesCommonName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64)
	tests := []struct {
		name, cn string
		reason   string
	}{
		{"empty", "", "common name must not be empty"},
		{"spaces only", "  ", "common name must not be empty"},
		{"65 characters", long + "x", `common name "` + long + `…" has more than 64 characters: use a shorter one, and list the long name as a SAN`},
		{"65 characters of two octets", strings.Repeat("é", 65), `common name "` + strings.Repeat("é", 64) + `…" has more than 64 characters: use a shorter one, and list the long name as a SAN`},
		{"NUL", "good.example\x00.evil.example", `common name "good.example\x00.evil.example" contains a NUL character`},
		{"a line feed", "a\nb", `common name "a\nb" contains a control character`},
		{"an escape sequence", "a\x1b[2Jb", `common name "a\x1b[2Jb" contains a control character`},
		{"a C1 control", "a\u0085b", `common name "a\u0085b" contains a control character`},
		{"not UTF-8", "a\xff", `common name "a\xff" is not valid UTF-8`},
		{"one character", "x", ""},
		{"64 characters", long, ""},
		{"64 characters of two octets", strings.Repeat("é", 64), ""},
		{"commas, quotes and equals signs", `Alice "A", O=x`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, typ := range []policy.CertificateType{policy.Client, policy.CA} {
				_, err := policy.ResolveNames(policy.NameRequest{Type: typ, CommonName: tt.cn})
				if got := reasons(t, err); got != tt.reason {
					t.Errorf("%s: got  %q\nwant %q", typ, got, tt.reason)
				}
			}
		})
	}
}

func TestResolveNamesBoundsTheirNumber(t *testing.T) {
	t.Parallel()
	many := make([]string, policy.MaxNames)
	for i := range many {
		many[i] = fmt.Sprintf("h%d.example", i)
	}
	tests := []struct {
		name    string
		request policy.NameRequest
		reason  string
		count   int
	}{
		{"251 DNS names", policy.NameRequest{DNS: append(slices.Clone(many), "x.example")}, "a certificate has at most 250 subject alternative names, not 251", 0},
		{"the kinds count together", policy.NameRequest{DNS: many, IPs: []string{"10.0.0.1"}, Emails: []string{"a@a.example"}}, "a certificate has at most 250 subject alternative names, not 252", 0},
		{"duplicates count", policy.NameRequest{DNS: slices.Repeat([]string{"a.example"}, 251)}, "a certificate has at most 250 subject alternative names, not 251", 0},
		{"250 are taken", policy.NameRequest{DNS: many}, "", 250},
		{"duplicates are dropped", policy.NameRequest{DNS: slices.Repeat([]string{"a.example", "A.Example."}, 100)}, "", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.request.Type, tt.request.CommonName = policy.DualPurpose, "x"
			names, err := policy.ResolveNames(tt.request)
			if got := reasons(t, err); got != tt.reason {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if got := len(names.DNS) + len(names.IPs) + len(names.Emails); got != tt.count {
				t.Errorf("%d names, want %d", got, tt.count)
			}
		})
	}
}
