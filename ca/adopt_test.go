package ca_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"signet/audit"
	"signet/ca"
	"signet/ca/catest"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

// Three keys that a token tells apart: made in it, brought into it, and free to leave.
var (
	bornHere  map[string]any
	imported  = map[string]any{"CKA_LOCAL": false, "CKA_ALWAYS_SENSITIVE": false, "CKA_NEVER_EXTRACTABLE": false}
	exporting = map[string]any{"CKA_EXTRACTABLE": true, "CKA_NEVER_EXTRACTABLE": false}
)

var foreignKey = []byte{0xca, 0xfe}

// foreign is a CA certificate that was made elsewhere.
func foreign(t *testing.T, key, issuerKey crypto.Signer, issuer *x509.Certificate, change func(*x509.Certificate)) []byte {
	t.Helper()
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(0x4711), Subject: pkix.Name{CommonName: "Foreign", Organization: []string{"Old CA"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 20), BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLenZero: true, SubjectKeyId: []byte{1, 2, 3},
	}
	if change != nil {
		change(cert)
	}
	if issuer == nil {
		issuer = cert
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, issuer, key.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAKeyWithItsCertificateIsAdopted(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	key := v.soft.Put("spare", foreignKey, bornHere)
	c, err := v.Adopt(t.Context(), superuser, ca.AdoptRequest{
		Token: "spare", KeyID: foreignKey, Name: "Old CA", CertificateDER: foreign(t, key, key, nil, nil), OrganizationID: ptr(int64(10))})
	if err != nil {
		t.Fatal(err)
	}
	if c.SubjectDN != "O=Old CA,CN=Foreign" || c.Serial != "4711" || c.ValidDays != 20 || *c.PathLength != 0 || !c.IsRoot() ||
		c.Proof.Grade != evidence.Drilled || c.Token != "spare" || *c.OrganizationID != 10 || c.KeyType != policy.EC {
		t.Errorf("%+v", c)
	}
	if d := v.last(t, audit.CAAdopt).Detail; !strings.Contains(d, "cafe") || !strings.Contains(d, "grade drilled") {
		t.Errorf("detail %q", d)
	}
	leaf := v.issue(t, acmeAdmin, c.ID)
	if err := parse(t, leaf.DER).CheckSignatureFrom(parse(t, c.Certificate)); err != nil {
		t.Error(err)
	}
	if crl, err := v.PublicList(t.Context(), ca.Slug(c.Name, c.ID), 0, false); err != nil || crl.Number != 1 {
		t.Errorf("CRL %+v, %v", crl, err)
	}
	drills, err := v.Drills(t.Context(), superuser, c.ID)
	if err != nil || len(drills) != 1 || drills[0].Trigger != ca.AtAdoption {
		t.Errorf("drills %+v, %v", drills, err)
	}
	_, err = v.Adopt(t.Context(), superuser, ca.AdoptRequest{
		Token: "spare", KeyID: foreignKey, Name: "Again", CertificateDER: foreign(t, key, key, nil, nil)})
	wantFault(t, err, fault.Conflict, "Public key is already in use")
}

func TestAKeyWithoutCertificateBecomesARoot(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.soft.Put("main", foreignKey, bornHere)
	c, err := v.Adopt(t.Context(), superuser, ca.AdoptRequest{KeyID: foreignKey, Name: "New root", SubjectDN: "CN=New root", ValidDays: 30})
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, c.Certificate)
	if err := cert.CheckSignatureFrom(cert); err != nil || c.Token != "main" || c.ValidDays != 30 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAdoptedKeysAreGradedHonestly(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		attributes map[string]any
		outcome    evidence.Outcome
		accept     evidence.Grade
		want       evidence.Grade // of the CA; "": refused
		message    string
	}{
		{"a key that was born there", bornHere, "", "", evidence.Drilled, ""},
		{"a key that was brought there", imported, "", "", "", "only imported, and drilled is needed"},
		{"a key that was brought there, accepted", imported, "", evidence.Imported, evidence.Imported, ""},
		{"an acceptance is not enough for less", imported, "", evidence.Asserted, "", "only imported, and asserted is needed"},
		{"a key that yields", bornHere, evidence.Yielded, "", "", "only asserted, and drilled is needed"},
		{"a key that yields, accepted", bornHere, evidence.Yielded, evidence.Asserted, evidence.Asserted, ""},
		{"a key that may leave", exporting, evidence.Yielded, "", "", "the token says this key can leave it"},
		{"a key that may leave, accepted or not", exporting, evidence.Yielded, evidence.Imported, "", "the token says this key can leave it"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			v := newVault(t)
			key := v.soft.Put("main", foreignKey, row.attributes)
			v.soft.Set(row.outcome, nil)
			c, err := v.Adopt(t.Context(), superuser, ca.AdoptRequest{
				KeyID: foreignKey, Name: "Old CA", CertificateDER: foreign(t, key, key, nil, nil), AcceptGrade: row.accept, Reason: "it was always so"})
			if !v.soft.Has("main", foreignKey) {
				t.Error("the key is gone")
			}
			if row.want == "" {
				wantFault(t, err, fault.Conflict, row.message)
				if d := v.last(t, audit.CAKeyRefuse).Detail; !strings.Contains(d, "not adopted") {
					t.Errorf("detail %q", d)
				}
				return
			}
			if err != nil || c.Proof.Grade != row.want || c.Proof.Accepted.Grade != row.accept {
				t.Fatalf("%+v, %v", c.Proof, err)
			}
			if d := v.last(t, audit.CAAdopt).Detail; row.accept != "" && !strings.Contains(d, "it was always so") {
				t.Errorf("detail %q", d)
			}
		})
	}
}

