package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/gorilla/mux"

	"signet/fault"
	"signet/identity"
	"signet/policy"
)

// maxBody is the largest body that is read.
const maxBody = 1 << 20

// request is one request to a route of the contract. Its readers collect what is malformed; err tells all of it.
type request struct {
	*http.Request
	operation operation
	session   identity.Session // of a route that needs one
	checker   checker
	octets    []byte // of the body, once it was read
	failure   error  // other than a malformed request
}

// caller is who asks, on a route that needs authentication.
func (r *request) caller() policy.Caller { return r.session.User.Caller() }

// err returns what was wrong with everything read so far: an Unprocessable fault that lists every problem, or what
// kept the body from being read.
func (r *request) err() error {
	if r.failure != nil {
		return r.failure
	}
	if len(r.checker.problems) > 0 {
		return &fault.Error{Code: fault.Unprocessable, Message: "the request is malformed", Fields: r.checker.problems}
	}
	return nil
}

// id reads an id from the path.
func (r *request) id(name string) int64 {
	n, _ := r.checker.value(r.operation.parameter("path", name).Schema.Value, mux.Vars(r.Request)[name], []any{"path", name}).(int64)
	return n
}

// query reads the query parameters of the contract into params, a struct of package wire. Defaults are filled in.
func (r *request) query(params any) {
	sent, out := r.URL.Query(), map[string]any{}
	for _, ref := range r.operation.parameters {
		p := ref.Value
		if p.In != "query" {
			continue
		}
		values := sent[p.Name]
		switch {
		case len(values) > 0: // the last one wins
			out[p.Name] = r.checker.value(p.Schema.Value, values[len(values)-1], []any{"query", p.Name})
		case p.Required:
			r.checker.add("missing", "Field required", []any{"query", p.Name}, nil)
		case p.Schema.Value.Default != nil:
			out[p.Name] = p.Schema.Value.Default
		}
	}
	r.fill(out, params)
}

// body reads the JSON body into a struct of package wire.
func (r *request) body(into any) {
	data, err := readBody(r.Request)
	if err != nil {
		r.failure = err
		return
	}
	r.octets = data
	if len(bytes.TrimSpace(data)) == 0 {
		if r.operation.bodyRequired {
			r.checker.add("missing", "Field required", []any{"body"}, nil)
		}
		return
	}
	v, offset, err := parse(data, r.Header.Get("Content-Type"))
	if err != nil {
		r.checker.add("json_invalid", "JSON decode error", []any{"body", offset}, map[string]any{})
		return
	}
	r.fill(r.checker.value(r.operation.body, v, []any{"body"}), into)
}

// form reads an urlencoded or multipart form. As in FastAPI, an empty value is a missing one.
func (r *request) form(into any) {
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(maxBody)
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) { // what is malformed otherwise has no fields
		r.failure = err
		return
	}
	out := map[string]any{}
	for name := range r.operation.body.Properties {
		if values := r.PostForm[name]; len(values) > 0 && values[len(values)-1] != "" {
			out[name] = values[len(values)-1]
		}
	}
	before := len(r.checker.problems)
	checked := r.checker.value(r.operation.body, out, []any{"body"})
	for i := before; i < len(r.checker.problems); i++ {
		if r.checker.problems[i].Type == "missing" {
			r.checker.problems[i].Input = nil
		}
	}
	r.fill(checked, into)
}

// fill stores checked values in a struct of package wire.
func (r *request) fill(checked, into any) {
	if len(r.checker.problems) > 0 {
		return
	}
	data, err := json.Marshal(checked)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil { // the contract and package wire disagree
		r.failure = fmt.Errorf("decode request: %w", err)
	}
}

func readBody(r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, unreadable(r, err)
	}
	return data, nil
}

// unreadable says why a body could not be read.
func unreadable(r *http.Request, err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", errSlowBody, err)
	case errors.As(err, &tooLarge), r.Context().Err() != nil:
		return fmt.Errorf("read body: %w", err)
	}
	return fault.Wrap(fault.Invalid, "The request body could not be read", err)
}

var errSlowBody = errors.New("the request body did not arrive in time")

var errNotJSON = errors.New("not one JSON value in UTF-8")

// parse reads one JSON value; its error says at which octet it ends being one. Of duplicate names the last one wins.
// A body of another type than JSON is a string, as in FastAPI: no object will be made of it.
func parse(data []byte, contentType string) (v any, offset int64, err error) {
	if !isJSON(contentType) {
		return "", 0, nil
	}
	if !utf8.Valid(data) {
		return nil, int64(len(data)), errNotJSON
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, max(0, syntax.Offset-1), err
		}
		return nil, int64(len(data)), err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, decoder.InputOffset(), errNotJSON
	}
	return v, 0, nil
}

// isJSON accepts application/json, application/…+json and no type at all.
func isJSON(contentType string) bool {
	if contentType == "" {
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && (mediaType == "application/json" ||
		strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json"))
}
