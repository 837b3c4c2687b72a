package signer_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"signet/signer"
)

// packages are where the tools of other implementations come from, on Debian.
var packages = map[string]string{
	"openssl":  "openssl",
	"certtool": "gnutls-bin",
	"certutil": "libnss3-tools",
	"crlutil":  "libnss3-tools",
	"ocsptool": "gnutls-bin",
	"vfychain": "libnss3-tools",
}

// tool runs a tool of another implementation in the folder and returns all it says.
func tool(t *testing.T, folder, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is needed to check what we issue: apt-get install %s", name, packages[name])
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = folder
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// accepts fails the test when the tool does not.
func accepts(t *testing.T, folder, name string, args ...string) {
	t.Helper()
	if out, err := tool(t, folder, name, args...); err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// rejects fails the test when the tool accepts, or rejects for another reason.
func rejects(t *testing.T, reason, folder, name string, args ...string) {
	t.Helper()
	if out, err := tool(t, folder, name, args...); err == nil || !strings.Contains(strings.ToLower(out), reason) {
		t.Errorf("%s %s: %v, want %q\n%s", name, strings.Join(args, " "), err, reason, out)
	}
}

// chain is a root, an intermediate CA and leaves of it, with CRLs of both CAs, as files in a folder.
type chain struct {
	folder             string
	root, intermediate *x509.Certificate
	server             *x509.Certificate
	issuer             *signer.Issuer // of the leaves
}

// newChain writes root, intermediate, server, client and revoked with their .pem and .der, root-crl and
// intermediate-crl likewise, crls.pem of both and server-chain.pem from leaf to root.
func newChain(t *testing.T, rootKind, intermediateKind kind, leafKey crypto.Signer) chain {
	t.Helper()
	c := chain{folder: t.TempDir()}
	certificate := map[string][]byte{}
	var rootIssuer *signer.Issuer
	certificate["root"], rootIssuer = newRoot(t, rootKind)
	certificate["intermediate"], c.issuer = newIntermediate(t, rootIssuer, intermediateKind)
	for name, usage := range map[string]signer.Usage{
		"server": signer.UsageServer, "client": signer.UsageClient, "dual": signer.UsageDualPurpose, "revoked": signer.UsageServer,
	} {
		template := leaf(usage, leafKey)
		template.Subject = subject(name)
		certificate[name] = sign(t)(c.issuer.Prepare(template))
	}
	nameless := leaf(signer.UsageServer, leafKey)
	nameless.Subject = emptySubject
	certificate["nameless"] = sign(t)(c.issuer.Prepare(nameless))
	for name, der := range certificate {
		c.writeBoth(t, name, "CERTIFICATE", der)
	}
	crls := map[string][]byte{
		"root":         signList(t, rootIssuer, list(1)),
		"intermediate": signList(t, c.issuer, list(2, signer.Revoked{Serial: serialOf(t, certificate["revoked"]), At: start, Reason: 1})),
	}
	for name, der := range crls {
		c.writeBoth(t, name+"-crl", "X509 CRL", der)
	}
	c.write(t, "crls.pem", append(encode("X509 CRL", crls["root"]), encode("X509 CRL", crls["intermediate"])...))
	for _, name := range []string{"server", "revoked"} {
		var bundle []byte
		for _, part := range []string{name, "intermediate", "root"} {
			bundle = append(bundle, encode("CERTIFICATE", certificate[part])...)
		}
		c.write(t, name+"-chain.pem", bundle)
	}
	c.root, c.intermediate, c.server = parse(t, certificate["root"]), parse(t, certificate["intermediate"]), parse(t, certificate["server"])
	return c
}

// writeBoth writes name.der and name.pem.
func (c chain) writeBoth(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	c.write(t, name+".der", der)
	c.write(t, name+".pem", encode(kind, der))
}

func (c chain) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.folder, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// everyChain runs the test on chains in which each kind of key signs once as root and once as intermediate CA.
func everyChain(t *testing.T, of []kind, test func(*testing.T, chain)) {
	t.Helper()
	for i, k := range of {
		below := of[(i+1)%len(of)]
		t.Run(k.name+" over "+below.name, func(t *testing.T) {
			t.Parallel()
			test(t, newChain(t, k, below, ecKey(elliptic.P256())()))
		})
	}
}

func TestGoVerifiesTheChain(t *testing.T) {
	t.Parallel()
	everyChain(t, kinds, func(t *testing.T, c chain) {
		roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(c.root)
		intermediates.AddCert(c.intermediate)
		options := x509.VerifyOptions{DNSName: "www.corp.example", Roots: roots, Intermediates: intermediates}
		if _, err := c.server.Verify(options); err != nil {
			t.Error(err)
		}
		options.DNSName = "mail.corp.example"
		if _, err := c.server.Verify(options); err == nil {
			t.Error("another host name is accepted")
		}
		options.DNSName, options.KeyUsages = "", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if _, err := c.server.Verify(options); err == nil {
			t.Error("a server certificate is accepted as a client's")
		}
	})
}

func TestOpenSSLVerifiesTheChainStrictly(t *testing.T) {
	t.Parallel()
	everyChain(t, kinds, func(t *testing.T, c chain) {
		verify := func(check string, more ...string) []string {
			args := []string{"verify", "-x509_strict", check, "-CAfile", "root.pem", "-untrusted", "intermediate.pem", "-CRLfile", "crls.pem"}
			return append(args, more...)
		}
		for _, check := range []string{"-crl_check", "-crl_check_all"} {
			accepts(t, c.folder, "openssl", verify(check, "-purpose", "sslserver", "-verify_hostname", "www.corp.example", "server.pem")...)
			accepts(t, c.folder, "openssl", verify(check, "-purpose", "sslclient", "client.pem")...)
			accepts(t, c.folder, "openssl", verify(check, "-purpose", "sslserver", "dual.pem")...)
			accepts(t, c.folder, "openssl", verify(check, "-purpose", "sslclient", "dual.pem")...)
			accepts(t, c.folder, "openssl", verify(check, "-verify_hostname", "www.corp.example", "nameless.pem")...)
			rejects(t, "certificate revoked", c.folder, "openssl", verify(check, "revoked.pem")...)
		}
		rejects(t, "purpose", c.folder, "openssl", verify("-crl_check", "-purpose", "sslclient", "server.pem")...)
		rejects(t, "purpose", c.folder, "openssl", verify("-crl_check", "-purpose", "sslserver", "client.pem")...)
		rejects(t, "hostname mismatch", c.folder, "openssl", verify("-crl_check", "-verify_hostname", "mail.corp.example", "server.pem")...)
	})
}

func TestOpenSSLVerifiesTheCRL(t *testing.T) {
	t.Parallel()
	everyChain(t, kinds, func(t *testing.T, c chain) {
		for _, name := range []string{"root", "intermediate"} {
			// "openssl crl" exits with 0 in either case.
			out, err := tool(t, c.folder, "openssl", "crl", "-verify", "-CAfile", name+".pem", "-in", name+"-crl.pem", "-noout", "-text")
			if err != nil || !strings.Contains(out, "verify OK") {
				t.Errorf("%v\n%s", err, out)
			}
		}
		out, err := tool(t, c.folder, "openssl", "crl", "-in", "intermediate-crl.pem", "-noout", "-text")
		for _, want := range []string{"X509v3 CRL Number: \n                2\n", "X509v3 Authority Key Identifier", "X509v3 CRL Reason Code: \n                Key Compromise"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("no %q: %v\n%s", want, err, out)
			}
		}
		out, err = tool(t, c.folder, "openssl", "crl", "-verify", "-CAfile", "root.pem", "-in", "intermediate-crl.pem", "-noout")
		if strings.Contains(out, "verify OK") {
			t.Errorf("the CRL is accepted from another CA: %v\n%s", err, out)
		}
	})
}

func TestGnuTLSVerifiesTheChain(t *testing.T) {
	t.Parallel()
	everyChain(t, kinds, func(t *testing.T, c chain) {
		verify := func(bundle, host string) []string {
			return []string{"--verify", "--load-ca-certificate", "root.pem", "--load-crl", "crls.pem", "--verify-purpose", "1.3.6.1.5.5.7.3.1", "--verify-hostname", host, "--infile", bundle}
		}
		accepts(t, c.folder, "certtool", verify("server-chain.pem", "www.corp.example")...)
		rejects(t, "not match", c.folder, "certtool", verify("server-chain.pem", "mail.corp.example")...)
		rejects(t, "revoked", c.folder, "certtool", verify("revoked-chain.pem", "www.corp.example")...)
		accepts(t, c.folder, "certtool", "--verify-crl", "--load-ca-certificate", "intermediate.pem", "--infile", "intermediate-crl.pem")
		rejects(t, "not verified", c.folder, "certtool", "--verify-crl", "--load-ca-certificate", "root.pem", "--infile", "intermediate-crl.pem")
	})
}

// The NSS of the stable distributions does not verify signatures of Ed25519 keys.
func TestNSSVerifiesTheChain(t *testing.T) {
	t.Parallel()
	var known []kind
	for _, k := range kinds {
		if k.name != "Ed25519" {
			known = append(known, k)
		}
	}
	everyChain(t, known, func(t *testing.T, c chain) {
		accepts(t, c.folder, "certutil", "-N", "-d", "sql:.", "--empty-password")
		for name, trust := range map[string]string{"root": "CT,,", "intermediate": ",,", "server": ",,", "client": ",,", "revoked": ",,"} {
			accepts(t, c.folder, "certutil", "-A", "-d", "sql:.", "-n", name, "-t", trust, "-i", name+".der")
		}
		accepts(t, c.folder, "certutil", "-V", "-d", "sql:.", "-e", "-u", "L", "-n", "intermediate")
		accepts(t, c.folder, "certutil", "-V", "-d", "sql:.", "-e", "-u", "V", "-n", "server")
		accepts(t, c.folder, "certutil", "-V", "-d", "sql:.", "-e", "-u", "C", "-n", "client")
		accepts(t, c.folder, "certutil", "-V", "-d", "sql:.", "-e", "-u", "V", "-n", "revoked")
		rejects(t, "not approved", c.folder, "certutil", "-V", "-d", "sql:.", "-e", "-u", "V", "-n", "client")

		accepts(t, c.folder, "crlutil", "-I", "-d", "sql:.", "-t", "1", "-i", "intermediate-crl.der")
		accepts(t, c.folder, "certutil", "-V", "-d", "sql:.", "-e", "-u", "V", "-n", "server")
		rejects(t, "revoked", c.folder, "certutil", "-V", "-d", "sql:.", "-e", "-u", "V", "-n", "revoked")
	})
}
