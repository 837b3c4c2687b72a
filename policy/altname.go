package policy

import (
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

const (
	maxDNSName   = 253 // octets, without the root's empty label (RFC 1035, section 2.3.4)
	maxDNSLabel  = 63
	maxLocalPart = 64  // octets (RFC 5321, section 4.5.3.1.1)
	maxEmail     = 254 // octets: a path is 256 with its angle brackets (RFC 5321, section 4.5.3.1.3)
)

// parseDNSName returns a DNS name as it goes into a certificate, in lower-case A-labels (RFC 5280, section 4.2.1.6
// and section 7.2), or why it cannot. A wildcard is allowed as the whole first label (RFC 6125, section 6.4.3).
func parseDNSName(s string) (name, reason string) {
	base, wildcard := strings.CutPrefix(s, "*.")
	switch {
	case s == "":
		return "", "must not be empty"
	case len(s) > 4*maxDNSName: // no U-label is that much longer than its A-label
		return "", "has more than 253 characters"
	case checkText(s) != "":
		return "", checkText(s)
	case isIP(strings.Trim(s, "[]")):
		return "", "is an IP address: use san_ip_addresses"
	case strings.Contains(base, "*"):
		return "", "a wildcard must be the whole first label, as in *.example.com"
	}
	base, reason = toASCII(strings.TrimSuffix(base, "."))
	if reason != "" {
		return "", reason
	}
	labels := strings.Split(base, ".")
	for _, label := range labels {
		if reason := checkLabel(label); reason != "" {
			return "", reason
		}
	}
	if wildcard {
		base = "*." + base
	}
	switch {
	case len(base) > maxDNSName:
		return "", "has more than 253 characters"
	case wildcard && len(labels) < 2:
		return "", "a wildcard needs at least two labels after it, as in *.example.com"
	case strings.Trim(labels[len(labels)-1], "0123456789") == "":
		return "", "the last label is a number: use san_ip_addresses if this is an IP address"
	}
	return base, ""
}

// toASCII converts the U-labels of a name to A-labels (RFC 5891). Nothing but letter case and the normal form is
// mapped: a character that would be dropped or replaced makes a name that is not the one the reader saw.
func toASCII(s string) (name, reason string) {
	lower := strings.ToLower(norm.NFC.String(s))
	ascii := isASCII(lower)
	if ascii && !strings.Contains(lower, "xn--") {
		return lower, ""
	}
	name, err := idna.Registration.ToASCII(lower)
	switch {
	case err != nil || ascii && name != lower:
		return "", "is not a valid internationalized domain name"
	}
	return name, ""
}

// checkLabel checks the letter-digit-hyphen rule (RFC 1034, section 3.5, relaxed by RFC 1123, section 2.1). Labels
// with hyphens in the third and fourth place are reserved for what toASCII has checked (RFC 5890, section 2.3.1).
func checkLabel(label string) string {
	switch {
	case label == "":
		return "has an empty label"
	case len(label) > maxDNSLabel:
		return "has a label of more than 63 characters"
	case strings.Contains(label, "_"):
		return "contains an underscore, which host names do not have"
	case strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return "contains characters other than letters, digits, hyphens and dots"
	case label[0] == '-' || label[len(label)-1] == '-':
		return "has a label that begins or ends with a hyphen"
	case len(label) >= 4 && label[2:4] == "--" && label[:2] != "xn":
		return "has a reserved label (hyphens in the third and fourth place)"
	}
	return ""
}

// parseIP returns a single address in 4 or 16 octets, or why it cannot.
func parseIP(s string) (ip net.IP, reason string) {
	if checkText(s) != "" {
		return nil, checkText(s)
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil, "is a network: give a single address, without prefix length"
	}
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return nil, "is not an IPv4 or IPv6 address"
	case addr.Zone() != "":
		return nil, "has a zone: give the address without it"
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() {
		return nil, "is the unspecified address: give the address of the host"
	}
	return addr.AsSlice(), ""
}

// parseEmail returns an address as it goes into an rfc822Name (RFC 5280, section 4.2.1.6), or why it cannot. Only
// dot-atom local parts are taken (RFC 5322, section 3.2.3): quoted ones are legal and understood by nobody.
func parseEmail(s string) (address, reason string) {
	if checkText(s) != "" {
		return "", checkText(s)
	}
	if strings.ContainsAny(s, "<>,; ") {
		return "", "must be one plain address, without display name, as in user@example.com"
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return "", "has no @"
	}
	local, domain := s[:at], s[at+1:]
	switch {
	case local == "":
		return "", "has nothing before the @"
	case len(local) > maxLocalPart:
		return "", "has more than 64 characters before the @"
	case !isASCII(local):
		return "", "has characters other than ASCII before the @"
	case !isDotAtom(local):
		return "", "has characters before the @ that are not allowed there"
	case strings.Contains(domain, "*"):
		return "", "must not have a wildcard"
	}
	domain, reason = parseDNSName(domain)
	if reason != "" {
		return "", "its domain: " + reason
	}
	address = local + "@" + domain
	if len(address) > maxEmail {
		return "", "has more than 254 characters"
	}
	return address, ""
}

func isDotAtom(s string) bool {
	const special = "!#$%&'*+-/=?^_`{|}~"
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if !isAlphanumeric(atom[i]) && strings.IndexByte(special, atom[i]) < 0 {
				return false
			}
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return isLetter(c) || '0' <= c && c <= '9'
}

func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
