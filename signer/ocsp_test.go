package signer_test

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"signet/signer"
)

// newResponder makes a responder of the kind for a CA.
func newResponder(t testing.TB, ca []byte, issuer *signer.Issuer, k kind, byName bool) ([]byte, *signer.Responder) {
	t.Helper()
	der := sign(t)(issuer.PrepareResponder(k.key().Public(), start, start.AddDate(0, 0, 14)))
	r, err := signer.NewResponder(ca, der, k.key(), byName)
	if err != nil {
		t.Fatal(err)
	}
	return der, r
}

// certID is the CertID of a certificate, as a client writes it.
func certID(t testing.TB, ca []byte, serial string, h crypto.Hash) []byte {
	t.Helper()
	certificate := &x509.Certificate{SerialNumber: must(signer.ParseSerial(serial))}
	request := must(ocsp.CreateRequest(certificate, parse(t, ca), &ocsp.RequestOptions{Hash: h}))
	for range 4 { // OCSPRequest, TBSRequest, requestList, Request
		request = inside(t, request)
	}
	return request
}

// good is a response that nobody objects to.
func good(t testing.TB, ca []byte) signer.SingleResponse {
	t.Helper()
	return signer.SingleResponse{CertID: certID(t, ca, "1f", crypto.SHA1), ThisUpdate: start, NextUpdate: start.Add(time.Hour)}
}

// basicResponse and the types below are RFC 6960, section 4.2.1, for encoding/asn1.
type basicResponse struct {
	Data      responseData
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
	Certs     []asn1.RawValue `asn1:"explicit,tag:0"`
}

type responseData struct {
	Raw        asn1.RawContent
	ID         asn1.RawValue
	ProducedAt time.Time `asn1:"generalized"`
	Responses  []singleResponse
	Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
}

type singleResponse struct {
	CertID     asn1.RawValue
	Status     asn1.RawValue
	ThisUpdate time.Time `asn1:"generalized"`
	NextUpdate time.Time `asn1:"generalized,explicit,tag:0,optional"`
}

type revokedInfo struct {
	At     time.Time       `asn1:"generalized"`
	Reason asn1.Enumerated `asn1:"explicit,tag:0,optional,default:-1"`
}

// readBasic takes a successful response apart and verifies its signature.
func readBasic(t testing.TB, der, responder []byte) responseData {
	t.Helper()
	var outer struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type  asn1.ObjectIdentifier
			Basic []byte
		} `asn1:"explicit,tag:0"`
	}
	var basic basicResponse
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 || outer.Status != 0 ||
		outer.Bytes.Type.String() != "1.3.6.1.5.5.7.48.1.1" {
		t.Fatalf("status %d, type %v, tail %x, error %v", outer.Status, outer.Bytes.Type, rest, err)
	}
	if rest, err := asn1.Unmarshal(outer.Bytes.Basic, &basic); err != nil || len(rest) > 0 {
		t.Fatalf("tail %x, error %v", rest, err)
	}
	if len(basic.Certs) != 1 || !bytes.Equal(basic.Certs[0].FullBytes, responder) {
		t.Errorf("%d certificates, the responder's is not the only one", len(basic.Certs))
	}
	c := parse(t, responder)
	for _, k := range kinds {
		if samePublic(k.key().Public(), c.PublicKey) {
			if err := c.CheckSignature(k.algorithm, basic.Data.Raw, basic.Signature.Bytes); err != nil {
				t.Error(err)
			}
			// The algorithm is named as the same key names it in a certificate.
			self, _ := newRoot(t, k)
			_, want := algorithms(t, self)
			if got := must(asn1.Marshal(basic.Algorithm)); !bytes.Equal(got, want) {
				t.Errorf("algorithm %x, want %x", got, want)
			}
		}
	}
	return basic.Data
}

func samePublic(a, b crypto.PublicKey) bool {
	return a.(interface{ Equal(crypto.PublicKey) bool }).Equal(b)
}

