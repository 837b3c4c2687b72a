// Package wire is the requests and responses of the API, generated from openapi.yaml and shared by server and client.
package wire

//go:generate go tool oapi-codegen -config oapi-codegen.yaml -o wire.gen.go ../openapi.yaml

import "encoding/json"

// OptionalID is an id that can be absent, null or a number in a partial update.
type OptionalID struct {
	Set bool
	ID  *int64 // nil: null
}

// IsZero reports whether the id is absent, for the omitzero tag.
func (o OptionalID) IsZero() bool { return !o.Set }

// MarshalJSON writes null or the number.
func (o OptionalID) MarshalJSON() ([]byte, error) { return json.Marshal(o.ID) }

// UnmarshalJSON is called for null too, and not for what is absent.
func (o *OptionalID) UnmarshalJSON(data []byte) error {
	o.Set = true
	return json.Unmarshal(data, &o.ID)
}
