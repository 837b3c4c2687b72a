package signer_test

import (
	"crypto"
	"crypto/dsa" //nolint:staticcheck // a key type that has to be refused
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"signet/signer"
)

// untouchable is a key that must not be used.
type untouchable struct {
	crypto.Signer
	t *testing.T
}

func (u untouchable) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	u.t.Error("the CA key was used")
	return nil, errors.New("not to be used")
}

func TestADefectiveTemplateIsRefused(t *testing.T) {
	t.Parallel()
	zero, negative := 0, -1
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		change func(*signer.Template)
		want   string
	}{
		{"no usage", func(t *signer.Template) { t.Usage = 0 }, "usage 0 is unknown"},
		{"a usage beyond the last", func(t *signer.Template) { t.Usage = signer.UsageCA + 1 }, "usage 5 is unknown"},
		{"a negative usage", func(t *signer.Template) { t.Usage = -1 }, "usage -1 is unknown"},
		{"no subject", func(t *signer.Template) { t.Subject = nil }, "subject is missing"},
		{"a subject that is not DER", func(t *signer.Template) { t.Subject = []byte("CN=www") }, "build certificate"},
		{"a subject that is not a Name", func(t *signer.Template) { t.Subject = []byte{0x02, 0x01, 0x01} }, "build certificate"},
		{"a subject with a tail", func(t *signer.Template) { t.Subject = append(subject("x"), 0x05, 0x00) }, "build certificate"},
		{"no key", func(t *signer.Template) { t.PublicKey = nil }, "unsupported public key type <nil>"},
		{"a DSA key", func(t *signer.Template) { t.PublicKey = &dsa.PublicKey{} }, "unsupported public key type *dsa.PublicKey"},
		{"a key on P-224", func(t *signer.Template) { t.PublicKey = p224.Public() }, "unsupported curve"},
		{"a leaf with path length", func(t *signer.Template) { t.PathLength = &zero }, "only a CA certificate has a path length"},
		{"a negative path length", func(t *signer.Template) { t.Usage, t.PathLength = signer.UsageCA, &negative }, "path length -1 is negative"},
		{"no beginning", func(t *signer.Template) { t.NotBefore = time.Time{} }, "validity is missing"},
		{"no end", func(t *signer.Template) { t.NotAfter = time.Time{} }, "validity is missing"},
		{"an end that has no encoding", func(t *signer.Template) { t.NotAfter = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "build certificate"},
		{"an IP of five octets", func(t *signer.Template) { t.IPs = []net.IP{{1, 2, 3, 4, 5}} }, "IP address of 5 octets"},
		{"an empty IP", func(t *signer.Template) { t.IPs = []net.IP{nil} }, "IP address of 0 octets"},
		{"a DNS name that is not ASCII", func(t *signer.Template) { t.DNS = []string{"zürich.example"} }, "IA5String"},
		{"an address that is not ASCII", func(t *signer.Template) { t.Emails = []string{"jürg@corp.example"} }, "IA5String"},
		{"a CRL URL that is not ASCII", func(t *signer.Template) { t.CRLURL = "http://corp.example/crl/zürich-1" }, "not printable ASCII"},
		{"an issuer URL that is not ASCII", func(t *signer.Template) { t.IssuerURL = "http://corp.example/ca/zürich-1.crt" }, "not printable ASCII"},
		{"an OCSP URL that is not ASCII", func(t *signer.Template) { t.OCSPURL = "http://corp.example/ocsp/zürich-1" }, "not printable ASCII"},
		{"an OCSP URL that is relative", func(t *signer.Template) { t.OCSPURL = "/ocsp/root-1" }, "not an absolute http or https URL"},
		{"a URL with a space", func(t *signer.Template) { t.CRLURL = "http://corp.example/a b" }, "not printable ASCII"},
		{"a URL with a line break", func(t *signer.Template) { t.CRLURL = "http://corp.example/\n" }, "not printable ASCII"},
		{"a URL that is relative", func(t *signer.Template) { t.CRLURL = "/crl/root-1" }, "not an absolute http or https URL"},
		{"a URL without host", func(t *signer.Template) { t.IssuerURL = "http:///ca/root-1.crt" }, "not an absolute http or https URL"},
		{"a URL nobody fetches", func(t *signer.Template) { t.IssuerURL = "javascript:alert(1)" }, "not an absolute http or https URL"},
		{"a URL that does not parse", func(t *signer.Template) { t.IssuerURL = "http://%zz/" }, "parse URL"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := kindNamed("P-256")
			der, _ := newRoot(t, k)
			issuer, err := signer.NewIssuer(der, untouchable{k.key(), t})
			if err != nil {
				t.Fatal(err)
			}
			template := leaf(signer.UsageServer, k.key())
			row.change(&template)
			draft, err := issuer.Prepare(template)
			if draft != nil || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("draft %t, error %q, want %q", draft != nil, err, row.want)
			}
			if errors.Is(err, signer.ErrKey) {
				t.Errorf("%q blames the key", err)
			}
		})
	}
}