func TestAnOCSPResponseSaysWhatItWasAskedTo(t *testing.T) {
	t.Parallel()
	nonces := map[string][]byte{"without nonce": nil, "a nonce of one octet": {7}, "the longest nonce": bytes.Repeat([]byte{0xa5}, signer.MaxNonce)}
	for _, k := range kinds {
		ca, issuer := newRoot(t, k)
		for _, byName := range []bool{false, true} {
			for name, nonce := range nonces {
				t.Run(k.name+map[bool]string{true: " by name ", false: " by key "}[byName]+name, func(t *testing.T) {
					t.Parallel()
					certificate, r := newResponder(t, ca, issuer, k, byName)
					revokedAt := start.Add(-time.Hour)
					in := []signer.SingleResponse{
						{CertID: certID(t, ca, "1", crypto.SHA1), ThisUpdate: start.Add(700 * time.Millisecond), NextUpdate: start.Add(time.Hour)},
						{CertID: certID(t, ca, "ff", crypto.SHA256), Status: signer.StatusRevoked, RevokedAt: revokedAt, Reason: 1, ThisUpdate: start, NextUpdate: start.Add(time.Hour)},
						{CertID: certID(t, ca, "7f"+strings.Repeat("ab", 19), crypto.SHA1), Status: signer.StatusRevoked, RevokedAt: revokedAt, ThisUpdate: start},
						{CertID: certID(t, ca, "2", crypto.SHA256), Status: signer.StatusUnknown, ThisUpdate: start, NextUpdate: start.Add(time.Minute)},
					}
					der, err := r.Sign(start.Add(time.Second), in, nonce)
					if err != nil {
						t.Fatal(err)
					}
					data := readBasic(t, der, certificate)
					checkResponderID(t, data.ID, parse(t, certificate), byName)
					if !data.ProducedAt.Equal(start.Add(time.Second)) || len(data.Responses) != len(in) {
						t.Fatalf("produced at %v, %d responses", data.ProducedAt, len(data.Responses))
					}
					for i, got := range data.Responses {
						checkSingle(t, got, in[i])
					}
					var echoed []byte
					for _, e := range data.Extensions {
						if e.Id.String() != "1.3.6.1.5.5.7.48.1.2" || e.Critical || echoed != nil {
							t.Errorf("extension %v", e)
						}
						echoed = inside(t, e.Value)
					}
					if !bytes.Equal(echoed, nonce) {
						t.Errorf("nonce %x, want %x", echoed, nonce)
					}
				})
			}
		}
	}
}

func checkResponderID(t testing.TB, id asn1.RawValue, c *x509.Certificate, byName bool) {
	t.Helper()
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	must(asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info))
	sum := sha1.Sum(info.Key.Bytes)
	tag, want := 2, must(asn1.Marshal(sum[:]))
	if byName {
		tag, want = 1, c.RawSubject
	}
	if id.Class != asn1.ClassContextSpecific || id.Tag != tag || !bytes.Equal(id.Bytes, want) {
		t.Errorf("responder [%d] %x, want [%d] %x", id.Tag, id.Bytes, tag, want)
	}
}

func checkSingle(t testing.TB, got singleResponse, want signer.SingleResponse) {
	t.Helper()
	if !bytes.Equal(got.CertID.FullBytes, want.CertID) || got.Status.Class != asn1.ClassContextSpecific || got.Status.Tag != int(want.Status) {
		t.Errorf("certID %x has status %d, want %x with %d", got.CertID.FullBytes, got.Status.Tag, want.CertID, want.Status)
	}
	if !got.ThisUpdate.Equal(want.ThisUpdate.Truncate(time.Second)) || !got.NextUpdate.Equal(want.NextUpdate) {
		t.Errorf("from %v to %v, want from %v to %v", got.ThisUpdate, got.NextUpdate, want.ThisUpdate, want.NextUpdate)
	}
	if want.Status != signer.StatusRevoked {
		if got.Status.IsCompound || len(got.Status.Bytes) > 0 {
			t.Errorf("status %d is no NULL: %x", got.Status.Tag, got.Status.FullBytes)
		}
		return
	}
	var info revokedInfo
	sequence := append([]byte{0x30}, got.Status.FullBytes[1:]...)
	if rest, err := asn1.Unmarshal(sequence, &info); err != nil || len(rest) > 0 || !got.Status.IsCompound {
		t.Fatalf("revoked %x: %v", got.Status.FullBytes, err)
	}
	reason := want.Reason
	if reason == 0 {
		reason = -1 // left out
	}
	if !info.At.Equal(want.RevokedAt) || int(info.Reason) != reason {
		t.Errorf("revoked at %v for %d, want %v for %d", info.At, info.Reason, want.RevokedAt, reason)
	}
}

