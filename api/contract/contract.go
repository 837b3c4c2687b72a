// Package contract holds answers against openapi.yaml, for tests.
package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"signet/api"
)

// Transport is an http.RoundTripper that holds every answer against the contract.
type Transport struct {
	T    testing.TB
	Next http.RoundTripper // nil: http.DefaultTransport
}

// RoundTrip implements [http.RoundTripper].
func (t Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	next := t.Next
	if next == nil {
		next = http.DefaultTransport
	}
	response, err := next.RoundTrip(request)
	if err == nil {
		Check(t.T, request, response)
	}
	return response, err
}

// Check reports what an answer does that the contract does not know: a status, a header, a type or a field. It reads the
// body and puts it back. Requests are not checked: the server reads them by the contract itself, and tests send
// malformed ones on purpose.
func Check(t testing.TB, request *http.Request, response *http.Response) {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		t.Errorf("contract: read answer to %s %s: %v", request.Method, request.URL.Path, err)
		return
	}
	problems, err := violations(request, response, body)
	if err != nil {
		t.Errorf("contract: %v", err)
	}
	for _, problem := range problems {
		t.Errorf("contract: %s %s answered %d: %s", request.Method, request.URL.Path, response.StatusCode, problem)
	}
}

var load = sync.OnceValues(func() (routers.Router, error) {
	doc, err := api.Specification()
	if err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

// always are the headers of every answer; an empty value is any.
var always = map[string]string{
	"X-Content-Type-Options":    "nosniff",
	"X-Frame-Options":           "DENY",
	"Referrer-Policy":           "strict-origin-when-cross-origin",
	"Strict-Transport-Security": "max-age=63072000; includeSubDomains",
	"X-Request-ID":              "",
	"Cache-Control":             "",
}

func violations(request *http.Request, response *http.Response, body []byte) ([]string, error) {
	var problems []string
	for name, want := range always {
		if got := response.Header.Get(name); got == "" || want != "" && got != want {
			problems = append(problems, fmt.Sprintf("header %s is %q", name, got))
		}
	}
	router, err := load()
	if err != nil {
		return nil, err
	}
	known := request.Clone(request.Context()) // its URL too
	if known.Method == http.MethodHead {
		known.Method = http.MethodGet
	}
	route, _, err := router.FindRoute(known)
	if trimmed, ok := strings.CutSuffix(known.URL.Path, "/me"); err != nil && ok { // "me" is also an id, though a malformed one
		known.URL.Path = trimmed + "/0"
		route, _, err = router.FindRoute(known)
	}
	if err != nil {
		if !slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTemporaryRedirect}, response.StatusCode) &&
			!strings.HasPrefix(request.URL.Path, "/docs/") {
			problems = append(problems, "the contract does not know this request")
		}
		return problems, nil
	}
	documented := route.Operation.Responses.Status(response.StatusCode)
	if documented == nil {
		return append(problems, "the contract does not know this status"), nil
	}
	for name, header := range documented.Value.Headers {
		if header.Value.Required && response.Header.Get(name) == "" {
			problems = append(problems, "header "+name+" is missing")
		}
	}
	return append(problems, checkBody(documented.Value, response, request.Method == http.MethodHead, body)...), nil
}

func checkBody(documented *openapi3.Response, response *http.Response, isHead bool, body []byte) []string {
	if len(documented.Content) == 0 {
		if len(body) > 0 {
			return []string{fmt.Sprintf("body %q where there should be none", body)}
		}
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	content := documented.Content.Get(mediaType)
	if err != nil || content == nil {
		return []string{fmt.Sprintf("Content-Type is %q", response.Header.Get("Content-Type"))}
	}
	if isHead || mediaType != "application/json" {
		return nil
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return []string{"not JSON: " + err.Error()}
	}
	var problems []string
	if err := content.Schema.Value.VisitJSON(value, openapi3.VisitAsResponse(), openapi3.MultiErrors(), openapi3.EnableFormatValidation()); err != nil {
		problems = append(problems, err.Error())
	}
	return append(problems, undocumented(content.Schema.Value, value, "body")...)
}

// undocumented finds fields that the contract does not know, and times that are not in UTC.
func undocumented(schema *openapi3.Schema, value any, at string) []string {
	var problems []string
	switch value := value.(type) {
	case []any:
		for i, item := range value {
			if schema.Items != nil {
				problems = append(problems, undocumented(schema.Items.Value, item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	case map[string]any:
		properties := propertiesOf(schema)
		if len(properties) == 0 {
			return nil // anything goes
		}
		for name, field := range value {
			if property := properties[name]; property != nil {
				problems = append(problems, undocumented(property.Value, field, at+"."+name)...)
			} else {
				problems = append(problems, "the contract does not know the field "+at+"."+name)
			}
		}
	case string:
		if schema.Format == "date-time" && !strings.HasSuffix(value, "Z") {
			problems = append(problems, at+" is not in UTC: "+value)
		}
	}
	return problems
}

func propertiesOf(schema *openapi3.Schema) openapi3.Schemas {
	all := openapi3.Schemas{}
	for name, property := range schema.Properties {
		all[name] = property
	}
	for _, part := range schema.AllOf {
		for name, property := range propertiesOf(part.Value) {
			all[name] = property
		}
	}
	return all
}
