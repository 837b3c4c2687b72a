package main

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"signet/softhsm"
)

// A key that another Signet made, whose database is lost, is made elsewhere and drilled all the same.
func TestTheCAOfALostDatabaseIsAdopted(t *testing.T) {
	t.Parallel()
	s, r := startServer(t, "sqlite")
	root := r.createCA("Root")
	certificate := r.caCertificate(root)
	key := s.keyOf(t, root)
	r.stop(syscall.SIGTERM)
	s.url = "sqlite:" + filepath.Join(s.dataDir(), "another.db")
	s.args[slices.Index(s.args, "--database-url")+1] = s.url
	if k := s.keys(t)[key]; k.Use != useUnknown || k.Label != "root-1" {
		t.Errorf("listed as %+v", k)
	}
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var adopted adoptedCA
	s.ends(t, "ca", "adopt", "--id", key, "--name", "Found", "--certificate", file, "--description", "from the token", "--output", "json").with(0).json(&adopted)
	if adopted.Grade != "drilled" || adopted.Acceptance != nil || adopted.Serial != certificate.SerialNumber.Text(16) || adopted.SubjectDN != "CN=Root,O=Example" {
		t.Errorf("adopted as %+v", adopted)
	}
	r = s.start("signet")
	r.firstUser()
	if !r.caCertificate(adopted.ID).Equal(certificate) {
		t.Error("another certificate")
	}
	r.useCA("Found", adopted.ID)
	r.audited(t, "ca_adopt", 1)
}

// cloned is a site with two tokens that hold the same key under CKA_ID 1a01.
func cloned(t *testing.T) *site {
	t.Helper()
	module, err := softhsm.Find()
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "sqlite")
	s.ends(t, "token", "init").with(0)
	folder := t.TempDir()
	spare, file := filepath.Join(folder, "spare.pin"), filepath.Join(folder, "key.pem")
	if err := os.WriteFile(spare, []byte("87654321\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pin, err := os.ReadFile(softhsm.PINFile(s.dataDir()))
	if err != nil {
		t.Fatal(err)
	}
	s.tokenTool(t, "softhsm2-util", "--init-token", "--free", "--label", "spare", "--so-pin", softhsm.NewPIN(), "--pin", "87654321")
	s.tokenTool(t, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", file)
	for label, secret := range map[string]string{softhsm.Label: strings.TrimSpace(string(pin)), "spare": "87654321"} {
		s.tokenTool(t, "softhsm2-util", "--import", file, "--token", label, "--label", "cloned", "--id", "1a01", "--pin", secret)
	}
	s.args = append(s.args, "--tokens", fmt.Sprintf("{spare: {module: %q, token: spare, pin-file: %q}}", module, spare))
	return s
}

func TestAClonedKeyEndsOnEveryToken(t *testing.T) {
	t.Parallel()
	s := cloned(t)
	s.ends(t, "ca", "adopt", "--id", "1a01", "--name", "Cloned", "--subject-dn", "CN=Cloned", "--accept-key-grade", "imported", "--reason", "test").with(0)
	list := s.ends(t, "key", "list").with(0).stdout
	for _, line := range []string{`default  1a01 `, `CA 1 "Cloned", valid`, `spare    1a01 `, `clone of the key of CA 1 "Cloned", valid`} {
		if !strings.Contains(list, line) {
			t.Errorf("the list lacks %q:\n%s", line, list)
		}
	}
	s.ends(t, "token", "show", "spare").with(0, "spare", "signs")
	end := []string{"key", "destroy", "--token", "spare", "--id", "1a01", "--confirm", "1a01"}
	s.ends(t, end...).with(1, "clone of the key of CA 1")

	r := s.start("signet")
	r.firstUser()
	r.raw(http.StatusNoContent, "DELETE", "/api/v1/cas/1", nil)
	s.ends(t, end...).with(1, "clone of the key of CA 1")
	s.ends(t, "key", "destroy", "--ca", "1", "--confirm", "Cloned").with(0, "every token of the settings", "destroyed the key of CA 1")
	if list := s.ends(t, "key", "list").with(0).stdout; strings.Contains(list, "1a01") {
		t.Errorf("a clone is left:\n%s", list)
	}
	s.ends(t, end...).with(1, "has no key 1a01")
	r.audited(t, "ca_key_destroy", 2)
}
