package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

// caKey is a kind of CA key as the API names it.
type caKey struct {
	Name string
	Type keystore.KeyType
	Size int
}

var caKeys = []caKey{
	{"P-256", keystore.EC, 256},
	{"RSA-2048", keystore.RSA, 2048},
	{"RSA-4096", keystore.RSA, 4096},
	{"Ed25519", keystore.Ed25519, 256},
}

// rawToken is a token with a few sessions that are opened once, and nothing around miekg/pkcs11: no recovery, no checks.
// The keystore makes its keys.
type rawToken struct {
	keys     *keystore.Token
	module   *pkcs11.Ctx
	sessions chan pkcs11.SessionHandle
}

// openRaw opens n sessions on a token.
func openRaw(cfg keystore.Config, n int) (*rawToken, error) {
	keys, err := keystore.Open(context.Background(), cfg) // which initializes the module and logs in
	if err != nil {
		return nil, err
	}
	t := &rawToken{keys: keys, module: pkcs11.New(cfg.Module), sessions: make(chan pkcs11.SessionHandle, n)}
	slots, err := t.module.GetSlotList(true)
	if err != nil {
		return nil, errors.Join(err, keys.Close())
	}
	for _, slot := range slots {
		if info, err := t.module.GetTokenInfo(slot); err != nil || info.Label != cfg.Token {
			continue
		}
		for range n {
			session, err := t.module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
			if err != nil {
				return nil, errors.Join(err, keys.Close())
			}
			t.sessions <- session
		}
		return t, nil
	}
	return nil, errors.Join(fmt.Errorf("token %q not found", cfg.Token), keys.Close())
}

// generate makes a key pair.
func (t *rawToken) generate(k caKey) (*rawKey, error) {
	id := []byte(rand.Text())
	made, err := t.keys.Generate(context.Background(), keystore.Spec{ID: id, Label: k.Name, Type: k.Type, Size: k.Size})
	if err != nil {
		return nil, err
	}
	session := <-t.sessions
	defer func() { t.sessions <- session }()
	if err := t.module.FindObjectsInit(session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}); err != nil {
		return nil, err
	}
	found, _, err := t.module.FindObjects(session, 2)
	if err = errors.Join(err, t.module.FindObjectsFinal(session)); err != nil || len(found) != 1 {
		return nil, fmt.Errorf("%d new keys found: %w", len(found), err)
	}
	return &rawKey{token: t, handle: found[0], public: made.Public()}, nil
}

// rawKey is a [crypto.Signer] for SHA-256 digests, and for messages with Ed25519. It does not verify what it returns.
type rawKey struct {
	token  *rawToken
	handle pkcs11.ObjectHandle
	public crypto.PublicKey
}

// Public implements [crypto.Signer].
func (k *rawKey) Public() crypto.PublicKey { return k.public }

// digestInfoSHA256 is DER of DigestInfo up to the digest (RFC 8017, section 9.2, note 1).
var digestInfoSHA256 = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}

const ckmEdDSA = 0x1057 // PKCS#11 3.0, section 2.3.14

// Sign implements [crypto.Signer].
func (k *rawKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	switch k.public.(type) {
	case *rsa.PublicKey:
		return k.raw(pkcs11.CKM_RSA_PKCS, append(digestInfoSHA256[:len(digestInfoSHA256):len(digestInfoSHA256)], digest...))
	case ed25519.PublicKey:
		return k.raw(ckmEdDSA, digest)
	case *ecdsa.PublicKey:
		signature, err := k.raw(pkcs11.CKM_ECDSA, digest)
		if err != nil {
			return nil, err
		}
		half := len(signature) / 2
		return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])})
	}
	return nil, fmt.Errorf("a key of type %T", k.public)
}

func (k *rawKey) raw(mechanism uint, input []byte) ([]byte, error) {
	session := <-k.token.sessions
	defer func() { k.token.sessions <- session }()
	if err := k.token.module.SignInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, k.handle); err != nil {
		return nil, err
	}
	return k.token.module.Sign(session, input)
}

// tokenCeilings is a token in this process with a key of each kind that was asked for.
type tokenCeilings struct {
	*rawToken
	keys map[caKey]*rawKey
}

// mostGoroutines is how many sign at once for the ceiling.
const mostGoroutines = 8

func newTokenCeilings(b *testing.B) *tokenCeilings {
	b.Helper()
	t, err := openRaw(softhsmtest.Token(b), mostGoroutines)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = t.keys.Close() }) // its sessions end with it
	return &tokenCeilings{t, map[caKey]*rawKey{}}
}

// of is what the token can sign with a key, and nothing else to do.
func (t *tokenCeilings) of(b *testing.B, k caKey, goroutines int) *tokenCeiling {
	b.Helper()
	if t.keys[k] == nil {
		key, err := t.generate(k)
		if err != nil {
			b.Fatal(err)
		}
		t.keys[k] = key
	}
	return &tokenCeiling{t.keys[k], goroutines}
}

type tokenCeiling struct {
	key        *rawKey
	goroutines int
}

// turn signs for a while.
func (c *tokenCeiling) turn(b *testing.B, d time.Duration) turn {
	digest := make([]byte, 32)
	return repeat(b, c.goroutines, d, func() error {
		_, err := c.key.Sign(nil, digest, crypto.SHA256)
		return err
	})
}

// repeat calls f from so many goroutines for a while.
func repeat(b *testing.B, goroutines int, d time.Duration, f func() error) turn {
	var done atomic.Int64
	start := time.Now()
	every(goroutines, func(int) {
		for time.Since(start) < d {
			if err := f(); err != nil {
				b.Error(err)
				return
			}
			done.Add(1)
		}
	})
	return turn{rate: float64(done.Load()) / time.Since(start).Seconds(), made: int(done.Load())}
}
