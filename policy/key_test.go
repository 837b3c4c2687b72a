package policy_test

import (
	"crypto"
	"crypto/dsa"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"signet/policy"
)

func TestCheckKeySpec(t *testing.T) {
	t.Parallel()
	const (
		rsaSizes = "key_size of an rsa key must be 2048, 3072 or 4096, not "
		ecSizes  = "key_size of an ec key must be 256, 384 or 521, not "
		edSizes  = "key_size of an ed25519 key must be 256, not "
		types    = "key_type must be rsa, ec or ed25519, not "
	)
	type spec = policy.KeySpec
	tests := []struct {
		spec, want spec
		reason     string
	}{
		{spec{}, spec{}, types + `""`},
		{spec{"", 2048}, spec{}, types + `""`},
		{spec{"RSA", 2048}, spec{}, types + `"RSA"`},
		{spec{"dsa", 2048}, spec{}, types + `"dsa"`},
		{spec{"ed448", 456}, spec{}, types + `"ed448"`},
		{spec{policy.RSA, 0}, spec{}, rsaSizes + "0"},
		{spec{policy.RSA, -2048}, spec{}, rsaSizes + "-2048"},
		{spec{policy.RSA, 512}, spec{}, rsaSizes + "512"},
		{spec{policy.RSA, 1024}, spec{}, rsaSizes + "1024"},
		{spec{policy.RSA, 2047}, spec{}, rsaSizes + "2047"},
		{spec{policy.RSA, 2049}, spec{}, rsaSizes + "2049"},
		{spec{policy.RSA, 8192}, spec{}, rsaSizes + "8192"},
		{spec{policy.RSA, 1 << 30}, spec{}, rsaSizes + "1073741824"},
		{spec{policy.EC, 224}, spec{}, ecSizes + "224"},
		{spec{policy.EC, 512}, spec{}, ecSizes + "512"},
		{spec{policy.EC, 2048}, spec{}, ecSizes + "2048"},
		{spec{policy.EC, -256}, spec{}, ecSizes + "-256"},
		{spec{policy.Ed25519, 255}, spec{}, edSizes + "255"},
		{spec{policy.Ed25519, 384}, spec{}, edSizes + "384"},
		{spec{policy.RSA, 2048}, spec{policy.RSA, 2048}, ""},
		{spec{policy.RSA, 3072}, spec{policy.RSA, 3072}, ""},
		{spec{policy.RSA, 4096}, spec{policy.RSA, 4096}, ""},
		{spec{policy.EC, 0}, spec{policy.EC, 256}, ""},
		{spec{policy.EC, 256}, spec{policy.EC, 256}, ""},
		{spec{policy.EC, 384}, spec{policy.EC, 384}, ""},
		{spec{policy.EC, 521}, spec{policy.EC, 521}, ""},
		{spec{policy.Ed25519, 0}, spec{policy.Ed25519, 256}, ""},
		{spec{policy.Ed25519, 256}, spec{policy.Ed25519, 256}, ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s-%d", tt.spec.Type, tt.spec.Size), func(t *testing.T) {
			t.Parallel()
			got, err := policy.CheckKeySpec(tt.spec)
			if got := reasons(t, err); got != tt.reason {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

type keyRow struct {
	name   string
	key    crypto.PublicKey
	want   policy.KeySpec
	reason string
}

func checkKeys(t *testing.T, tests []keyRow) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			spec, err := policy.CheckPublicKey(tt.key)
			if got := reasons(t, err); got != tt.reason {
				t.Errorf("got  %q\nwant %q", got, tt.reason)
			}
			if spec != tt.want {
				t.Errorf("got %v, want %v", spec, tt.want)
			}
		})
	}
}

