package api

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestTheClientIsWhomTheLastTrustedProxyWasAskedBy(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"nobody between", "192.0.2.1:5", nil, "192.0.2.1"},
		{"a stranger who claims to be a proxy", "192.0.2.1:5", []string{"203.0.113.9"}, "192.0.2.1"},
		{"a proxy that says nothing", "10.0.0.1:5", nil, "10.0.0.1"},
		{"a proxy", "10.0.0.1:5", []string{"203.0.113.9"}, "203.0.113.9"},
		{"a client who invents what came before", "10.0.0.1:5", []string{"198.51.100.7, 203.0.113.9"}, "203.0.113.9"},
		{"two proxies", "10.0.0.1:5", []string{"198.51.100.7, 203.0.113.9, 10.0.0.2"}, "203.0.113.9"},
		{"two proxies, a line each", "10.0.0.1:5", []string{"203.0.113.9", "10.0.0.2"}, "203.0.113.9"},
		{"a client among the proxies", "10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"with a port", "10.0.0.1:5", []string{"203.0.113.9:1234"}, "203.0.113.9"},
		{"IPv6", "[2001:db8:1::1]:5", []string{"2001:db8:2::9"}, "2001:db8:2::9"},
		{"IPv6 with a port", "[2001:db8:1::1]:5", []string{"[2001:db8:2::9]:1234"}, "2001:db8:2::9"},
		{"IPv4 through an IPv6 socket", "[::ffff:10.0.0.1]:5", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"nonsense", "10.0.0.1:5", []string{"203.0.113.9, unknown"}, "10.0.0.1"},
		{"nothing", "10.0.0.1:5", []string{""}, "10.0.0.1"},
		{"an empty entry", "10.0.0.1:5", []string{"203.0.113.9, "}, "10.0.0.1"},
		{"a flood", "10.0.0.1:5", []string{"203.0.113.9" + strings.Repeat(", 10.0.0.7", 1000)}, "10.0.0.7"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := clientAddress(r, trusted); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func FuzzClientAddress(f *testing.F) {
	f.Add("10.0.0.1:5", "203.0.113.9, 10.0.0.2")
	f.Add("[fe80::1%eth0]:5", "[::1]:99999,,")
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		r := &http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		got := clientAddress(r, trusted)
		address, err := netip.ParseAddr(peerAddress(r))
		if (err != nil || !within(address, trusted)) && got != peerAddress(r) {
			t.Errorf("%q is not trusted and was believed: %q", peer, got)
		}
		if _, err := netip.ParseAddr(got); got != peerAddress(r) && err != nil {
			t.Errorf("%q is no address", got)
		}
	})
}
