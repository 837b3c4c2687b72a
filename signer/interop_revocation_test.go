package signer_test

import (
	"crypto/elliptic"
	"encoding/asn1"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet/signer"
)

// revocationKinds sign lists and answers.
var revocationKinds = []kind{kindNamed("RSA-2048"), kindNamed("P-256"), kindNamed("P-384"), kindNamed("Ed25519")}

const (
	baseURL  = "http://pki.corp.example/crl/ca-2"
	deltaURL = baseURL + "/delta"
)

// issue writes one more server certificate, whose CRL is at the URL, and returns its serial number.
func (c chain) issue(t *testing.T, name, crlURL string) string {
	t.Helper()
	template := leaf(signer.UsageServer, ecKey(elliptic.P256())())
	template.Subject, template.CRLURL = subject(name), crlURL
	der := sign(t)(c.issuer.Prepare(template))
	c.writeBoth(t, name, "CERTIFICATE", der)
	bundle := encode("CERTIFICATE", der)
	for _, ca := range [][]byte{c.intermediate.Raw, c.root.Raw} {
		bundle = append(bundle, encode("CERTIFICATE", ca)...)
	}
	c.write(t, name+"-chain.pem", bundle)
	return serialOf(t, der)
}

// list writes a CRL of the CA of the leaves.
func (c chain) list(t *testing.T, name string, l signer.CRL) {
	t.Helper()
	c.writeBoth(t, name, "X509 CRL", signList(t, c.issuer, l))
}

// join writes CRLs into one file, with that of the root.
func (c chain) join(t *testing.T, to string, names ...string) {
	t.Helper()
	var all []byte
	for _, name := range append(names, "root-crl") {
		all = append(all, must(os.ReadFile(filepath.Join(c.folder, name+".pem")))...)
	}
	c.write(t, to+".pem", all)
}

// verify are the arguments of "openssl verify" with the CRLs in a file.
func verify(crls, certificate string, more ...string) []string {
	args := []string{"verify", "-x509_strict", "-crl_check_all", "-CAfile", "root.pem", "-untrusted", "intermediate.pem", "-CRLfile", crls + ".pem"}
	return append(append(args, more...), certificate+".pem")
}

// newDeltaChain has leaves that are good in both lists, revoked in both, revoked in the delta only ("late"), and on hold in the
// base and released in the delta ("held").
func newDeltaChain(t *testing.T, rootKind, intermediateKind kind) chain {
	t.Helper()
	c := newChain(t, rootKind, intermediateKind, ecKey(elliptic.P256())())
	early, late, held := c.issue(t, "early", baseURL), c.issue(t, "late", baseURL), c.issue(t, "held", baseURL)
	c.issue(t, "fine", baseURL)
	base := list(10, signer.Revoked{Serial: early, At: start, Reason: 4}, signer.Revoked{Serial: held, At: start, Reason: 6})
	base.DistributionPoint, base.FreshestURL = baseURL, deltaURL
	c.list(t, "base", base)
	delta := list(11, signer.Revoked{Serial: late, At: start, Reason: 1, InvalidityDate: start.Add(-time.Hour)}, signer.Revoked{Serial: held, At: start, Reason: 8})
	delta.DistributionPoint, delta.Base = baseURL, big.NewInt(10)
	c.list(t, "delta", delta)
	c.join(t, "base-only", "base")
	c.join(t, "both", "base", "delta")
	return c
}

func everyDeltaChain(t *testing.T, test func(*testing.T, chain)) {
	t.Helper()
	for i, k := range revocationKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, newDeltaChain(t, revocationKinds[(i+1)%len(revocationKinds)], k))
		})
	}
}

func TestOpenSSLAddsTheDeltaToItsBase(t *testing.T) {
	t.Parallel()
	everyDeltaChain(t, func(t *testing.T, c chain) {
		accepts(t, c.folder, "openssl", verify("base-only", "fine")...)
		accepts(t, c.folder, "openssl", verify("base-only", "late")...)
		rejects(t, "certificate revoked", c.folder, "openssl", verify("base-only", "early")...)
		rejects(t, "certificate revoked", c.folder, "openssl", verify("base-only", "held")...)

		accepts(t, c.folder, "openssl", verify("both", "fine", "-use_deltas")...)
		accepts(t, c.folder, "openssl", verify("both", "held", "-use_deltas")...)
		rejects(t, "certificate revoked", c.folder, "openssl", verify("both", "late", "-use_deltas")...)
		rejects(t, "certificate revoked", c.folder, "openssl", verify("both", "early", "-use_deltas")...)
		rejects(t, "unable to get certificate crl", c.folder, "openssl", verify("root-crl", "fine", "-use_deltas")...)
	})
}

