package signer_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"iter"
	"math/big"
	"strings"
	"testing"
	"time"

	"signet/signer"
)

// list is a CRL that nobody objects to.
func list(number int64, entries ...signer.Revoked) signer.CRL {
	c := signer.CRL{Number: big.NewInt(number), ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 7)}
	if len(entries) > 0 {
		c.Entries = stream(entries)
	}
	return c
}

func stream(entries []signer.Revoked) iter.Seq2[signer.Revoked, error] {
	return func(yield func(signer.Revoked, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func entry(serial string) signer.Revoked {
	return signer.Revoked{Serial: serial, At: start.Add(-time.Hour), Reason: 1}
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
			var entries []signer.Revoked
			for i, reason := range reasons {
				serial := new(big.Int).Sub(longest, big.NewInt(int64(i)))
				entries = append(entries, signer.Revoked{Serial: serial.Text(16), At: start.Add(-time.Duration(i) * time.Minute), Reason: reason})
			}
			in.Entries = stream(entries)
			der, n, err := issuer.SignCRL(in)
			if err != nil || n != len(entries) {
				t.Fatal(n, err)
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
			if len(crl.RevokedCertificateEntries) != len(entries) {
				t.Fatalf("%d entries, want %d", len(crl.RevokedCertificateEntries), len(entries))
			}
			for i, got := range crl.RevokedCertificateEntries {
				want := entries[i]
				if got.SerialNumber.Text(16) != want.Serial || got.ReasonCode != want.Reason || !got.RevocationTime.Equal(want.At) {
					t.Errorf("entry %x, reason %d, %v; want %s, %d, %v", got.SerialNumber, got.ReasonCode, got.RevocationTime, want.Serial, want.Reason, want.At)
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
	der, n, err := issuer.SignCRL(list(1))
	if err != nil || n != 0 {
		t.Fatal(n, err)
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
	second := func(change func(*signer.Revoked)) func(*signer.CRL) {
		return func(c *signer.CRL) {
			e := entry("2")
			change(&e)
			c.Entries = stream([]signer.Revoked{entry("1"), e})
		}
	}
	serial := func(s string) func(*signer.CRL) { return second(func(e *signer.Revoked) { e.Serial = s }) }
	reason := func(r int) func(*signer.CRL) { return second(func(e *signer.Revoked) { e.Reason = r }) }
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
		{"a beginning before UTCTime", func(c *signer.CRL) { c.ThisUpdate = time.Date(1949, 12, 31, 23, 59, 59, 0, time.UTC) }, "out of range"},
		{"an end after GeneralizedTime", func(c *signer.CRL) { c.NextUpdate = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) }, "out of range"},
		{"base zero", func(c *signer.CRL) { c.Base = new(big.Int) }, "base CRL number is not positive"},
		{"a base that is newer", func(c *signer.CRL) { c.Base = big.NewInt(3) }, "base CRL number is greater"},
		{"a delta of a delta", func(c *signer.CRL) { c.Base, c.FreshestURL = big.NewInt(1), "http://pki.corp.example/crl/delta" }, "names a freshest CRL"},
		{"a distribution point that is no URL", func(c *signer.CRL) { c.DistributionPoint = "crl/root-1" }, "not an absolute"},
		{"a freshest CRL in another scheme", func(c *signer.CRL) { c.FreshestURL = "ldap://pki.corp.example/" }, "not an absolute"},
		{"a distribution point beyond ASCII", func(c *signer.CRL) { c.DistributionPoint = "http://pki.corp.example/crl/zürich-1" }, "printable ASCII"},
		{"an entry without serial number", serial(""), "serial number is empty"},
		{"serial number zero", serial("0"), "serial number is zero"},
		{"a serial number with a leading zero", serial("02"), "leading zero"},
		{"a negative serial number", serial("-2"), "not lower-case hex"},
		{"a serial number in upper case", serial("2A"), "not lower-case hex"},
		{"a serial number of 21 octets", serial("1" + strings.Repeat("0", 40)), "20 octets"},
		{"a serial number of 21 octets when positive", serial("8" + strings.Repeat("0", 39)), "20 octets"},
		{"an entry without date", second(func(e *signer.Revoked) { e.At = time.Time{} }), "revocation date of 2 is missing"},
		{"an entry before UTCTime", second(func(e *signer.Revoked) { e.At = time.Date(1949, 1, 1, 0, 0, 0, 0, time.UTC) }), "revocation date of 2 is out of range"},
		{"an invalidity date after GeneralizedTime", second(func(e *signer.Revoked) { e.InvalidityDate = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) }), "invalidity date of 2"},
		{"a negative reason", reason(-1), "reason -1"},
		{"the reason that is not assigned", reason(7), "reason 7"},
		{"the reason for delta CRLs", reason(8), "reason 8"},
		{"a reason beyond the last", reason(11), "reason 11"},
		{"entries that break off", func(c *signer.CRL) {
			c.Entries = func(yield func(signer.Revoked, error) bool) {
				_ = yield(entry("1"), nil) && yield(signer.Revoked{}, errDatabase)
			}
		}, errDatabase.Error()},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := kindNamed("P-256")
			der, _ := newRoot(t, k)
			issuer := must(signer.NewIssuer(der, untouchable{k.key(), t}))
			crl := list(2, entry("1"), entry("2"))
			row.change(&crl)
			got, n, err := issuer.SignCRL(crl)
			if got != nil || n != 0 || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("CRL %x, error %v, want %q", got, err, row.want)
			}
			if errors.Is(err, signer.ErrKey) {
				t.Errorf("%q blames the key", err)
			}
			if row.want == errDatabase.Error() && !errors.Is(err, errDatabase) {
				t.Errorf("%q does not wrap the database's own", err)
			}
		})
	}
}

var errDatabase = errors.New("the database went away")
