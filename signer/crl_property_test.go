package signer_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	zcrypto "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"

	"signet/signer"
)

// randomList is a list of n entries that says all sorts of things. delta makes it a delta CRL.
func randomList(r *mathrand.Rand, n int, delta bool) (signer.CRL, []signer.Revoked) {
	day := 24 * time.Hour
	reasons := []int{0, 0, 1, 2, 3, 4, 5, 6, 9, 10}
	c := signer.CRL{Number: new(big.Int).SetUint64(1 + r.Uint64()), ThisUpdate: start, NextUpdate: start.Add(time.Second + time.Duration(r.IntN(40*365))*day)}
	if r.IntN(2) == 0 {
		c.DistributionPoint = "http://pki.corp.example/crl/root-1/" + strings.Repeat("7", r.IntN(200))
	}
	if delta {
		c.Base, reasons = new(big.Int).Sub(c.Number, big.NewInt(int64(r.IntN(2)))), append(reasons, 8)
		if c.Base.Sign() == 0 {
			c.Base.SetInt64(1)
		}
	} else if r.IntN(2) == 0 {
		c.FreshestURL = "http://pki.corp.example/crl/root-1/delta"
	}
	entries := make([]signer.Revoked, n)
	for i := range entries {
		serial := make([]byte, 1+r.IntN(20))
		for j := range serial {
			serial[j] = byte(r.Uint32())
		}
		if serial[0] |= 1; len(serial) == 20 {
			serial[0] &= 0x7f
		}
		e := signer.Revoked{
			Serial: strings.TrimLeft(hex.EncodeToString(serial), "0"),
			At:     time.Date(1950+r.IntN(150), 1, 1+r.IntN(365), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1e9), time.UTC),
			Reason: reasons[r.IntN(len(reasons))],
		}
		if r.IntN(3) == 0 {
			e.InvalidityDate = e.At.Add(-time.Duration(r.IntN(1000)) * time.Hour).In(time.FixedZone("east", 3*3600))
			e.InvalidityDate = time.Date(max(1950, e.InvalidityDate.Year()), 5, 1, 2, 3, 4, 5, e.InvalidityDate.Location())
		}
		entries[i] = e
	}
	c.Entries = stream(entries)
	return c, entries
}

// template is the same list for x509.CreateRevocationList.
func template(c signer.CRL, entries []signer.Revoked, algorithm x509.SignatureAlgorithm) *x509.RevocationList {
	list := &x509.RevocationList{SignatureAlgorithm: algorithm, Number: c.Number, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate}
	for _, e := range entries {
		x := x509.RevocationListEntry{SerialNumber: must(signer.ParseSerial(e.Serial)), RevocationTime: e.At, ReasonCode: e.Reason}
		if !e.InvalidityDate.IsZero() {
			value := must(asn1.MarshalWithParams(e.InvalidityDate.UTC(), "generalized"))
			x.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: value}}
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x)
	}
	type name struct {
		FullName []asn1.RawValue `asn1:"tag:0"`
	}
	type point struct {
		Name name `asn1:"tag:0"`
	}
	at := func(url string) point {
		return point{name{[]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(url)}}}}
	}
	add := func(id int, critical bool, value any) {
		e := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, id}, Critical: critical, Value: must(asn1.Marshal(value))}
		list.ExtraExtensions = append(list.ExtraExtensions, e)
	}
	if c.Base != nil {
		add(27, true, c.Base)
	}
	if c.DistributionPoint != "" {
		add(28, true, at(c.DistributionPoint))
	}
	if c.FreshestURL != "" {
		add(46, false, []point{at(c.FreshestURL)})
	}
	return list
}

