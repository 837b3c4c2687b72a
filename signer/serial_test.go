package signer_test

import (
	"strings"
	"testing"

	"signet/signer"
)

func TestASerialIsReadOnlyAsItIsWritten(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, in, want string }{
		{"one", "1", ""},
		{"an odd number of digits", "abc", ""},
		{"the longest", "7" + strings.Repeat("f", 39), ""},
		{"nothing", "", "empty"},
		{"zero", "0", "zero"},
		{"a leading zero", "01", "leading zero"},
		{"upper case", "AB", "lower-case hex"},
		{"a prefix", "1x2", "lower-case hex"},
		{"a sign", "-1", "lower-case hex"},
		{"a plus", "+1", "lower-case hex"},
		{"an underscore", "1_0", "lower-case hex"},
		{"a space", " 1", "lower-case hex"},
		{"a tail", "1\n", "lower-case hex"},
		{"other digits", "١", "lower-case hex"},
		{"twenty octets with the top bit set", "8" + strings.Repeat("0", 39), "positive INTEGER"},
		{"twenty-one octets", "1" + strings.Repeat("0", 40), "longer than 20 octets"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			n, err := signer.ParseSerial(row.in)
			switch {
			case row.want == "" && (err != nil || n.Text(16) != row.in):
				t.Errorf("%x, %v", n, err)
			case row.want != "" && (n != nil || err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("%x, %v, want %q", n, err, row.want)
			}
		})
	}
}

func TestSerialsAreRandomAndFitTwentyOctets(t *testing.T) {
	t.Parallel()
	_, issuer := newRoot(t, kindNamed("P-256"))
	seen := map[string]bool{}
	bits := 0
	for range 64 {
		draft := must(issuer.Prepare(leaf(signer.UsageServer, kindNamed("P-256").key())))
		n, err := signer.ParseSerial(draft.Serial())
		if err != nil {
			t.Fatal(err)
		}
		seen[draft.Serial()] = true
		bits = max(bits, n.BitLen())
	}
	if len(seen) != 64 || bits != 159 {
		t.Errorf("%d different serial numbers of 64, of at most %d bits; want 159", len(seen), bits)
	}
}

func FuzzParseSerial(f *testing.F) {
	for _, s := range []string{"1", "0", "", "7fffffffffffffffffffffffffffffffffffffff", "00ff", "DEADBEEF", "-1", "0x1", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := signer.ParseSerial(s)
		if err != nil {
			if n != nil {
				t.Errorf("%q is refused and read as %x", s, n)
			}
			return
		}
		if n.Sign() <= 0 || n.BitLen() > 159 || n.Text(16) != s {
			t.Errorf("%q is read as %x", s, n)
		}
	})
}
