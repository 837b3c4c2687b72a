package catest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"signet/ca"
	"signet/evidence"
	"signet/fault"
	"signet/policy"
)

// Script decides what attacks on a key achieve. The zero value has each refused. It is safe for concurrent use.
type Script struct {
	mu      sync.Mutex
	outcome evidence.Outcome
	failure error
	left    error
	gate    chan struct{}
	drills  int
}

// Set makes the attack "wrap-CKM_AES_KEY_WRAP" end this way from now on; a failure ends whole drills.
func (s *Script) Set(outcome evidence.Outcome, failure error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcome, s.failure = outcome, failure
}

// Leave makes drills end with this error beside their attacks from now on, as one does that leaves something behind.
func (s *Script) Leave(left error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = left
}

// Hold makes drills wait until release is called.
func (s *Script) Hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gate := make(chan struct{})
	s.gate = gate
	return func() { close(gate) }
}

// Drills is how many drills there were.
func (s *Script) Drills() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drills
}

// Drill is what attacks on a key achieve at the moment.
func (s *Script) Drill() (evidence.Drill, error) {
	s.mu.Lock()
	s.drills++
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return evidence.Drill{}, s.failure
	}
	results := map[evidence.Outcome]string{
		"": "CKR_KEY_UNEXTRACTABLE", evidence.Refused: "CKR_KEY_UNEXTRACTABLE", evidence.Yielded: "CKR_OK", evidence.Inconclusive: "CKR_DEVICE_ERROR",
	}
	wrap := evidence.Attack{Name: "wrap-CKM_AES_KEY_WRAP", Call: "C_WrapKey", Target: "key", Outcome: s.outcome, Result: results[s.outcome]}
	if s.outcome == "" {
		wrap.Outcome = evidence.Refused
	}
	return evidence.Drill{At: time.Now(), Attacks: []evidence.Attack{
		{Name: "read-CKA_VALUE", Call: "C_GetAttributeValue", Target: "key", Outcome: evidence.Refused, Result: "CKR_ATTRIBUTE_SENSITIVE"},
		wrap,
		{Name: "derive-CKM_ECDH1_DERIVE", Call: "C_DeriveKey", Target: "canary", Outcome: evidence.NotApplicable, Result: "the token has no such mechanism"},
	}}, s.left
}

// Keys is a ca.Keys in memory: P-256 keys in software that claim the attributes of keys in a token. It keeps the
// promises of a token but the one that matters, and lets tests break that one.
type Keys struct {
	Script
	names []string
	mu    sync.Mutex
	keys  map[string]*softKey
	away  bool
	stuck bool
}

type softKey struct {
	crypto.Signer
	label      string
	attributes map[string]any
}

var _ ca.Keys = (*Keys)(nil)

// NewKeys returns tokens of these names, the default one first.
func NewKeys(names ...string) *Keys { return &Keys{names: names, keys: map[string]*softKey{}} }

// Generated are the attributes of a key that was made in a token as it should be.
func Generated() map[string]any {
	return map[string]any{
		"CKA_CLASS": "CKO_PRIVATE_KEY", "CKA_KEY_TYPE": "CKK_EC", "CKA_TOKEN": true, "CKA_PRIVATE": true, "CKA_SENSITIVE": true,
		"CKA_ALWAYS_SENSITIVE": true, "CKA_EXTRACTABLE": false, "CKA_NEVER_EXTRACTABLE": true, "CKA_LOCAL": true,
		"CKA_MODIFIABLE": false, "CKA_SIGN": true, "CKA_DECRYPT": false, "CKA_UNWRAP": false, "CKA_DERIVE": false,
	}
}

// SetAway takes every token away, or brings it back.
func (k *Keys) SetAway(away bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = away
}

// SetStuck makes tokens keep keys that they say are destroyed.
func (k *Keys) SetStuck(stuck bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stuck = stuck
}

// Put makes a key with these changes to the attributes of a generated one, as if somebody else had, and returns it.
func (k *Keys) Put(token string, id []byte, changes map[string]any) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // the system is out of randomness
	}
	attributes := Generated()
	maps.Copy(attributes, changes)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[k.place(token, id)] = &softKey{key, "put", attributes}
	return key
}

// Clone copies a key to another token, as makers of HSMs do between theirs.
func (k *Keys) Clone(from, to string, id []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[k.place(to, id)] = k.keys[k.place(from, id)]
}

// Count is how many keys there are, in every token.
func (k *Keys) Count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.keys)
}

