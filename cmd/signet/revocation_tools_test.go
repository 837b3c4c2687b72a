package main

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"signet/softhsm/softhsmtest"
)

// withNonce adds a nonce to a request (RFC 9654): golang.org/x/crypto/ocsp makes none.
func withNonce(t testing.TB, leaf, issuer *x509.Certificate, nonce []byte) []byte {
	t.Helper()
	der, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	var request struct{ TBS asn1.RawValue }
	if _, err := asn1.Unmarshal(der, &request); err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(nonce)
	if err != nil {
		t.Fatal(err)
	}
	type extension struct {
		ID    asn1.ObjectIdentifier
		Value []byte
	}
	extensions, err := asn1.MarshalWithParams([]extension{{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, value}}, "explicit,tag:2")
	if err != nil {
		t.Fatal(err)
	}
	tbs := asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: append(request.TBS.Bytes, extensions...)}
	out, err := asn1.Marshal(struct{ TBS asn1.RawValue }{tbs})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// relyingParty is a folder with what a stranger knows of a CA, and the programs that check with it.
type relyingParty struct {
	t      testing.TB
	r      *running
	dir    string
	issuer *x509.Certificate
}

func (r *running) relyingParty(t testing.TB, ca int64) *relyingParty {
	t.Helper()
	p := &relyingParty{t: t, r: r, dir: t.TempDir(), issuer: r.caCertificate(ca)}
	p.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.issuer.Raw}))
	return p
}

func (p *relyingParty) write(name string, data []byte) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), data, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// wholeList is the path of the list of everything in that of a shard.
var wholeList = regexp.MustCompile(`^.*/crl/[^/]+`)

// fetch writes a list, and its delta if there is one.
func (p *relyingParty) fetch(leaf *x509.Certificate) (delta bool) {
	p.t.Helper()
	path := pathOf(leaf.CRLDistributionPoints[0])
	der := p.r.raw(http.StatusOK, "GET", path, nil)
	p.write("list.crl", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	whole := p.r.raw(http.StatusOK, "GET", wholeList.FindString(path), nil)
	p.write("whole.crl", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: whole}))
	status, der, err := p.r.do("GET", path+"/delta", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write("delta.crl", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	return status == http.StatusOK
}

// verdicts are the programs that a relying party may use; each returns what it says, and whether the certificate is good.
var verdicts = map[string]func(p *relyingParty, leaf *x509.Certificate) (string, bool){
	"openssl verify -crl_check_all": func(p *relyingParty, leaf *x509.Certificate) (string, bool) {
		args := []string{"verify", "-x509_strict", "-crl_check_all", "-extended_crl", "-CAfile", "ca.pem", "-CRLfile", "list.crl"}
		if wholeList.FindString(leaf.CRLDistributionPoints[0]) != leaf.CRLDistributionPoints[0] {
			args = append(args, "-CRLfile", "whole.crl") // for the root, which names no shard
		}
		if p.fetch(leaf) {
			args = append(args, "-use_deltas", "-CRLfile", "delta.crl")
		}
		return ask(p.dir, "openssl", append(args, "leaf.pem")...)
	},
	"openssl ocsp": func(p *relyingParty, leaf *x509.Certificate) (string, bool) { return p.opensslOCSP(leaf, "-no_nonce") },
	"openssl ocsp -nonce": func(p *relyingParty, leaf *x509.Certificate) (string, bool) {
		return p.opensslOCSP(leaf, "-nonce")
	},
	"gnutls certtool": func(p *relyingParty, leaf *x509.Certificate) (string, bool) {
		p.fetch(leaf)
		return ask(p.dir, "certtool", "--verify", "--load-ca-certificate", "ca.pem", "--load-crl", "list.crl", "--infile", "leaf.pem")
	},
	"gnutls ocsptool": func(p *relyingParty, leaf *x509.Certificate) (string, bool) {
		out, ok := ask(p.dir, "ocsptool", "--ask="+p.r.url+pathOf(leaf.OCSPServer[0]), "--load-cert", "leaf.pem", "--load-issuer", "ca.pem", "--load-trust", "ca.pem")
		return out, ok && strings.Contains(out, "Certificate Status: good") && strings.Contains(out, "Success")
	},
	"Go": func(p *relyingParty, leaf *x509.Certificate) (string, bool) {
		list := parseCRL(p.t, p.r.raw(http.StatusOK, "GET", pathOf(leaf.CRLDistributionPoints[0]), nil), p.issuer)
		if time.Now().After(list.NextUpdate) {
			return "the list has lapsed", false
		}
		for _, e := range list.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
				return "listed", false
			}
		}
		status, err := p.r.ocspStatus(leaf, p.issuer)
		return fmt.Sprint(status, err), err == nil && status == ocsp.Good
	},
}

func (p *relyingParty) opensslOCSP(leaf *x509.Certificate, nonce string) (string, bool) {
	out, ok := ask(p.dir, "openssl", "ocsp", nonce, "-issuer", "ca.pem", "-cert", "leaf.pem", "-CAfile", "ca.pem", "-url", p.r.url+pathOf(leaf.OCSPServer[0]))
	if nonce == "-nonce" && strings.Contains(out, "WARNING") { // no nonce in response
		return out, false
	}
	return out, ok && strings.Contains(out, "Response verify OK") && strings.Contains(out, "leaf.pem: good")
}

