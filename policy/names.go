package policy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CertificateType is the kind of certificate asked for.
type CertificateType string

// The certificate types.
const (
	Server      CertificateType = "server"
	Client      CertificateType = "client"
	DualPurpose CertificateType = "dual_purpose" // server and client
	CA          CertificateType = "ca"
)

// Valid reports whether t is one of the certificate types.
func (t CertificateType) Valid() bool {
	switch t {
	case Server, Client, DualPurpose, CA:
		return true
	}
	return false
}

// MaxNames is the largest number of subject alternative names of all kinds in one certificate.
const MaxNames = 250

// maxCommonName is ub-common-name, in characters (RFC 5280, appendix A.1).
const maxCommonName = 64

// NameRequest is the names asked for, as the caller wrote them. An empty list counts as absent.
type NameRequest struct {
	Type       CertificateType
	CommonName string
	DNS        []string
	IPs        []string
	Emails     []string
}

// Names is the checked content of a subjectAltName extension (RFC 5280, section 4.2.1.6): DNS names and e-mail
// domains as lower-case A-labels, without duplicates, in the order given.
type Names struct {
	DNS    []string
	IPs    []net.IP // 4 or 16 octets
	Emails []string
}

// Empty reports whether there is no name at all.
func (n Names) Empty() bool { return len(n.DNS)+len(n.IPs)+len(n.Emails) == 0 }

// ResolveNames applies the SAN rules of the certificate type, with its defaults from the common name, and checks
// every name.
//
//   - server: DNS names and IP addresses. Without DNS names, the common name is one; if it is an IP address, it
//     joins the IP addresses instead.
//   - dual_purpose: the same, and e-mail addresses. A common name that is an e-mail address becomes the only name
//     when no name is given, and no name otherwise.
//   - client: e-mail addresses only. Without any, the common name if it is one.
//   - ca: none.
//
// The error is a [*Violation].
func ResolveNames(req NameRequest) (Names, error) {
	if reason := checkRequest(req); reason != "" {
		return Names{}, violation(reason)
	}
	reasons := typeRules(req)
	if reason := checkCommonName(req.CommonName); reason != "" {
		reasons = append(reasons, reason)
	} else if reason := addDefaults(&req); reason != "" {
		reasons = append(reasons, reason)
	}
	names := Names{
		DNS:    parseNames("DNS name", req.DNS, parseDNSName, equalStrings, &reasons),
		IPs:    parseNames("IP address", req.IPs, parseIP, net.IP.Equal, &reasons),
		Emails: parseNames("e-mail address", req.Emails, parseEmail, equalStrings, &reasons),
	}
	if err := violation(reasons...); err != nil {
		return Names{}, err
	}
	return names, nil
}

// parseNames parses the names of one kind, drops duplicates, and adds what is wrong with the others to reasons.
func parseNames[T any](kind string, given []string, parse func(string) (T, string), equal func(T, T) bool, reasons *[]string) []T {
	var names []T
	for _, s := range given {
		name, reason := parse(s)
		if reason != "" {
			*reasons = append(*reasons, fmt.Sprintf("%s %s: %s", kind, quote(s), reason))
		} else if !slices.ContainsFunc(names, func(n T) bool { return equal(n, name) }) {
			names = append(names, name)
		}
	}
	return names
}

func equalStrings(a, b string) bool { return a == b }

// checkRequest refuses what is not worth looking at name by name.
func checkRequest(req NameRequest) string {
	if !req.Type.Valid() {
		return fmt.Sprintf("certificate_type must be server, client, dual_purpose or ca, not %s", quote(string(req.Type)))
	}
	if n := len(req.DNS) + len(req.IPs) + len(req.Emails); n > MaxNames {
		return fmt.Sprintf("a certificate has at most %d subject alternative names, not %d", MaxNames, n)
	}
	return ""
}

// typeRules returns the reasons why the kinds of names asked for do not go with the certificate type.
func typeRules(req NameRequest) []string {
	var reasons []string
	refuse := func(given []string, kind string) {
		if len(given) > 0 {
			reasons = append(reasons, fmt.Sprintf("%s certificates do not take %s SANs", req.Type, kind))
		}
	}
	switch req.Type {
	case Server:
		refuse(req.Emails, "e-mail")
	case Client:
		refuse(req.DNS, "DNS")
		refuse(req.IPs, "IP address")
	case CA:
		refuse(req.DNS, "DNS")
		refuse(req.IPs, "IP address")
		refuse(req.Emails, "e-mail")
	}
	return reasons
}

func checkCommonName(cn string) string {
	switch {
	case strings.TrimSpace(cn) == "":
		return "common name must not be empty"
	case utf8.RuneCountInString(cn) > maxCommonName:
		return fmt.Sprintf("common name %s has more than %d characters: use a shorter one, and list the long name as a SAN", quote(cn), maxCommonName)
	}
	if reason := checkVisible(cn); reason != "" {
		return fmt.Sprintf("common name %s %s", quote(cn), reason)
	}
	return ""
}

// addDefaults adds to the request the name that its common name stands for when the type's own kind of name is
// absent, and returns why it cannot.
func addDefaults(req *NameRequest) string {
	cn := req.CommonName
	_, notEmail := parseEmail(cn)
	switch {
	case req.Type == CA:
		return ""
	case req.Type == Client:
		if len(req.Emails) == 0 && notEmail == "" {
			req.Emails = []string{cn}
		}
		return ""
	case isIP(cn):
		req.IPs = append(slices.Clone(req.IPs), cn)
		return ""
	case len(req.DNS) > 0:
		return ""
	case req.Type == DualPurpose && notEmail == "":
		if len(req.IPs)+len(req.Emails) == 0 {
			req.Emails = []string{cn}
		}
		return ""
	}
	if _, reason := parseDNSName(cn); reason != "" {
		return fmt.Sprintf("common name %s is not a DNS name (%s): give san_dns_names", quote(cn), reason)
	}
	req.DNS = []string{cn}
	return ""
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// checkText refuses what must not be in any name. It is the end of a sentence that begins with the name.
func checkText(s string) string {
	switch {
	case !utf8.ValidString(s):
		return "is not valid UTF-8"
	case strings.ContainsRune(s, 0):
		return "contains a NUL character"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "contains a control character"
	}
	return ""
}

// checkVisible is checkText for names that people read. Host names may hold joiners where IDNA allows them.
func checkVisible(s string) string {
	if reason := checkText(s); reason != "" {
		return reason
	}
	if strings.ContainsFunc(s, isInvisible) {
		return "contains an invisible character or one that could not be decoded"
	}
	return ""
}

// isInvisible finds what disguises a name: format characters, such as those that turn the writing direction, and the
// replacement character of a decoder that failed.
func isInvisible(r rune) bool { return unicode.Is(unicode.Cf, r) || r == utf8.RuneError }

// quote returns s in quotes, cut to a length that fits a sentence.
func quote(s string) string { return fmt.Sprintf("%q", clip(s)) }

// clip cuts s to 64 characters.
func clip(s string) string {
	const limit = 64
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit]) + "…"
}
