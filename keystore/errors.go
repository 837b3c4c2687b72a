package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Errors that callers tell apart.
var (
	ErrUnavailable = errors.New("the token is not available")                // connection, session or device failure; try again
	ErrNotFound    = errors.New("no such key in the token")                  // no object with this CKA_ID
	ErrMismatch    = errors.New("the token holds another key under this id") // same CKA_ID, different public key
	ErrExists      = errors.New("the token already holds this key id")
	ErrEvidence    = errors.New("the key does not show the attributes of a non-exportable key")
	ErrUnsupported = errors.New("the token does not support this key type")
	ErrPIN         = errors.New("the token refused the PIN") // final: never retried, some tokens lock after 3
)

// errBadSignature is a signature that the public key does not verify: a handle that names another key, or a device
// that errs. Nobody outside ever sees the signature.
var errBadSignature = errors.New("the token returned a signature that does not verify")

// class says what a failed call means for the connection, and so what may be done about it.
type class int

const (
	classFinal   class = iota // the request or the configuration is at fault: a retry would fail alike
	classSession              // this session is gone: take another one
	classLogin                // the login is gone: log in again, all object handles are void
	classObject               // this object handle is void: find the key again and compare its public key
	classModule               // the device or its library failed: a new session may help, or C_Finalize and C_Initialize
	classBusy                 // no more sessions for us: wait for one of ours to become free
	classPIN                  // the PIN was refused: never again
)

// maxRetries is how many more attempts, each on a new session, an operation gets while the token as a whole looks well.
// Whatever takes sessions away, or fails one call in fifty, may do so again while the key is being found anew. Attempts
// from before a recovery do not count.
const maxRetries = 10

// retried tells the classes that are worth another attempt.
func (c class) retried() bool {
	return c == classSession || c == classLogin || c == classObject || c == classModule
}

// suspicious tells the classes that say something of the connection rather than of one object or one request.
func (c class) suspicious() bool { return c == classSession || c == classLogin || c == classModule }

// classes is the error taxonomy. A CKR that is not listed is final, unless a vendor defined it.
var classes = map[pkcs11.Error]class{
	pkcs11.CKR_SESSION_HANDLE_INVALID:    classSession,
	pkcs11.CKR_SESSION_CLOSED:            classSession,
	pkcs11.CKR_OPERATION_ACTIVE:          classSession,
	pkcs11.CKR_OPERATION_NOT_INITIALIZED: classSession,
	pkcs11.CKR_DEVICE_REMOVED:            classSession,
	pkcs11.CKR_TOKEN_NOT_PRESENT:         classSession,
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:      classSession,
	pkcs11.CKR_FUNCTION_CANCELED:         classSession,

	pkcs11.CKR_USER_NOT_LOGGED_IN: classLogin,

	pkcs11.CKR_OBJECT_HANDLE_INVALID:      classObject,
	pkcs11.CKR_KEY_HANDLE_INVALID:         classObject,
	pkcs11.CKR_KEY_CHANGED:                classObject,
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:      classObject,
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED: classObject,

	pkcs11.CKR_DEVICE_ERROR:             classModule,
	pkcs11.CKR_DEVICE_MEMORY:            classModule,
	pkcs11.CKR_GENERAL_ERROR:            classModule,
	pkcs11.CKR_FUNCTION_FAILED:          classModule,
	pkcs11.CKR_HOST_MEMORY:              classModule,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED: classModule,
	pkcs11.CKR_SLOT_ID_INVALID:          classModule, // a token that comes back may have another slot

	pkcs11.CKR_SESSION_COUNT: classBusy,

	pkcs11.CKR_PIN_INCORRECT:            classPIN,
	pkcs11.CKR_PIN_INVALID:              classPIN,
	pkcs11.CKR_PIN_LEN_RANGE:            classPIN,
	pkcs11.CKR_PIN_EXPIRED:              classPIN,
	pkcs11.CKR_PIN_LOCKED:               classPIN,
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED: classPIN,
}

// unsupported are the answers to C_GenerateKeyPair and C_GenerateKey that speak of the kind of key, not of this one.
var unsupported = map[pkcs11.Error]bool{
	pkcs11.CKR_MECHANISM_INVALID:       true,
	pkcs11.CKR_MECHANISM_PARAM_INVALID: true,
	pkcs11.CKR_KEY_SIZE_RANGE:          true,
	pkcs11.CKR_DOMAIN_PARAMS_INVALID:   true,
	pkcs11.CKR_CURVE_NOT_SUPPORTED:     true,
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:  true,
}

// optionalRefused are the answers of tokens that do not know an attribute of the template.
var optionalRefused = map[pkcs11.Error]bool{
	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:  true,
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID: true,
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:     true,
	pkcs11.CKR_TEMPLATE_INCONSISTENT:   true,
	pkcs11.CKR_GENERAL_ERROR:           true, // NSS softokn 3.87
}

// classOf returns the class of the CKR in err's chain. A broken signature counts as a void handle; a key without
// evidence is final, whatever happened while it was being destroyed.
func classOf(err error) class {
	ckr, ok := errors.AsType[pkcs11.Error](err)
	switch {
	case errors.Is(err, errBadSignature):
		return classObject
	case !ok || errors.Is(err, ErrEvidence):
		return classFinal
	case ckr >= pkcs11.CKR_VENDOR_DEFINED:
		return classModule
	}
	return classes[ckr]
}

// is reports whether err carries a CKR of the set.
func is(err error, set map[pkcs11.Error]bool) bool {
	ckr, ok := errors.AsType[pkcs11.Error](err)
	return ok && set[ckr]
}

// explain turns the last error of an operation into what callers see: the operation, the sentinel that its class
// stands for, and the CKR.
func explain(op string, err error) error {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrPIN) {
		return fmt.Errorf("%s: %w", op, err)
	}
	switch c := classOf(err); {
	case c == classPIN:
		return fmt.Errorf("%s: %w: %w", op, ErrPIN, err)
	case c == classBusy || c.retried():
		return fmt.Errorf("%s: %w: %w", op, ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// Reason is what may be said of an error to somebody who may not see the error itself: the name of the CKR, or a few
// words, or "".
func Reason(err error) string {
	if told, ok := errors.AsType[interface {
		error
		Reason() string
	}](err); ok {
		return told.Reason()
	}
	ckr, isCKR := errors.AsType[pkcs11.Error](err)
	switch {
	case errors.Is(err, ErrPIN):
		return "the PIN was refused"
	case isCKR:
		return ckrName(ckr)
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrMismatch):
		return "its health key is missing: it may be another token"
	case errors.Is(err, errNoToken):
		return "there is no such token"
	case errors.Is(err, errNoAnswer), errors.Is(err, context.DeadlineExceeded):
		return errNoAnswer.Error()
	}
	return ""
}
