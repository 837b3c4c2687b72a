package softhsmtest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
)

// raw is a token used without the keystore, which would survive what these tests do to it.
type raw struct {
	t      testing.TB
	p      *pkcs11.Ctx
	cfg    keystore.Config
	slot   uint
	public *ecdsa.PublicKey
}

const (
	rw = pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION

	invalid = pkcs11.Error(pkcs11.CKR_SESSION_HANDLE_INVALID)
)

var digest = sha256.Sum256([]byte("message"))

// openRaw initializes the module, and makes a P-256 key on the token.
func openRaw(t testing.TB, cfg keystore.Config) *raw {
	t.Helper()
	r := &raw{t: t, p: pkcs11.New(cfg.Module), cfg: cfg}
	r.initialize()
	t.Cleanup(func() { r.p.Finalize() }) // it may be finalized already
	session := r.login()
	defer r.p.CloseSession(session)
	p256 := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	public, _, err := r.p.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256)},
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true)})
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.p.GetAttributeValue(session, public, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		t.Fatal(err)
	}
	var point []byte
	if _, err := asn1.Unmarshal(a[0].Value, &point); err != nil {
		t.Fatal(err)
	}
	if r.public, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *raw) initialize() {
	r.t.Helper()
	if err := r.p.Initialize(); err != nil {
		r.t.Fatal(err)
	}
	r.findSlot()
}

// findSlot looks for the token by its label.
func (r *raw) findSlot() {
	r.t.Helper()
	slots, err := r.p.GetSlotList(true)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, slot := range slots {
		if info, err := r.p.GetTokenInfo(slot); err == nil && info.Label == r.cfg.Token {
			r.slot = slot
			return
		}
	}
	r.t.Fatalf("no token %q in %d slots", r.cfg.Token, len(slots))
}

func (r *raw) session() pkcs11.SessionHandle {
	r.t.Helper()
	session, err := r.p.OpenSession(r.slot, rw)
	if err != nil {
		r.t.Fatal(err)
	}
	return session
}

// login opens a session and logs in, which must be needed.
func (r *raw) login() pkcs11.SessionHandle {
	r.t.Helper()
	session := r.session()
	if err := r.p.Login(session, pkcs11.CKU_USER, r.cfg.PIN); err != nil {
		r.t.Fatal(err)
	}
	return session
}

// key finds the private key; it is there only for who is logged in.
func (r *raw) key(session pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	if err := r.p.FindObjectsInit(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}); err != nil {
		return 0, err
	}
	found, _, err := r.p.FindObjects(session, 2)
	if err := errors.Join(err, r.p.FindObjectsFinal(session)); err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, errNoKey
	}
	return found[0], nil
}

var errNoKey = errors.New("no private key is to be seen")

func (r *raw) mustKey(session pkcs11.SessionHandle) pkcs11.ObjectHandle {
	r.t.Helper()
	key, err := r.key(session)
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

func (r *raw) sign(session pkcs11.SessionHandle, key pkcs11.ObjectHandle) ([]byte, error) {
	if err := r.p.SignInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, key); err != nil {
		return nil, err
	}
	return r.p.Sign(session, digest[:])
}

func (r *raw) valid(signature []byte) bool {
	return len(signature) == 64 && ecdsa.Verify(r.public, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

// signs expects a valid signature.
func (r *raw) signs(session pkcs11.SessionHandle, key pkcs11.ObjectHandle) {
	r.t.Helper()
	signature, err := r.sign(session, key)
	if err != nil {
		r.t.Errorf("sign: %v", err)
	} else if !r.valid(signature) {
		r.t.Error("the signature is not valid")
	}
}

// works expects that a new session with a new login finds the key and signs.
func (r *raw) works() {
	r.t.Helper()
	session := r.login()
	r.signs(session, r.mustKey(session))
	if err := r.p.CloseSession(session); err != nil {
		r.t.Error(err)
	}
}

func is(err error, ckr uint) bool { return errors.Is(err, pkcs11.Error(ckr)) }

// eventually waits for what another goroutine or process does.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
