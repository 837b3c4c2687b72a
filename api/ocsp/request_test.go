package ocsp_test

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
	reference "golang.org/x/crypto/ocsp"

	"signet/api/ocsp"
)

// made is a request that OpenSSL made.
func made(t testing.TB, name string) []byte {
	t.Helper()
	der, err := os.ReadFile(filepath.Join("testdata", name+".der"))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestRequestsOfOpenSSLAreUnderstood(t *testing.T) {
	t.Parallel()
	const leaf = "7a11deadbeef"
	for _, row := range []struct {
		name    string
		hashes  []crypto.Hash
		serials []string
		nonce   int // octets
	}{
		{"sha1", []crypto.Hash{crypto.SHA1}, []string{leaf}, 0},
		{"sha256", []crypto.Hash{crypto.SHA256}, []string{leaf}, 0},
		{"sha384", []crypto.Hash{0}, []string{leaf}, 0},
		{"nonce", []crypto.Hash{crypto.SHA1}, []string{leaf}, 16},
		{"several", []crypto.Hash{crypto.SHA1, crypto.SHA1, crypto.SHA256}, []string{leaf, "10", "fff"}, 0},
		{"signed", []crypto.Hash{crypto.SHA1}, []string{leaf}, 16},
	} {
		der := made(t, row.name)
		r, err := ocsp.ParseRequest(der)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		var hashes []crypto.Hash
		var serials []string
		for _, id := range r.IDs {
			hashes, serials = append(hashes, id.Hash), append(serials, id.Serial)
			if !bytes.Contains(der, id.DER) || id.DER[0] != 0x30 || len(id.NameHash) != len(id.KeyHash) {
				t.Errorf("%s: certID %x with hashes %x, %x", row.name, id.DER, id.NameHash, id.KeyHash)
			}
		}
		if !slices.Equal(hashes, row.hashes) || !slices.Equal(serials, row.serials) || len(r.Nonce) != row.nonce || r.Client != "" {
			t.Errorf("%s: algorithms %v, serial numbers %q, nonce %x, client %q", row.name, hashes, serials, r.Nonce, r.Client)
		}
	}
}

// part is a piece of DER.
type part func(*cryptobyte.Builder)

func element(tag tags.Tag, content ...part) part {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(tag, func(b *cryptobyte.Builder) {
			for _, p := range content {
				p(b)
			}
		})
	}
}

func seq(content ...part) part { return element(tags.SEQUENCE, content...) }
func octets(b ...byte) part    { return element(tags.OCTET_STRING, raw(b...)) }
func raw(b ...byte) part       { return func(to *cryptobyte.Builder) { to.AddBytes(b) } }
func number(n int64) part      { return func(to *cryptobyte.Builder) { to.AddASN1Int64(n) } }
func context(n uint8, content ...part) part {
	return element(tags.Tag(n).ContextSpecific().Constructed(), content...)
}

func oid(dotted ...int) part {
	return func(to *cryptobyte.Builder) { to.AddASN1ObjectIdentifier(asn1.ObjectIdentifier(dotted)) }
}