// golang.org/x/crypto/ocsp knows no Ed25519.
func TestGoReadsTheOCSPResponse(t *testing.T) {
	t.Parallel()
	for i, k := range kinds[:6] {
		ca, issuer := newRoot(t, k)
		for _, byName := range []bool{false, true} {
			certificate, r := newResponder(t, ca, issuer, kinds[(i+1)%6], byName)
			for status, reasons := range map[signer.OCSPStatus][]int{
				signer.StatusGood: {0}, signer.StatusUnknown: {0}, signer.StatusRevoked: {0, 1, 2, 3, 4, 5, 6, 9, 10},
			} {
				for _, reason := range reasons {
					in := good(t, ca)
					in.Status, in.Reason = status, reason
					if status == signer.StatusRevoked {
						in.RevokedAt = start.Add(-time.Minute)
					}
					got, err := ocsp.ParseResponse(must(r.Sign(start, []signer.SingleResponse{in}, nil)), parse(t, ca))
					if err != nil {
						t.Errorf("%s: %v", k.name, err)
						continue
					}
					if got.Status != int(status) || got.RevocationReason != reason || !got.RevokedAt.Equal(in.RevokedAt) ||
						got.SerialNumber.Cmp(big.NewInt(0x1f)) != 0 || got.IssuerHash != crypto.SHA1 ||
						!got.ThisUpdate.Equal(in.ThisUpdate) || !got.NextUpdate.Equal(in.NextUpdate) || !got.ProducedAt.Equal(start) ||
						!bytes.Equal(got.Certificate.Raw, certificate) {
						t.Errorf("%s: %+v, want %+v", k.name, got, in)
					}
				}
			}
		}
	}
}

