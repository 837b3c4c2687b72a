package worker

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"signet/keystore"
)

func TestAnErrorKeepsItsIdentityAndItsText(t *testing.T) {
	t.Parallel()
	for _, identity := range identities {
		sent := fmt.Errorf("sign: %w: CKR_SOMETHING", identity)
		got := decodeError(appendError(nil, sent))
		if got.Error() != sent.Error() {
			t.Errorf("the text is %q, want %q", got, sent)
		}
		for _, other := range identities {
			if errors.Is(got, other) != (other == identity) {
				t.Errorf("%v: is it %q? %t", sent, other, errors.Is(got, other))
			}
		}
	}
	if err := decodeError([]byte{1}); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a malformed error is %v", err)
	}
}

func TestWhatASignerIsAskedArrivesAsItWas(t *testing.T) {
	t.Parallel()
	for _, opts := range []crypto.SignerOpts{
		crypto.SHA256, crypto.Hash(0),
		&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA512}, &rsa.PSSOptions{SaltLength: 17, Hash: crypto.SHA384},
	} {
		asked := keystore.Request{Input: []byte("digest"), Message: true, Opts: opts, Doubted: true}
		f, err := readFrame(bytes.NewReader(encodeSign(7, limits{left: time.Second}, asked).frame(9)))
		if err != nil || f.kind != kindSign || f.id != 9 {
			t.Fatalf("frame is %+v, %v", f, err)
		}
		got, err := decodeSign(f.body)
		if err != nil || got.key != 7 || got.left != time.Second || !reflect.DeepEqual(got.request(), asked) {
			t.Errorf("%v arrives as %+v, %v", opts, got, err)
		}
	}
}

func TestWhatACallerLeavesArrivesAsItWas(t *testing.T) {
	t.Parallel()
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, sent := range []context.Context{t.Context(), deadline, keystore.Impatient(t.Context()), keystore.Impatient(deadline)} {
		l, rest, err := decodeLimits(limitsOf(sent).append(nil))
		if err != nil || len(rest) > 0 {
			t.Fatalf("%v, with %d bytes left", err, len(rest))
		}
		got, cancel := l.within(context.Background())
		defer cancel()
		was, limited := sent.Deadline()
		is, limitedToo := got.Deadline()
		if keystore.IsImpatient(got) != keystore.IsImpatient(sent) || limited != limitedToo || is.Sub(was).Abs() > 10*time.Second {
			t.Errorf("%v arrives as %v", sent, got)
		}
	}
}

func TestAStateArrivesAsItWas(t *testing.T) {
	t.Parallel()
	cause := fmt.Errorf("sign: %w: %w", keystore.ErrUnavailable, pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED))
	for _, sent := range []keystore.State{{Up: true, Recoveries: 3}, {Cause: cause}, {Hung: true, Cause: cause, Recoveries: 1}} {
		f, err := readFrame(bytes.NewReader(encodeState(sent)))
		if err != nil || f.kind != kindState {
			t.Fatalf("frame is %+v, %v", f, err)
		}
		got, err := decodeState(f.body)
		if err != nil || got.Up != sent.Up || got.Hung != sent.Hung || got.Recoveries != sent.Recoveries || (got.Cause == nil) != sent.Up {
			t.Errorf("%+v arrives as %+v, %v", sent, got, err)
		}
		if !sent.Up && keystore.Reason(got.Cause) != "CKR_DEVICE_REMOVED" {
			t.Errorf("the reason is %q", keystore.Reason(got.Cause))
		}
	}
}

