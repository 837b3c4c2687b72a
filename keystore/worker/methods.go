package worker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/gob"
	"fmt"
	"time"

	"signet/keystore"
)

// A method is a call that is no signature. In and Out are any types that encoding/gob takes: a public key goes as its
// DER, and what stands in an interface has to be registered. To give the token another method, define it here and
// add three lines to [Token].
type method[In, Out any] struct {
	name  string
	op    string // what Observe is told; "" is nothing
	slow  bool   // a key is being made: the deadline is longer
	known bool   // it uses a key that is there, so that not to find it says something of the token
	again bool   // it changes nothing that a second time would change again, so a lost call is repeated once
}

// handlers are the methods as the worker sees them.
var handlers = map[string]func(ctx context.Context, s *server, argument []byte) ([]byte, error){}

// define makes a method and its handler.
func define[In, Out any](m method[In, Out], run func(context.Context, *server, In) (Out, error)) method[In, Out] {
	handlers[m.name] = func(ctx context.Context, s *server, argument []byte) ([]byte, error) {
		var in In
		if err := gob.NewDecoder(bytes.NewReader(argument)).Decode(&in); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errFrame, m.name, err)
		}
		out, err := run(ctx, s, in)
		if err != nil {
			return nil, err
		}
		var body bytes.Buffer
		err = gob.NewEncoder(&body).Encode(&out)
		return body.Bytes(), err
	}
	return m
}

// on calls the method on one worker.
func (m method[In, Out]) on(ctx context.Context, p *process, in In) (Out, error) {
	return m.orLate(ctx, p, in, nil)
}

// orLate is on; late gets a result that comes when nobody waits for it any more.
func (m method[In, Out]) orLate(ctx context.Context, p *process, in In, late func(Out)) (out Out, err error) {
	var argument bytes.Buffer
	if err := gob.NewEncoder(&argument).Encode(&in); err != nil {
		return out, fmt.Errorf("encode %s: %w", m.name, err)
	}
	left := p.token.timeout * slowFactor
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	id := p.last.Add(1)
	r := request{id: id, frame: encodeCall(id, left, m.name, argument.Bytes()), slow: m.slow, known: m.known}
	clear(argument.Bytes())
	defer clear(r.frame)
	if late != nil {
		r.late = func(a answer) {
			if out, err := m.decode(a); err == nil {
				late(out)
			}
		}
	}
	a, err := p.exchange(ctx, r)
	if err != nil {
		return out, err
	}
	return m.decode(a)
}

func (m method[In, Out]) decode(a answer) (out Out, err error) {
	if a.err != nil {
		return out, a.err
	}
	defer clear(a.body)
	if err := gob.NewDecoder(bytes.NewReader(a.body)).Decode(&out); err != nil {
		return out, fmt.Errorf("%w: %s: %w: %w", keystore.ErrUnavailable, m.name, errFrame, err)
	}
	return out, nil
}

