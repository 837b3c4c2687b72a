package evidence

import "crypto/x509"

// Object identifiers of draft-ietf-rats-pkix-key-attestation-07, section 8. The draft's own arc is not assigned yet
// (TBDMOD3 below 1.3.6.1.5.5); 999 stands for it in the reference implementation of the draft's authors, and here. A
// new number is a new [Version].
var (
	oidElementTransaction = oid("1.3.6.1.5.5.999.0.0")
	oidElementPlatform    = oid("1.3.6.1.5.5.999.0.1")
	oidElementKey         = oid("1.3.6.1.5.5.999.0.2")

	oidNonce     = oid("1.3.6.1.5.5.999.1.0.0")
	oidTimestamp = oid("1.3.6.1.5.5.999.1.0.1")
	oidAKSPKI    = oid("1.3.6.1.5.5.999.1.0.2")

	oidVendor    = oid("1.3.6.1.5.5.999.1.1.0")
	oidHWModel   = oid("1.3.6.1.5.5.999.1.1.2")
	oidHWSerial  = oid("1.3.6.1.5.5.999.1.1.4")
	oidSWVersion = oid("1.3.6.1.5.5.999.1.1.6")

	oidKeyIdentifier = oid("1.3.6.1.5.5.999.1.2.0")
	oidKeySPKI       = oid("1.3.6.1.5.5.999.1.2.1")
	oidKeyPurpose    = oid("1.3.6.1.5.5.999.1.2.7")
)

// booleanClaims are the attributes for which the draft has claims (section 5.2.3).
var booleanClaims = []struct {
	attribute string
	oid       []byte
}{
	{"CKA_EXTRACTABLE", oid("1.3.6.1.5.5.999.1.2.2")},
	{"CKA_SENSITIVE", oid("1.3.6.1.5.5.999.1.2.3")},
	{"CKA_NEVER_EXTRACTABLE", oid("1.3.6.1.5.5.999.1.2.4")},
	{"CKA_LOCAL", oid("1.3.6.1.5.5.999.1.2.5")},
}

// capabilities are the key purposes of the draft that a private key can have (section 5.2.5, table 3).
var capabilities = []struct {
	attribute string
	oid       []byte
}{
	{"CKA_DECRYPT", oid("1.3.6.1.5.5.999.2.1")},
	{"CKA_UNWRAP", oid("1.3.6.1.5.5.999.2.3")},
	{"CKA_SIGN", oid("1.3.6.1.5.5.999.2.4")},
	{"CKA_SIGN_RECOVER", oid("1.3.6.1.5.5.999.2.5")},
	{"CKA_DERIVE", oid("1.3.6.1.5.5.999.2.8")},
}

// Signet's own claims, below the arc of the UUID ba5bdf20-9ccb-46d4-b3d4-ccf130246141 (Recommendation ITU-T X.667,
// section 7). Their ASN.1 is in docs/evidence.md.
var (
	oidStatement  = oid(signetArc + ".1") // transaction
	oidModule     = oid(signetArc + ".2") // platform
	oidAttributes = oid(signetArc + ".3") // key
	oidGrade      = oid(signetArc + ".4") // key
	oidDrill      = oid(signetArc + ".5") // key
)

const signetArc = "2.25.247713431791289244416101083917786046785"

// oid is the DER of an object identifier, without tag and length.
func oid(dotted string) []byte {
	parsed, err := x509.ParseOID(dotted)
	if err != nil {
		panic("evidence: " + dotted + " is no object identifier") // a constant above is wrong: no run gets past this
	}
	der, err := parsed.MarshalBinary()
	if err != nil {
		panic("evidence: " + dotted + " cannot be encoded")
	}
	return der
}
