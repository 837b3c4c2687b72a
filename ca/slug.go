package ca

import (
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Slug is the last element of a CA's public URLs: its name in lower-case ASCII letters, digits and hyphens, and its
// id. Accents are dropped; a name without any ASCII letter or digit becomes "ca".
func Slug(name string, id int64) string {
	var b strings.Builder
	gap := false
	for _, r := range norm.NFKD.String(strings.ToLower(name)) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			if gap && b.Len() > 0 {
				b.WriteByte('-')
			}
			gap = false
			b.WriteRune(r)
		case unicode.Is(unicode.Mn, r):
		default:
			gap = true
		}
	}
	if b.Len() == 0 {
		b.WriteString("ca")
	}
	return b.String() + "-" + strconv.FormatInt(id, 10)
}

// slugID reads the id at the end of a slug; false when there is none.
func slugID(slug string) (int64, bool) {
	digits := slug[strings.LastIndexByte(slug, '-')+1:]
	id, err := strconv.ParseInt(digits, 10, 64)
	return id, err == nil && id > 0
}