// call calls the method on the worker that is there, within the deadline of an operation.
func (m method[In, Out]) call(ctx context.Context, t *Token, in In, late func(Out)) (out Out, err error) {
	limit := t.timeout
	if m.slow {
		limit *= slowFactor
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if m.op != "" {
		start := time.Now()
		defer func() { t.observe(m.op, time.Since(start), err) }()
	}
	err = t.do(ctx, m.again, func(p *process) (err error) {
		out, err = m.orLate(ctx, p, in, late)
		return err
	})
	return out, err
}

func init() { gob.Register([]string{}) } // CKA_ALLOWED_MECHANISMS in a map of attributes

// What goes through the pipe.
type (
	keyRequest struct { // a key to be known by a number
		Number     uint32
		ID, Public []byte // Public is a DER SubjectPublicKeyInfo
	}
	generateRequest struct {
		Number uint32
		Spec   keystore.Spec
	}
	sealRequest struct{ Secret, AAD []byte }
)

// The methods. A bool stands where there is nothing to say: gob has no empty value.
var (
	openToken = define(method[keystore.Config, bool]{name: "open"}, func(ctx context.Context, s *server, cfg keystore.Config) (bool, error) {
		return true, s.open(ctx, cfg)
	})
	finish = define(method[bool, bool]{name: "close"}, func(_ context.Context, s *server, _ bool) (bool, error) {
		return true, s.close()
	})
	bind = define(method[keyRequest, bool]{name: "signer", again: true}, func(ctx context.Context, s *server, r keyRequest) (bool, error) {
		signer, err := s.token.Signer(ctx, r.ID, r.Public)
		if err == nil {
			s.remember(r.Number, signer)
		}
		return true, err
	})
	generate = define(method[generateRequest, []byte]{name: "generate", op: "generate", slow: true}, func(ctx context.Context, s *server, r generateRequest) ([]byte, error) {
		signer, err := s.token.Generate(ctx, r.Spec)
		if err != nil {
			return nil, err
		}
		s.remember(r.Number, signer)
		return x509.MarshalPKIXPublicKey(signer.Public())
	})
	destroy = define(method[[]byte, bool]{name: "destroy", op: "destroy"}, func(ctx context.Context, s *server, id []byte) (bool, error) {
		return true, s.token.Destroy(ctx, id)
	})
	sealSecret = define(method[sealRequest, []byte]{name: "seal", op: "seal", again: true}, func(ctx context.Context, s *server, r sealRequest) ([]byte, error) {
		defer clear(r.Secret)
		return s.token.Seal(ctx, r.Secret, r.AAD)
	})
	unsealSecret = define(method[sealRequest, []byte]{name: "unseal", op: "unseal", again: true}, func(ctx context.Context, s *server, r sealRequest) ([]byte, error) {
		return s.token.Unseal(ctx, r.Secret, r.AAD)
	})
	check = define(method[bool, bool]{name: "check", op: "check", known: true, again: true}, func(ctx context.Context, s *server, _ bool) (bool, error) {
		return true, s.token.Check(ctx)
	})
	info = define(method[bool, keystore.Info]{name: "info", op: "info", again: true}, func(ctx context.Context, s *server, _ bool) (keystore.Info, error) {
		return s.token.Info(ctx)
	})
	attributes = define(method[[]byte, map[string]any]{name: "attributes", op: "attributes", again: true}, func(ctx context.Context, s *server, id []byte) (map[string]any, error) {
		return s.token.Attributes(ctx, id)
	})
)

// Generate is [keystore.Token.Generate]. When the worker dies meanwhile, a key may be left in the token that nobody
// knows: it is not looked for, because an id that was taken before must never lose its key.
func (t *Token) Generate(ctx context.Context, spec keystore.Spec) (crypto.Signer, error) {
	k := &key{id: bytes.Clone(spec.ID), number: t.keyNumber.Add(1)}
	der, err := generate.call(ctx, t, generateRequest{k.number, spec}, func([]byte) {
		_, _ = destroy.call(context.WithoutCancel(ctx), t, k.id, nil) // made, and unwanted
	})
	if err != nil {
		return nil, err
	}
	if k.public, err = x509.ParsePKIXPublicKey(der); err != nil {
		return nil, fmt.Errorf("generate key: %w: read its public key: %w", keystore.ErrUnavailable, err)
	}
	k.der = der
	return &signer{t, t.remember(k)}, nil
}

// Signer is [keystore.Token.Signer].
func (t *Token) Signer(ctx context.Context, id, public []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("find key %x: read its public key: %w", id, err)
	}
	k := t.remember(&key{id: bytes.Clone(id), der: bytes.Clone(public), public: parsed, number: t.keyNumber.Add(1)})
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if err := t.do(ctx, true, func(p *process) error { return p.introduce(ctx, k) }); err != nil {
		return nil, err
	}
	return &signer{t, k}, nil
}

// Destroy is [keystore.Token.Destroy].
func (t *Token) Destroy(ctx context.Context, id []byte) error {
	_, err := destroy.call(ctx, t, id, nil)
	t.forget(id)
	return err
}

// Seal is [keystore.Token.Seal].
func (t *Token) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	return sealSecret.call(ctx, t, sealRequest{plaintext, aad}, nil)
}

// Unseal is [keystore.Token.Unseal].
func (t *Token) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	return unsealSecret.call(ctx, t, sealRequest{sealed, aad}, nil)
}

// Check is [keystore.Token.Check].
func (t *Token) Check(ctx context.Context) error {
	_, err := check.call(ctx, t, true, nil)
	return err
}

// Info is [keystore.Token.Info].
func (t *Token) Info(ctx context.Context) (keystore.Info, error) {
	return info.call(ctx, t, true, nil)
}

// Attributes is [keystore.Token.Attributes].
func (t *Token) Attributes(ctx context.Context, id []byte) (map[string]any, error) {
	return attributes.call(ctx, t, id, nil)
}
