package signer_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"signet/signer"
)

// hostile is a key that claims to be public and signs as it likes.
type hostile struct {
	public crypto.PublicKey
	sign   func(digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func (h hostile) Public() crypto.PublicKey { return h.public }

func (h hostile) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return h.sign(digest, opts)
}

var errToken = errors.New("CKR_DEVICE_REMOVED")

// attacks are the ways in which a key of the kind may misbehave.
func attacks(k kind) map[string]hostile {
	honest := func(digest []byte, opts crypto.SignerOpts) []byte {
		return must(k.key().Sign(rand.Reader, digest, opts))
	}
	other := kindNamed("P-384").key()
	if k.name == "P-384" {
		other = kindNamed("P-256").key()
	}
	ways := map[string]func([]byte, crypto.SignerOpts) ([]byte, error){
		"fails":                func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, errToken },
		"answers nothing":      func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, nil },
		"answers one octet":    func([]byte, crypto.SignerOpts) ([]byte, error) { return []byte{0x30}, nil },
		"answers zeros":        func([]byte, crypto.SignerOpts) ([]byte, error) { return make([]byte, 64), nil },
		"answers the digest":   func(d []byte, _ crypto.SignerOpts) ([]byte, error) { return d, nil },
		"loses the last octet": func(d []byte, o crypto.SignerOpts) ([]byte, error) { s := honest(d, o); return s[:len(s)-1], nil },
		"adds an octet":        func(d []byte, o crypto.SignerOpts) ([]byte, error) { return append(honest(d, o), 0), nil },
		"flips a bit": func(d []byte, o crypto.SignerOpts) ([]byte, error) {
			s := honest(d, o)
			s[len(s)/2] ^= 1
			return s, nil
		},
		"signs something else": func(d []byte, o crypto.SignerOpts) ([]byte, error) {
			e := bytes.Clone(d)
			e[0] ^= 1
			return honest(e, o), nil
		},
		"signs with another key": func(d []byte, _ crypto.SignerOpts) ([]byte, error) {
			return other.Sign(rand.Reader, d[:32], crypto.SHA256)
		},
		"answers and fails at once": func(d []byte, o crypto.SignerOpts) ([]byte, error) { return honest(d, o), errToken },
	}
	all := map[string]hostile{}
	for name, sign := range ways {
		all[name] = hostile{k.key().Public(), sign}
	}
	return all
}

func TestAHostileKeyGetsNoCertificateOut(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{kindNamed("RSA-2048"), kindNamed("P-256"), kindNamed("P-521"), kindNamed("Ed25519")} {
		der, _ := newRoot(t, k)
		for name, key := range attacks(k) {
			t.Run(k.name+" "+name, func(t *testing.T) {
				t.Parallel()
				issuer, err := signer.NewIssuer(der, key)
				if err != nil {
					t.Fatal(err)
				}
				drafts := map[string]*signer.Draft{
					"leaf": must(issuer.Prepare(leaf(signer.UsageServer, k.key()))),
					"root": must(signer.PrepareRoot(authority("Root"), key)),
				}
				for what, draft := range drafts {
					got, err := draft.Sign()
					if got != nil || !errors.Is(err, signer.ErrKey) {
						t.Errorf("%s: %x, error %v, want ErrKey", what, got, err)
					}
					if strings.HasSuffix(name, "fails") && !errors.Is(err, errToken) {
						t.Errorf("%s: error %v does not wrap the key's own", what, err)
					}
					if again, err := draft.Sign(); again != nil || err == nil {
						t.Errorf("%s: a second attempt gave %x, %v", what, again, err)
					}
				}
				if got, _, err := issuer.SignCRL(list(1, entry("1"))); got != nil || !errors.Is(err, signer.ErrKey) {
					t.Errorf("CRL %x, error %v, want ErrKey", got, err)
				}
			})
		}
	}
}

// turncoat tells another public key after the first time it was asked.
type turncoat struct {
	first, then crypto.Signer
	asked       atomic.Int32
}

func (c *turncoat) Public() crypto.PublicKey {
	if c.asked.Add(1) == 1 {
		return c.first.Public()
	}
	return c.then.Public()
}

func (c *turncoat) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return c.then.Sign(r, digest, opts)
}