func TestCheckPublicKeyTypes(t *testing.T) {
	t.Parallel()
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256 := newEC(t, elliptic.P256())
	p256dh, err := p256.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const use = " is not supported: use RSA, ECDSA or Ed25519"
	checkKeys(t, []keyRow{
		{name: "nothing", key: nil, reason: "a key of type <nil>" + use},
		{name: "octets", key: []byte("key"), reason: "a key of type []uint8" + use},
		{name: "DSA", key: &dsa.PublicKey{Y: big.NewInt(1)}, reason: "a key of type *dsa.PublicKey" + use},
		{name: "X25519", key: x25519.PublicKey(), reason: "a key of type *ecdh.PublicKey" + use},
		{name: "a key agreement key on P-256", key: p256dh, reason: "a key of type *ecdh.PublicKey" + use},
		{name: "an RSA key by value", key: rsa.PublicKey{N: modulus(2048), E: 65537}, reason: "a key of type rsa.PublicKey" + use},
		{name: "an EC key by value", key: *p256, reason: "a key of type ecdsa.PublicKey" + use},
		{name: "a pointer to an Ed25519 key", key: &public, reason: "a key of type *ed25519.PublicKey" + use},
		{name: "a private key", key: private, reason: "a key of type ed25519.PrivateKey" + use},
		{name: "no RSA key", key: (*rsa.PublicKey)(nil), reason: "the public key is missing"},
		{name: "an empty RSA key", key: &rsa.PublicKey{}, reason: "the public key is missing"},
		{name: "no EC key", key: (*ecdsa.PublicKey)(nil), reason: "the public key is missing"},
		{name: "an empty EC key", key: &ecdsa.PublicKey{}, reason: "the public key is missing"},
		{name: "no Ed25519 key", key: ed25519.PublicKey(nil), reason: "the Ed25519 key does not have 32 octets"},
	})
}

func TestCheckPublicKeyEC(t *testing.T) {
	t.Parallel()
	p256, p384, p521 := newEC(t, elliptic.P256()), newEC(t, elliptic.P384()), newEC(t, elliptic.P521())
	curve := elliptic.P256().Params()
	point := func(x, y *big.Int) *ecdsa.PublicKey { return &ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: y} }
	negative := func(n *big.Int) *big.Int { return new(big.Int).Neg(n) }
	plus := func(a, b *big.Int) *big.Int { return new(big.Int).Add(a, b) }
	renamed := *curve
	renamed.Name = "secp256k1"
	const (
		off  = "the EC key is not a point on its curve: make a new key"
		base = "the EC key is the curve's base point, so its private key is known: make a new key"
		use  = " are not supported: use P-256, P-384 or P-521"
	)
	checkKeys(t, []keyRow{
		{name: "P-224", key: newEC(t, elliptic.P224()), reason: `EC keys on "P-224"` + use},
		{name: "another curve", key: &ecdsa.PublicKey{Curve: &renamed, X: p256.X, Y: p256.Y}, reason: `EC keys on "secp256k1"` + use},
		{name: "explicit parameters, even those of P-256", key: &ecdsa.PublicKey{Curve: curve, X: p256.X, Y: p256.Y}, reason: `EC keys on "P-256"` + use},
		{name: "no curve", key: &ecdsa.PublicKey{X: p256.X, Y: p256.Y}, reason: "the EC key has no curve: use P-256, P-384 or P-521"},
		{name: "no X", key: point(nil, p256.Y), reason: "the public key is missing"},
		{name: "no Y", key: point(p256.X, nil), reason: "the public key is missing"},
		{name: "the point at infinity", key: point(new(big.Int), new(big.Int)), reason: off},
		{name: "a point beside the curve", key: point(p256.X, plus(p256.Y, big.NewInt(1))), reason: off},
		{name: "a point of another curve", key: point(p384.X, p384.Y), reason: off},
		{name: "coordinates the wrong way round", key: point(p256.Y, p256.X), reason: off},
		{name: "a coordinate beyond the field", key: point(plus(p256.X, curve.P), p256.Y), reason: off},
		{name: "a negative coordinate", key: point(p256.X, negative(p256.Y)), reason: off},
		{name: "the base point: the private key is 1", key: point(curve.Gx, curve.Gy), reason: base},
		{name: "its mirror image: the private key is n-1", key: point(curve.Gx, new(big.Int).Sub(curve.P, curve.Gy)), reason: base},
		{name: "P-256", key: p256, want: policy.KeySpec{Type: policy.EC, Size: 256}},
		{name: "P-384", key: p384, want: policy.KeySpec{Type: policy.EC, Size: 384}},
		{name: "P-521", key: p521, want: policy.KeySpec{Type: policy.EC, Size: 521}},
	})
}