// judges holds every program to a verdict; skip names those that cannot know.
func (p *relyingParty) judges(what string, leaf *x509.Certificate, want bool, skip ...string) {
	p.t.Helper()
	p.write("leaf.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}))
	for name, judge := range verdicts {
		if strings.Contains(strings.Join(skip, "\n"), name) {
			continue
		}
		if out, good := judge(p, leaf); good != want {
			p.t.Errorf("%s, %s: good is %t, want %t\n%s", what, name, good, want, out)
		}
	}
}

func TestRelyingPartiesSeeEachRevocation(t *testing.T) {
	t.Parallel()
	r := newSite(t, "sqlite").start("signet")
	r.firstUser()
	for _, c := range []struct {
		name   string
		policy object
		skip   []string // programs that do not read deltas
	}{
		{"one list", object{}, nil},
		{"deltas", object{"crl_delta": true}, []string{"gnutls certtool", "Go"}},
		{"shards", object{"crl_shards": 3}, nil},
		{"shards with deltas", object{"crl_shards": 2, "crl_delta": true, "ocsp_responder_id": "name"}, []string{"gnutls certtool", "Go"}},
	} {
		for _, key := range []object{{"key_type": "ec", "key_size": 256}, {"key_type": "rsa", "key_size": 2048}, {"key_type": "ed25519"}} {
			t.Run(fmt.Sprint(c.name, " ", key["key_type"]), func(t *testing.T) {
				t.Parallel()
				name := strings.ReplaceAll(c.name, " ", "-") + "-" + fmt.Sprint(key["key_type"])
				request := object{"name": name, "subject_dn": "CN=" + name + ",O=Example"}
				for k, v := range key {
					request[k] = v
				}
				ca := r.must(http.StatusCreated, "POST", "/api/v1/cas/", request)
				r.must(http.StatusOK, "PUT", fmt.Sprintf("/api/v1/cas/%d/revocation-policy", id(ca)), c.policy)
				time.Sleep(time.Second) // the lists of the shards
				p := r.relyingParty(t, id(ca))
				p.t = t
				o, leaf := r.sign(id(ca), "www.example.com")
				_, other := r.sign(id(ca), "other.example.com")
				eventually(t, 10*time.Second, "the responder answers", func() bool {
					_, err := r.ocspStatus(leaf, p.issuer)
					return err == nil
				})
				p.judges("before", leaf, true)

				path := "/api/v1/certificates/" + strconv.FormatInt(id(o), 10)
				r.must(http.StatusOK, "POST", path+"/revoke", object{"reason": "certificateHold"})
				r.settled(t, id(ca))
				p.judges("on hold", leaf, false, c.skip...)
				r.must(http.StatusOK, "POST", path+"/release", object{})
				r.settled(t, id(ca))
				p.judges("released", leaf, true, c.skip...)
				r.must(http.StatusOK, "POST", path+"/revoke", object{"reason": "keyCompromise", "invalidity_date": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)})
				r.settled(t, id(ca))
				p.judges("revoked", leaf, false, c.skip...)
				p.judges("another certificate", other, true)
			})
		}
	}
}

// settled waits until the lists of a CA have everything: coalescing, the feed and the signature are over.
func (r *running) settled(t *testing.T, ca int64) {
	t.Helper()
	time.Sleep(1500 * time.Millisecond)
}

func TestRelyingPartiesDoNotNoticeADeclaredOutage(t *testing.T) {
	t.Parallel()
	_, faults := softhsmtest.Faulty(t)
	s := newSite(t, "sqlite", "--crl-validity", "9s", "--crl-refresh", "4s", "--crl-overlap", "3s", "--ocsp-validity", "8s")
	r := s.start("signet", faults.Env()...)
	r.firstUser()
	authority := r.createCA("Outage")
	p := r.relyingParty(t, authority)
	_, leaf := r.sign(authority, "www.example.com")
	until := time.Now().Add(45 * time.Second).UTC()
	r.must(http.StatusOK, "PUT", fmt.Sprintf("/api/v1/cas/%d/revocation-policy", authority), object{
		"crl_delta": true,
		"outage":    object{"from": time.Now().UTC().Format(time.RFC3339), "until": until.Format(time.RFC3339)}})
	eventually(t, 20*time.Second, "lists are staged until the end of the outage", func() bool {
		for _, l := range r.list(fmt.Sprintf("/api/v1/cas/%d/crls?limit=1000", authority)) {
			if next, err := time.Parse(time.RFC3339, fmt.Sprint(l["next_update"])); err == nil && l["state"] == "staged" && next.After(until) {
				return true
			}
		}
		return false
	})
	time.Sleep(2 * time.Second) // the OCSP answers
	faults.Remove()
	start := time.Now()
	for time.Now().Before(until.Add(-10 * time.Second)) {
		p.judges(fmt.Sprintf("%s into the outage", time.Since(start).Round(time.Second)), leaf, true, "openssl ocsp -nonce")
		time.Sleep(2 * time.Second)
	}
	if away := time.Since(start); away < 15*time.Second {
		t.Fatalf("the token was away for %s only", away)
	}

	// What is revoked meanwhile is never called good, and is on the list when the token is back.
	o := r.list(fmt.Sprintf("/api/v1/certificates/?ca_id=%d", authority))[0]
	r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(o)), object{"reason": "keyCompromise"})
	if status, err := r.ocspStatus(leaf, p.issuer); err == nil && status == ocsp.Good {
		t.Error("a certificate that was revoked while the token is away is called good")
	}
	faults.Restore()
	eventually(t, 20*time.Second, "OCSP and the delta have the revocation", func() bool {
		status, err := r.ocspStatus(leaf, p.issuer)
		return err == nil && status == ocsp.Revoked
	})
}
