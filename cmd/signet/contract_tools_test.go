package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// verifier is a program of somebody else's that judges what Signet issues.
type verifier struct {
	name       string
	algorithms []string // of the CAs, as far as the program knows them
	// judge returns what the program prints about the files in a folder, and whether it accepts the certificate leaf.pem
	// for a host, by root.pem, issuing.pem and, when crl is set, root.crl.pem and issuing.crl.pem.
	judge func(t *testing.T, dir, host string, crl bool) (string, bool)
}

var verifiers = []verifier{
	{"openssl", []string{"rsa 2048", "rsa 4096", "ec 256", "ec 384", "ec 521", "ed25519 256"}, opensslJudge},
	{"gnutls", []string{"rsa 2048", "rsa 4096", "ec 256", "ec 384", "ec 521", "ed25519 256"}, gnutlsJudge},
	{"nss", []string{"rsa 2048", "rsa 4096", "ec 256", "ec 384", "ec 521"}, nssJudge}, // not every NSS in use knows Ed25519 certificates: 3.87 does not
}

func TestContractOtherPeoplesSoftwareVerifiesWhatWeIssue(t *testing.T) {
	t.Parallel()
	var sentences []sentence
	for _, v := range verifiers {
		for _, algorithm := range v.algorithms {
			if algorithm == "rsa 4096" && v.name != "openssl" { // the token takes seconds for each such key
				continue
			}
			sentences = append(sentences, sentence{
				fmt.Sprintf("%s accepts a chain of %s CAs, and rejects it after a revocation", v.name, algorithm),
				func(t *testing.T, w *world) { judged(t, w, v, algorithm) },
			})
		}
	}
	sentences = append(sentences,
		sentence{"openssl s_server and s_client shake hands with what we issue", handshake},
		sentence{"openssl reads each certificate type's purpose", purposes})
	holdContract(t, sentences)
}

// chain is a root, an intermediate below it and a folder for their files.
type chain struct {
	root, issuing answer
	dir           string
}

func (w *world) chain(t *testing.T, algorithm string) chain {
	t.Helper()
	var kind string
	var size int
	if _, err := fmt.Sscan(algorithm, &kind, &size); err != nil {
		t.Fatal(err)
	}
	p := w.root(t)
	fields := object{"key_type": kind, "key_size": size, "subject_dn": "C=CH,O=Example Ä,CN=Root " + w.unique("chain")}
	c := chain{dir: t.TempDir(), root: p.ca(w.unique("root"), fields).want(http.StatusCreated)}
	fields["subject_dn"], fields["parent_ca_id"] = "C=CH,O=Example Ä,OU=One,OU=Two,CN=Issuing "+w.unique("chain"), c.root.id()
	c.issuing = p.ca(w.unique("issuing"), fields).want(http.StatusCreated)
	c.write(t, "root.pem", c.root.object()["certificate"])
	c.write(t, "issuing.pem", c.issuing.object()["certificate"])
	return c
}

func (c chain) write(t *testing.T, name string, text any) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text.(string)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fetch writes the published CRLs, as a relying party finds them.
func (c chain) fetch(t *testing.T, p party) {
	t.Helper()
	for name, ca := range map[string]answer{"root.crl.pem": c.root, "issuing.crl.pem": c.issuing} {
		c.write(t, name, string(p.ask("GET", "/crl/"+slugOf(ca)+".pem", nil).want(http.StatusOK).body))
	}
}

