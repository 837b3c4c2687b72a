package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// writeJSON answers with a JSON value.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // the types of package wire can be encoded
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that hung up does not read it
}

// recordSize is about what a record of a page takes in memory: a certificate with its strings, in octets.
const recordSize = 2560

// writeList answers with a JSON array, one record at a time: a page may be long, and is in memory only as records.
func writeList[A, B any](w http.ResponseWriter, all []A, shape func(A) B) {
	if size := len(all) * recordSize; size >= longAnswer {
		defer hold(w, size)()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(w, 64<<10)
	var one bytes.Buffer
	encoder := json.NewEncoder(&one)
	encoder.SetEscapeHTML(false)
	_ = out.WriteByte('[') // a client that hung up does not read it
	for i, record := range all {
		if i > 0 {
			_ = out.WriteByte(',')
		}
		one.Reset()
		if err := encoder.Encode(shape(record)); err != nil {
			panic(err) // the types of package wire can be encoded
		}
		if _, err := out.Write(bytes.TrimSuffix(one.Bytes(), []byte("\n"))); err != nil {
			return
		}
	}
	_, _ = out.WriteString("]\n")
	_ = out.Flush()
}

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// text is a string that the API shows as null when it is empty.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// instant is a time as the API shows it, or null.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// or is *p, or otherwise when p is nil.
func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func each[A, B any](all []A, f func(A) B) []B {
	out := make([]B, len(all)) // never nil: an empty list is [] and not null
	for i, a := range all {
		out[i] = f(a)
	}
	return out
}
