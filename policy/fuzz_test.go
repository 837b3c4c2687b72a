package policy_test

import (
	"bytes"
	"crypto/x509"
	"net"
	"strings"
	"testing"

	"signet/policy"
)

func FuzzParseDN(f *testing.F) {
	for _, s := range []string{
		"CN=api.example.com,O=Acme Corp,C=US", `O="x,CN=evil.example"`, `CN=\ \#\,\+\"\\\<\>\;\=\ +OU=Z\C3\BCrich`, "1.2.3.4=#1303666f6f",
		"cn = x , o = y + ou = z", "2.5.4.3=#1e0200fc", "C=de,DC=a,E=a@b", `CN="x\"`, "CN=x,,", "xyz=1", "CN=\x00", `CN=\00`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := policy.ParseDN(s)
		if reasons(t, err) != "" {
			return
		}
		again, err := policy.ParseDN(d.String())
		if err != nil || again.String() != d.String() {
			t.Fatalf("%q is read as %q, and that as %q, %v", s, d, again, err)
		}
		der, err := d.DER()
		if err != nil {
			t.Fatal(err)
		}
		checkOthers(t, d, der)
		checkDER(t, der)
	})
}

func FuzzDNFromDER(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Add(cnOf(utf8String, "x,CN=evil.example"))
	f.Add(cnOf(bmpString, "\xd8\x3d\xde\x00\x00x"))
	f.Add(cnOf(t61String, "Z\xfcrich"))
	f.Add(cnOf(universalString, "\x00\x01\xf6\x00"))
	f.Add(only(oidEmail, text(ia5String, "a@example.com")))
	f.Add(only(unhex("2a0304"), text(utf8String, "ü")))
	f.Add(name(rdn(attr(oidCN, text(utf8String, "b")), attr(oidOU, text(printableString, "a"))), rdn(attr(oidC, text(printableString, "us")))))
	f.Add(name(rdn()))
	f.Add(only(oidCN, tlv(0x2c, text(utf8String, "x"))))
	f.Fuzz(func(t *testing.T, der []byte) {
		d, err := policy.DNFromDER(der)
		if reasons(t, err) != "" || d.IsEmpty() {
			return
		}
		again, err := policy.ParseDN(d.String())
		if err != nil || again.String() != d.String() {
			t.Fatalf("%x is read as %q, and that as %q, %v", der, d, again, err)
		}
		canonical, err := d.DER()
		if err != nil {
			t.Fatal(err)
		}
		checkOthers(t, d, canonical)
		checkDER(t, canonical)
	})
}

// checkDER requires that what we encode is what we read, and that its encoding is canonical.
func checkDER(t *testing.T, der []byte) {
	t.Helper()
	d, err := policy.DNFromDER(der)
	if err != nil {
		t.Fatalf("our own %x is refused: %v", der, err)
	}
	again, err := d.DER()
	if err != nil || !bytes.Equal(again, der) {
		t.Fatalf("%x becomes %x, %v", der, again, err)
	}
}

func FuzzResolveNames(f *testing.F) {
	f.Add("server", "api.example.com", "*.Example.com\nbücher.example.", "10.0.0.42\n::ffff:192.0.2.1", "")
	f.Add("dual_purpose", "alice@example.com", "", "", "a@bücher.example")
	f.Add("client", "alice", "", "", "alice+ca@example.com")
	f.Add("ca", "Sub CA", "", "", "")
	f.Add("server", "192.0.2.1", "xn--bcher-kva.example\n*.com", "fe80::1%eth0\n10.0.0.0/8", "a@b@c")
	f.Add("server", "x", "exa\u00admple.com\n℀.example\nf*o.example", "::", "Alice <a@b>")
	f.Fuzz(func(t *testing.T, typ, cn, dns, ips, emails string) {
		list := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, "\n")
		}
		request := policy.NameRequest{Type: policy.CertificateType(typ), CommonName: cn, DNS: list(dns), IPs: list(ips), Emails: list(emails)}
		names, err := policy.ResolveNames(request)
		if reasons(t, err) != "" {
			if !names.Empty() {
				t.Fatalf("refused, and yet %v", names)
			}
			return
		}
		checkNames(t, request.Type, names)
		request.DNS, request.Emails, request.IPs = names.DNS, names.Emails, nil
		for _, ip := range names.IPs {
			request.IPs = append(request.IPs, ip.String())
		}
		again, err := policy.ResolveNames(request)
		if err != nil || show(again) != show(names) {
			t.Fatalf("%s becomes %s, %v", show(names), show(again), err)
		}
	})
}

// checkNames holds what every certificate of a type has in common, independently of how the names were written.
func checkNames(t *testing.T, typ policy.CertificateType, n policy.Names) {
	t.Helper()
	hostNames, addresses := len(n.DNS)+len(n.IPs), len(n.Emails)
	switch typ {
	case policy.Server:
		if hostNames == 0 || addresses > 0 {
			t.Fatalf("server with %s", show(n))
		}
	case policy.DualPurpose:
		if n.Empty() {
			t.Fatal("dual_purpose without a name")
		}
	case policy.Client:
		if hostNames > 0 {
			t.Fatalf("client with %s", show(n))
		}
	case policy.CA:
		if !n.Empty() {
			t.Fatalf("ca with %s", show(n))
		}
	default:
		t.Fatalf("type %q is accepted", typ)
	}
	for _, s := range n.DNS {
		checkHost(t, strings.TrimPrefix(s, "*."))
	}
	for _, s := range n.Emails {
		local, domain, found := strings.Cut(s, "@")
		if !found || local == "" || len(s) > 254 {
			t.Fatalf("e-mail address %q is accepted", s)
		}
		checkHost(t, domain)
	}
	for _, ip := range n.IPs {
		if len(ip) != net.IPv4len && (len(ip) != net.IPv6len || ip.To4() != nil) || ip.IsUnspecified() {
			t.Fatalf("IP address %v of %d octets is accepted", ip, len(ip))
		}
	}
}

func checkHost(t *testing.T, s string) {
	t.Helper()
	if len(s) == 0 || len(s) > 253 || net.ParseIP(s) != nil || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		t.Fatalf("DNS name %q is accepted", s)
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			t.Fatalf("DNS name %q is accepted", s)
		}
	}
}

func FuzzCheckPublicKey(f *testing.F) {
	for _, s := range []string{
		"302a300506032b6570032100 26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"302a300506032b6570032100 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
		"302a300506032b656e032100 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
		"3059301306072a8648ce3d020106082a8648ce3d030107034200 04422548f88fb782ffb5eca3744452c72a1e558fbd6f73be5e48e93232cc45c5b16c4cd10c4cb8d5b8a17139e94882c8992572993425f41419ab7e90a42a494272",
		"301a300d06092a864886f70d0101010500030900 3006020101020103",
	} {
		f.Add(unhex(s))
	}
	f.Fuzz(func(t *testing.T, spki []byte) {
		key, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			return
		}
		spec, err := policy.CheckPublicKey(key)
		if reasons(t, err) != "" {
			if spec != (policy.KeySpec{}) {
				t.Fatalf("refused, and yet %v", spec)
			}
			return
		}
		if spec.Type == policy.RSA {
			if spec.Size < 2048 || spec.Size > 8192 {
				t.Fatalf("an RSA key of %d bits is accepted", spec.Size)
			}
		} else if complete, err := policy.CheckKeySpec(spec); err != nil || complete != spec {
			t.Fatalf("%v is accepted, but is none of ours: %v", spec, err)
		}
	})
}