func TestAnIntermediateOfOursIsAdopted(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	root := v.createCA(t, acmeAdmin, nil)
	key := v.soft.Put("main", foreignKey, bornHere)
	rootKey, err := v.soft.Signer(t.Context(), root.KeyRef())
	if err != nil {
		t.Fatal(err)
	}
	request := ca.AdoptRequest{KeyID: foreignKey, Name: "Old CA", CertificateDER: foreign(t, key, rootKey, parse(t, root.Certificate), nil)}
	c, err := v.Adopt(t.Context(), superuser, request)
	if err != nil || *c.ParentID != root.ID || *c.OrganizationID != 10 {
		t.Fatalf("%+v, %v", c, err)
	}
	other := v.soft.Put("main", []byte("other"), bornHere)
	request = ca.AdoptRequest{KeyID: []byte("other"), Name: "Same serial", CertificateDER: foreign(t, other, rootKey, parse(t, root.Certificate), nil)}
	_, err = v.Adopt(t.Context(), superuser, request)
	wantFault(t, err, fault.Conflict, "Serial number is already in use")
	if n, err := v.Reconcile(t.Context(), v.clock.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("the announcement was left open: %d, %v", n, err)
	}
}

func TestWhatIsNotAdopted(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	key, stranger := v.soft.Put("main", foreignKey, bornHere), v.soft.Put("spare", []byte("stranger"), bornHere)
	certificate := func(change func(*x509.Certificate)) func(*ca.AdoptRequest) {
		der := foreign(t, key, key, nil, change)
		return func(r *ca.AdoptRequest) { r.CertificateDER = der }
	}
	for _, row := range []struct {
		name    string
		caller  policy.Caller
		change  func(*ca.AdoptRequest)
		code    fault.Code
		message string
	}{
		{"an admin does not adopt", acmeAdmin, nil, fault.Forbidden, "Insufficient permissions"},
		{"nobody does", policy.Caller{}, nil, fault.Forbidden, "Insufficient permissions"},
		{"an unknown token", superuser, func(r *ca.AdoptRequest) { r.Token = "nowhere" }, fault.Invalid, "not configured"},
		{"a key that is not there", superuser, func(r *ca.AdoptRequest) { r.KeyID = []byte{1} }, fault.NotFound, "no key 01"},
		{"no name", superuser, func(r *ca.AdoptRequest) { r.Name = "" }, fault.Invalid, "name must not be empty"},
		{"no subject", superuser, func(r *ca.AdoptRequest) { r.CertificateDER = nil }, fault.Invalid, ""},
		{"no certificate but bytes", superuser, func(r *ca.AdoptRequest) { r.CertificateDER = []byte("x") }, fault.Invalid, "cannot be read"},
		{"another key's", superuser, func(r *ca.AdoptRequest) { r.CertificateDER = foreign(t, stranger, stranger, nil, nil) }, fault.Invalid, "of another key"},
		{"a leaf's", superuser, certificate(func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }), fault.Invalid, "not that of a CA"},
		{"one that signs no certificates", superuser, certificate(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), fault.Invalid, "keyCertSign"},
		{"one that signs no CRLs", superuser, certificate(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }), fault.Invalid, "cRLSign"},
		{"an expired one", superuser, certificate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), fault.Invalid, "not valid now"},
		{"one without subject", superuser, certificate(func(c *x509.Certificate) { c.Subject = pkix.Name{} }), fault.Invalid, "subject"},
		{"one of an unknown issuer", superuser, func(r *ca.AdoptRequest) {
			issuer := parse(t, foreign(t, stranger, stranger, nil, func(c *x509.Certificate) { c.Subject.CommonName = "Stranger" }))
			r.CertificateDER = foreign(t, key, stranger, issuer, nil)
		}, fault.Invalid, "neither self-signed nor issued by a CA here"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := ca.AdoptRequest{KeyID: foreignKey, Name: "Old CA", CertificateDER: foreign(t, key, key, nil, nil)}
			if row.change != nil {
				row.change(&r)
			}
			before := auditCount(t, v.world)
			_, err := v.Adopt(t.Context(), row.caller, r)
			wantFault(t, err, row.code, row.message)
			if n := auditCount(t, v.world) - before; n != 0 {
				t.Errorf("%d events", n)
			}
		})
	}
	if n := v.soft.Drills(); n != 0 {
		t.Errorf("%d drills of keys that were refused anyway", n)
	}
}

func TestAnAdoptionThatCannotBeRecordedIsClosed(t *testing.T) {
	t.Parallel()
	store := catest.New()
	v := newVault(t, func(c *ca.Config) { c.Store = store })
	v.store = store
	v.soft.Put("main", foreignKey, bornHere)
	request := ca.AdoptRequest{KeyID: foreignKey, Name: "Old CA", SubjectDN: "CN=Old", ValidDays: 30}
	store.Fail = func(method string) error {
		if method == "ProveCA" {
			return errAway
		}
		return nil
	}
	_, err := v.Adopt(t.Context(), superuser, request)
	wantFault(t, err, fault.Unavailable, "not available")
	v.last(t, audit.CAAbandon)
	if n, err := v.Reconcile(t.Context(), v.clock.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("the announcement was left open: %d, %v", n, err)
	}
	store.Fail = nil
	if _, err := v.Adopt(t.Context(), superuser, request); err != nil {
		t.Errorf("the second attempt: %v", err)
	}
}
