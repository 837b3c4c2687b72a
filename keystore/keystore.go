// Package keystore keeps CA keys in a PKCS#11 token, where they are made and where they stay. It knows no X.509
// beyond public keys and no database.
//
// What must never happen: a private key that could leave the token is used; a signature that does not verify is
// released; a key is trusted by its label or by a handle from before a reconnect; a module is finalized, or a
// session closed, under a running call (native libraries crash); a refused PIN is tried again.
//
// It owns the PKCS#11 module, the login and the sessions itself, on github.com/miekg/pkcs11, because
// github.com/ThalesIgnite/crypto11 takes no initialization arguments, does not recover a lost session, has no
// Ed25519 and opens as many sessions as the token gives. From crypto11 come the attribute sets of the templates; the
// tests use its Context as an independent second opinion on our keys.
package keystore

import "time"

// Config names a token and how to reach it.
type Config struct {
	Module      string        // path of the PKCS#11 library
	Token       string        // CKA label of the token
	PIN         string        // user PIN
	InitArgs    string        // pReserved of C_Initialize; NSS softokn needs one
	MaxSessions int           // upper bound of parallel sessions; 0 means 32, or 4 per CPU if that is more
	Timeout     time.Duration // deadline of one token operation, of making a key six times as long; 0 means 10 s

	// PINSource, if set, is asked for the PIN again when the token has refused the one it had: an operator may have
	// changed it. No PIN is tried twice.
	PINSource func() (string, error)

	// Patience is how long operations wait for a token that is away before they fail; 0 means 3 s. Once it has been away
	// for longer they fail at once.
	Patience time.Duration

	// Later makes Open succeed although the token is not there yet: it is connected as soon as it is. A wrong PIN still
	// fails.
	Later bool

	// Changed, if set, is told when the token goes away and when it is back. It must not block.
	Changed func(State)

	// Observe, if set, is told of every token operation: its name ("connect", "login", "generate", "find", "sign",
	// "seal", "unseal", "destroy", "check", "info", "inspect", "list", "drill", "set PIN", "recover"), how long it took,
	// waiting for a session included, and its error.
	Observe func(op string, took time.Duration, err error)
}

// KeyType is the algorithm of a token key: "rsa", "ec" or "ed25519".
type KeyType string

// The key types.
const (
	RSA     KeyType = "rsa"
	EC      KeyType = "ec"
	Ed25519 KeyType = "ed25519"
)

// Spec is a key to be made. Size: RSA modulus bits 2048, 3072, 4096; EC field bits 256, 384, 521; Ed25519 256.
type Spec struct {
	ID    []byte // CKA_ID; must not exist yet
	Label string // CKA_LABEL, for people
	Type  KeyType
	Size  int
	Bar   Bar // what the token must say of the new key
}
