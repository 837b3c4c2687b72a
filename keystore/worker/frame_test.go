package worker

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rsa"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

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
		sent, err := requestFor(&key{number: 7}, []byte("digest"), opts)
		if err != nil {
			t.Fatal(err)
		}
		f, err := readFrame(bytes.NewReader(sent.frame(9)))
		if err != nil || f.kind != kindSign || f.id != 9 {
			t.Fatalf("frame is %+v, %v", f, err)
		}
		got, err := decodeSign(f.body)
		if err != nil || got.key != 7 || string(got.digest) != "digest" || fmt.Sprint(got.opts()) != fmt.Sprint(opts) {
			t.Errorf("%v arrives as %+v, %v", opts, got, err)
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

// FuzzFrames reads what the other side of the pipe may send: it is a process with strangers' code in it.
func FuzzFrames(f *testing.F) {
	f.Add(signRequest{key: 1, hash: crypto.SHA256, digest: []byte("digest")}.frame(1))
	f.Add(encodeCall(2, time.Second, "seal", []byte("argument")))
	f.Add(encodeCancel(3))
	f.Add(encodeOK(4, []byte("signature")))
	f.Add(encodeError(5, keystore.ErrPIN))
	f.Add(notice{"login", time.Second, keystore.ErrPIN}.frame())
	f.Add(notice{"connect", time.Second, nil}.frame())
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
			if left, method, argument, err := decodeCall(frame.body); err == nil && left > 0 {
				back, err := readFrame(bytes.NewReader(encodeCall(frame.id, left, method, argument)))
				if err != nil || !bytes.Equal(back.body, frame.body) {
					t.Errorf("%x comes back as %x, %v", frame.body, back.body, err)
				}
			}
			if n, err := decodeNotice(frame.body); err == nil && n.err != nil {
				_ = n.err.Error()
			}
		}
	})
}

// FuzzAnswers reads the answers to calls, which the same process makes.
func FuzzAnswers(f *testing.F) {
	for _, v := range []any{map[string]any{"CKA_SIGN": true, "CKA_LABEL": "x", "CKA_ALLOWED_MECHANISMS": []string{"CKM_ECDSA"}}, keystore.Info{Label: "x"}, []byte("sealed"), true} {
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
		read(func(a answer) error { _, err := attributes.decode(a); return err })
		read(func(a answer) error { _, err := info.decode(a); return err })
		read(func(a answer) error { _, err := sealSecret.decode(a); return err })
		read(func(a answer) error { _, err := check.decode(a); return err })
	})
}
