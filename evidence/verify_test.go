package evidence_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"signet/evidence"
)

func TestADocumentOfEachAlgorithmVerifies(t *testing.T) {
	t.Parallel()
	for name, key := range signers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := statement(t, key.Public())
			s.Acceptance = &evidence.Acceptance{Grade: evidence.Asserted, By: "alice", At: signedAt, Reason: "until the HSM comes"}
			s.Attestation = &evidence.Attestation{Format: "tpm2_certify", Data: []byte{1, 2}}
			opts := evidence.Options{
				Nonce: "for-the-auditor", AttestationKey: fingerprint(t, key.Public()), Now: signedAt.Add(time.Minute),
				MaxAge: time.Hour, CACertificate: certificate(t, seeded("ca")),
			}
			for form, data := range map[string][]byte{"JSON": sign(t, s, key), "DER": signDER(t, s, key)} {
				r, err := evidence.Verify(data, opts)
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				if r.Form != form || !r.Pinned || r.Grade != evidence.Drilled || r.Statement.Acceptance.By != "alice" {
					t.Errorf("%s: %+v", form, r)
				}
			}
		})
	}
}

func TestADocumentIsHeldAgainstTheOptions(t *testing.T) {
	t.Parallel()
	key := seeded("attester")
	data := sign(t, statement(t, key.Public()), key)
	for _, c := range []struct {
		name string
		opts evidence.Options
		want evidence.Reason
	}{
		{"nothing asked", evidence.Options{Now: signedAt}, ""},
		{"four minutes ahead of this clock", evidence.Options{Now: signedAt.Add(-4 * time.Minute)}, ""},
		{"just young enough", evidence.Options{Now: signedAt.Add(time.Hour), MaxAge: time.Hour}, ""},
		{"no time given", evidence.Options{}, evidence.FromTheFuture},
		{"six minutes ahead of this clock", evidence.Options{Now: signedAt.Add(-6 * time.Minute)}, evidence.FromTheFuture},
		{"a second too old", evidence.Options{Now: signedAt.Add(time.Hour + time.Second), MaxAge: time.Hour}, evidence.TooOld},
		{"another nonce", evidence.Options{Now: signedAt, Nonce: "For-the-auditor"}, evidence.WrongNonce},
		{"another attestation key", evidence.Options{Now: signedAt, AttestationKey: fingerprint(t, seeded("other").Public())}, evidence.WrongSigner},
		{"an empty fingerprint", evidence.Options{Now: signedAt, AttestationKey: []byte{}}, evidence.WrongSigner},
		{"half the fingerprint", evidence.Options{Now: signedAt, AttestationKey: fingerprint(t, key.Public())[:16]}, evidence.WrongSigner},
		{"a certificate of another key", evidence.Options{Now: signedAt, CACertificate: certificate(t, seeded("other"))}, evidence.WrongCertificate},
		{"no certificate at all", evidence.Options{Now: signedAt, CACertificate: []byte("PEM")}, evidence.WrongCertificate},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := evidence.Verify(data, c.opts)
			if got := reason(err); got != c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// reason is why Verify refused; "" when it did not.
func reason(err error) evidence.Reason {
	if refusal := new(evidence.Error); errors.As(err, &refusal) {
		return refusal.Reason
	}
	return ""
}

func TestADocumentWithoutNonceIsNoAnswer(t *testing.T) {
	t.Parallel()
	key := seeded("attester")
	s := statement(t, key.Public())
	s.Nonce = ""
	_, err := evidence.Verify(sign(t, s, key), evidence.Options{Now: signedAt, Nonce: "mine"})
	if reason(err) != evidence.WrongNonce {
		t.Errorf("%v, want %q", err, evidence.WrongNonce)
	}
}

func TestStrangersBytesAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		data []byte
		want evidence.Reason
	}{
		{"nothing", nil, evidence.Malformed},
		{"an empty object", []byte("{}"), evidence.NotCanonical},
		{"a list", []byte("[]"), evidence.Malformed},
		{"an empty sequence", []byte{0x30, 0}, evidence.Malformed},
		{"too much", bytes.Repeat([]byte{'{'}, evidence.MaxSize+1), evidence.TooLarge},
		{"deep", bytes.Repeat([]byte(`{"a":`), 100_000), evidence.Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := evidence.Verify(c.data, evidence.Options{Now: signedAt}); reason(err) != c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestThePartsOfTwoDocumentsMakeNoThird(t *testing.T) {
	t.Parallel()
	key := seeded("attester")
	s := statement(t, key.Public())
	first := sign(t, s, key)
	s.CA.Name = "Toor" // of the same length
	second := sign(t, s, key)
	cut := bytes.Index(first, []byte(`"evidence"`))
	mixed := append(slices.Clone(first[:cut]), second[bytes.Index(second, []byte(`"evidence"`)):]...)
	if _, err := evidence.Verify(mixed, evidence.Options{Now: signedAt}); reason(err) != evidence.Disagreement {
		t.Errorf("%v, want %q", err, evidence.Disagreement)
	}
}

func TestWhatFollowsFromTheRestCannotBeClaimed(t *testing.T) {
	t.Parallel()
	key := seeded("attester")
	s := statement(t, key.Public())
	s.Key.Attributes = but(map[string]any{"CKA_LOCAL": false})
	s.Grade, s.Reasons, s.Limits, s.AttestationSHA256 = evidence.Attested, []string{"trust me"}, nil, "00"
	r, err := evidence.Verify(sign(t, s, key), evidence.Options{Now: signedAt})
	if err != nil || r.Grade != evidence.Imported || len(r.Statement.Limits) == 0 || strings.Contains(r.Text(), "trust me") {
		t.Errorf("%v: %s", err, r.Text())
	}
}

func TestWhatNobodyCouldVerifyIsNotSigned(t *testing.T) {
	t.Parallel()
	key := seeded("attester")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		signer crypto.Signer
		change func(*evidence.Statement)
		want   string
	}{
		{"the key attests itself", seeded("ca"), func(s *evidence.Statement) { s.AttestationKey = s.Key }, "attest itself"},
		{"another signer than the statement names", seeded("other"), nil, "not the attestation key"},
		{"a long nonce", key, func(s *evidence.Statement) { s.Nonce = strings.Repeat("n", 65) }, "at most 64"},
		{"a nonce that moves the cursor", key, func(s *evidence.Statement) { s.Nonce = "\x1b[2J" }, "printable ASCII"},
		{"an attribute of an unknown kind", key, func(s *evidence.Statement) { s.Key.Attributes = but(map[string]any{"CKA_X": 1}) }, "CKA_X is neither"},
		{"a key of another size", key, func(s *evidence.Statement) { s.Key.Size = 4096 }, "its public key is not that"},
		{"a key of another type", key, func(s *evidence.Statement) { s.Key.Type = "rsa" }, "its public key is not that"},
		{"no public key", key, func(s *evidence.Statement) { s.Key.PublicKey = nil }, "read public key"},
		{"a short RSA key", small, func(s *evidence.Statement) { s.AttestationKey = describe(t, small.Public(), "a") }, "2048 to 8192 bits"},
		{"a curve that tokens seldom have", p521, func(s *evidence.Statement) { s.AttestationKey = describe(t, p521.Public(), "a") }, "P-521 is not supported"},
		{"the signer fails", broken{key}, nil, "sign evidence: no such device"},
		{"the signer signs wrong", corrupt{key}, nil, "signature is not valid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := statement(t, key.Public())
			if c.change != nil {
				c.change(&s)
			}
			if _, err := evidence.Sign(s, c.signer); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Sign: %v, want %q", err, c.want)
			}
			if data, err := evidence.DER(s, c.signer); err == nil || data != nil {
				t.Errorf("DER: %x, %v", data, err)
			}
		})
	}
}

