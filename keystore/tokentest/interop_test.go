package tokentest_test

import (
	"bytes"
	"crypto"
	"fmt"
	"maps"
	"slices"
	"testing"

	"signet/keystore"
	"signet/keystore/tokentest"
)

// kind is a type of key that Signet can ask a token for.
type kind struct {
	keyType keystore.KeyType
	size    int
}

func (k kind) String() string { return fmt.Sprintf("%s %d", k.keyType, k.size) }

var (
	rsa2048, rsa3072, rsa4096 = kind{keystore.RSA, 2048}, kind{keystore.RSA, 3072}, kind{keystore.RSA, 4096}
	p256, p384, p521          = kind{keystore.EC, 256}, kind{keystore.EC, 384}, kind{keystore.EC, 521}
	ed25519Key                = kind{keystore.Ed25519, 256}
)

// matrix is what each token can do. Longer RSA keys cost seconds and teach nothing, except about the token that has a
// limit.
var matrix = []struct {
	name    string // of tokentest.Makes
	makes   []kind
	refuses map[kind]error

	bar     keystore.Bar // of the keys that it makes; what it refuses is asked with the highest
	digests bool         // RSA signs a digest, not only a message
	pss     bool
	unknown []string // attributes of a private key that the token does not answer
}{
	{
		name:    "SoftHSM2",
		makes:   []kind{rsa2048, p256, p384, p521, ed25519Key},
		digests: true, pss: true,
	},
	{
		name:    "p11-kit", // with SoftHSM2 behind it
		makes:   []kind{rsa2048, p256, p384, p521},
		refuses: map[kind]error{ed25519Key: keystore.ErrUnsupported},
		digests: true, pss: true,
		unknown: []string{"CKA_ALLOWED_MECHANISMS"},
	},
	{
		name:    "NSS", // which does not tell where a key was made: CKA_LOCAL is false
		makes:   []kind{rsa2048, p256, p384, p521},
		refuses: map[kind]error{p256: keystore.ErrEvidence, ed25519Key: keystore.ErrUnsupported},
		bar:     keystore.BarHeld, digests: true, pss: true,
		unknown: []string{"CKA_ALLOWED_MECHANISMS", "CKA_COPYABLE", "CKA_DESTROYABLE", "CKA_KEY_GEN_MECHANISM"},
	},
	{
		name:  "TPM2",
		makes: []kind{rsa2048, rsa3072, p256, p384},
		refuses: map[kind]error{
			rsa4096: keystore.ErrUnsupported, p521: keystore.ErrUnsupported, ed25519Key: keystore.ErrUnsupported,
		},
	},
	{
		name:  "OpenCryptoki",
		makes: []kind{rsa2048},
		refuses: map[kind]error{
			p256: keystore.ErrUnsupported, p384: keystore.ErrUnsupported, p521: keystore.ErrUnsupported, ed25519Key: keystore.ErrUnsupported,
		},
		digests: true, pss: true,
		unknown: []string{"CKA_ALLOWED_MECHANISMS", "CKA_COPYABLE", "CKA_DESTROYABLE", "CKA_WRAP_WITH_TRUSTED", "CKA_KEY_GEN_MECHANISM"},
	},
}

// asked is what a private key shows on every token that answers (see the templates of the keystore).
var asked = map[string]any{
	"CKA_CLASS": "CKO_PRIVATE_KEY", "CKA_TOKEN": true, "CKA_PRIVATE": true,
	"CKA_SENSITIVE": true, "CKA_ALWAYS_SENSITIVE": true, "CKA_EXTRACTABLE": false, "CKA_NEVER_EXTRACTABLE": true,
	"CKA_SIGN": true, "CKA_SIGN_RECOVER": false, "CKA_DECRYPT": false, "CKA_UNWRAP": false, "CKA_DERIVE": false,
	"CKA_WRAP_WITH_TRUSTED": true, "CKA_MODIFIABLE": false, "CKA_COPYABLE": false, "CKA_DESTROYABLE": true,
}

func TestInteropKeysLiveInEveryToken(t *testing.T) {
	t.Parallel()
	makes := tokentest.Makes(t)
	for _, row := range matrix {
		start := makes[row.name]
		if start == nil {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			token := start(t)
			// Labels are for people: as long as a name may be, and not only in ASCII.
			spec := func(k kind) keystore.Spec {
				return keystore.Spec{ID: []byte("the " + k.String()), Label: "Zertifizierungsstelle der Größe " + k.String() + " für Prüfungen und Versuche aller Art", Type: k.keyType, Size: k.size, Bar: row.bar}
			}
			var jobs []job
			for _, k := range row.makes {
				// NSS replaces a key pair of the same CKA_ID without a word.
				jobs = append(jobs, job{Do: "generate", Spec: spec(k)}, job{Do: "generate", Spec: spec(k)}, job{Do: "attributes", Spec: spec(k)})
			}
			answers := send(t, token, jobs...)
			known := map[kind][]byte{}
			for i, k := range row.makes {
				made, again, seen := answers[3*i], answers[3*i+1], answers[3*i+2].Seen
				if made.Error != "" || again.Is != keystore.ErrExists.Error() {
					t.Fatalf("%v: %s; a second one with its id: %s", k, made.Error, again.Error)
				}
				known[k] = made.Data
				for _, name := range slices.Sorted(maps.Keys(asked)) {
					if got, answered := seen[name]; answered == slices.Contains(row.unknown, name) || answered && got != asked[name] {
						t.Errorf("%v: %s is %v", k, name, got)
					}
				}
				if seen["CKA_LOCAL"] != (row.bar == keystore.BarBorn) {
					t.Errorf("%v: CKA_LOCAL is %v", k, seen["CKA_LOCAL"])
				}
				if seen["CKA_LABEL"] != spec(k).Label {
					t.Errorf("%v: the label is %q", k, seen["CKA_LABEL"])
				}
			}
			for _, k := range row.makes { // in a process that did not make them
				t.Run(k.String(), func(t *testing.T) { signAndDestroy(t, token, spec(k), known[k], row.digests, row.pss) })
			}
		})
	}
}

