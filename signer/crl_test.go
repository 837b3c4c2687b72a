package signer_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"signet/signer"
)

// list is a CRL that nobody objects to.
func list(number int64, entries ...signer.Revoked) signer.CRL {
	return signer.CRL{Number: big.NewInt(number), ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 7), Entries: entries}
}

func entry(serial int64) signer.Revoked {
	return signer.Revoked{Serial: big.NewInt(serial), At: start.Add(-time.Hour), Reason: 1}
}

func TestACRLSaysWhatIsRevokedAndWhy(t *testing.T) {
	t.Parallel()
	reasons := []int{0, 1, 2, 3, 4, 5, 6, 9, 10}
	longest := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 159), big.NewInt(1))
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			rootDER, issuer := newRoot(t, k)
			root := parse(t, rootDER)
			in := list(70_000)
			in.ThisUpdate = in.ThisUpdate.Add(300 * time.Millisecond)
			for i, reason := range reasons {
				e := signer.Revoked{Serial: new(big.Int).Sub(longest, big.NewInt(int64(i))), At: start.Add(-time.Duration(i) * time.Minute), Reason: reason}
				in.Entries = append(in.Entries, e)
			}
			der, err := issuer.SignCRL(in)
			if err != nil {
				t.Fatal(err)
			}
			crl, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			if err := crl.CheckSignatureFrom(root); err != nil || crl.SignatureAlgorithm != k.algorithm {
				t.Errorf("signature %v: %v", crl.SignatureAlgorithm, err)
			}
			if crl.Number.Cmp(in.Number) != 0 || !bytes.Equal(crl.AuthorityKeyId, root.SubjectKeyId) || !bytes.Equal(crl.RawIssuer, root.RawSubject) {
				t.Errorf("number %d, authority %x, issuer %x", crl.Number, crl.AuthorityKeyId, crl.RawIssuer)
			}
			if !crl.ThisUpdate.Equal(start) || !crl.NextUpdate.Equal(in.NextUpdate) {
				t.Errorf("from %v to %v", crl.ThisUpdate, crl.NextUpdate)
			}
			if len(crl.Extensions) != 2 || crl.Extensions[0].Critical || crl.Extensions[1].Critical {
				t.Errorf("extensions %v", crl.Extensions)
			}
			if len(crl.RevokedCertificateEntries) != len(in.Entries) {
				t.Fatalf("%d entries, want %d", len(crl.RevokedCertificateEntries), len(in.Entries))
			}
			for i, got := range crl.RevokedCertificateEntries {
				want := in.Entries[i]
				if got.SerialNumber.Cmp(want.Serial) != 0 || got.ReasonCode != want.Reason || !got.RevocationTime.Equal(want.At) {
					t.Errorf("entry %x, reason %d, %v; want %x, %d, %v", got.SerialNumber, got.ReasonCode, got.RevocationTime, want.Serial, want.Reason, want.At)
				}
				if unspecified := want.Reason == 0; unspecified != (len(got.Extensions) == 0) {
					t.Errorf("reason %d with extensions %v", want.Reason, got.Extensions)
				}
			}
		})
	}
}

func TestAnEmptyCRLHasNoListAtAll(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	der, err := issuer.SignCRL(list(1))
	if err != nil {
		t.Fatal(err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil || crl.RevokedCertificateEntries != nil {
		t.Errorf("entries %v, error %v", crl.RevokedCertificateEntries, err)
	}
	// nextUpdate is followed by the extensions at once (RFC 5280, section 5.1.2.6).
	if end := append([]byte(start.AddDate(0, 0, 7).Format("060102150405Z")), 0xa0); !bytes.Contains(der, end) {
		t.Errorf("no %q in %x", end, der)
	}
}

func TestADefectiveCRLIsRefused(t *testing.T) {
	t.Parallel()
	tooLong := new(big.Int).Lsh(big.NewInt(1), 159)
	for _, row := range []struct {
		name   string
		change func(*signer.CRL)
		want   string
	}{
		{"no number", func(c *signer.CRL) { c.Number = nil }, "number is not positive"},
		{"number zero", func(c *signer.CRL) { c.Number = new(big.Int) }, "number is not positive"},
		{"a negative number", func(c *signer.CRL) { c.Number = big.NewInt(-1) }, "number is not positive"},
		{"a number of 21 octets", func(c *signer.CRL) { c.Number = tooLong }, "20 octets"},
		{"no beginning", func(c *signer.CRL) { c.ThisUpdate = time.Time{} }, "nextUpdate is not after thisUpdate"},
		{"no end", func(c *signer.CRL) { c.NextUpdate = time.Time{} }, "nextUpdate is not after thisUpdate"},
		{"an end before the beginning", func(c *signer.CRL) { c.NextUpdate = c.ThisUpdate.Add(-time.Hour) }, "nextUpdate is not after thisUpdate"},
		{"an end at the beginning", func(c *signer.CRL) { c.NextUpdate = c.ThisUpdate }, "nextUpdate is not after thisUpdate"},
		{"an end in the same second", func(c *signer.CRL) { c.NextUpdate = c.ThisUpdate.Add(time.Second - 1) }, "nextUpdate is not after thisUpdate"},
		{"an entry without serial number", func(c *signer.CRL) { c.Entries[1].Serial = nil }, "serial number of an entry"},
		{"serial number zero", func(c *signer.CRL) { c.Entries[1].Serial = new(big.Int) }, "serial number of an entry"},
		{"a negative serial number", func(c *signer.CRL) { c.Entries[1].Serial = big.NewInt(-2) }, "serial number of an entry"},
		{"a serial number of 21 octets", func(c *signer.CRL) { c.Entries[1].Serial = tooLong }, "serial number of an entry"},
		{"a serial number twice", func(c *signer.CRL) { c.Entries[1].Serial = big.NewInt(1) }, "serial number 1 is listed twice"},
		{"an entry without date", func(c *signer.CRL) { c.Entries[1].At = time.Time{} }, "revocation date of 2 is missing"},
		{"a negative reason", func(c *signer.CRL) { c.Entries[1].Reason = -1 }, "reason -1"},
		{"the reason that is not assigned", func(c *signer.CRL) { c.Entries[1].Reason = 7 }, "reason 7"},
		{"the reason for delta CRLs", func(c *signer.CRL) { c.Entries[1].Reason = 8 }, "reason 8"},
		{"a reason beyond the last", func(c *signer.CRL) { c.Entries[1].Reason = 11 }, "reason 11"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := kindNamed("P-256")
			der, _ := newRoot(t, k)
			issuer := must(signer.NewIssuer(der, untouchable{k.key(), t}))
			crl := list(1, entry(1), entry(2))
			row.change(&crl)
			got, err := issuer.SignCRL(crl)
			if got != nil || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("CRL %x, error %v, want %q", got, err, row.want)
			}
			if errors.Is(err, signer.ErrKey) {
				t.Errorf("%q blames the key", err)
			}
		})
	}
}