// judged issues below a chain, and holds the verdicts of a program before and after revocations.
func judged(t *testing.T, w *world, v verifier, algorithm string) {
	p, c := w.root(t), w.chain(t, algorithm)
	const host = "www.example.com"
	leaf := p.issue(c.issuing.id(), host, "server", object{"subject_dn": "CN=" + host + ",O=Müller AG,C=CH", "san_ip_addresses": []string{"192.0.2.1"}}).want(http.StatusCreated)
	other := p.issue(c.issuing.id(), host, "server", nil).want(http.StatusCreated)
	c.write(t, "leaf.pem", leaf.object()["certificate"])
	revoked, issuingRevoked := 0, 0 // what the CRLs must know before a program is asked
	verdict := func(what, host string, crl, want bool) {
		t.Helper()
		p.publishedWith(c.issuing, revoked)
		p.publishedWith(c.root, issuingRevoked)
		c.fetch(t, p)
		if out, ok := v.judge(t, c.dir, host, crl); ok != want {
			t.Errorf("%s, %s: accepted is %t, want %t\n%s", v.name, what, ok, want, out)
		}
	}
	verdict("chain", host, false, true)
	verdict("chain and CRLs", host, true, true)
	verdict("another host", "evil.example.com", false, false)
	p.revoke(other.id(), "superseded").want(http.StatusOK)
	revoked++
	verdict("another certificate is revoked", host, true, true)
	p.revoke(leaf.id(), "Key compromise").want(http.StatusOK)
	revoked++
	verdict("the certificate is revoked", host, true, false)

	c.write(t, "leaf.pem", p.issue(c.issuing.id(), host, "server", nil).want(http.StatusCreated).object()["certificate"])
	verdict("the next certificate", host, true, true)
	p.ask("POST", fmt.Sprintf("/api/v1/cas/%d/revoke", c.issuing.id()), object{"reason": "cACompromise"}).want(http.StatusOK)
	issuingRevoked++
	verdict("the issuing CA is revoked", host, true, false)
}

// ask runs a verifier, which may refuse.
func ask(dir, program string, args ...string) (string, bool) {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return program + " " + strings.Join(args, " ") + "\n" + string(out), err == nil
}

func opensslJudge(_ *testing.T, dir, host string, crl bool) (string, bool) {
	args := []string{"verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", host, "-CAfile", "root.pem", "-untrusted", "issuing.pem"}
	if crl {
		args = append(args, "-crl_check_all", "-CRLfile", "root.crl.pem", "-CRLfile", "issuing.crl.pem")
	}
	return ask(dir, "openssl", append(args, "leaf.pem")...)
}

// join writes the files one after the other.
func join(t *testing.T, dir, name string, files ...string) {
	t.Helper()
	var all []byte
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	if err := os.WriteFile(filepath.Join(dir, name), all, 0o600); err != nil {
		t.Fatal(err)
	}
}

func gnutlsJudge(t *testing.T, dir, host string, crl bool) (string, bool) {
	join(t, dir, "chain.pem", "leaf.pem", "issuing.pem")
	args := []string{"--verify", "--load-ca-certificate", "root.pem", "--infile", "chain.pem", "--verify-hostname", host}
	if crl {
		join(t, dir, "crls.pem", "root.crl.pem", "issuing.crl.pem")
		args = append(args, "--load-crl", "crls.pem")
	}
	return ask(dir, "certtool", args...)
}

// nssJudge uses a new database each time, because NSS takes no second CRL of the same second.
func nssJudge(t *testing.T, dir, host string, crl bool) (string, bool) {
	db, err := os.MkdirTemp(dir, "nss")
	if err != nil {
		t.Fatal(err)
	}
	tool(t, dir, "certutil", "-N", "--empty-password", "-d", "sql:"+db)
	tool(t, dir, "certutil", "-A", "-n", "root", "-t", "C,C,C", "-i", "root.pem", "-d", "sql:"+db)
	tool(t, dir, "certutil", "-A", "-n", "issuing", "-t", ",,", "-i", "issuing.pem", "-d", "sql:"+db)
	tool(t, dir, "certutil", "-A", "-n", "leaf", "-t", ",,", "-i", "leaf.pem", "-d", "sql:"+db)
	if crl {
		for _, name := range []string{"root", "issuing"} {
			tool(t, dir, "openssl", "crl", "-in", name+".crl.pem", "-outform", "DER", "-out", name+".crl.der")
			tool(t, dir, "crlutil", "-I", "-t", "1", "-i", name+".crl.der", "-d", "sql:"+db)
		}
	}
	out, ok := ask(dir, "certutil", "-V", "-n", "leaf", "-u", "V", "-d", "sql:"+db)
	again, chained := ask(dir, "vfychain", "-d", "sql:"+db, "-u", "1", "-a", "leaf.pem", "-a", "issuing.pem")
	if chained != ok {
		t.Errorf("certutil and vfychain disagree:\n%s\n%s", out, again)
	}
	// NSS has no program that checks a host name; openssl reads the same names.
	names, named := ask(dir, "openssl", "x509", "-in", "leaf.pem", "-noout", "-checkhost", host)
	return out + again + names, ok && named && strings.Contains(names, "does match")
}

