package api

import (
	"strings"
	"testing"
)

func TestWhatIsAnIdempotencyKey(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		values []string
		key    string
		reason string
	}{
		{"as it is", []string{"8e03978e-40d5"}, "8e03978e-40d5", ""},
		{"as a string", []string{`"8e03978e-40d5"`}, "8e03978e-40d5", ""},
		{"with room around it", []string{"\t \"a\" "}, "a", ""},
		{"a string with quotes in it", []string{`"a\"b\\c"`}, `a"b\c`, ""},
		{"a quote within", []string{`a"b`}, `a"b`, ""},
		{"commas are part of it", []string{"a,b"}, "a,b", ""},
		{"the longest", []string{strings.Repeat("k", 255)}, strings.Repeat("k", 255), ""},
		{"too long", []string{strings.Repeat("k", 256)}, "", "the key must have at most 255 characters"},
		{"nothing", []string{""}, "", "the key must not be empty"},
		{"a string of nothing", []string{`""`}, "", "the key must not be empty"},
		{"twice", []string{"a", "a"}, "", "the key must be sent once"},
		{"a space within", []string{`"a b"`}, "a b", ""},
		{"a tab within", []string{"a\tb"}, "", "the key must consist of printable ASCII characters"},
		{"beyond ASCII", []string{"schlüssel"}, "", "the key must consist of printable ASCII characters"},
		{"not UTF-8", []string{"\xff"}, "", "the key must consist of printable ASCII characters"},
		{"a string that does not end", []string{`"a`}, "", "the key begins with a quote and is no quoted string"},
		{"a string that ends before the end", []string{`"a"b`}, "", "the key begins with a quote and is no quoted string"},
		{"a string with parameters", []string{`"a";b=1`}, "", "the key begins with a quote and is no quoted string"},
		{"another escape", []string{`"a\n"`}, "", "the key begins with a quote and is no quoted string"},
		{"half an escape", []string{`"a\`}, "", "the key begins with a quote and is no quoted string"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			key, reason := parseKey(row.values)
			if reason != row.reason || reason == "" && key != row.key {
				t.Errorf("%q: key %q, %q; want %q, %q", row.values, key, reason, row.key, row.reason)
			}
		})
	}
}

// Whatever is accepted can be printed, and is the same key when it is sent as a string.
func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"a", `"a"`, `"\""`, `"\\"`, `"`, "\x00", "a b", "ä"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		key, reason := parseKey([]string{value})
		if reason != "" {
			return
		}
		if key == "" || len(key) > maxKeyLength || strings.Trim(key, printable()) != "" {
			t.Errorf("%q was accepted as %q", value, key)
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, reason := parseKey([]string{quoted}); again != key {
			t.Errorf("%q is %q, %q; want %q", quoted, again, reason, key)
		}
	})
}

func printable() string {
	var b strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		b.WriteByte(c)
	}
	return b.String()
}
