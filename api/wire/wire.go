// Package wire is the requests and responses of the API, generated from openapi.yaml and shared by server and client.
package wire

//go:generate go tool oapi-codegen -config oapi-codegen.yaml -o wire.gen.go ../openapi.yaml
