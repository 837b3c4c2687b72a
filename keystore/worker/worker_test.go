package worker_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"signet/keystore"
	"signet/keystore/worker"
)

// verify is the standard library's opinion of a signature.
func verify(public crypto.PublicKey, digest, signature []byte, opts crypto.SignerOpts) error {
	ok := false
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, digest, signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, digest, signature)
	case *rsa.PublicKey:
		if pss, is := opts.(*rsa.PSSOptions); is {
			return rsa.VerifyPSS(key, opts.HashFunc(), digest, signature, pss)
		}
		return rsa.VerifyPKCS1v15(key, opts.HashFunc(), digest, signature)
	}
	if !ok {
		return errors.New("the signature does not verify")
	}
	return nil
}

func TestKeysOfEveryTypeSignThroughTheWorker(t *testing.T) {
	t.Parallel()
	token := start(t, newHome(t).config())
	short, long := sha256.Sum256([]byte("message")), sha512.Sum512([]byte("message"))
	for _, k := range []struct {
		name   string
		kind   keystore.KeyType
		size   int
		digest []byte
		opts   crypto.SignerOpts
	}{
		{"P-256", keystore.EC, 256, short[:], crypto.SHA256},
		{"P-521", keystore.EC, 521, long[:], crypto.SHA512},
		{"RSA PKCS#1", keystore.RSA, 2048, short[:], crypto.SHA256},
		{"RSA PSS, salt as long as the hash", keystore.RSA, 2048, long[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA512}},
		{"RSA PSS, longest salt", keystore.RSA, 2048, short[:], &rsa.PSSOptions{Hash: crypto.SHA256}},
		{"Ed25519", keystore.Ed25519, 256, []byte("message"), crypto.Hash(0)},
		{"Ed25519, a megabyte", keystore.Ed25519, 256, bytes.Repeat([]byte("message"), 150_000), &ed25519.Options{}},
	} {
		key, id := generate(t, token, k.kind, k.size)
		signature, err := key.Sign(nil, k.digest, k.opts)
		if err == nil {
			err = verify(key.Public(), k.digest, signature, k.opts)
		}
		if err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
		again, err := token.Signer(t.Context(), id, der(t, key.Public()), keystore.BarBorn)
		if err == nil {
			_, err = again.Sign(nil, k.digest, k.opts)
		}
		if err != nil {
			t.Errorf("%s, found again: %v", k.name, err)
		}
	}
}