// What is signed is, octet for octet, what the standard library makes of the same list: whatever is in it, however many
// entries there are, and whatever was thought of its size.
func TestACRLIsTheOneThatGoMakes(t *testing.T) {
	t.Parallel()
	for i, k := range kinds {
		ca, issuer := newRoot(t, k)
		for _, n := range []int{0, 1, 2, 3, 4, 5, 40, 100, 700, 1500, 30_000} {
			if n > 1000 && k.name != "P-256" {
				continue
			}
			for _, delta := range []bool{false, true} {
				seed := mathrand.Uint64()
				t.Run(fmt.Sprintf("%s %d entries delta %t seed %d", k.name, n, delta, seed), func(t *testing.T) {
					t.Parallel()
					c, entries := randomList(mathrand.New(mathrand.NewPCG(seed, uint64(i))), n, delta)
					want := must(x509.CreateRevocationList(rand.Reader, template(c, entries, k.algorithm), parse(t, ca), k.key()))
					wanted := must(x509.ParseRevocationList(want))
					for _, size := range []int{0, -1, 1, len(want) / 2, len(want) - 100, len(want), len(want) + 1, 3 * len(want)} {
						c.Size = size
						der, count, err := issuer.SignCRL(c)
						if err != nil {
							t.Fatal(err)
						}
						got, err := x509.ParseRevocationList(der)
						if err != nil {
							t.Fatal(err)
						}
						if err := got.CheckSignatureFrom(parse(t, ca)); err != nil {
							t.Error(err)
						}
						if at := difference(got.RawTBSRevocationList, wanted.RawTBSRevocationList); count != n || at != "" {
							t.Fatalf("with size %d of %d: %d entries: %s", size, len(want), count, at)
						}
						if at := difference(der, want); (k.rsa || k.name == "Ed25519") && at != "" { // signatures are always the same
							t.Fatalf("with size %d of %d: %s", size, len(want), at)
						}
					}
				})
			}
		}
	}
}

// difference shows where two encodings part; "" when they are the same.
func difference(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	from := max(0, at-40)
	return fmt.Sprintf("octet %d of %d and %d:\n got %x\nwant %x", at, len(got), len(want), got[from:min(len(got), at+40)], want[from:min(len(want), at+40)])
}

func TestTimesChangeTheirTypeIn2050(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	last := time.Date(2049, 12, 31, 23, 59, 59, 999, time.UTC)
	c := list(1, signer.Revoked{Serial: "1", At: last}, signer.Revoked{Serial: "2", At: last.Add(time.Second), InvalidityDate: start})
	c.ThisUpdate, c.NextUpdate = last, last.Add(time.Second)
	der := signList(t, issuer, c)
	for _, want := range []string{
		"\x17\x0d491231235959Z\x18\x0f20500101000000Z\x30", "\x02\x01\x01\x17\x0d491231235959Z", "\x02\x01\x02\x18\x0f20500101000000Z",
		"\x18\x0f" + start.Format("20060102150405Z"),
	} {
		if !bytes.Contains(der, []byte(want)) {
			t.Errorf("no %q in %q", want, der)
		}
	}
}

// zlint's lints of CRLs from RFC 5280, warnings included, find nothing.
func TestTheLinterFindsNothingInCRLs(t *testing.T) {
	t.Parallel()
	base := list(7, entry("1"), signer.Revoked{Serial: "2", At: start, InvalidityDate: start.Add(-time.Hour)})
	base.FreshestURL = "http://pki.corp.example/crl/root-1/delta"
	shard := list(8, entry("3"))
	shard.DistributionPoint = "http://pki.corp.example/crl/root-1/1"
	delta := list(9, entry("4"), signer.Revoked{Serial: "2", At: start, Reason: 8})
	delta.Base, delta.DistributionPoint = big.NewInt(7), shard.DistributionPoint
	for _, k := range kinds {
		_, issuer := newRoot(t, k)
		for name, c := range map[string]signer.CRL{"empty": list(6), "base": base, "shard": shard, "delta": delta} {
			parsed, err := zcrypto.ParseRevocationList(signList(t, issuer, c))
			if err != nil {
				t.Fatalf("%s %s: %v", k.name, name, err)
			}
			ran := 0
			for _, l := range zlint.GlobalRegistry().RevocationListLints().Lints() {
				result := l.Execute(parsed, zlint.GlobalRegistry().GetConfiguration())
				if result.Status >= zlint.Notice {
					t.Errorf("%s %s: %s: %s: %s", k.name, name, l.Name, result.Status, result.Details)
				}
				if result.Status == zlint.Pass {
					ran++
				}
			}
			if ran < 5 {
				t.Errorf("%s %s: only %d lints ran", k.name, name, ran)
			}
		}
	}
}
