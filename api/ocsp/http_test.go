package ocsp_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"

	"signet/api/ocsp"
)

func TestRequestsInAPathAreDecoded(t *testing.T) {
	t.Parallel()
	der := []byte{0x30, 0xff, 0xfe, 0xfb, 0xef, 0xbe, 0x3f} // MP/+++++Pw== has every odd character
	standard := base64.StdEncoding.EncodeToString(der)
	for name, escaped := range map[string]string{
		"escaped":             url.QueryEscape(standard),
		"as it is":            standard,
		"without padding":     strings.TrimRight(standard, "="),
		"URL-safe":            base64.URLEncoding.EncodeToString(der),
		"URL-safe, unpadded":  base64.RawURLEncoding.EncodeToString(der),
		"all of it escaped":   percent(standard),
		"lower-case escaping": strings.ToLower(percent("MP")) + standard[2:],
	} {
		got, err := ocsp.DecodeGET(escaped)
		if err != nil || !bytes.Equal(got, der) {
			t.Errorf("%s: %q is %x, %v", name, escaped, got, err)
		}
	}
}

func percent(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[c>>4])+string("0123456789abcdef"[c&15])))
	}
	return b.String()
}

func TestPathsThatHoldNoRequest(t *testing.T) {
	t.Parallel()
	for name, escaped := range map[string]string{
		"nothing":              "",
		"only padding":         "==",
		"another character":    "MFYw!",
		"a space":              "MFY w",
		"half an escape":       "MFYw%2",
		"no escape":            "MFYw%zz",
		"a line break":         "MF\nYw",
		"an escaped one":       "MF%0AYw",
		"NUL":                  "MF%00w",
		"one digit too many":   "MFYwM",
		"bits that mean none":  "MFYwMR==",
		"wrong padding":        "MFYw=",
		"too much of it":       "MFY====",
		"padding in the midst": "MA==MA==",
		"escaped twice":        "MFYw%252B",
		"too long":             base64.StdEncoding.EncodeToString(make([]byte, 4<<10+1)),
		"much too long":        strings.Repeat("A", 1<<20),
	} {
		if der, err := ocsp.DecodeGET(escaped); !errors.Is(err, ocsp.ErrMalformed) {
			t.Errorf("%s: %x, %v", name, der, err)
		}
	}
	if _, err := ocsp.DecodeGET(base64.StdEncoding.EncodeToString(make([]byte, 4<<10))); err != nil {
		t.Errorf("4 KiB: %v", err)
	}
}

// FuzzDecodeGET looks for panics, and for requests that do not survive the way through a path.
func FuzzDecodeGET(f *testing.F) {
	for _, name := range []string{"sha1", "sha256", "nonce", "several"} {
		f.Add(url.QueryEscape(base64.StdEncoding.EncodeToString(made(f, name))))
	}
	f.Add("MP%2f%2B-_Pw")
	f.Add("MA==")
	f.Fuzz(func(t *testing.T, escaped string) {
		der, err := ocsp.DecodeGET(escaped)
		if err != nil {
			if !errors.Is(err, ocsp.ErrMalformed) || der != nil {
				t.Fatalf("refused with %v, and returned %x", err, der)
			}
			return
		}
		if len(der) == 0 || len(der) > 4<<10 {
			t.Fatalf("%d octets", len(der))
		}
		again, err := ocsp.DecodeGET(url.PathEscape(base64.StdEncoding.EncodeToString(der)))
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%q is %x, which comes back as %x, %v", escaped, der, again, err)
		}
	})
}