func TestOpenSSLShowsWhatADeltaAndItsBaseSay(t *testing.T) {
	t.Parallel()
	everyDeltaChain(t, func(t *testing.T, c chain) {
		for name, wants := range map[string][]string{
			"base": {
				"Version 2", "X509v3 Issuing Distribution Point: critical\n", "URI:" + baseURL + "\n", "X509v3 Freshest CRL: \n", "URI:" + deltaURL + "\n",
				"CRL Number: \n                10\n", "Superseded", "Certificate Hold",
			},
			"delta": {
				"X509v3 Delta CRL Indicator: critical\n                10\n", "CRL Number: \n                11\n", "URI:" + baseURL + "\n",
				"Remove From CRL", "Key Compromise", "Invalidity Date: \n                " + start.Add(-time.Hour).Format("Jan _2 15:04:05 2006 GMT"),
			},
		} {
			out, err := tool(t, c.folder, "openssl", "crl", "-verify", "-CAfile", "intermediate.pem", "-in", name+".pem", "-noout", "-text")
			if err != nil || !strings.Contains(out, "verify OK") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			for _, want := range wants {
				if !strings.Contains(out, want) {
					t.Errorf("%s: no %q in\n%s", name, want, out)
				}
			}
			if name == "delta" && strings.Contains(out, "Freshest CRL") {
				t.Errorf("a delta of a delta:\n%s", out)
			}
		}
	})
}

// A certificate is checked against the list of its own partition, and no other will do.
func TestOpenSSLTakesTheListOfThePartition(t *testing.T) {
	t.Parallel()
	for i, k := range revocationKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, revocationKinds[(i+1)%len(revocationKinds)], k, ecKey(elliptic.P256())())
			for _, shard := range []string{"1", "2"} {
				c.issue(t, "fine"+shard, baseURL+"/"+shard)
				revoked := c.issue(t, "bad"+shard, baseURL+"/"+shard)
				l := list(20, signer.Revoked{Serial: revoked, At: start, Reason: 5})
				l.DistributionPoint = baseURL + "/" + shard
				c.list(t, "shard"+shard, l)
				c.join(t, "only"+shard, "shard"+shard)
			}
			c.join(t, "all", "shard1", "shard2")
			for _, more := range [][]string{nil, {"-extended_crl"}} {
				for shard, other := range map[string]string{"1": "2", "2": "1"} {
					for _, lists := range []string{"only" + shard, "all"} {
						accepts(t, c.folder, "openssl", verify(lists, "fine"+shard, more...)...)
						rejects(t, "certificate revoked", c.folder, "openssl", verify(lists, "bad"+shard, more...)...)
					}
					rejects(t, "different crl scope", c.folder, "openssl", verify("only"+other, "fine"+shard, more...)...)
					rejects(t, "different crl scope", c.folder, "openssl", verify("only"+other, "bad"+shard, more...)...)
				}
			}
		})
	}
}

func TestGnuTLSReadsListsWithTheirExtensions(t *testing.T) {
	t.Parallel()
	everyDeltaChain(t, func(t *testing.T, c chain) {
		for _, name := range []string{"base", "delta"} {
			accepts(t, c.folder, "certtool", "--verify-crl", "--load-ca-certificate", "intermediate.pem", "--infile", name+".pem")
			rejects(t, "not verified", c.folder, "certtool", "--verify-crl", "--load-ca-certificate", "root.pem", "--infile", name+".pem")
		}
		check := func(name string) []string {
			return []string{"--verify", "--load-ca-certificate", "root.pem", "--load-crl", "base-only.pem", "--verify-hostname", "www.corp.example", "--infile", name + "-chain.pem"}
		}
		accepts(t, c.folder, "certtool", check("fine")...)
		rejects(t, "revoked", c.folder, "certtool", check("early")...)
		rejects(t, "revoked", c.folder, "certtool", check("held")...)
	})
}

// The NSS of the stable distributions does not verify signatures of Ed25519 keys, and knows no issuing distribution point, which
// is critical: it takes complete lists without partitions only.
func TestNSSTakesTheListIntoItsStore(t *testing.T) {
	t.Parallel()
	for i, k := range revocationKinds[:3] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, revocationKinds[(i+1)%3], k, ecKey(elliptic.P256())())
			c.issue(t, "fine", baseURL)
			bad := c.issue(t, "bad", baseURL)
			l := list(30, signer.Revoked{Serial: bad, At: start, Reason: 1, InvalidityDate: start.Add(-time.Hour)})
			l.FreshestURL = deltaURL
			c.list(t, "nss", l)
			accepts(t, c.folder, "certutil", "-N", "-d", "sql:.", "--empty-password")
			for name, trust := range map[string]string{"root": "CT,,", "intermediate": ",,"} {
				accepts(t, c.folder, "certutil", "-A", "-d", "sql:.", "-n", name, "-t", trust, "-i", name+".der")
			}
			vfychain := func(name string) []string { return []string{"-d", "sql:.", "-u", "1", name + ".der"} }
			accepts(t, c.folder, "vfychain", vfychain("fine")...)
			accepts(t, c.folder, "vfychain", vfychain("bad")...)
			accepts(t, c.folder, "crlutil", "-I", "-d", "sql:.", "-t", "1", "-i", "nss.der")
			accepts(t, c.folder, "vfychain", vfychain("fine")...)
			rejects(t, "revoked", c.folder, "vfychain", vfychain("bad")...)

			l.FreshestURL, l.DistributionPoint = "", baseURL
			c.list(t, "partition", l)
			rejects(t, "unknown critical extension", c.folder, "crlutil", "-I", "-d", "sql:.", "-t", "1", "-i", "partition.der")
		})
	}
}

