package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// errand is what a test asks of another process, on its standard input.
type errand struct {
	What               string // "crypto11", "destroy", "replace", "relabel"
	Module, Token, PIN string
	ID                 []byte
}

// TestMain makes the test binary serve as the other process, too.
func TestMain(m *testing.M) {
	if os.Getenv("KEYSTORE_TEST_ERRAND") == "" {
		os.Exit(m.Run())
	}
	if err := runErrand(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// elsewhere runs an errand in another process and returns its output. Tests whose errand changes the token are not
// parallel: opening any token makes SoftHSM2 read the folders of all, and it gives up on a token for good when a file
// vanishes while it reads.
func elsewhere(t *testing.T, cfg keystore.Config, what string, id []byte) ([]byte, error) {
	t.Helper()
	in, err := json.Marshal(errand{what, cfg.Module, cfg.Token, cfg.PIN, id})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "KEYSTORE_TEST_ERRAND=1")
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	return out, nil
}

func runErrand(in io.Reader, out io.Writer) error {
	var e errand
	if err := json.NewDecoder(in).Decode(&e); err != nil {
		return err
	}
	if e.What == "crypto11" {
		return secondOpinion(e, out)
	}
	p := pkcs11.New(e.Module)
	if err := p.Initialize(); err != nil {
		return err
	}
	defer p.Finalize()
	session, err := logIn(p, e)
	if err != nil {
		return err
	}
	if e.What == "relabel" {
		objects, err := find(p, session, pkcs11.CKO_PRIVATE_KEY, e.ID)
		if err != nil || len(objects) != 1 {
			return fmt.Errorf("found %d keys: %w", len(objects), err)
		}
		return p.SetAttributeValue(session, objects[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "other")})
	}
	for _, class := range []int{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
		objects, err := find(p, session, class, e.ID)
		if err != nil || len(objects) != 1 {
			return fmt.Errorf("found %d keys: %w", len(objects), err)
		}
		if err := p.DestroyObject(session, objects[0]); err != nil {
			return err
		}
	}
	if e.What == "replace" {
		return generateRaw(p, session, e.ID)
	}
	return nil
}

func logIn(p *pkcs11.Ctx, e errand) (pkcs11.SessionHandle, error) {
	slots, err := p.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, slot := range slots {
		if info, err := p.GetTokenInfo(slot); err != nil || info.Label != e.Token {
			continue
		}
		session, err := p.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return 0, err
		}
		return session, p.Login(session, pkcs11.CKU_USER, e.PIN)
	}
	return 0, errors.New("token not found")
}

func find(p *pkcs11.Ctx, session pkcs11.SessionHandle, class int, id []byte) ([]pkcs11.ObjectHandle, error) {
	if err := p.FindObjectsInit(session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}); err != nil {
		return nil, err
	}
	objects, _, err := p.FindObjects(session, 10)
	return objects, errors.Join(err, p.FindObjectsFinal(session))
}

// generateRaw makes a P-256 key pair with the token's own ideas of a template.
func generateRaw(p *pkcs11.Ctx, session pkcs11.SessionHandle, id []byte) error {
	common := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	p256 := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	_, _, err := p.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		append(common, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256)), common)
	return err
}

// secondOpinion uses a key through crypto11, which shares no code with the keystore: it finds the key by its CKA_ID,
// signs with it and fails to read its private parts. It prints the public key (DER).
func secondOpinion(e errand, out io.Writer) error {
	c, err := crypto11.Configure(&crypto11.Config{Path: e.Module, TokenLabel: e.Token, Pin: e.PIN, MaxSessions: 4})
	if err != nil {
		return err
	}
	defer c.Close()
	key, err := c.FindKeyPair(e.ID, nil)
	if err != nil || key == nil {
		return fmt.Errorf("find key pair: %v, %w", key, err)
	}
	digest := sha256.Sum256([]byte("second opinion"))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	if err := verify(key.Public(), digest[:], signature, crypto.SHA256); err != nil {
		return err
	}
	for _, private := range privateParts {
		if a, err := c.GetAttribute(key, private); err == nil {
			return fmt.Errorf("attribute 0x%x is readable: %d bytes", private, len(a.Value))
		}
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	_, err = out.Write(der)
	return err
}

// privateParts are the attributes that hold private key material (PKCS#11 2.40, sections 2.1.3 and 2.3.4).
var privateParts = []uint{
	pkcs11.CKA_VALUE, pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1, pkcs11.CKA_PRIME_2,
	pkcs11.CKA_EXPONENT_1, pkcs11.CKA_EXPONENT_2, pkcs11.CKA_COEFFICIENT,
}

// open gives a test a token of its own.
func open(t testing.TB) (*keystore.Token, keystore.Config) {
	t.Helper()
	cfg := softhsmtest.Token(t)
	return openAs(t, cfg), cfg
}

func openAs(t testing.TB, cfg keystore.Config) *keystore.Token {
	t.Helper()
	token, err := keystore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	return token
}

// generate makes a key and returns it with its CKA_ID.
func generate(t testing.TB, token *keystore.Token, kind keystore.KeyType, size int) (crypto.Signer, []byte) {
	t.Helper()
	id := make([]byte, 16)
	rand.Read(id)
	key, err := token.Generate(t.Context(), keystore.Spec{ID: id, Label: t.Name(), Type: kind, Size: size})
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func mustDER(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func signDigest(key crypto.Signer) error {
	digest := sha256.Sum256([]byte("message"))
	_, err := key.Sign(nil, digest[:], crypto.SHA256)
	return err
}

func rawGenerate(id []byte) func(*pkcs11.Ctx, pkcs11.SessionHandle) error {
	return func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error { return generateRaw(p, s, id) }
}