// handshake: a server and a client of openssl know each other by certificates of two types.
func handshake(t *testing.T, w *world) {
	p, c := w.root(t), w.chain(t, "ec 256")
	for name, kind := range map[string]string{"server.example.com": "server", "client": "client", "both.example.com": "dual_purpose"} {
		made := p.issue(c.issuing.id(), name, kind, nil).want(http.StatusCreated).object()
		c.write(t, kind+".pem", made["certificate"].(string)+made["private_key"].(string))
	}
	join(t, c.dir, "ca.pem", "root.pem")
	for _, pair := range []struct {
		server, client, host string
		ok                   bool
	}{
		{"server", "client", "server.example.com", true}, {"dual_purpose", "dual_purpose", "both.example.com", true},
		{"client", "client", "client", false}, {"server", "server", "server.example.com", false},
	} {
		if out, ok := shake(t, c.dir, pair.server+".pem", pair.client+".pem", pair.host); ok != pair.ok {
			t.Errorf("server with %s, client with %s: handshake is %t, want %t\n%s", pair.server, pair.client, ok, pair.ok, out)
		}
	}
}

var accepting = regexp.MustCompile(`ACCEPT [^\n]*:(\d+)`)

// shake runs openssl s_server and s_client against each other; both verify.
func shake(t *testing.T, dir, server, client, host string) (string, bool) {
	t.Helper()
	path := t.TempDir() + "/log"
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	listener := exec.Command("openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", server, "-key", server, "-cert_chain", "issuing.pem",
		"-CAfile", "ca.pem", "-Verify", "5", "-verify_return_error", "-x509_strict", "-www")
	listener.Dir, listener.Stdout, listener.Stderr = dir, log, log
	if err := listener.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = listener.Process.Kill() // it never ends by itself
		_ = listener.Wait()
	}()
	port := ""
	for deadline := time.Now().Add(30 * time.Second); port == "" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if match := accepting.FindSubmatch(data); match != nil {
			port = string(match[1])
		}
	}
	caller := exec.Command("openssl", "s_client", "-connect", "127.0.0.1:"+port, "-cert", client, "-key", client, "-cert_chain", "issuing.pem",
		"-CAfile", "ca.pem", "-verify_return_error", "-x509_strict", "-verify_hostname", host, "-ign_eof")
	caller.Dir, caller.Stdin = dir, strings.NewReader("GET / HTTP/1.0\r\n\r\n")
	out, err := caller.CombinedOutput()
	return string(out), err == nil && strings.Contains(string(out), "Verify return code: 0 (ok)") && strings.Contains(string(out), "200 ok")
}

func purposes(t *testing.T, w *world) {
	p, c := w.root(t), w.chain(t, "ec 256")
	for kind, want := range map[string]map[string]bool{
		"server":       {"sslserver": true, "sslclient": false},
		"client":       {"sslserver": false, "sslclient": true},
		"dual_purpose": {"sslserver": true, "sslclient": true},
	} {
		c.write(t, "leaf.pem", p.issue(c.issuing.id(), "purpose.example", kind, nil).want(http.StatusCreated).object()["certificate"])
		for purpose, accepted := range want {
			out, ok := ask(c.dir, "openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem")
			if ok != accepted {
				t.Errorf("%s as %s: accepted is %t\n%s", kind, purpose, ok, out)
			}
		}
	}
}