func der(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestEverythingElseOfTheTokenGoesThroughTheWorker(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	var ops seen[string]
	cfg := home.config()
	cfg.Keystore.Observe = func(op string, _ time.Duration, err error) { ops.add(op) }
	token := start(t, cfg)

	sealed, err := token.Seal(t.Context(), []byte("secret"), []byte("here"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := token.Unseal(t.Context(), sealed, []byte("here")); err != nil || string(plain) != "secret" {
		t.Errorf("unsealed %q, %v", plain, err)
	}
	if plain, err := token.Unseal(t.Context(), sealed, []byte("there")); err == nil {
		t.Errorf("unsealed %q in the wrong place", plain)
	}
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
	key, id := generate(t, token, keystore.EC, 256)
	read, err := token.Inspect(t.Context(), id)
	if err != nil || read.Info.Label != "test" || !bytes.Equal(der(t, read.Public), der(t, key.Public())) ||
		read.Attributes["CKA_EXTRACTABLE"] != false || read.Attributes["CKA_LABEL"] != t.Name() {
		t.Errorf("the token says %+v, %v", read, err)
	}
	if _, list := read.Attributes["CKA_ALLOWED_MECHANISMS"].([]string); !list {
		t.Errorf("CKA_ALLOWED_MECHANISMS is %T", read.Attributes["CKA_ALLOWED_MECHANISMS"])
	}
	attempts, err := token.Drill(t.Context(), id)
	if err != nil || len(attempts) < 10 {
		t.Errorf("%d attacks, %v", len(attempts), err)
	}
	for _, a := range attempts {
		if a.Outcome == "yielded" {
			t.Errorf("%s yielded: %s", a.Name, a.Result)
		}
	}
	if token.Sessions() == 0 {
		t.Error("no session is open after a check")
	}
	if err := token.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	told := strings.Join(ops.list(), " ")
	for _, op := range []string{"worker", "login", "connect", "seal", "unseal", "check", "generate", "inspect", "drill", "destroy"} {
		if !strings.Contains(told, op) {
			t.Errorf("Observe was not told of %q, only of: %s", op, told)
		}
	}
}

// The key that attests is found again by the next worker, too.
func TestTheAttesterSignsThroughEveryWorker(t *testing.T) {
	t.Parallel()
	token := start(t, newHome(t).config())
	key, id, err := token.Attester(t.Context())
	if err != nil || len(id) == 0 {
		t.Fatal(id, err)
	}
	for range 2 {
		if err := signDigest(key); err != nil {
			t.Error(err)
		}
		again, sameID, err := token.Attester(t.Context())
		if err != nil || !bytes.Equal(id, sameID) || !bytes.Equal(der(t, again.Public()), der(t, key.Public())) {
			t.Errorf("the attester is %x now, %v", sameID, err)
		}
		if err := syscall.Kill(token.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMessagesAreSignedThroughTheWorker(t *testing.T) {
	t.Parallel()
	token := start(t, newHome(t).config())
	message := []byte("message")
	digest := sha256.Sum256(message)
	for _, k := range []struct {
		kind keystore.KeyType
		size int
		hash crypto.Hash
		of   []byte
	}{{keystore.EC, 256, crypto.SHA256, digest[:]}, {keystore.RSA, 2048, crypto.SHA256, digest[:]}, {keystore.Ed25519, 256, 0, message}} {
		key, _ := generate(t, token, k.kind, k.size)
		signature, err := crypto.SignMessage(key, nil, message, k.hash)
		if err == nil {
			err = verify(key.Public(), k.of, signature, k.hash)
		}
		if err != nil {
			t.Errorf("%s: %v", k.kind, err)
		}
		if _, err := crypto.SignMessage(key, nil, message, crypto.SHA1); !errors.Is(err, keystore.ErrUnsupported) && k.kind != keystore.Ed25519 {
			t.Errorf("%s with SHA-1: %v", k.kind, err)
		}
	}
}

func TestErrorsStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	token := start(t, newHome(t).config())
	key, id := generate(t, token, keystore.EC, 256)
	other, _ := generate(t, token, keystore.EC, 256)
	gone, goneID := generate(t, token, keystore.EC, 256)
	if err := token.Destroy(t.Context(), goneID); err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	digest := sha256.Sum256(nil)
	for _, c := range []struct {
		name string
		want error
		do   func() error
	}{
		{"the id is taken", keystore.ErrExists, func() error {
			_, err := token.Generate(t.Context(), keystore.Spec{ID: id, Label: "x", Type: keystore.EC, Size: 256})
			return err
		}},
		{"another key has the id", keystore.ErrMismatch, func() error {
			_, err := token.Signer(t.Context(), id, der(t, other.Public()), keystore.BarBorn)
			return err
		}},
		{"no such key", keystore.ErrNotFound, func() error {
			_, err := token.Signer(t.Context(), []byte("nothing"), der(t, key.Public()), keystore.BarBorn)
			return err
		}},
		{"a destroyed key", keystore.ErrNotFound, func() error { return signDigest(gone) }},
		{"a destroyed key, found again", keystore.ErrNotFound, func() error {
			_, err := token.Signer(t.Context(), goneID, der(t, gone.Public()), keystore.BarBorn)
			return err
		}},
		{"the caller has gone", keystore.ErrUnavailable, func() error { return token.Check(late) }},
		{"the caller has gone, its reason", context.Canceled, func() error { return token.Check(late) }},
		{"a hash that no token signs", keystore.ErrUnsupported, func() error {
			_, err := key.Sign(nil, digest[:20], crypto.SHA1)
			return err
		}},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := signDigest(key); err != nil {
		t.Errorf("after all these errors: %v", err)
	}
}

func TestAKeyThatNobodyWaitsForIsNotKept(t *testing.T) {
	t.Parallel()
	token := start(t, newHome(t).config())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := token.Generate(ctx, keystore.Spec{ID: []byte("unwanted"), Label: "x", Type: keystore.RSA, Size: 4096})
	if err == nil {
		t.Log("the key was made before the caller went")
		return
	}
	await(t, time.Minute, "the key is gone", func() bool {
		_, err := token.Generate(t.Context(), keystore.Spec{ID: []byte("unwanted"), Label: "x", Type: keystore.EC, Size: 256})
		return err == nil
	})
}

func TestOneWorkerServesManyCallersAtOnce(t *testing.T) {
	t.Parallel()
	token := start(t, newHome(t).config())
	key, id := generate(t, token, keystore.EC, 256)
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for range 20 {
				if err := signDigest(key); err != nil {
					t.Error(err)
				}
				if _, err := token.Inspect(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func TestTheModuleIsLoadedOnlyInTheWorker(t *testing.T) {
	t.Parallel()
	start(t, newHome(t).config())
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(maps, []byte("softhsm2.so")) {
		t.Error("this process has the module in its memory")
	}
}

func TestThePINIsInNeitherArgumentsNorEnvironment(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	token := start(t, home.config())
	for _, file := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile("/proc/" + itoa(token.PID()) + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(home.Cfg.PIN)) {
			t.Errorf("the PIN is in the worker's %s", file)
		}
	}
}

// The settings of the server are in its environment, some of them secrets: they are not inherited.
func TestTheWorkerInheritsNoSettings(t *testing.T) {
	home := newHome(t)
	t.Setenv("SIGNET_SECRET_KEY", "hush")
	t.Setenv("SOFTHSM2_CONF", home.Dir+"/softhsm2.conf")
	t.Setenv(role, "worker")
	cfg := home.config()
	cfg.Env = nil
	token := start(t, cfg)
	text, err := os.ReadFile("/proc/" + itoa(token.PID()) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("hush")) {
		t.Error("the worker has the server's secret key")
	}
}

func TestAClosedTokenIsUnavailable(t *testing.T) {
	t.Parallel()
	var told seen[keystore.State]
	cfg := newHome(t).config()
	cfg.Keystore.Changed = told.add
	token, err := worker.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := generate(t, token, keystore.EC, 256)
	pid := token.PID()
	for range 2 {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := signDigest(key); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("signing after Close: %v", err)
	}
	if !gone(pid) {
		t.Error("the worker outlived Close")
	}
	if all := told.list(); len(all) > 0 {
		t.Errorf("Close is told as an outage: %+v", all)
	}
}

func TestStartNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	for _, c := range []struct {
		name, want string
		change     func(*worker.Config)
	}{
		{"no such token", `no token is labelled "other"`, func(c *worker.Config) { c.Keystore.Token = "other" }},
		{"no such module", "load PKCS#11 module /nowhere.so", func(c *worker.Config) { c.Keystore.Module = "/nowhere.so" }},
		{"no such program", "start /nowhere", func(c *worker.Config) { c.Program = "/nowhere" }},
		{"a program that is no worker", "the token worker ended", func(c *worker.Config) { c.Program = "/bin/true" }},
	} {
		cfg := home.config()
		c.change(&cfg)
		if _, err := worker.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
