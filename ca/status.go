package ca

import (
	"context"
	"crypto"
	"time"

	"signet/audit"
)

// CertID names a certificate in an OCSP request (RFC 6960, section 4.1.1).
type CertID struct {
	Hash     crypto.Hash // SHA1 or SHA256
	NameHash []byte      // of the issuer's distinguished name
	KeyHash  []byte      // of the issuer's public key, without tag, length and unused bits
	Serial   string      // lower-case hex
	DER      []byte      // the CertID as it was sent; echoed
}

// StatusRequest is an OCSP request that was understood.
type StatusRequest struct {
	IDs    []CertID
	Nonce  []byte // value of the nonce extension, 1 to 128 octets (RFC 9654); nil: none
	Client string // whose budget a signature is taken from: the client's address
}

// StatusAnswer is a signed OCSP response.
type StatusAnswer struct {
	DER        []byte // shared: do not change it
	ThisUpdate time.Time
	NextUpdate time.Time
	FreshUntil time.Time // a newer answer is to be had from then on
	ETag       string    // strong, quoted; empty when the answer must not be cached: with a nonce, or for several certificates
}

// SerialStatus is what a CA knows of a serial number.
type SerialStatus struct {
	Issued   bool // a certificate, CA, responder or abandoned reservation has it
	Revoked  *RevokedEntry
	NotAfter time.Time
	Sequence int64 // of the CA when this was read
}

// Responder is a delegated OCSP responder of a CA: a certificate over a key in the token.
type Responder struct {
	ID          int64
	CAID        int64
	Token       string
	KeyID       []byte // CKA_ID
	PublicKey   []byte // DER SubjectPublicKeyInfo
	Serial      string
	TBS         []byte // DER TBSCertificate, while Pending
	Certificate []byte // DER
	NotBefore   time.Time
	NotAfter    time.Time
	State       State // Pending, Valid or Abandoned
}

// SignedAnswer is a stored OCSP response without nonce, for one certificate.
type SignedAnswer struct {
	CAID       int64
	Serial     string
	Hash       crypto.Hash
	ThisUpdate time.Time
	NextUpdate time.Time
	Sequence   int64 // of the CA when the status was read
	DER        []byte
}

// StatusStore keeps responders and their answers.
type StatusStore interface {
	// SerialStatus tells what a CA, a deleted one too, knows of a serial number. The certificate of a root is one of its own.
	// NotFound when there is no such CA.
	SerialStatus(ctx context.Context, caID int64, serial string) (SerialStatus, error)

	// ReserveResponder records the intent to certify a responder: state Pending. It assigns the ID. Abandon closes it like
	// every other reservation: its serial number counts as revoked. Conflict when the serial is taken.
	ReserveResponder(ctx context.Context, r Responder, e audit.Event) (int64, error)
	// CompleteResponder turns a Pending responder into a Valid one and clears TBS. Conflict when it is not Pending.
	CompleteResponder(ctx context.Context, id int64, der []byte, e audit.Event) error
	// LatestResponder returns the Valid responder of a CA that was certified last. NotFound when there is none.
	LatestResponder(ctx context.Context, caID int64) (Responder, error)
	// Responders lists every responder in every state: whose is a key in a token?
	Responders(ctx context.Context, after int64, limit int) ([]Responder, error)

	// KeepAnswers stores answers, all or none. One for the same serial number, hash and thisUpdate is replaced, unless its
	// sequence is higher.
	KeepAnswers(ctx context.Context, all []SignedAnswer) error
	// Answer returns, of the answers that are valid now and whose serial number has not changed after their sequence, the one
	// with the latest thisUpdate. NotFound when there is none.
	Answer(ctx context.Context, caID int64, serial string, hash crypto.Hash, now time.Time) (SignedAnswer, error)
	// Unanswered looks at certificates and CAs that a CA issued, revoked ones included, that have not expired at the given time:
	// in the order of their serial numbers, those greater than after, at most limit. It returns the serial numbers of those that
	// have no answer of this hash that may be given then and stays valid for at least left; and which was the last that it looked
	// at, "" when there are no more.
	Unanswered(ctx context.Context, caID int64, hash crypto.Hash, at time.Time, left time.Duration, after string, limit int) (serials []string, last string, err error)
	// DropAnswers deletes answers that ended before the given time, so many at most. It returns how many.
	DropAnswers(ctx context.Context, endedBefore time.Time, limit int) (int, error)
}
