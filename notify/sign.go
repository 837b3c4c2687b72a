package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// MinSecret is the shortest secret that signs events, in octets.
const MinSecret = 16

// The headers of a delivery.
const (
	HeaderEventID   = "Signet-Event-Id"
	HeaderTimestamp = "Signet-Timestamp" // of this attempt, in seconds since 1970
	HeaderSignature = "Signet-Signature"
)

// Sign returns the value of Signet-Signature: "v1=" and the HMAC-SHA256 of timestamp, a dot and the body, in hexadecimal.
func Sign(secret []byte, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}
