package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/evidence"
	"signet/softhsm/softhsmtest"
)

// keyEvidence is the document that the server signs about the key of a CA.
func (r *running) keyEvidence(ca int64, query string) []byte {
	r.t.Helper()
	return r.raw(http.StatusOK, "GET", fmt.Sprintf("/api/v1/cas/%d/key-evidence?%s", ca, query), nil)
}

func TestAnAuditorChecksAKeyOffline(t *testing.T) {
	t.Parallel()
	_, r := startServer(t, "sqlite")
	for _, kind := range []keyKind{{"ec", 256}, {"rsa", 2048}, {"ed25519", 256}} {
		t.Run(kind.String(), func(t *testing.T) {
			answer := r.must(http.StatusCreated, "POST", "/api/v1/cas/", object{
				"name": kind.String(), "subject_dn": "CN=" + kind.String(), "key_type": kind.keyType, "key_size": kind.size})
			if answer["key_grade"] != "drilled" || answer["key_locked"] != nil || answer["token"] != "default" {
				t.Errorf("the new CA is on token %v with grade %v, locked: %v", answer["token"], answer["key_grade"], answer["key_locked"])
			}
			block, _ := pem.Decode([]byte(answer["certificate"].(string)))
			options := evidence.Options{Nonce: "audit-2026", Now: time.Now(), MaxAge: time.Minute, CACertificate: block.Bytes}
			for _, format := range []string{"json", "der"} {
				document := r.keyEvidence(id(answer), "nonce=audit-2026&format="+format)
				report, err := evidence.Verify(document, options)
				if err != nil {
					t.Fatalf("%s: %v", format, err)
				}
				if words := report.Text(); !strings.Contains(words, "Grade: drilled") || !strings.Contains(words, "SoftHSM") {
					t.Errorf("%s: the report says\n%s", format, words)
				}
				for range 300 { // all of them are in package evidence
					changed := slices.Clone(document)
					i := rand.N(len(changed))
					changed[i] ^= 1 << rand.N(8)
					if _, err := evidence.Verify(changed, options); err == nil {
						t.Errorf("%s: a document with octet %d changed is accepted", format, i)
					}
				}
			}
			other := options
			other.Nonce = "another"
			if _, err := evidence.Verify(r.keyEvidence(id(answer), "nonce=audit-2026"), other); err == nil {
				t.Error("an old document is accepted for a new nonce")
			}
		})
	}
}

// yields makes the token give way to C_DeriveKey, as NSS softokn does: it says CKR_OK.
func yields(f *softhsmtest.Faults) { f.Fail("C_DeriveKey", pkcs11.CKR_OK, 1000) }

func TestATokenThatYieldsGetsNoCAUnlessTheOperatorAcceptsIt(t *testing.T) {
	t.Parallel()
	_, faults := softhsmtest.Faulty(t)
	r := newSite(t, "sqlite").start("signet", faults.Env()...)
	r.firstUser()
	yields(faults)
	request := object{"name": "Weak", "subject_dn": "CN=Weak", "key_type": "ec", "key_size": 256}
	refusal := r.must(http.StatusConflict, "POST", "/api/v1/cas/", request)
	for _, part := range []string{"asserted", "C_DeriveKey", "accept_key_grade"} {
		if !strings.Contains(fmt.Sprint(refusal["detail"]), part) {
			t.Errorf("the refusal does not speak of %s: %v", part, refusal["detail"])
		}
	}
	if n := len(r.list("/api/v1/cas/")); n != 0 {
		t.Errorf("%d CAs exist after the refusal", n)
	}
	request["accept_key_grade"] = "asserted"
	accepted := r.must(http.StatusCreated, "POST", "/api/v1/cas/", request)
	if accepted["key_grade"] != "asserted" || accepted["key_grade_accepted"] != "asserted" {
		t.Errorf("grade %v, accepted %v", accepted["key_grade"], accepted["key_grade_accepted"])
	}
	r.must(http.StatusCreated, "POST", "/api/v1/certificates/sign-csr", object{
		"ca_id": id(accepted), "certificate_type": "server", "csr": csr(t, "www.example.com")})
	var document struct {
		Statement struct {
			Grade      string `json:"grade"`
			Acceptance *struct {
				By string `json:"by"`
			} `json:"acceptance"`
		} `json:"statement"`
	}
	raw := r.keyEvidence(id(accepted), "nonce=1")
	if err := json.Unmarshal(raw, &document); err != nil {
		t.Fatal(err)
	}
	if s := document.Statement; s.Grade != "asserted" || s.Acceptance == nil || s.Acceptance.By != rootName {
		t.Errorf("the evidence does not tell the grade and who accepted it: %.300s", raw)
	}
	if n := len(r.list("/api/v1/audit-logs/?action=ca_key_refuse")); n != 1 {
		t.Errorf("the refusal is %d times in the audit log, want once", n)
	}
}

func TestADrillThatFindsAWayLocksTheCA(t *testing.T) {
	t.Parallel()
	_, faults := softhsmtest.Faulty(t)
	r := newSite(t, "sqlite").start("signet", faults.Env()...)
	r.firstUser()
	authority := r.createCA("Locked")
	sign := func(want int) object {
		t.Helper()
		return r.must(want, "POST", "/api/v1/certificates/sign-csr", object{
			"ca_id": authority, "certificate_type": "server", "csr": csr(t, "www.example.com")})
	}
	drill := func() object {
		t.Helper()
		return r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/cas/%d/key-drill", authority), nil)
	}
	issued := sign(http.StatusCreated)

	yields(faults)
	if result := drill(); result["grade"] != "asserted" {
		t.Errorf("the grade is %v after the token has yielded", result["grade"])
	}
	if detail := fmt.Sprint(sign(http.StatusConflict)["detail"]); !strings.Contains(detail, "is locked") {
		t.Errorf("the refusal says %s", detail)
	}
	// Revocation goes on.
	r.must(http.StatusOK, "POST", fmt.Sprintf("/api/v1/certificates/%d/revoke", id(issued)), nil)
	r.crl("Locked", authority, r.caCertificate(authority))

	// The operator takes the risk, in so many words, and takes it back.
	grade := fmt.Sprintf("/api/v1/cas/%d/key-grade", authority)
	r.must(http.StatusOK, "POST", grade, object{"accept": "asserted", "reason": "the HSM is replaced next week"})
	sign(http.StatusCreated)
	r.must(http.StatusOK, "POST", grade, object{"accept": "drilled", "reason": "it was replaced"})
	sign(http.StatusConflict)

	faults.Clear()
	if result := drill(); result["grade"] != "drilled" {
		t.Errorf("the grade is %v after a clean drill", result["grade"])
	}
	sign(http.StatusCreated)

	if n := len(r.list(fmt.Sprintf("/api/v1/cas/%d/key-drills", authority))); n != 3 {
		t.Errorf("%d drills are kept, want those at the creation and on demand", n)
	}
	log := r.raw(http.StatusOK, "GET", "/api/v1/audit-logs/", nil)
	for _, action := range []string{"ca_lock", "ca_unlock", "ca_key_drill", "ca_key_accept"} {
		if !bytes.Contains(log, []byte(`"`+action+`"`)) {
			t.Errorf("%s is not in the audit log", action)
		}
	}
}