func TestTheCertificateHasTheLastWordOnTheKey(t *testing.T) {
	t.Parallel()
	k, other := kindNamed("P-256"), ecKey(elliptic.P256())()
	der, _ := newRoot(t, k)
	issuer, err := signer.NewIssuer(der, &turncoat{first: k.key(), then: other})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := must(issuer.Prepare(leaf(signer.UsageServer, k.key()))).Sign(); got != nil || !errors.Is(err, signer.ErrKey) {
		t.Errorf("certificate %x, error %v", got, err)
	}
	if got, _, err := issuer.SignCRL(list(1, entry("1"))); got != nil || !errors.Is(err, signer.ErrKey) {
		t.Errorf("CRL %x, error %v", got, err)
	}
	root, err := signer.PrepareRoot(authority("Root"), &turncoat{first: k.key(), then: other})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := root.Sign(); got != nil || !errors.Is(err, signer.ErrKey) {
		t.Errorf("root %x, error %v", got, err)
	}
}

// deferring is a key that leaves the verification of its signatures to whoever asks, and does it when asked again.
type deferring struct {
	crypto.Signer
	spoil           bool // what is not verified
	unverified, all atomic.Int32
}

func (d *deferring) SignUnverified(message []byte, opts crypto.SignerOpts) ([]byte, error) {
	d.unverified.Add(1)
	signature, err := crypto.SignMessage(d.Signer, rand.Reader, message, opts)
	if err == nil && d.spoil {
		signature[len(signature)/2] ^= 1
	}
	return signature, err
}

func (d *deferring) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	d.all.Add(1)
	return d.Signer.Sign(r, digest, opts)
}

func TestABadSignatureIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{kindNamed("RSA-2048"), kindNamed("P-256"), kindNamed("Ed25519")} {
		der, _ := newRoot(t, k)
		for _, spoil := range []bool{false, true} {
			key := &deferring{Signer: k.key(), spoil: spoil}
			issuer := must(signer.NewIssuer(der, key))
			got := must(must(issuer.Prepare(leaf(signer.UsageServer, k.key()))).Sign())
			if err := parse(t, got).CheckSignatureFrom(parse(t, der)); err != nil {
				t.Errorf("%s, spoiled %t: %v", k.name, spoil, err)
			}
			if again := key.all.Load() == 1; key.unverified.Load() != 1 || again != spoil {
				t.Errorf("%s, spoiled %t: asked %d times without verification and %d times with", k.name, spoil, key.unverified.Load(), key.all.Load())
			}
		}
	}
}

func TestADraftIsSignedOnce(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	draft := must(issuer.Prepare(leaf(signer.UsageServer, kindNamed("P-256").key())))
	if _, err := draft.Sign(); err != nil {
		t.Fatal(err)
	}
	der, err := draft.Sign()
	if der != nil || err == nil || errors.Is(err, signer.ErrKey) {
		t.Errorf("the second time: %x, %v", der, err)
	}
}

func TestOfSixteenAtOnceExactlyOneSigns(t *testing.T) {
	t.Parallel()
	k := kindNamed("P-256")
	der, _ := newRoot(t, k)
	var signatures atomic.Int32
	issuer, err := signer.NewIssuer(der, hostile{k.key().Public(), func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		signatures.Add(1)
		return k.key().Sign(rand.Reader, digest, opts)
	}})
	if err != nil {
		t.Fatal(err)
	}
	draft := must(issuer.Prepare(leaf(signer.UsageServer, k.key())))

	var got atomic.Int32
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for range 16 {
		wg.Go(func() {
			<-begin
			if der, err := draft.Sign(); err == nil && der != nil {
				got.Add(1)
			}
		})
	}
	close(begin)
	wg.Wait()
	if got.Load() != 1 || signatures.Load() != 1 {
		t.Errorf("%d certificates, %d signatures, want one", got.Load(), signatures.Load())
	}
}

func TestPrepareDoesNotTouchTheCAKey(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			der, _ := newRoot(t, k)
			issuer, err := signer.NewIssuer(der, untouchable{k.key(), t})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := issuer.Prepare(leaf(signer.UsageServer, k.key())); err != nil {
				t.Error(err)
			}
			if _, err := signer.PrepareRoot(authority("Root"), untouchable{k.key(), t}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheCertificateIsTheDraftAndASignature(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			_, issuer := newRoot(t, k)
			draft := must(issuer.Prepare(leaf(signer.UsageServer, k.key())))
			tbs := draft.TBS()
			clear(draft.TBS()) // a copy: the draft does not notice
			der, err := draft.Sign()
			if err != nil {
				t.Fatal(err)
			}
			c := parse(t, der)
			if !bytes.Equal(c.RawTBSCertificate, tbs) || !bytes.Equal(draft.TBS(), tbs) {
				t.Error("what was signed is not what the draft said")
			}
			if c.SerialNumber.Text(16) != draft.Serial() {
				t.Errorf("serial number %x, the draft said %s", c.SerialNumber, draft.Serial())
			}
			if n := must(signer.ParseSerial(draft.Serial())); n.Cmp(c.SerialNumber) != 0 {
				t.Errorf("the draft's serial number reads as %x", n)
			}
			inner, outer := algorithms(t, der)
			if !bytes.Equal(inner, outer) {
				t.Errorf("algorithm %x inside, %x outside", inner, outer)
			}
		})
	}
}

