package ocsp

import (
	"encoding/base64"
	"net/url"
	"strings"
)

// The media types of requests and responses (RFC 6960, appendix A).
const (
	RequestType  = "application/ocsp-request"
	ResponseType = "application/ocsp-response"
)

// maxGET is the longest request in a path, in octets of DER. RFC 5019, section 5 has clients POST what is beyond 255
// characters; those that do not are served as well.
const maxGET = 4 << 10

// DecodeGET decodes the request of a GET: what follows the URL of the responder and a slash, still percent-encoded (RFC 6960,
// appendix A.1). '/', '+' and '=' may be escaped or not, padding may be left out, and the URL-safe alphabet is understood too.
func DecodeGET(escaped string) ([]byte, error) {
	if len(escaped) > 3*base64.StdEncoding.EncodedLen(maxGET) {
		return nil, malformed("too long for a path")
	}
	encoded := escaped
	if strings.Contains(escaped, "%") {
		var err error
		if encoded, err = url.PathUnescape(escaped); err != nil {
			return nil, malformed("%s", err)
		}
	}
	digits := strings.TrimRight(encoded, "=")
	if padding := len(encoded) - len(digits); padding != 0 && padding != -len(digits)&3 {
		return nil, malformed("wrong padding")
	}
	if strings.ContainsAny(digits, "\r\n") { // package base64 would skip them
		return nil, malformed("a line break")
	}
	if strings.ContainsAny(digits, "-_") {
		digits = standardAlphabet.Replace(digits)
	}
	der, err := base64.RawStdEncoding.Strict().DecodeString(digits)
	if err != nil {
		return nil, malformed("%s", err)
	}
	if len(der) == 0 || len(der) > maxGET {
		return nil, malformed("%d octets in a path", len(der))
	}
	return der, nil
}

var standardAlphabet = strings.NewReplacer("-", "+", "_", "/")

// Statuses of responses without an answer (OCSPResponseStatus; RFC 6960, section 4.2.1).
const (
	MalformedRequest = 1
	InternalError    = 2
)

// Refusal is the DER OCSPResponse that says nothing but a status.
func Refusal(status int) []byte {
	return []byte{0x30, 3, 0x0a, 1, byte(status)} // SEQUENCE { ENUMERATED }
}