func TestTheLinterRefusesWhatNobodyShouldSign(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	for _, row := range []struct {
		name   string
		change func(*signer.Template)
		want   string // the lint
	}{
		{"a validity that ends before it begins", func(t *signer.Template) { t.NotAfter = t.NotBefore.Add(-time.Hour) }, "e_validity_time_not_positive"},
		{"a CA without name", func(t *signer.Template) { t.Usage, t.Subject = signer.UsageCA, emptySubject }, "e_ca_subject_field_empty"},
		{"a leaf without any name", func(t *signer.Template) { t.Subject, t.DNS = emptySubject, nil }, "e_subject_empty_without_san"},
		{"a common name of 65 characters", func(t *signer.Template) { t.Subject = subject(long + "a") }, "e_subject_common_name_max_length"},
		{"a control character in the subject", func(t *signer.Template) { t.Subject = subject("www\x01") }, "e_subject_dn_not_printable_characters"},
		{"a space as DNS name", func(t *signer.Template) { t.DNS = []string{" "} }, "e_ext_san_space_dns_name"},
		{"an empty DNS name", func(t *signer.Template) { t.DNS = []string{""} }, "e_ext_san_empty_name"},
		{"a DNS name with a space", func(t *signer.Template) { t.DNS = []string{"www corp.example"} }, "dns_name_syntax"},
		{"a DNS name with a slash", func(t *signer.Template) { t.DNS = []string{"www/corp.example"} }, "dns_name_syntax"},
		{"a DNS name with a NUL", func(t *signer.Template) { t.DNS = []string{"www.corp.example\x00.evil.example"} }, "e_san_dns_name_includes_null_char"},
		{"a DNS name that starts with a dot", func(t *signer.Template) { t.DNS = []string{".corp.example"} }, "e_san_dns_name_starts_with_period"},
		{"a DNS name that ends with a dot", func(t *signer.Template) { t.DNS = []string{"corp.example."} }, "dns_name_syntax"},
		{"a DNS label of 64 characters", func(t *signer.Template) { t.DNS = []string{long + ".example"} }, "dns_name_syntax"},
		{"a DNS name of 254 characters", func(t *signer.Template) { t.DNS = []string{strings.Repeat("abcd.", 50) + "abcd"} }, "dns_name_syntax"},
		{"a DNS label that ends with a hyphen", func(t *signer.Template) { t.DNS = []string{"www-.corp.example"} }, "dns_name_syntax"},
		{"a bare wildcard", func(t *signer.Template) { t.DNS = []string{"*"} }, "e_san_bare_wildcard"},
		{"a wildcard in the middle", func(t *signer.Template) { t.DNS = []string{"www.*.corp.example"} }, "e_san_wildcard_not_first"},
		{"a wildcard within a label", func(t *signer.Template) { t.DNS = []string{"w*.corp.example"} }, "dns_name_syntax"},
		{"a URL as DNS name", func(t *signer.Template) { t.DNS = []string{"https://corp.example"} }, "dns_name_syntax"},
		{"an A-label that is none", func(t *signer.Template) { t.DNS = []string{"xn--99999999.corp.example"} }, "e_international_dns_name_not_unicode"},
		{"an address without domain", func(t *signer.Template) { t.Emails = []string{"ada"} }, "mailbox_syntax"},
		{"an address without local part", func(t *signer.Template) { t.Emails = []string{"@corp.example"} }, "mailbox_syntax"},
		{"an address with a phrase", func(t *signer.Template) { t.Emails = []string{"Ada <ada@corp.example>"} }, "e_ext_san_rfc822_format_invalid"},
		{"an address with a comment", func(t *signer.Template) { t.Emails = []string{"ada@corp.example(Ada)"} }, "e_ext_san_rfc822_format_invalid"},
		{"two addresses in one", func(t *signer.Template) { t.Emails = []string{"ada@corp.example,eve@evil.example"} }, "mailbox_syntax"},
		{"an address with a line break", func(t *signer.Template) { t.Emails = []string{"ada\r\n@corp.example"} }, "mailbox_syntax"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := kindNamed("P-256")
			der, _ := newRoot(t, k)
			issuer, err := signer.NewIssuer(der, untouchable{k.key(), t})
			if err != nil {
				t.Fatal(err)
			}
			template := leaf(signer.UsageServer, k.key())
			row.change(&template)
			draft, err := issuer.Prepare(template)
			var lint *signer.LintError
			if draft != nil || !errors.As(err, &lint) {
				t.Fatalf("draft %t, error %v, want a LintError", draft != nil, err)
			}
			for _, finding := range lint.Findings {
				if strings.HasPrefix(finding, row.want+": ") {
					if !strings.Contains(lint.Error(), finding) {
						t.Errorf("%q does not say %q", lint.Error(), finding)
					}
					return
				}
			}
			t.Errorf("findings %q, want %s", lint.Findings, row.want)
		})
	}
}