// request is an OCSPRequest as OpenSSL writes it.
type request struct {
	TBS struct {
		List []struct{ ID asn1.RawValue }
		Exts []struct {
			ID    asn1.ObjectIdentifier
			Value []byte
		} `asn1:"explicit,tag:2,optional"`
	}
}

func (c chain) request(t *testing.T, name string) request {
	t.Helper()
	var r request
	if rest, err := asn1.Unmarshal(must(os.ReadFile(filepath.Join(c.folder, name))), &r); err != nil || len(rest) > 0 {
		t.Fatalf("%s: %x, %v", name, rest, err)
	}
	return r
}

// TestOthersAcceptTheOCSPResponse asks about a good, a revoked and an unknown certificate at once, as OpenSSL asks.
func TestOthersAcceptTheOCSPResponse(t *testing.T) {
	t.Parallel()
	for i, k := range revocationKinds {
		for _, byName := range []bool{false, true} {
			for _, withNonce := range []bool{false, true} {
				name := k.name + map[bool]string{true: " by name", false: " by key"}[byName] + map[bool]string{true: " with nonce"}[withNonce]
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					testOCSP(t, newChain(t, k, revocationKinds[(i+1)%len(revocationKinds)], ecKey(elliptic.P256())()), k, byName, withNonce)
				})
			}
		}
	}
}

func testOCSP(t *testing.T, c chain, responder kind, byName, withNonce bool) {
	t.Helper()
	certificates := []string{"-issuer", "intermediate.pem", "-cert", "server.pem", "-sha256", "-cert", "revoked.pem", "-cert", "client.pem"}
	nonce := "-no_nonce"
	if withNonce {
		nonce = "-nonce"
	}
	accepts(t, c.folder, "openssl", append([]string{"ocsp", nonce, "-reqout", "request.der"}, certificates...)...)
	asked := c.request(t, "request.der")
	answers := make([]signer.SingleResponse, len(asked.TBS.List))
	for i, single := range asked.TBS.List {
		answers[i] = signer.SingleResponse{CertID: single.ID.FullBytes, Status: signer.OCSPStatus(i), ThisUpdate: start, NextUpdate: start.Add(time.Hour)}
	}
	answers[1].RevokedAt, answers[1].Reason = start, 1
	var echo []byte
	if withNonce {
		echo = inside(t, asked.TBS.Exts[0].Value)
	}
	_, r := newResponder(t, c.intermediate.Raw, c.issuer, responder, byName)
	c.write(t, "response.der", must(r.Sign(start, answers, echo)))
	c.write(t, "single.der", must(r.Sign(start, answers[:1], nil)))
	c.write(t, "replayed.der", must(r.Sign(start, answers, []byte("another nonce"))))

	// OpenSSL tells the status of certificates that it is given, and holds the nonce against that of a request: not both at once.
	check := func(response string, more ...string) []string {
		return append([]string{"ocsp", "-respin", response, "-CAfile", "root.pem", "-verify_other", "intermediate.pem"}, more...)
	}
	out, err := tool(t, c.folder, "openssl", check("response.der", append([]string{"-no_nonce"}, certificates...)...)...)
	for _, want := range []string{"Response verify OK", "server.pem: good", "revoked.pem: revoked", "Reason: keyCompromise", "client.pem: unknown"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("no %q: %v\n%s", want, err, out)
		}
	}
	out, err = tool(t, c.folder, "openssl", check("response.der", "-reqin", "request.der")...)
	if err != nil || !strings.Contains(out, "Response verify OK") || strings.Contains(strings.ToLower(out), "nonce") {
		t.Errorf("%v\n%s", err, out)
	}
	if withNonce {
		rejects(t, "nonce verify error", c.folder, "openssl", check("replayed.der", "-reqin", "request.der")...)
	}

	out, err = tool(t, c.folder, "ocsptool", "--response-info", "--infile", "response.der")
	id := map[bool]string{true: "Responder ID: CN=OCSP responder ", false: "Responder Key ID: "}[byName]
	for _, want := range []string{"OCSP Response Information", "Response Status: Successful", "Certificate Status: good", "Certificate Status: revoked", "Certificate Status: unknown", id} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("no %q: %v\n%s", want, err, out)
		}
	}
	if withNonce != strings.Contains(out, "Nonce: ") {
		t.Errorf("nonce:\n%s", out)
	}
	for _, name := range []string{"response.der", "single.der"} {
		accepts(t, c.folder, "ocsptool", "--verify-response", "--load-trust", "intermediate.pem", "--infile", name)
	}
	rejects(t, "not trusted", c.folder, "ocsptool", "--verify-response", "--load-trust", "server.pem", "--infile", "single.der")
}
