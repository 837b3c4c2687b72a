package evidence_test

import (
	"bytes"
	"crypto"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"signet/evidence"
)

func TestForgedDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	genuine, forger := seeded("attester"), seeded("forger")
	pinned := evidence.Options{Now: signedAt, AttestationKey: fingerprint(t, genuine.Public())}
	for _, c := range []struct {
		name   string
		change func(s *evidence.Statement)
		key    crypto.Signer
		want   evidence.Reason
	}{
		{"nothing forged", func(*evidence.Statement) {}, genuine, ""},
		{"an imported key called drilled", func(s *evidence.Statement) { s.Key.Attributes = but(map[string]any{"CKA_LOCAL": false}) }, genuine, evidence.Inflated},
		{"attested without a vendor", func(s *evidence.Statement) { s.Grade = evidence.Attested }, genuine, evidence.Inflated},
		{"a grade below its own", func(s *evidence.Statement) { s.Grade = evidence.Imported }, genuine, evidence.Inflated},
		{"a yield left in the drill", func(s *evidence.Statement) {
			s.Drill.Attacks = append(slices.Clone(s.Drill.Attacks), attack("copy", evidence.Yielded, "CKR_OK"))
		}, genuine, evidence.Inflated},
		{"no drill", func(s *evidence.Statement) { s.Drill = nil }, genuine, evidence.Inflated},
		{"reasons of one's own", func(s *evidence.Statement) { s.Reasons = []string{"certified"} }, genuine, evidence.Inflated},
		{"a limit left out", func(s *evidence.Statement) { s.Limits = s.Limits[1:] }, genuine, evidence.Inflated},
		{"another fingerprint", func(s *evidence.Statement) { s.AttestationSHA256 = evidence.Fingerprint(nil) }, genuine, evidence.Inflated},
		{"half a second", func(s *evidence.Statement) { s.Time = s.Time.Add(time.Second / 2) }, genuine, evidence.Inflated},
		{"another version", func(s *evidence.Statement) { s.Version++ }, genuine, evidence.UnknownVersion},
		{"another format", func(s *evidence.Statement) { s.Format = "x" }, genuine, evidence.UnknownVersion},
		{"a key that attests itself", func(s *evidence.Statement) { s.Key = s.AttestationKey }, genuine, evidence.Disagreement},
		{"a nonce that moves the cursor", func(s *evidence.Statement) { s.Nonce = "\x1b" }, genuine, evidence.Disagreement},
		{"another key signed in the name of the first", func(*evidence.Statement) {}, forger, evidence.BadSignature},
		{"another key signed in its own name", func(s *evidence.Statement) {
			s.AttestationKey = describe(t, forger.Public(), "attester")
			s.AttestationSHA256 = evidence.Fingerprint(s.AttestationKey.PublicKey)
		}, forger, evidence.WrongSigner},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := statement(t, genuine.Public()).Complete()
			c.change(&s)
			_, err := evidence.Verify(evidence.Forge(t, s, s, c.key), pinned)
			if got := reason(err); got != c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestClaimsForMachinesAreThoseForPeople(t *testing.T) {
	t.Parallel()
	key := seeded("attester")
	s := statement(t, key.Public()).Complete()
	for name, change := range map[string]func(*evidence.Statement){
		"attributes": func(s *evidence.Statement) { s.Key.Attributes = but(map[string]any{"CKA_EXTRACTABLE": true}) },
		"public key": func(s *evidence.Statement) { s.Key.PublicKey = spki(t, seeded("other").Public()) },
		"nonce":      func(s *evidence.Statement) { s.Nonce = "" },
		"time":       func(s *evidence.Statement) { s.Time = s.Time.Add(time.Hour) },
		"serial":     func(s *evidence.Statement) { s.Key.Token.Serial = "" },
		"grade":      func(s *evidence.Statement) { s.Grade = evidence.Attested },
		"drill":      func(s *evidence.Statement) { s.Drill = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			machines := s
			change(&machines)
			if _, err := evidence.Verify(evidence.Forge(t, s, machines, key), evidence.Options{Now: signedAt}); reason(err) != evidence.Disagreement {
				t.Errorf("%v, want %q", err, evidence.Disagreement)
			}
		})
	}
}

var update = flag.Bool("update", false, "write the files in testdata anew")

// TestTheWordsOfAReport keeps documents and reports as files, to be read and to show what a change changes. The first
// document is also in the script of signet evidence.
func TestTheWordsOfAReport(t *testing.T) {
	t.Parallel()
	key := seeded("attester")
	drilled, imported := statement(t, key.Public()), statement(t, key.Public())
	imported.Nonce = ""
	imported.Key.Attributes = but(map[string]any{"CKA_LOCAL": false, "CKA_NEVER_EXTRACTABLE": nil, "CKA_DECRYPT": true})
	d := drill(refusedRead, evidence.Attack{
		Name: "copy-weaker", Call: "C_CopyObject", Target: "canary", Outcome: evidence.Yielded, Result: "the copy is extractable",
	}, attack("wrap-CKM_AES_GCM", evidence.Inconclusive, "CKR_DEVICE_ERROR"))
	imported.Drill = &d
	imported.Acceptance = &evidence.Acceptance{Grade: evidence.Imported, By: "alice", At: signedAt, Reason: "moved from the old HSM"}
	imported.Attestation = &evidence.Attestation{Format: "tpm2_certify", Data: []byte{1}}
	for _, c := range []struct {
		name string
		s    evidence.Statement
		opts evidence.Options
	}{
		{"drilled", drilled, evidence.Options{
			Now: signedAt, Nonce: "for-the-auditor", AttestationKey: fingerprint(t, key.Public()), MaxAge: time.Hour,
			CACertificate: certificate(t, seeded("ca")),
		}},
		{"imported", imported, evidence.Options{Now: signedAt}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			document := sign(t, c.s, key)
			golden(t, c.name+".json", document)
			r, err := evidence.Verify(document, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, c.name+".txt", []byte(r.Text()))
		})
	}
}

// golden compares with a file in testdata; "go test -update" writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}
