package api

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

//go:embed openapi.yaml
var specification []byte

// Specification returns the contract, parsed. Whether it is a valid OpenAPI document is for the tests to find out.
func Specification() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(specification)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	return doc, nil
}

// operation is what the contract says of the requests to one route.
type operation struct {
	parameters   openapi3.Parameters
	body         *openapi3.Schema // nil: no body
	bodyRequired bool
}

// operationOf finds the operation of a route. It panics when there is none: a route without contract is a defect.
func operationOf(doc *openapi3.T, method, path string) operation {
	item := doc.Paths.Value(path)
	if item == nil || item.GetOperation(method) == nil {
		panic(fmt.Sprintf("openapi.yaml has no %s %s", method, path))
	}
	op := item.GetOperation(method)
	o := operation{parameters: op.Parameters}
	if op.RequestBody != nil {
		o.bodyRequired = op.RequestBody.Value.Required
		for _, media := range op.RequestBody.Value.Content { // each has one
			o.body = media.Schema.Value
		}
	}
	return o
}

// parameter finds a parameter of the operation, or nil.
func (o operation) parameter(in, name string) *openapi3.Parameter {
	return o.parameters.GetByInAndName(in, name)
}

// secret reports whether values of this schema must never be shown.
func secret(s *openapi3.Schema) bool { return s.Format == "password" }

// oneOf words the values of an enumeration as FastAPI does: 'a', 'b' or 'c'.
func oneOf(values []any) string {
	var b strings.Builder
	for i, v := range values {
		switch {
		case i > 0 && i == len(values)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "'%v'", v)
	}
	return b.String()
}
