package api

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"signet/audit"
)

// page is the part of a list that was asked for. One record more than the limit is fetched, to know whether there is
// a next page.
type page struct {
	cursor      int64 // id of the last record of the page before; 0 for none
	skip, limit int
}

// page reads the parameters that every list has.
func (r *request) page(skip, limit *int, cursor *string) page {
	p := page{skip: or(skip, 0), limit: or(limit, 0)}
	if cursor != nil {
		var ok bool
		if p.cursor, ok = parseCursor(*cursor); !ok {
			r.checker.add("value_error", "Value error, not a cursor of this list", []any{"query", "cursor"}, echo(*cursor, 0))
		}
	}
	return p
}

// A cursor is opaque to clients, so that it may change: the version is part of it.
const cursorVersion = "1."

func formatCursor(id int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorVersion + strconv.FormatInt(id, 10)))
}

func parseCursor(cursor string) (int64, bool) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	digits, ok := strings.CutPrefix(string(data), cursorVersion)
	id, numErr := strconv.ParseInt(digits, 10, 64)
	return id, err == nil && ok && numErr == nil && id > 0 && formatCursor(id) == cursor
}

// writePage answers with the page of the records that were fetched, its total and a link to the next one.
func writePage[A, B any](w http.ResponseWriter, r *request, p page, fetched []A, total audit.Total, id func(A) int64, shape func(A) B) error {
	if len(fetched) > p.limit {
		fetched = fetched[:p.limit]
		query := r.URL.Query()
		query.Del("skip")
		query.Set("cursor", formatCursor(id(fetched[p.limit-1])))
		next := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
		w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, next.String()))
	}
	w.Header().Set("X-Total-Count", strconv.FormatInt(total.N, 10))
	if total.AtLeast {
		w.Header().Set("X-Total-Count-Relation", "at-least")
	}
	writeList(w, fetched, shape)
	return nil
}

// exactly is the total of a list whose records were all counted.
func exactly(n int64) audit.Total { return audit.Total{N: n} }
