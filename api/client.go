package api

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// maxProxies bounds the addresses of X-Forwarded-For that are looked at.
const maxProxies = 16

// peerAddress is the address that a request came from, without its port. Headers are not believed.
func peerAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// clientAddress is the address of whoever asks: the peer, or, when that is a trusted proxy, the last address in X-Forwarded-For that
// no trusted proxy has. A proxy appends the address that it was asked from, so that everything before that address is hearsay.
func clientAddress(r *http.Request, trusted []netip.Prefix) string {
	peer := peerAddress(r)
	address, err := netip.ParseAddr(peer)
	if err != nil || !within(address, trusted) {
		return peer
	}
	lines := r.Header.Values("X-Forwarded-For")
	looked := 0
	for _, line := range slices.Backward(lines) {
		for line != "" {
			i := strings.LastIndexByte(line, ',')
			next, ok := parseForwarded(line[i+1:])
			line = line[:max(i, 0)]
			if looked++; !ok || looked > maxProxies {
				return address.String()
			}
			if address = next; !within(address, trusted) {
				return address.String()
			}
		}
	}
	return address.String()
}

// parseForwarded reads an address, with or without port.
func parseForwarded(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	address, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return address.Unmap().WithZone(""), err == nil
}

func within(address netip.Addr, networks []netip.Prefix) bool {
	address = address.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(address) })
}