func TestADefectiveOCSPResponseIsRefused(t *testing.T) {
	t.Parallel()
	k := kindNamed("P-256")
	ca, issuer := newRoot(t, k)
	certificate, _ := newResponder(t, ca, issuer, k, false)
	for _, row := range []struct {
		name   string
		change func(*signer.SingleResponse)
		want   string
	}{
		{"no certID", func(s *signer.SingleResponse) { s.CertID = nil }, "certID"},
		{"a certID that is cut off", func(s *signer.SingleResponse) { s.CertID = s.CertID[:len(s.CertID)-1] }, "certID"},
		{"a certID with a tail", func(s *signer.SingleResponse) { s.CertID = append(bytes.Clone(s.CertID), 0) }, "certID"},
		{"a certID that is a SET", func(s *signer.SingleResponse) { s.CertID = append([]byte{0x31}, s.CertID[1:]...) }, "certID"},
		{"a certID of indefinite length", func(s *signer.SingleResponse) { s.CertID = []byte{0x30, 0x80, 0, 0} }, "certID"},
		{"a negative status", func(s *signer.SingleResponse) { s.Status = -1 }, "status -1"},
		{"a status beyond the last", func(s *signer.SingleResponse) { s.Status = 3 }, "status 3"},
		{"no beginning", func(s *signer.SingleResponse) { s.ThisUpdate = time.Time{} }, "nextUpdate is not after thisUpdate"},
		{"an end at the beginning", func(s *signer.SingleResponse) { s.NextUpdate = s.ThisUpdate }, "nextUpdate is not after thisUpdate"},
		{"an end after GeneralizedTime", func(s *signer.SingleResponse) { s.NextUpdate = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) }, "out of range"},
		{"revoked at no time", func(s *signer.SingleResponse) { s.Status = signer.StatusRevoked }, "revocation time is missing"},
		{"revoked for the reason of delta CRLs", func(s *signer.SingleResponse) { s.Status, s.RevokedAt, s.Reason = signer.StatusRevoked, start, 8 }, "reason 8"},
		{"good and revoked", func(s *signer.SingleResponse) { s.RevokedAt = start }, "not revoked"},
		{"good for a reason", func(s *signer.SingleResponse) { s.Reason = 1 }, "not revoked"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := must(signer.NewResponder(ca, certificate, untouchable{k.key(), t}, false))
			bad := good(t, ca)
			row.change(&bad)
			got, err := r.Sign(start, []signer.SingleResponse{good(t, ca), bad}, nil)
			if got != nil || err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), "response 2") {
				t.Errorf("response %x, error %v, want %q", got, err, row.want)
			}
		})
	}
	r := must(signer.NewResponder(ca, certificate, untouchable{k.key(), t}, false))
	one := []signer.SingleResponse{good(t, ca)}
	if got, err := r.Sign(time.Time{}, one, nil); got != nil || err == nil {
		t.Errorf("without producedAt: %x, %v", got, err)
	}
	if got, err := r.Sign(start, nil, nil); got != nil || err == nil {
		t.Errorf("without responses: %x, %v", got, err)
	}
	for _, nonce := range [][]byte{{}, make([]byte, signer.MaxNonce+1)} {
		if got, err := r.Sign(start, one, nonce); got != nil || err == nil {
			t.Errorf("with a nonce of %d octets: %x, %v", len(nonce), got, err)
		}
	}
}

func TestTheHashesOfAnIssuerAreThoseOfACertID(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		ca, _ := newRoot(t, k)
		for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			var id struct {
				Algorithm asn1.RawValue
				Name, Key []byte
				Serial    *big.Int
			}
			must(asn1.Unmarshal(certID(t, ca, "1", h), &id))
			name, key, err := signer.IssuerHashes(ca, h)
			if err != nil || !bytes.Equal(name, id.Name) || !bytes.Equal(key, id.Key) {
				t.Errorf("%s, %v: %x and %x, %v, want %x and %x", k.name, h, name, key, err, id.Name, id.Key)
			}
		}
	}
	ca, _ := newRoot(t, kindNamed("P-256"))
	if name, _, err := signer.IssuerHashes(ca, crypto.SHA256); err != nil || len(name) != sha256.Size {
		t.Errorf("%x, %v", name, err)
	}
	if name, key, err := signer.IssuerHashes(ca, crypto.MD5); name != nil || key != nil || err == nil {
		t.Errorf("MD5: %x, %x, %v", name, key, err)
	}
	if name, key, err := signer.IssuerHashes(ca[1:], crypto.SHA1); name != nil || key != nil || err == nil {
		t.Errorf("no certificate: %x, %x, %v", name, key, err)
	}
}

func TestAnOCSPErrorIsUnsigned(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]ocsp.ResponseStatus{
		signer.OCSPMalformedRequest: ocsp.Malformed, signer.OCSPInternalError: ocsp.InternalError, signer.OCSPTryLater: ocsp.TryLater,
		signer.OCSPSigRequired: ocsp.SignatureRequired, signer.OCSPUnauthorized: ocsp.Unauthorized,
		0: ocsp.InternalError, 4: ocsp.InternalError, 7: ocsp.InternalError, -1: ocsp.InternalError, 256: ocsp.InternalError,
	} {
		_, err := ocsp.ParseResponse(signer.OCSPError(status), nil)
		if got, ok := err.(ocsp.ResponseError); !ok || got.Status != want {
			t.Errorf("%d reads as %v, want %v", status, err, want)
		}
	}
}
