package main

import (
	"cmp"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// answer is what the server said.
type answer struct {
	t       *testing.T
	request string
	status  int
	header  http.Header
	body    []byte
}

// want ends the test unless the answer has one of the statuses, and is well formed for it.
func (a answer) want(statuses ...int) answer {
	a.t.Helper()
	if !slices.Contains(statuses, a.status) {
		a.t.Fatalf("%s: status %d, want %v: %s", a.request, a.status, statuses, a.body)
	}
	return a
}

// refused holds an error against its status and its detail; "" stands for any text.
func (a answer) refused(status int, detail string) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Errorf("%s: status %d, want %d: %s", a.request, a.status, status, a.body)
		return a
	}
	if got := a.detail(); got == "" || detail != "" && got != detail {
		a.t.Errorf("%s: detail %q, want %q", a.request, got, detail)
	}
	return a
}

// detail is the text of an error; "" when the body has not exactly its shape.
func (a answer) detail() string {
	var e struct{ Detail string }
	if json.Unmarshal(a.body, &e) != nil {
		return ""
	}
	return e.Detail
}

// problems are the entries of a 422 as "type loc", such as "missing body.name".
func (a answer) problems() []string {
	a.t.Helper()
	var e struct {
		Detail []struct {
			Type  string
			Loc   []any
			Msg   string
			Input json.RawMessage
		}
	}
	if err := json.Unmarshal(a.body, &e); err != nil || len(e.Detail) == 0 {
		a.t.Errorf("%s: not the shape of a validation error: %s", a.request, a.body)
	}
	var all []string
	for _, d := range e.Detail {
		if d.Msg == "" || d.Input == nil {
			a.t.Errorf("%s: an entry lacks msg or input: %s", a.request, a.body)
		}
		loc := make([]string, len(d.Loc))
		for i, l := range d.Loc {
			loc[i] = fmt.Sprint(l)
		}
		all = append(all, d.Type+" "+strings.Join(loc, "."))
	}
	return all
}

// malformed holds an answer to be 422 with exactly one problem.
func (a answer) malformed(problem string) {
	a.t.Helper()
	if a.status != http.StatusUnprocessableEntity {
		a.t.Errorf("%s: status %d, want 422: %s", a.request, a.status, a.body)
		return
	}
	if got := a.problems(); !slices.Equal(got, []string{problem}) {
		a.t.Errorf("%s: problems %q, want %q", a.request, got, problem)
	}
}

func (a answer) object() object {
	a.t.Helper()
	var o object
	if err := json.Unmarshal(a.body, &o); err != nil {
		a.t.Fatalf("%s: not an object: %v: %s", a.request, err, a.body)
	}
	return o
}

func (a answer) list() []object {
	a.t.Helper()
	a.want(http.StatusOK)
	var all []object
	if err := json.Unmarshal(a.body, &all); err != nil {
		a.t.Fatalf("%s: not a list: %v: %s", a.request, err, a.body)
	}
	return all
}

func (a answer) id() int64 { a.t.Helper(); return id(a.object()) }

// x509 parses the certificate of an object.
func (a answer) x509() *x509.Certificate {
	a.t.Helper()
	return parseCertificate(a.t, a.object()["certificate"])
}

// expect compares fields of an object. Numbers are compared as they are printed.
func expect(t *testing.T, got, want object) {
	t.Helper()
	for name, value := range want {
		have, there := got[name]
		if !there || fmt.Sprint(have) != fmt.Sprint(value) {
			t.Errorf("%s is %v (there: %t), want %v", name, have, there, value)
		}
	}
}

// equal compares what the server made with what it must be.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// equalSlices is equal for lists.
func equalSlices[T cmp.Ordered](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// fields are the names in an object, sorted.
func fields(o object) []string {
	var names []string
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ids are the ids of the objects in a list.
func ids(list []object) []int64 {
	var all []int64
	for _, o := range list {
		all = append(all, id(o))
	}
	return all
}
