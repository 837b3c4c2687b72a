// Package ocsp reads OCSP requests as they come over HTTP (RFC 6960, RFC 5019, RFC 9654).
//
// It is pure: octets in, a request or the reason against it out. Everything here comes from strangers; what must never happen
// is a panic, or work that grows beyond the length of the request.
package ocsp

import (
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"signet/ca"
)

// Bounds of a request. Beyond them it is malformed.
const (
	MaxRequest  = 64 << 10 // octets of DER
	MaxCertIDs  = 100
	MaxNonce    = 128 // octets (RFC 9654, section 2.1)
	maxSerial   = 64  // octets; a conforming CA has 20 at most (RFC 5280, section 4.1.2.2)
	maxExtended = 16  // extensions of a request, or of one of its certIDs
)

// ErrMalformed is wrapped by every error of this package.
var ErrMalformed = errors.New("malformed OCSP request")

func malformed(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, a...))
}

// The algorithms of a certID that are understood, and the one extension of a request that is.
var (
	oidSHA1   = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidNonce  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
)

// The tags of RFC 6960, section 4.1.1, all of them EXPLICIT.
var (
	tagVersion           = tags.Tag(0).ContextSpecific().Constructed()
	tagRequestorName     = tags.Tag(1).ContextSpecific().Constructed()
	tagRequestExtensions = tags.Tag(2).ContextSpecific().Constructed()
	tagSignature         = tags.Tag(0).ContextSpecific().Constructed()
	tagSingleExtensions  = tags.Tag(0).ContextSpecific().Constructed()
)

// ParseRequest parses a DER OCSPRequest (RFC 6960, section 4.1.1). Client is left empty; the octets of a certID are those of
// der, which must not be changed afterwards.
//
// A certID whose algorithm is neither SHA-1 nor SHA-256 has the Hash 0: it names no certificate of anybody's. Its serial
// number is negative when the request says so: "-1f". requestorName and signature are not looked at, extensions that are not
// critical are ignored. Malformed are: another version than 1, a critical extension other than the nonce, an extension that is
// there twice, a nonce that is no OCTET STRING of 1 to 128 octets, and what is beyond the bounds above.
func ParseRequest(der []byte) (ca.StatusRequest, error) {
	var r ca.StatusRequest
	if len(der) > MaxRequest {
		return r, malformed("more than %d octets", MaxRequest)
	}
	input := cryptobyte.String(der)
	var outer, tbs cryptobyte.String
	if !input.ReadASN1(&outer, tags.SEQUENCE) || !input.Empty() || !outer.ReadASN1(&tbs, tags.SEQUENCE) {
		return r, malformed("not an OCSPRequest")
	}
	if !skipSignature(&outer) || !outer.Empty() {
		return r, malformed("more than a TBSRequest and a signature")
	}
	if err := readVersion(&tbs); err != nil {
		return r, err
	}
	var list, extensions cryptobyte.String
	var extended bool
	if !skipRequestorName(&tbs) || !tbs.ReadASN1(&list, tags.SEQUENCE) || list.Empty() {
		return r, malformed("no list of requests")
	}
	if !tbs.ReadOptionalASN1(&extensions, &extended, tagRequestExtensions) || !tbs.Empty() {
		return r, malformed("more than a list of requests and extensions")
	}
	for !list.Empty() {
		if len(r.IDs) == MaxCertIDs {
			return ca.StatusRequest{}, malformed("more than %d certIDs", MaxCertIDs)
		}
		id, err := readRequest(&list)
		if err != nil {
			return ca.StatusRequest{}, err
		}
		r.IDs = append(r.IDs, id)
	}
	if extended {
		var err error
		if r.Nonce, err = readExtensions(extensions, true); err != nil {
			return ca.StatusRequest{}, err
		}
	}
	return r, nil
}

func skipSignature(outer *cryptobyte.String) bool {
	var explicit, signature cryptobyte.String
	var signed bool
	return outer.ReadOptionalASN1(&explicit, &signed, tagSignature) &&
		(!signed || explicit.ReadASN1(&signature, tags.SEQUENCE) && explicit.Empty())
}

// readVersion accepts a version 1 that is spelled out, though DER leaves a default out: clients exist that do so.
func readVersion(tbs *cryptobyte.String) error {
	var explicit cryptobyte.String
	var there bool
	version := 0
	if !tbs.ReadOptionalASN1(&explicit, &there, tagVersion) || there && (!explicit.ReadASN1Integer(&version) || !explicit.Empty()) {
		return malformed("no version")
	}
	if version != 0 { // v1(0)
		return malformed("version %d", version+1)
	}
	return nil
}

