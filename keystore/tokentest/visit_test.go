package tokentest_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	_ "crypto/sha256"
	_ "crypto/sha512"

	"signet/keystore"
	"signet/keystore/tokentest"
)

// visit is what another process does with a token: it opens it, works through the jobs, and closes it.
type visit struct {
	Module, Label, PIN, InitArgs string
	Jobs                         []job
}

// job is one thing to be done with a key.
type job struct {
	Do     string // a case of job.do
	Spec   keystore.Spec
	Public []byte      // what is known of the key from before, DER
	Data   []byte      // message, plaintext or sealed
	Hash   crypto.Hash // 0 for Ed25519
}

// answer is what came of a job.
type answer struct {
	Error string // what the error says
	Is    string // the sentinel of the keystore that it is
	Data  []byte // public key (DER), signature, plaintext or sealed
	Seen  map[string]any
}

// TestMain makes the test binary serve as the visiting process, too.
func TestMain(m *testing.M) {
	if os.Getenv("TOKENTEST_VISIT") == "" {
		os.Exit(m.Run())
	}
	if err := receive(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// send runs the jobs in a process of their own, beside the token.
func send(t *testing.T, token *tokentest.Token, jobs ...job) []answer {
	t.Helper()
	in, err := json.Marshal(visit{token.Module, token.Label, token.PIN, token.InitArgs, jobs})
	if err != nil {
		t.Fatal(err)
	}
	cmd := token.Command(os.Args[0])
	cmd.Env = append(cmd.Env, "TOKENTEST_VISIT=1")
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the visit failed: %v\n%s", err, stderr.Bytes())
	}
	var answers []answer
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(jobs) {
		t.Fatalf("%d answers to %d jobs, %v: %s", len(answers), len(jobs), err, out)
	}
	return answers
}

func receive() error {
	var v visit
	if err := json.NewDecoder(os.Stdin).Decode(&v); err != nil {
		return err
	}
	ctx := context.Background()
	open := func() (*keystore.Token, error) {
		return keystore.Open(ctx, keystore.Config{Module: v.Module, Token: v.Label, PIN: v.PIN, InitArgs: v.InitArgs, Timeout: time.Minute})
	}
	var answers []answer
	var token *keystore.Token
	for _, j := range v.Jobs {
		var a answer
		var err error
		if token == nil {
			token, err = open()
		}
		if err == nil {
			a, err = j.do(ctx, token)
		}
		if err != nil {
			a.Error, a.Is = err.Error(), sentinel(err)
		}
		answers = append(answers, a)
	}
	if token != nil {
		if err := token.Close(); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func (j job) do(ctx context.Context, token *keystore.Token) (a answer, err error) {
	switch j.Do {
	case "open": // it is
	case "generate":
		var key crypto.Signer
		if key, err = token.Generate(ctx, j.Spec); err != nil {
			return a, err
		}
		a.Data, err = x509.MarshalPKIXPublicKey(key.Public())
	case "sign", "sign digest", "sign PSS", "sign together":
		var key crypto.Signer
		if key, err = token.Signer(ctx, j.Spec.ID, j.Public, j.Spec.Bar); err != nil {
			return a, err
		}
		a.Data, err = j.sign(key)
	case "seal":
		a.Data, err = token.Seal(ctx, j.Data, []byte("place"))
	case "unseal":
		a.Data, err = token.Unseal(ctx, j.Data, []byte("place"))
	case "check":
		err = token.Check(ctx)
	case "attributes":
		var found keystore.Inspection
		found, err = token.Inspect(ctx, j.Spec.ID)
		a.Seen = found.Attributes
	case "destroy":
		err = token.Destroy(ctx, j.Spec.ID)
	default:
		err = fmt.Errorf("no job %q", j.Do)
	}
	return a, err
}

func (j job) sign(key crypto.Signer) ([]byte, error) {
	switch j.Do {
	case "sign digest":
		return key.Sign(rand.Reader, j.digest(), j.Hash)
	case "sign PSS":
		return key.Sign(rand.Reader, j.digest(), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: j.Hash})
	case "sign together":
		return j.signTogether(key)
	}
	return crypto.SignMessage(key, rand.Reader, j.Data, j.Hash)
}

// signTogether signs in eight goroutines, whose sessions live side by side in the library.
func (j job) signTogether(key crypto.Signer) (signature []byte, err error) {
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	for range 8 {
		wg.Go(func() {
			for range 4 {
				s, e := crypto.SignMessage(key, rand.Reader, j.Data, j.Hash)
				mu.Lock()
				signature, err = s, errors.Join(err, e)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return signature, err
}

func (j job) digest() []byte {
	if j.Hash == 0 {
		return j.Data
	}
	h := j.Hash.New()
	h.Write(j.Data)
	return h.Sum(nil)
}

// verify checks the signature that answers a job, in a process that never saw the token.
func (j job) verify(signature []byte) error {
	public, err := x509.ParsePKIXPublicKey(j.Public)
	if err != nil {
		return err
	}
	ok := false
	switch key := public.(type) {
	case *rsa.PublicKey:
		if j.Do == "sign PSS" {
			return rsa.VerifyPSS(key, j.Hash, j.digest(), signature, nil)
		}
		return rsa.VerifyPKCS1v15(key, j.Hash, j.digest(), signature)
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, j.digest(), signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, j.Data, signature)
	}
	if !ok {
		return errors.New("the signature does not verify")
	}
	return nil
}

func sentinel(err error) string {
	for _, known := range []error{keystore.ErrUnsupported, keystore.ErrExists, keystore.ErrMismatch, keystore.ErrNotFound,
		keystore.ErrEvidence, keystore.ErrPIN, keystore.ErrUnavailable} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return ""
}