// Has reports whether a token has a key.
func (k *Keys) Has(token string, id []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[k.place(token, id)] != nil
}

func (k *Keys) place(token string, id []byte) string {
	if token == "" {
		token = k.names[0]
	}
	return fmt.Sprintf("%s/%x", token, id)
}

func (k *Keys) check() error {
	if k.away {
		return &fault.Error{Code: fault.Unavailable, Message: "the signing token is not available", RetryAfter: time.Second}
	}
	return nil
}

func (k *Keys) find(r ca.KeyRef) (*softKey, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	key := k.keys[k.place(r.Token, r.ID)]
	if key == nil {
		return nil, fault.New(fault.NotFound, "the token has no key %x", r.ID)
	}
	return key, nil
}

// Default implements ca.Keys.
func (k *Keys) Default() string { return k.names[0] }

// Tokens implements ca.Keys.
func (k *Keys) Tokens() []string { return slices.Clone(k.names) }

// Generate implements ca.Keys.
func (k *Keys) Generate(_ context.Context, r ca.KeyRequest) (crypto.Signer, error) {
	if r.Spec.Type != policy.EC || r.Spec.Size != 256 {
		return nil, fault.New(fault.Invalid, "the token does not support this key type or size")
	}
	k.mu.Lock()
	err := k.check()
	k.mu.Unlock()
	if err != nil {
		return nil, err
	}
	k.Put(r.Token, r.ID, nil)
	return k.Signer(context.Background(), ca.KeyRef{Token: r.Token, ID: r.ID})
}

// Signer implements ca.Keys.
func (k *Keys) Signer(_ context.Context, r ca.KeyRef) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := k.find(r)
	if err != nil {
		return nil, err
	}
	if grade, _ := evidence.GradeOf(key.attributes, evidence.Drill{}); grade == evidence.Exportable || !grade.AtLeast(evidence.Asserted) && r.Accept != evidence.Imported {
		return nil, fault.Wrap(fault.Internal, "the CA key cannot be used", errors.New("its attributes are too weak"))
	}
	return &guarded{key, k}, nil
}

// guarded signs while the token is there.
type guarded struct {
	*softKey
	keys *Keys
}

func (g *guarded) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	g.keys.mu.Lock()
	err := g.keys.check()
	g.keys.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return g.softKey.Signer.Sign(rand, digest, opts)
}

// Inspect implements ca.Keys.
func (k *Keys) Inspect(_ context.Context, r ca.KeyRef) (evidence.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := k.find(r)
	if err != nil {
		return evidence.Key{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return evidence.Key{}, err
	}
	return evidence.Key{
		ID: r.ID, Label: key.label, Type: "ec", Size: 256, Mechanism: "CKM_ECDSA", PublicKey: public, Attributes: maps.Clone(key.attributes),
		Token: evidence.Token{Name: r.Token}, ReadAt: time.Now(),
	}, nil
}

// Drill implements ca.Keys.
func (k *Keys) Drill(_ context.Context, r ca.KeyRef) (evidence.Drill, error) {
	k.mu.Lock()
	_, err := k.find(r)
	k.mu.Unlock()
	if err != nil {
		return evidence.Drill{}, err
	}
	return k.Script.Drill()
}

// Attester implements ca.Keys.
func (k *Keys) Attester(ctx context.Context, token string) (crypto.Signer, evidence.Key, error) {
	r := ca.KeyRef{Token: token, ID: []byte("attester")}
	if !k.Has(token, r.ID) {
		k.Put(token, r.ID, nil)
	}
	key, err := k.Signer(ctx, r)
	if err != nil {
		return nil, evidence.Key{}, err
	}
	described, err := k.Inspect(ctx, r)
	return key, described, err
}

// Destroy implements ca.Keys.
func (k *Keys) Destroy(_ context.Context, token string, id []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.find(ca.KeyRef{Token: token, ID: id}); err != nil {
		return err
	}
	if !k.stuck {
		delete(k.keys, k.place(token, id))
	}
	return nil
}

// Seal implements ca.Keys. It hides nothing.
func (k *Keys) Seal(_ context.Context, plaintext, _ []byte) ([]byte, error) {
	return slices.Clone(plaintext), nil
}

// Unseal implements ca.Keys.
func (k *Keys) Unseal(_ context.Context, sealed, _ []byte) ([]byte, error) {
	return slices.Clone(sealed), nil
}