func skipRequestorName(tbs *cryptobyte.String) bool {
	var explicit, name cryptobyte.String
	var there bool
	var tag tags.Tag
	return tbs.ReadOptionalASN1(&explicit, &there, tagRequestorName) &&
		(!there || explicit.ReadAnyASN1(&name, &tag) && explicit.Empty())
}

func readRequest(list *cryptobyte.String) (ca.CertID, error) {
	var request, element, extensions cryptobyte.String
	var extended bool
	if !list.ReadASN1(&request, tags.SEQUENCE) || !request.ReadASN1Element(&element, tags.SEQUENCE) ||
		!request.ReadOptionalASN1(&extensions, &extended, tagSingleExtensions) || !request.Empty() {
		return ca.CertID{}, malformed("not a Request")
	}
	if extended {
		if _, err := readExtensions(extensions, false); err != nil {
			return ca.CertID{}, err
		}
	}
	return readCertID(element)
}

func readCertID(element cryptobyte.String) (ca.CertID, error) {
	id := ca.CertID{DER: element}
	var fields, algorithm, nameHash, keyHash cryptobyte.String
	var oid asn1.ObjectIdentifier
	var serial big.Int
	if !element.ReadASN1(&fields, tags.SEQUENCE) || !fields.ReadASN1(&algorithm, tags.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&oid) || !fields.ReadASN1(&nameHash, tags.OCTET_STRING) ||
		!fields.ReadASN1(&keyHash, tags.OCTET_STRING) || !fields.ReadASN1Integer(&serial) || !fields.Empty() {
		return id, malformed("not a CertID")
	}
	switch {
	case oid.Equal(oidSHA1):
		id.Hash = crypto.SHA1
	case oid.Equal(oidSHA256):
		id.Hash = crypto.SHA256
	}
	if id.Hash != 0 {
		if !onlyNull(algorithm) {
			return id, malformed("parameters of a hash algorithm")
		}
		if len(nameHash) != id.Hash.Size() || len(keyHash) != id.Hash.Size() {
			return id, malformed("a hash of another length than its algorithm's")
		}
	}
	if serial.BitLen() > 8*maxSerial {
		return id, malformed("a serial number of more than %d octets", maxSerial)
	}
	id.NameHash, id.KeyHash, id.Serial = nameHash, keyHash, serial.Text(16)
	return id, nil
}

// onlyNull reports whether the parameters of an algorithm are absent or NULL: both are in use.
func onlyNull(parameters cryptobyte.String) bool {
	var null cryptobyte.String
	return parameters.Empty() || parameters.ReadASN1(&null, tags.NULL) && null.Empty() && parameters.Empty()
}

// readExtensions reads Extensions (RFC 5280, section 4.1) and returns the nonce, if there may be one.
func readExtensions(explicit cryptobyte.String, mayHaveNonce bool) (nonce []byte, err error) {
	var list cryptobyte.String
	if !explicit.ReadASN1(&list, tags.SEQUENCE) || !explicit.Empty() || list.Empty() {
		return nil, malformed("not Extensions")
	}
	var seen []asn1.ObjectIdentifier
	for !list.Empty() {
		var extension, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		var critical bool
		if len(seen) == maxExtended {
			return nil, malformed("more than %d extensions", maxExtended)
		}
		if !list.ReadASN1(&extension, tags.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&oid) ||
			extension.PeekASN1Tag(tags.BOOLEAN) && !extension.ReadASN1Boolean(&critical) ||
			!extension.ReadASN1(&value, tags.OCTET_STRING) || !extension.Empty() {
			return nil, malformed("not an Extension")
		}
		for _, other := range seen {
			if other.Equal(oid) {
				return nil, malformed("extension %s is there twice", oid)
			}
		}
		seen = append(seen, oid)
		switch {
		case mayHaveNonce && oid.Equal(oidNonce):
			if nonce, err = readNonce(value); err != nil {
				return nil, err
			}
		case critical:
			return nil, malformed("critical extension %s", oid)
		}
	}
	return nonce, nil
}

// readNonce reads Nonce ::= OCTET STRING (SIZE(1..128)) (RFC 9654, section 2.1).
func readNonce(value cryptobyte.String) ([]byte, error) {
	var nonce cryptobyte.String
	if !value.ReadASN1(&nonce, tags.OCTET_STRING) || !value.Empty() {
		return nil, malformed("a nonce that is no OCTET STRING")
	}
	if len(nonce) == 0 || len(nonce) > MaxNonce {
		return nil, malformed("a nonce of %d octets, not 1 to %d", len(nonce), MaxNonce)
	}
	return nonce, nil
}
