package worker

import (
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"time"

	"signet/keystore"
)

var errFrame = errors.New("a malformed frame came over the pipe")

// signRequest is the body of kindSign: key (u32), hash (u8), 1 for PSS (u8), its salt length (i32), the digest.
type signRequest struct {
	key    uint32
	hash   crypto.Hash
	pss    bool
	salt   int32
	digest []byte
}

const signHead = 10

func (s signRequest) frame(id uint64) []byte {
	b := newFrame(kindSign, id, signHead+len(s.digest))
	b = binary.LittleEndian.AppendUint32(b, s.key)
	scheme := byte(0)
	if s.pss {
		scheme = 1
	}
	b = append(b, byte(s.hash), scheme)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.salt))
	return sealed(append(b, s.digest...))
}

func decodeSign(b []byte) (signRequest, error) {
	if len(b) < signHead || b[5] > 1 {
		return signRequest{}, errFrame
	}
	return signRequest{
		key: binary.LittleEndian.Uint32(b), hash: crypto.Hash(b[4]), pss: b[5] == 1,
		salt: int32(binary.LittleEndian.Uint32(b[6:])), digest: b[signHead:],
	}, nil
}

// opts gives back what the caller of Sign gave.
func (s signRequest) opts() crypto.SignerOpts {
	if s.pss {
		return &rsa.PSSOptions{SaltLength: int(s.salt), Hash: s.hash}
	}
	return s.hash
}

// encodeCall makes a kindCall frame: the time that is left in milliseconds (u32), the length of the method's name (u8),
// the name, the argument.
func encodeCall(id uint64, left time.Duration, method string, argument []byte) []byte {
	b := newFrame(kindCall, id, 5+len(method)+len(argument))
	b = binary.LittleEndian.AppendUint32(b, uint32(max(1, left.Milliseconds())))
	b = append(b, byte(len(method)))
	return sealed(append(append(b, method...), argument...))
}

func decodeCall(b []byte) (left time.Duration, method string, argument []byte, err error) {
	if len(b) < 5 || len(b) < 5+int(b[4]) {
		return 0, "", nil, errFrame
	}
	end := 5 + int(b[4])
	return time.Duration(binary.LittleEndian.Uint32(b)) * time.Millisecond, string(b[5:end]), b[end:], nil
}

func encodeCancel(id uint64) []byte { return sealed(newFrame(kindCancel, id, 0)) }

func encodeOK(id uint64, body []byte) []byte {
	return sealed(append(newFrame(kindOK, id, len(body)), body...))
}

// identities are the errors that stay what they are on the way through the pipe. Their order is the protocol: a bit
// each, new ones at the end.
var identities = []error{
	keystore.ErrUnavailable, keystore.ErrNotFound, keystore.ErrMismatch, keystore.ErrExists, keystore.ErrEvidence,
	keystore.ErrUnsupported, keystore.ErrPIN, context.DeadlineExceeded, context.Canceled,
}

// remoteError is an error of the worker: its text and what it was.
type remoteError struct {
	text string
	is   []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.is }

// appendError writes the identities (u32, a bit each) and the text.
func appendError(b []byte, err error) []byte {
	var bits uint32
	for i, identity := range identities {
		if errors.Is(err, identity) {
			bits |= 1 << i
		}
	}
	b = binary.LittleEndian.AppendUint32(b, bits)
	return append(b, err.Error()...)
}

func encodeError(id uint64, err error) []byte {
	return sealed(appendError(newFrame(kindError, id, 128), err))
}

// decodeError returns what appendError wrote; a malformed body is an error of its own.
func decodeError(b []byte) error {
	if len(b) < 4 {
		return unavailable(errFrame)
	}
	e := &remoteError{text: string(b[4:])}
	bits := binary.LittleEndian.Uint32(b)
	for i, identity := range identities {
		if bits&(1<<i) != 0 {
			e.is = append(e.is, identity)
		}
	}
	return e
}

// notice is an operation that the keystore observed in the worker.
type notice struct {
	op   string
	took time.Duration
	err  error
}

// frame writes the time in nanoseconds (u64), the length of the name (u8), the name, whether it failed (u8), the error.
func (n notice) frame() []byte {
	b := newFrame(kindNotice, 0, 128)
	b = binary.LittleEndian.AppendUint64(b, uint64(n.took))
	b = append(append(b, byte(len(n.op))), n.op...)
	if n.err == nil {
		return sealed(append(b, 0))
	}
	return sealed(appendError(append(b, 1), n.err))
}

func decodeNotice(b []byte) (notice, error) {
	if len(b) < 9 || len(b) < 10+int(b[8]) {
		return notice{}, errFrame
	}
	end := 9 + int(b[8])
	n := notice{op: string(b[9:end]), took: time.Duration(binary.LittleEndian.Uint64(b))}
	if b[end] != 0 {
		n.err = decodeError(b[end+1:])
	}
	return n, nil
}