type broken struct{ ed25519.PrivateKey }

func (broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no such device")
}

type corrupt struct{ ed25519.PrivateKey }

func (c corrupt) Sign(r io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := c.PrivateKey.Sign(r, message, opts)
	signature[7] ^= 1
	return signature, err
}

func TestATokensTextNeedNotBeUTF8(t *testing.T) {
	t.Parallel()
	key := seeded("attester")
	s := statement(t, key.Public())
	s.Key.Label, s.Key.Token.Model = "r\xf6ot", "\x1b[31m\u202e<&>"
	r, err := evidence.Verify(sign(t, s, key), evidence.Options{Now: signedAt})
	if err != nil || r.Statement.Key.Label != "r\ufffdot" {
		t.Fatalf("label %q, %v", r.Statement.Key.Label, err)
	}
	if text := r.Text(); strings.ContainsAny(text, "\x1b\u202e") {
		t.Errorf("what the token calls itself reaches the terminal: %q", text)
	}
}

// For each ECDSA signature (r, s) there is (r, n-s). Were both accepted, anybody could make a second document.
func TestOnlyTheSmallerECDSASignatureIsAccepted(t *testing.T) {
	t.Parallel()
	key := signers(t)["P-256"]
	data := signDER(t, small(t, key.Public()), key)
	var outer struct {
		TBS    asn1.RawValue
		Blocks []struct {
			SID, Algorithm asn1.RawValue
			Signature      []byte
		}
	}
	if _, err := asn1.Unmarshal(data, &outer); err != nil {
		t.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(outer.Blocks[0].Signature, &rs); err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	if rs.S.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		t.Error("the larger one was made")
	}
	rs.S.Sub(n, rs.S)
	twin, err := asn1.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	digest := crypto.SHA256.New()
	digest.Write(outer.TBS.FullBytes)
	if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest.Sum(nil), twin) {
		t.Fatal("the twin is not a signature")
	}
	outer.Blocks[0].Signature = twin
	changed, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Verify(changed, evidence.Options{Now: signedAt}); reason(err) != evidence.BadSignature {
		t.Errorf("%v, want %q", err, evidence.BadSignature)
	}
}
