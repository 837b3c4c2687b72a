package keystore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// How an attempt ended; the words of evidence.Outcome.
const (
	attackRefused       = "refused"
	attackYielded       = "yielded"
	attackNotApplicable = "not-applicable"
	attackInconclusive  = "inconclusive"
)

const ckrActionProhibited = 0x1B // PKCS#11 2.40; miekg/pkcs11 has no name for it

// verdict is what an attempt showed.
type verdict struct{ outcome, result string }

func refusedWith(err error) verdict { return verdict{attackRefused, ckrName(err)} }

// protective are the answers that speak of the protection of the key under attack and of nothing else.
var protective = map[pkcs11.Error]bool{
	pkcs11.CKR_KEY_UNEXTRACTABLE:          true,
	pkcs11.CKR_KEY_NOT_WRAPPABLE:          true,
	pkcs11.CKR_ATTRIBUTE_SENSITIVE:        true,
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:        true,
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED: true,
	ckrActionProhibited:                   true,
}

// unfit are the answers to a mechanism that is not for keys of this type or length.
var unfit = map[pkcs11.Error]bool{
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:            true,
	pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT: true,
	pkcs11.CKR_KEY_SIZE_RANGE:                   true,
	pkcs11.CKR_DATA_LEN_RANGE:                   true,
}

// speechless are the answers that do not tell whether the token was about to give way.
var speechless = map[pkcs11.Error]bool{
	pkcs11.CKR_BUFFER_TOO_SMALL: true, // it would have written
	pkcs11.CKR_HOST_MEMORY:      true,
	pkcs11.CKR_DEVICE_MEMORY:    true,
}

// answer judges an attempt whose CKR_OK is a yield. offered says that the token lists the mechanism of the attempt for
// this use, so that CKR_MECHANISM_INVALID is about the key (CKA_ALLOWED_MECHANISMS) and not about the token. An error
// means that the session was lost: the attempt has to be made again on another one.
func (x *scene) answer(offered bool, attempt func() error) (verdict, error) {
	err := attempt()
	switch c := classOf(err); {
	case err == nil:
		return verdict{attackYielded, "CKR_OK"}, nil
	case c == classSession || c == classLogin || c == classBusy:
		return verdict{}, err
	case is(err, protective):
		return refusedWith(err), nil
	case is(err, unfit):
		return verdict{attackNotApplicable, ckrName(err)}, nil
	case c == classObject || c == classModule:
		return x.doubt(err, attempt)
	case is(err, speechless):
		return verdict{attackInconclusive, ckrName(err)}, nil
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)),
		errors.Is(err, pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)) && !offered:
		return verdict{attackNotApplicable, ckrName(err)}, nil
	}
	return refusedWith(err), nil
}

// doubt judges an answer that a broken token gives as well: CKR_GENERAL_ERROR and the like are also what some modules
// say about a request that they do not carry out or do not carry over (p11-kit: CKR_DEVICE_ERROR for attributes that it
// does not know). It is a refusal when the token answers a harmless question about the same key in between and fails
// the attempt again: nothing came out, twice, and not for want of a token.
func (x *scene) doubt(err error, attempt func() error) (verdict, error) {
	if dead := x.dead(); dead != nil {
		return verdict{}, dead
	}
	again := attempt()
	switch c := classOf(again); {
	case again == nil:
		return verdict{attackYielded, "CKR_OK, after " + ckrName(err)}, nil
	case c == classSession || c == classLogin || c == classBusy:
		return verdict{}, again
	case is(again, protective):
		return refusedWith(again), nil
	case is(again, speechless):
		return verdict{attackInconclusive, ckrName(again)}, nil
	}
	return verdict{attackRefused, ckrName(again) + ", twice, while the token answered otherwise"}, nil
}

// dead asks a harmless question about the key under attack and returns what went wrong with it.
func (x *scene) dead() error {
	_, err := x.attribute(x.object, pkcs11.CKA_KEY_TYPE)
	return err
}

// ckrName is the name of the CKR in err's chain, its number if it has none, or what else went wrong.
func ckrName(err error) string {
	ckr, ok := errors.AsType[pkcs11.Error](err)
	_, name, _ := strings.Cut(ckr.Error(), "CKR_")
	switch {
	case errors.Is(err, errUnlike):
		return err.Error()
	case ok && name != "":
		return "CKR_" + name
	case ok && ckr == ckrActionProhibited:
		return "CKR_ACTION_PROHIBITED"
	case ok:
		return fmt.Sprintf("CKR 0x%X", uint(ckr))
	case errors.Is(err, ErrUnavailable):
		return "no answer in time"
	}
	return err.Error()
}
