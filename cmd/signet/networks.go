package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// networks are ranges of addresses.
type networks []netip.Prefix

// UnmarshalText reads networks (192.0.2.0/24) and addresses, separated by commas; nothing is none.
func (n *networks) UnmarshalText(text []byte) error {
	*n = nil
	if len(text) == 0 { // a variable that is set to nothing
		return nil
	}
	for part := range strings.SplitSeq(string(text), ",") {
		part = strings.TrimSpace(part)
		network, err := netip.ParsePrefix(part)
		if err != nil {
			var address netip.Addr
			if address, err = netip.ParseAddr(part); err == nil {
				network, err = address.Prefix(address.BitLen())
			}
		}
		if err != nil {
			return fmt.Errorf("%q is not a list of networks or addresses, such as 192.0.2.0/24,2001:db8::1", text)
		}
		*n = append(*n, network.Masked())
	}
	return nil
}