func TestFramesThatAreNone(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"nothing":                   {},
		"cut in the head":           {9, 0, 0, 0, 1},
		"shorter than its head":     {8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0},
		"longer than the limit":     {0, 0, 0, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0},
		"longer than what is there": {0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3},
	} {
		if f, err := readFrame(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestANoticeNamesAnOperationThatThereIs(t *testing.T) {
	t.Parallel()
	for _, op := range noticed {
		f, err := readFrame(bytes.NewReader(notice{op, time.Second, nil}.frame()))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := decodeNotice(f.body); err != nil || n.op != op || n.took != time.Second {
			t.Errorf("%s arrives as %+v, %v", op, n, err)
		}
	}
	for _, op := range []string{"", "\xff", "login\x00", "1f3c"} {
		f, err := readFrame(bytes.NewReader(notice{op, time.Second, nil}.frame()))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := decodeNotice(f.body); err == nil {
			t.Errorf("%q is taken for an operation: %+v", op, n)
		}
	}
}

// stuck is a stream whose other side reads nothing.
type stuck struct{ closed chan struct{} }

func (s stuck) Read([]byte) (int, error)  { <-s.closed; return 0, io.EOF }
func (s stuck) Write([]byte) (int, error) { <-s.closed; return 0, io.ErrClosedPipe }
func (s stuck) Close() error              { close(s.closed); return nil }

func TestSendNeverBlocksAndQueuesNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	l := newLink(stuck{make(chan struct{})})
	defer l.close()
	b := encodeOK(1, make([]byte, 1<<20))
	for range 20 {
		if err := l.send(b); errors.Is(err, errQueue) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("20 MiB were queued")
}

func TestAWorkerThatAnswersNothingButPingsIsGivenUp(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	token := &Token{cfg: Config{Keystore: keystore.Config{Timeout: 100 * time.Millisecond}}}
	p := &process{token: token, link: newLink(near), born: time.Now(), dead: make(chan struct{}), exited: make(chan struct{}), wait: map[uint64]chan answer{}}
	go p.read()
	go p.watch()
	defer p.fail(errClosed)
	worker := newLink(far)
	defer worker.close()
	go func() {
		for {
			f, err := worker.receive()
			if err != nil {
				return
			}
			if f.kind == kindPing {
				_ = worker.send(sealed(newFrame(kindPing, 0, 0)))
			}
		}
	}()
	k := &key{number: 1}
	p.bound.Store(k, true)
	signed := make(chan error, 1)
	go func() {
		_, err := p.sign(context.Background(), k, keystore.Request{Input: []byte("digest"), Opts: crypto.SHA256}, func([]byte) bool { return true })
		signed <- err
	}()
	select {
	case err := <-signed:
		if !errors.Is(err, errFrozen) || !p.over() {
			t.Errorf("signing fails with %v; is the worker given up? %t", err, p.over())
		}
	case <-time.After(10 * time.Second):
		t.Error("the caller waits for ever")
	}
}

// FuzzFrames reads what the other side of the pipe may send: it is a process with strangers' code in it.
func FuzzFrames(f *testing.F) {
	f.Add(signRequest{key: 1, hash: crypto.SHA256, input: []byte("digest")}.frame(1))
	f.Add(encodeCall(2, limits{left: time.Second}, "seal", []byte("argument")))
	f.Add(encodeCancel(3))
	f.Add(encodeOK(4, []byte("signature")))
	f.Add(encodeError(5, keystore.ErrPIN))
	f.Add(notice{"login", time.Second, keystore.ErrPIN}.frame())
	f.Add(notice{"connect", time.Second, nil}.frame())
	f.Add(encodeState(keystore.State{Hung: true, Cause: keystore.ErrUnavailable}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		in := bufio.NewReader(bytes.NewReader(stream))
		for {
			frame, err := readFrame(in)
			if err != nil {
				return
			}
			_ = decodeError(frame.body).Error()
			if r, err := decodeSign(frame.body); err == nil {
				back, err := readFrame(bytes.NewReader(r.frame(frame.id)))
				if err != nil || !bytes.Equal(back.body, frame.body) {
					t.Errorf("%x comes back as %x, %v", frame.body, back.body, err)
				}
			}
			if limits, method, argument, err := decodeCall(frame.body); err == nil {
				back, err := readFrame(bytes.NewReader(encodeCall(frame.id, limits, method, argument)))
				if err != nil || !bytes.Equal(back.body, frame.body) {
					t.Errorf("%x comes back as %x, %v", frame.body, back.body, err)
				}
			}
			if n, err := decodeNotice(frame.body); err == nil && n.err != nil {
				_ = n.err.Error()
			}
			if s, err := decodeState(frame.body); err == nil && !s.Up {
				_ = s.Cause.Error() + keystore.Reason(s.Cause)
			}
		}
	})
}

// FuzzAnswers reads the answers to calls, which the same process makes.
func FuzzAnswers(f *testing.F) {
	attributes := map[string]any{"CKA_SIGN": true, "CKA_LABEL": "x", "CKA_ALLOWED_MECHANISMS": []string{"CKM_ECDSA"}}
	for _, v := range []any{
		inspection{Inspection: keystore.Inspection{Attributes: attributes, Info: keystore.Info{Label: "x"}}, DER: []byte("key")},
		drillResult{Attempts: []keystore.Attempt{{Name: "x"}}}, foundKey{}, []byte("sealed"), true, 1,
	} {
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(v); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		read := func(decode func(answer) error) {
			if err := decode(answer{body: bytes.Clone(body)}); err != nil && !errors.Is(err, keystore.ErrUnavailable) {
				t.Error(err)
			}
		}
		read(func(a answer) error { _, err := inspect.decode(a); return err })
		read(func(a answer) error { _, err := drill.decode(a); return err })
		read(func(a answer) error { _, err := attester.decode(a); return err })
		read(func(a answer) error { _, err := sealSecret.decode(a); return err })
		read(func(a answer) error { _, err := check.decode(a); return err })
	})
}