func encode(t testing.TB, p part) []byte {
	t.Helper()
	var b cryptobyte.Builder
	p(&b)
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

var (
	null   = raw(5, 0)
	sha1   = seq(oid(1, 3, 14, 3, 2, 26), null)
	sha256 = seq(oid(2, 16, 840, 1, 101, 3, 4, 2, 1), null)
	hash20 = octets(bytes.Repeat([]byte{7}, 20)...)
	hash32 = octets(bytes.Repeat([]byte{7}, 32)...)
	certID = seq(sha1, hash20, hash20, number(15))
	one    = seq(seq(certID))
)

func extension(critical part, value []byte, dotted ...int) part {
	return seq(oid(dotted...), critical, octets(value...))
}

func nonce(value ...byte) part { return extension(raw(), value, 1, 3, 6, 1, 5, 5, 7, 48, 1, 2) }

// wrapped is an OCTET STRING in the value of a nonce.
func wrapped(t testing.TB, n int) []byte { return encode(t, octets(bytes.Repeat([]byte{9}, n)...)) }

func TestWhatARequestMayHold(t *testing.T) {
	t.Parallel()
	no, yes := raw(1, 1, 0), raw(1, 1, 0xff)
	many := func(n int, p part) (out []part) { return slices.Repeat([]part{p}, n) }
	several := func(n int) (out []part) {
		for i := range n {
			out = append(out, extension(raw(), nil, 1, 2, i))
		}
		return out
	}
	for _, row := range []struct {
		name    string
		request part
		want    string // part of the reason; "" for none
	}{
		{"one certID", seq(seq(one)), ""},
		{"a version that is spelled out", seq(seq(context(0, number(0)), one)), ""},
		{"version 2", seq(seq(context(0, number(1)), one)), "version 2"},
		{"a version that is no number", seq(seq(context(0, null), one)), "no version"},
		{"two versions", seq(seq(context(0, number(0), number(0)), one)), "no version"},
		{"a requestor", seq(seq(context(1, context(4, seq())), one)), ""},
		{"an empty requestor", seq(seq(context(1), one)), "no list"},
		{"a signature", seq(seq(one), context(0, seq())), ""},
		{"a signature of another shape", seq(seq(one), context(0, null)), "signature"},
		{"something after the signature", seq(seq(one), context(0, seq()), null), "signature"},
		{"nothing", raw(), "not an OCSPRequest"},
		{"no list", seq(seq()), "no list"},
		{"an empty list", seq(seq(seq())), "no list"},
		{"an empty request", seq(seq(seq(seq()))), "not a Request"},
		{"octets at the end", func(b *cryptobyte.Builder) { seq(seq(one))(b); null(b) }, "not an OCSPRequest"},
		{"an indefinite length", raw(0x30, 0x80, 0, 0), "not an OCSPRequest"},
		{"a length that is longer than it need be", raw(0x30, 0x81, 2, 0x30, 0), "not an OCSPRequest"},
		{"something after the certID", seq(seq(seq(seq(certID, null)))), "not a Request"},
		{"100 certIDs", seq(seq(seq(many(100, seq(certID))...))), ""},
		{"101 certIDs", seq(seq(seq(many(101, seq(certID))...))), "more than 100"},
		{"a megabyte", seq(seq(one), context(0, seq(octets(make([]byte, 1<<20)...)))), "more than 65536"},

		{"SHA-256", seq(seq(seq(seq(seq(sha256, hash32, hash32, number(1)))))), ""},
		{"an algorithm without parameters", seq(seq(seq(seq(seq(seq(oid(1, 3, 14, 3, 2, 26)), hash20, hash20, number(1)))))), ""},
		{"other parameters", seq(seq(seq(seq(seq(seq(oid(1, 3, 14, 3, 2, 26), number(1)), hash20, hash20, number(1)))))), "parameters"},
		{"MD5", seq(seq(seq(seq(seq(seq(oid(1, 2, 840, 113549, 2, 5), null), octets(1), octets(2), number(1)))))), ""},
		{"short hashes", seq(seq(seq(seq(seq(sha1, octets(1), octets(2), number(1)))))), "another length"},
		{"hashes of another algorithm", seq(seq(seq(seq(seq(sha256, hash20, hash20, number(1)))))), "another length"},
		{"serial number 0", seq(seq(seq(seq(seq(sha1, hash20, hash20, number(0)))))), ""},
		{"a negative serial number", seq(seq(seq(seq(seq(sha1, hash20, hash20, number(-300)))))), ""},
		{"a serial number with zeros in front", seq(seq(seq(seq(seq(sha1, hash20, hash20, raw(2, 2, 0, 1)))))), "not a CertID"},
		{"an empty serial number", seq(seq(seq(seq(seq(sha1, hash20, hash20, raw(2, 0)))))), "not a CertID"},
		{"a huge serial number", seq(seq(seq(seq(seq(sha1, hash20, hash20, element(tags.INTEGER, raw(bytes.Repeat([]byte{1}, 65)...))))))), "64 octets"},
		{"a certID with more fields", seq(seq(seq(seq(seq(sha1, hash20, hash20, number(1), null))))), "not a CertID"},

		{"a nonce of 1 octet", seq(seq(one, context(2, seq(nonce(wrapped(t, 1)...))))), ""},
		{"a nonce of 128 octets", seq(seq(one, context(2, seq(nonce(wrapped(t, 128)...))))), ""},
		{"a nonce of 129 octets", seq(seq(one, context(2, seq(nonce(wrapped(t, 129)...))))), "129 octets"},
		{"an empty nonce", seq(seq(one, context(2, seq(nonce(wrapped(t, 0)...))))), "0 octets"},
		{"a nonce that is not wrapped", seq(seq(one, context(2, seq(nonce(9, 9, 9))))), "OCTET STRING"},
		{"a nonce with something behind", seq(seq(one, context(2, seq(nonce(4, 1, 9, 9))))), "OCTET STRING"},
		{"two nonces", seq(seq(one, context(2, seq(nonce(wrapped(t, 1)...), nonce(wrapped(t, 1)...))))), "twice"},
		{"a critical nonce", seq(seq(one, context(2, seq(extension(yes, wrapped(t, 1), 1, 3, 6, 1, 5, 5, 7, 48, 1, 2))))), ""},
		{"an extension that nobody knows", seq(seq(one, context(2, seq(extension(no, nil, 1, 2, 3))))), ""},
		{"a critical one", seq(seq(one, context(2, seq(extension(yes, nil, 1, 2, 3))))), "critical extension 1.2.3"},
		{"a criticality that is no BOOLEAN", seq(seq(one, context(2, seq(extension(raw(1, 1, 7), nil, 1, 2, 3))))), "not an Extension"},
		{"no extension", seq(seq(one, context(2, seq()))), "not Extensions"},
		{"16 extensions", seq(seq(one, context(2, seq(several(16)...)))), ""},
		{"17 extensions", seq(seq(one, context(2, seq(several(17)...)))), "more than 16"},
		{"an extension of a certID", seq(seq(seq(seq(certID, context(0, seq(extension(no, nil, 1, 2, 3))))))), ""},
		{"a critical one of a certID", seq(seq(seq(seq(certID, context(0, seq(extension(yes, nil, 1, 2, 3))))))), "critical"},
		{"a critical nonce of a certID", seq(seq(seq(seq(certID, context(0, seq(extension(yes, wrapped(t, 1), 1, 3, 6, 1, 5, 5, 7, 48, 1, 2))))))), "critical"},
		{"something after the extensions", seq(seq(one, context(2, seq(nonce(wrapped(t, 1)...))), null)), "more than a list"},
	} {
		r, err := ocsp.ParseRequest(encode(t, row.request))
		switch {
		case row.want == "" && (err != nil || len(r.IDs) == 0):
			t.Errorf("%s: %+v, %v", row.name, r, err)
		case row.want != "" && (!errors.Is(err, ocsp.ErrMalformed) || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: %v, want an error about %q", row.name, err, row.want)
		}
	}
	if r, err := ocsp.ParseRequest(encode(t, seq(seq(seq(seq(seq(sha1, hash20, hash20, number(-31)))))))); err != nil || r.IDs[0].Serial != "-1f" {
		t.Errorf("serial number %+v, %v, want -1f", r.IDs, err)
	}
}

func TestARefusalIsUnderstoodByOthers(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]reference.ResponseStatus{
		ocsp.MalformedRequest: reference.Malformed, ocsp.InternalError: reference.InternalError, 3: reference.TryLater,
	} {
		var refused reference.ResponseError
		if _, err := reference.ParseResponse(ocsp.Refusal(status), nil); !errors.As(err, &refused) || refused.Status != want {
			t.Errorf("status %d reads %v, want %v", status, err, want)
		}
	}
}

// FuzzParseRequest looks for panics, for work beyond the bounds, and for what golang.org/x/crypto reads otherwise.
func FuzzParseRequest(f *testing.F) {
	for _, name := range []string{"sha1", "sha256", "sha384", "nonce", "several", "signed"} {
		f.Add(made(f, name))
	}
	f.Add(encode(f, seq(seq(context(0, number(0)), context(1, context(4, seq())), one, context(2, seq(nonce(wrapped(f, 32)...)))))))
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ocsp.ParseRequest(der)
		if err != nil {
			if !errors.Is(err, ocsp.ErrMalformed) || len(r.IDs) > 0 || len(r.Nonce) > 0 {
				t.Fatalf("refused with %v, and returned %+v", err, r)
			}
			return
		}
		if len(r.IDs) == 0 || len(r.IDs) > ocsp.MaxCertIDs || len(r.Nonce) > ocsp.MaxNonce {
			t.Fatalf("beyond the bounds: %d certIDs, %d octets of nonce", len(r.IDs), len(r.Nonce))
		}
		other, err := reference.ParseRequest(der)
		if err != nil { // it reads no signed requests, no requestor names of the kinds that there are, and fewer algorithms
			return
		}
		id := r.IDs[0]
		serial, ok := new(big.Int).SetString(id.Serial, 16)
		if !ok || serial.Cmp(other.SerialNumber) != 0 || id.Hash != 0 && id.Hash != other.HashAlgorithm ||
			!bytes.Equal(id.NameHash, other.IssuerNameHash) || !bytes.Equal(id.KeyHash, other.IssuerKeyHash) {
			t.Fatalf("read %+v, golang.org/x/crypto reads %+v of %s", id, other, hex.EncodeToString(der))
		}
	})
}