func TestCheckPublicKeyEd25519(t *testing.T) {
	t.Parallel()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := func(s string) ed25519.PublicKey { return unhex(s) }
	zeros, ones := strings.Repeat("00", 30), strings.Repeat("ff", 30)
	const (
		off   = "the Ed25519 key is not a point on its curve: make a new key"
		small = "the Ed25519 key is a point of small order: make a new key"
	)
	checkKeys(t, []keyRow{
		{name: "31 octets", key: public[:31], reason: "the Ed25519 key does not have 32 octets"},
		{name: "33 octets", key: append(public[:32:32], 0), reason: "the Ed25519 key does not have 32 octets"},
		{name: "y = 2 is not on the curve", key: key("02" + zeros + "00"), reason: off},
		{name: "order 1: the neutral element", key: key("01" + zeros + "00"), reason: small},
		{name: "order 2", key: key("ec" + ones + "7f"), reason: small},
		{name: "order 4", key: key("00" + zeros + "00"), reason: small},
		{name: "order 4, the other", key: key("00" + zeros + "80"), reason: small},
		{name: "order 8", key: key("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), reason: small},
		{name: "order 8, the second", key: key("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"), reason: small},
		{name: "order 8, the third", key: key("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), reason: small},
		{name: "order 8, the fourth", key: key("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"), reason: small},
		{name: "the neutral element with a sign it does not have", key: key("01" + zeros + "80"), reason: off},
		{name: "order 2 with a sign it does not have", key: key("ec" + ones + "ff"), reason: off},
		{name: "p is not a canonical 0", key: key("ed" + ones + "7f"), reason: off},
		{name: "p+1 is not a canonical 1", key: key("ee" + ones + "7f"), reason: off},
		{name: "all ones", key: key("ff" + ones + "ff"), reason: off},
		{name: "a new key", key: public, want: policy.KeySpec{Type: policy.Ed25519, Size: 256}},
		{name: "the base point's encoding is a point like any other", key: key("5866666666666666666666666666666666666666666666666666666666666666"), want: policy.KeySpec{Type: policy.Ed25519, Size: 256}},
	})
}

func TestCheckPublicKeyRefusesPublishedKeys(t *testing.T) {
	t.Parallel()
	tests := []struct{ source, spki string }{
		{"RFC 9500, section 2.1 (testRSA2048)", "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsPnoGUOnrpiSqt4XynxA+HRP7S+BSObI6qJ7fQAVSPtRkqsotWxQYLEYzNEx5ZSHTGypibVsJylvCfuToDTfMul8b/CZjP2Ob0LdpYrNH6l5hvFE89FU1nZQF15oVLOpUgA7wGiHuEVawrGfey92UE68mOyUVXGweJIVDdxqdMoPvNNUl86BU02vlBiESxOuox+dWmuVV7vfYZ79Toh/LUK43YvJh+rhv4nKuF7iHjVjBd9sB6iDjj70HFldzOQ9r8SRI+9NirupPTkF5AKNe6kUhKJ1luB7S27ZkvB3tSTT3P593VVJvnzOjaA1z6Cz+4+eRvcysqhrRgFlwI9TEwIDAQAB"},
		{"RFC 9500, section 2.1 (testRSA4096)", "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAs4tJYOY75qjbqJqCl47x9jJE5Vd9jPWGFtXKV1nUnMjZNsM4qjy5sRHBSX5bUa9pLyYR5on3Z1SAwLD0w2VPQ6+F/oyK1zTgQqitoF/XZQjgC6D3VsNEO76DPqfRANT7Nn7r1gvbZIZ3/H3rlCRNrRr47tHGWBLAPnxz9/NY6UG8ZkWP97uXpJqYoRgH4CwaO5rTOlc64YDh/0Mq5VgMycq/q2AvMlvNoJfoe8em1040qH1gikP+suT/8fS452hqmEddtRpuvQgXKldBd0kkiyFVyLkG4NVA6Mso9MAK3J/kdYoaw2SrOeThVSiYVEQVP+7GrUxTSLLjj/VQ9fpYM5eTNzDICIG/Ee7o/jhtW1EoSamDmUOr89lyIHaXuOwkEaJhnVXKBCM8WiztxvKG2CnQ6Dcge3ZSmqJEhyEmjcAVC7ewfnMxOnE+WJW6rzrf+mA5WMVn+FzyWx2AondWow0aUKHkaY7amhIrsKp6YPfNImyxFlz8+cqDCmBswPsUh/JJ5eDHHIhibFcSgIHedsEjhLbUSLZ/DnEjru90qIWWA3R1VIPykKfeZkZeInsrFzGPikkFKwFF+6KDdyvCmltYEqzO46tigXAZ5UgH8oiXEre48wO6X+FH+cLzQ0q3A8HZRnNDgqCjU/Tgy76iaku/Ic6eteedR1fX3gJ/IOUCAwEAAQ=="},
		{"RFC 9500, section 2.3 (testECCP256)", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQiVI+I+3gv+17KN0RFLHKh5Vj71vc75eSOkyMsxFxbFsTNEMTLjVuKFxOelIgsiZJXKZNCX0FBmrfpCkKklCcg=="},
		{"RFC 9500, section 2.3 (testECCP384)", "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEWwkBuIUjKW65GdUP+hqcs3S8TUCVhigr/soRsdla27VHNK9XC/grcijPImvPTCXdvP47GjrTlDDv92Ph1o0uFR2Rcgt3lbWNprNGOWE6j7m1qNpIxnRxF/mRnoQk837I"},
		{"RFC 9500, section 2.3 (testECCP521)", "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQB0P1yV6hMdH9WJXXAc4Xb6/L1K+pYCD24L90VMdiq48yHX/Av9/otomDY62LW0vXWSSeOMhc2oGKMu7MDCLbmGNsA9irSBMZGA1m8gYq4lhvw8PwOxaropCgXPOVvAN6bFXweXILGT1Yvyt78Skwo9tNCzz72FvyC0ztyhckh8r82/dg="},
		{"RFC 8032, section 7.1 (test 1)", "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
		{"RFC 8032, section 7.1 (test 2)", "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="},
		{"RFC 8032, section 7.1 (test 3)", "MCowBQYDK2VwAyEA/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU="},
		{"the Go standard library (net/http/httptest)", "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxcl69ROJdxjN+MJZnbFrYxyQooADCsJ6VDkuMyNQIix/Hk15Nk/uFyBX1Me++aEpGmY3RIY4fUvELqT/srvAHsTXwVVSttMcY8pcAFmXSqo3x4MuUTG/jCX3Vftj0r3EM5M8ImY1rzA/jqTTLJg00rD+DmuDABcqQvoXw/RV8w1yTRi5BPoHDFD/AWTt/YgMvk1l2Yq/xI8VbMUIpjBoGXxWsSevQ5i2s1mk9/yZzu0Ysp1tTlzDqOPa4ysFjBitdXiwfxjxtv5nXqOCP5rheKO0sWLk0fetMp1OV5JSJMAJw6c2ZMklU2WMqAEpRjdE/vHfIuNg+yGaRRqI07NZRQIDAQAB"},
	}
	var rows []keyRow
	for _, tt := range tests {
		der, err := base64.StdEncoding.DecodeString(tt.spki)
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, keyRow{name: tt.source, key: key, reason: "the private key of this public key is published in " + tt.source + ": make a new key"})
	}
	checkKeys(t, rows)
}

func newEC(t testing.TB, curve elliptic.Curve) *ecdsa.PublicKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &k.PublicKey
}