func TestTheLinterLetsPassWhatPrivateNetworksUse(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	withAddress := []byte("\x30\x2b\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02ch\x31\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01\x16\x0dpki@ex.ample\x20")
	for _, row := range []struct {
		name   string
		change func(*signer.Template)
	}{
		{"a name without dot", func(t *signer.Template) { t.DNS = []string{"localhost"} }},
		{"a top-level domain of one's own", func(t *signer.Template) { t.DNS = []string{"db.internal", "nas.fritz.box"} }},
		{"a wildcard", func(t *signer.Template) { t.DNS = []string{"*.corp.internal"} }},
		{"no common name at all", func(t *signer.Template) { t.Subject = emptySubject }},
		{"a private address", func(t *signer.Template) { t.IPs = []net.IP{net.IPv4(10, 1, 2, 3), net.IPv6loopback} }},
		{"no SAN", func(t *signer.Template) { t.DNS = nil }},
		{"a hundred years", func(t *signer.Template) { t.NotAfter = t.NotBefore.AddDate(100, 0, 0) }},
		{"one second", func(t *signer.Template) { t.NotAfter = t.NotBefore.Add(time.Second) }},
		{"an address and a lower-case country in the subject", func(t *signer.Template) { t.Subject = withAddress }},
		{"the issuer's own name", func(t *signer.Template) { t.Subject = subject("Root P-256") }},
		{"neither CRL nor issuer URL", func(t *signer.Template) { t.CRLURL, t.IssuerURL = "", "" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			template := leaf(signer.UsageServer, kindNamed("P-256").key())
			row.change(&template)
			if _, err := issuer.Prepare(template); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestARootIsRefused(t *testing.T) {
	t.Parallel()
	key := untouchable{kindNamed("P-256").key(), t}
	for _, row := range []struct {
		name   string
		change func(*signer.Template)
		key    crypto.Signer
		want   string
	}{
		{"for a leaf", func(t *signer.Template) { t.Usage = signer.UsageServer }, key, "only a CA certificate may be self-signed"},
		{"without key", func(*signer.Template) {}, nil, "no key"},
		{"with a key that does not tell its public half", func(*signer.Template) {}, hostile{}, "unsupported public key type <nil>"},
		{"without subject", func(t *signer.Template) { t.Subject = nil }, key, "subject is missing"},
		{"with an empty subject", func(t *signer.Template) { t.Subject = emptySubject }, key, "e_ca_subject_field_empty"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			template := authority("Root")
			row.change(&template)
			draft, err := signer.PrepareRoot(template, row.key)
			if draft != nil || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("draft %t, error %v, want %q", draft != nil, err, row.want)
			}
		})
	}
}