// algorithms returns the two AlgorithmIdentifiers of a certificate, which have to agree (RFC 5280, section 4.1.1.2).
func algorithms(t testing.TB, der []byte) (inner, outer []byte) {
	t.Helper()
	var c struct {
		TBS struct {
			Version   int `asn1:"explicit,tag:0"`
			Serial    asn1.RawValue
			Algorithm asn1.RawValue
			Issuer    asn1.RawValue
			Validity  asn1.RawValue
			Subject   asn1.RawValue
			Key       asn1.RawValue
			Rest      asn1.RawValue `asn1:"explicit,tag:3"`
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if rest, err := asn1.Unmarshal(der, &c); err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	return c.TBS.Algorithm.FullBytes, c.Algorithm.FullBytes
}

func TestTwoDraftsOfOneTemplateDifferInSerialOnly(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	template := leaf(signer.UsageServer, kindNamed("P-256").key())
	one, two := must(issuer.Prepare(template)), must(issuer.Prepare(template))
	if one.Serial() == two.Serial() {
		t.Error("both have the serial number", one.Serial())
	}
}

func TestTheKeyGetsADigestOrForEd25519TheMessage(t *testing.T) {
	t.Parallel()
	hashes := map[string]crypto.Hash{
		"RSA-2048": crypto.SHA256, "RSA-3072": crypto.SHA256, "RSA-4096": crypto.SHA256,
		"P-256": crypto.SHA256, "P-384": crypto.SHA384, "P-521": crypto.SHA512, "Ed25519": 0,
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			der, _ := newRoot(t, k)
			var input []byte
			var hash crypto.Hash
			issuer := must(signer.NewIssuer(der, hostile{k.key().Public(), func(d []byte, opts crypto.SignerOpts) ([]byte, error) {
				input, hash = bytes.Clone(d), opts.HashFunc()
				return k.key().Sign(rand.Reader, d, opts)
			}}))
			draft := must(issuer.Prepare(leaf(signer.UsageServer, k.key())))
			if _, err := draft.Sign(); err != nil {
				t.Fatal(err)
			}
			want := draft.TBS()
			if h := hashes[k.name]; h != 0 {
				sum := h.New()
				sum.Write(want)
				want = sum.Sum(nil)
			}
			if hash != hashes[k.name] || !bytes.Equal(input, want) {
				t.Errorf("the key got %x as %v, want %x as %v", input, hash, want, hashes[k.name])
			}
		})
	}
}

func TestAnIssuerIsRefused(t *testing.T) {
	t.Parallel()
	k := kindNamed("P-256")
	rootDER, issuer := newRoot(t, k)
	leafDER := sign(t)(issuer.Prepare(leaf(signer.UsageServer, k.key())))
	self := func(change func(*x509.Certificate)) []byte {
		c := parse(t, rootDER)
		c.ExtraExtensions, c.Extensions = nil, nil
		change(c)
		return must(x509.CreateCertificate(rand.Reader, c, c, k.key().Public(), k.key()))
	}
	for _, row := range []struct {
		name        string
		certificate []byte
		key         crypto.Signer
		want        string
	}{
		{"that is no certificate", []byte("-----BEGIN CERTIFICATE-----"), k.key(), "parse CA certificate"},
		{"with a tail", append(bytes.Clone(rootDER), 0), k.key(), "parse CA certificate"},
		{"that is a leaf", leafDER, k.key(), "not a CA certificate"},
		{"that says nothing of being a CA", self(func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false }), k.key(), "not a CA certificate"},
		{"that may sign CRLs only", self(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), k.key(), "keyCertSign"},
		{"without subject key identifier", self(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 14}, Value: []byte{0x04, 0x00}}}
		}), k.key(), "no subject key identifier"},
		{"without key", rootDER, nil, "the key is not the one in the CA certificate"},
		{"with another key of the kind", rootDER, ecKey(elliptic.P256())(), "the key is not the one in the CA certificate"},
		{"with a key of another kind", rootDER, kindNamed("Ed25519").key(), "the key is not the one in the CA certificate"},
		{"with a key that tells nothing", rootDER, hostile{}, "the key is not the one in the CA certificate"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := signer.NewIssuer(row.certificate, row.key)
			if got != nil || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("issuer %v, error %v, want %q", got, err, row.want)
			}
		})
	}
}