func signAndDestroy(t *testing.T, token *tokentest.Token, spec keystore.Spec, public []byte, digests, pss bool) {
	one := job{Spec: spec, Public: public, Data: bytes.Repeat([]byte("message"), 300)}
	var jobs []job
	add := func(do string, hash crypto.Hash) {
		j := one
		j.Do, j.Hash = do, hash
		jobs = append(jobs, j)
	}
	if spec.Type == keystore.Ed25519 {
		add("sign", 0)
		add("sign together", 0)
	} else {
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			add("sign", hash)
			if digests || spec.Type == keystore.EC {
				add("sign digest", hash)
			}
			if pss && spec.Type == keystore.RSA {
				add("sign PSS", hash)
			}
		}
		add("sign together", crypto.SHA256)
	}
	signatures := len(jobs)
	add("destroy", 0)
	add("sign", 0)
	answers := send(t, token, jobs...)
	for i, j := range jobs[:signatures] {
		if answers[i].Error != "" {
			t.Errorf("%s, %v: %s", j.Do, j.Hash, answers[i].Error)
		} else if err := j.verify(answers[i].Data); err != nil {
			t.Errorf("%s, %v: %v", j.Do, j.Hash, err)
		}
	}
	if err := answers[signatures].Error; err != "" {
		t.Errorf("destroy: %s", err)
	}
	if answers[signatures+1].Is != keystore.ErrNotFound.Error() {
		t.Errorf("the destroyed key answers %q", answers[signatures+1].Error)
	}
}

func TestInteropTokensRefuseWhatTheyCannotMake(t *testing.T) {
	t.Parallel()
	makes := tokentest.Makes(t)
	for _, row := range matrix {
		start := makes[row.name]
		if start == nil || len(row.refuses) == 0 {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var jobs []job
			kinds := slices.Collect(maps.Keys(row.refuses))
			for _, k := range kinds {
				s := keystore.Spec{ID: []byte(k.String()), Label: "refused", Type: k.keyType, Size: k.size}
				jobs = append(jobs, job{Do: "generate", Spec: s}, job{Do: "attributes", Spec: s})
			}
			answers := send(t, start(t), jobs...)
			for i, k := range kinds {
				if want := row.refuses[k].Error(); answers[2*i].Is != want {
					t.Errorf("%v: %q is not %q", k, answers[2*i].Error, want)
				}
				if answers[2*i+1].Is != keystore.ErrNotFound.Error() {
					t.Errorf("%v: something is left: %v, %s", k, answers[2*i+1].Seen, answers[2*i+1].Error)
				}
			}
		})
	}
}

// A wrong PIN costs a TPM and opencryptoki one of three tries.
func TestInteropAWrongPINIsTriedOnce(t *testing.T) {
	t.Parallel()
	makes := tokentest.Makes(t)
	for _, row := range matrix {
		start := makes[row.name]
		if start == nil {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			token := start(t)
			wrong := *token
			wrong.PIN = "00000000"
			for _, a := range send(t, &wrong, slices.Repeat([]job{{Do: "open"}}, 4)...) {
				if a.Is != keystore.ErrPIN.Error() {
					t.Errorf("a wrong PIN: %q", a.Error)
				}
			}
			if err := send(t, token, job{Do: "open"})[0].Error; err != "" {
				t.Errorf("the right PIN after it: %s", err)
			}
		})
	}
}

// The health key is made by the first process and found by the next, whatever type the token has.
func TestInteropHealthIsASignature(t *testing.T) {
	t.Parallel()
	makes := tokentest.Makes(t)
	for _, row := range matrix {
		start := makes[row.name]
		if start == nil {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			token := start(t)
			for range 2 {
				for _, a := range send(t, token, job{Do: "check"}, job{Do: "check"}) {
					if a.Error != "" {
						t.Error(a.Error)
					}
				}
			}
		})
	}
}

func TestInteropLeafKeysAreSealedByEveryToken(t *testing.T) {
	t.Parallel()
	makes := tokentest.Makes(t)
	for _, row := range matrix {
		start := makes[row.name]
		if start == nil {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			token := start(t)
			secret := bytes.Repeat([]byte("leaf key"), 200)
			sealed := send(t, token, job{Do: "seal", Data: secret})[0]
			if sealed.Error != "" {
				t.Fatal(sealed.Error)
			}
			forged := bytes.Clone(sealed.Data)
			forged[len(forged)-1] ^= 1
			answers := send(t, token, job{Do: "unseal", Data: sealed.Data}, job{Do: "unseal", Data: forged})
			if answers[0].Error != "" || !bytes.Equal(answers[0].Data, secret) {
				t.Errorf("unseal: %s", answers[0].Error)
			}
			if answers[1].Error == "" {
				t.Error("a changed secret was unsealed")
			}
		})
	}
}
