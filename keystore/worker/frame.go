package worker

import (
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"signet/keystore"
)

var errFrame = errors.New("a malformed frame came over the pipe")

// The flags of a request.
const (
	flagPSS       = 1 << iota // with RSA-PSS, in a signRequest
	flagMessage               // the input is a message, not a digest
	flagDoubted               // the last answer was bad
	flagImpatient             // the caller has another token to turn to
)

// limits is how long a caller waits for an answer. It begins every request: the time that is left in milliseconds
// (u32, 0 for what the keystore's own deadlines leave) and the flags (u8).
type limits struct {
	left  time.Duration
	flags byte
}

const limitsSize = 5

// limitsOf reads them from the context of a call.
func limitsOf(ctx context.Context) (l limits) {
	if deadline, ok := ctx.Deadline(); ok {
		l.left = max(time.Millisecond, time.Until(deadline))
	}
	if keystore.IsImpatient(ctx) {
		l.flags = flagImpatient
	}
	return l
}

// within makes a context of them again.
func (l limits) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.flags&flagImpatient != 0 {
		ctx = keystore.Impatient(ctx)
	}
	if l.left == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, l.left)
}

func (l limits) append(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(l.left.Milliseconds())), l.flags)
}

func decodeLimits(b []byte) (limits, []byte, error) {
	if len(b) < limitsSize {
		return limits{}, nil, errFrame
	}
	return limits{left: time.Duration(binary.LittleEndian.Uint32(b)) * time.Millisecond, flags: b[4]}, b[limitsSize:], nil
}

// signRequest is the body of kindSign: limits, key (u32), hash (u8), length of the PSS salt (i32), the input.
type signRequest struct {
	limits
	key   uint32
	hash  crypto.Hash
	salt  int32
	input []byte
}

const signHead = 9

func (s signRequest) frame(id uint64) []byte {
	b := s.limits.append(newFrame(kindSign, id, limitsSize+signHead+len(s.input)))
	b = append(binary.LittleEndian.AppendUint32(b, s.key), byte(s.hash))
	b = binary.LittleEndian.AppendUint32(b, uint32(s.salt))
	return sealed(append(b, s.input...))
}

func decodeSign(b []byte) (signRequest, error) {
	l, b, err := decodeLimits(b)
	if err != nil || len(b) < signHead {
		return signRequest{}, errFrame
	}
	return signRequest{
		limits: l, key: binary.LittleEndian.Uint32(b), hash: crypto.Hash(b[4]), salt: int32(binary.LittleEndian.Uint32(b[5:])), input: b[signHead:],
	}, nil
}

// request gives back what the signer was asked. Whoever sent it verifies the answer.
func (s signRequest) request() keystore.Request {
	doubted := s.flags&flagDoubted != 0
	r := keystore.Request{Input: s.input, Message: s.flags&flagMessage != 0, Opts: s.hash, Unverified: !doubted, Doubted: doubted}
	if s.flags&flagPSS != 0 {
		r.Opts = &rsa.PSSOptions{SaltLength: int(s.salt), Hash: s.hash}
	}
	return r
}

// encodeCall makes a kindCall frame: limits, the length of the method's name (u8), the name, the argument.
func encodeCall(id uint64, l limits, method string, argument []byte) []byte {
	b := l.append(newFrame(kindCall, id, limitsSize+1+len(method)+len(argument)))
	b = append(b, byte(len(method)))
	return sealed(append(append(b, method...), argument...))
}

func decodeCall(b []byte) (l limits, method string, argument []byte, err error) {
	l, b, err = decodeLimits(b)
	if err != nil || len(b) < 1 || len(b) < 1+int(b[0]) {
		return limits{}, "", nil, errFrame
	}
	end := 1 + int(b[0])
	return l, string(b[1:end]), b[end:], nil
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

// remoteError is an error of the worker: its text, what it was, and what [keystore.Reason] says of it.
type remoteError struct {
	text, reason string
	is           []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.is }
func (e *remoteError) Reason() string  { return e.reason }

// appendError writes the identities (u32, a bit each), the length of the reason (u8), the reason and the text.
func appendError(b []byte, err error) []byte {
	var bits uint32
	for i, identity := range identities {
		if errors.Is(err, identity) {
			bits |= 1 << i
		}
	}
	reason := keystore.Reason(err)
	reason = reason[:min(len(reason), 255)]
	b = append(binary.LittleEndian.AppendUint32(b, bits), byte(len(reason)))
	return append(append(b, reason...), err.Error()...)
}

func encodeError(id uint64, err error) []byte {
	return sealed(appendError(newFrame(kindError, id, 128), err))
}

// decodeError returns what appendError wrote; a malformed body is an error of its own.
func decodeError(b []byte) error {
	if len(b) < 5 || len(b) < 5+int(b[4]) {
		return unavailable(errFrame)
	}
	end := 5 + int(b[4])
	e := &remoteError{reason: string(b[5:end]), text: string(b[end:])}
	bits := binary.LittleEndian.Uint32(b)
	for i, identity := range identities {
		if bits&(1<<i) != 0 {
			e.is = append(e.is, identity)
		}
	}
	return e
}

// noticed are the operations of which the parent is told.
var noticed = []string{"login", "connect", "find", "recover"}

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
	if !slices.Contains(noticed, n.op) { // a name becomes a label of the metrics: not any text may be one, nor any number of them
		return notice{}, errFrame
	}
	if b[end] != 0 {
		n.err = decodeError(b[end+1:])
	}
	return n, nil
}

// encodeState makes a kindState frame: flags (u8), recoveries (u32), and the cause of a token that is away.
func encodeState(s keystore.State) []byte {
	b := newFrame(kindState, 0, 128)
	flags := byte(0)
	if s.Up {
		flags |= stateUp
	}
	if s.Hung {
		flags |= stateHung
	}
	b = binary.LittleEndian.AppendUint32(append(b, flags), uint32(s.Recoveries))
	if !s.Up {
		b = appendError(b, s.Cause)
	}
	return sealed(b)
}

const (
	stateUp   = 1 << iota
	stateHung // implies that it is not up
)

func decodeState(b []byte) (keystore.State, error) {
	if len(b) < 5 {
		return keystore.State{}, errFrame
	}
	s := keystore.State{Up: b[0]&stateUp != 0, Hung: b[0]&stateHung != 0, Recoveries: int(binary.LittleEndian.Uint32(b[1:]))}
	if !s.Up {
		s.Cause = decodeError(b[5:])
	}
	return s, nil
}
