package worker

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/gob"
	"fmt"
	"time"

	"signet/keystore"
)

// A method is a call that is no signature. In and Out are any types that encoding/gob takes: a public key goes as its
// DER, and what stands in an interface has to be registered. To give the token another method, define it here and
// add three lines to [Token]. Its deadlines are those of the keystore, and of its caller.
type method[In, Out any] struct {
	name  string
	slow  bool // a key is made in it, during which the module may do nothing else
	again bool // it changes nothing that a second time would change again, so a lost call is repeated once
}

// handlers are the methods as the worker sees them.
var handlers = map[string]handler{}

type handler struct {
	slow bool
	run  func(ctx context.Context, s *server, argument []byte) ([]byte, error)
}

// define makes a method and its handler.
func define[In, Out any](m method[In, Out], run func(context.Context, *server, In) (Out, error)) method[In, Out] {
	handlers[m.name] = handler{m.slow, func(ctx context.Context, s *server, argument []byte) ([]byte, error) {
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
	}}
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
	id := p.last.Add(1)
	r := request{id: id, frame: encodeCall(id, limitsOf(ctx), m.name, argument.Bytes())}
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

// call calls the method on the worker that is there.
func (m method[In, Out]) call(ctx context.Context, t *Token, in In, late func(Out)) (out Out, err error) {
	start := time.Now()
	defer func() { t.observe(m.name, time.Since(start), err) }()
	err = t.do(ctx, m.again, func(ctx context.Context, p *process) (err error) {
		out, err = m.orLate(ctx, p, in, late)
		return err
	})
	return out, err
}

// What goes through the pipe.
type (
	openRequest struct {
		Config    keystore.Config // but for its functions
		HasSource bool            // of the PIN
	}
	keyRequest struct { // a key to be known by a number
		Number     uint32
		ID, Public []byte // Public is a DER SubjectPublicKeyInfo
		Bar        keystore.Bar
	}
	foundKey        struct{ ID, Public []byte }
	generateRequest struct {
		Number uint32
		Spec   keystore.Spec
	}
	sealRequest struct{ Secret, AAD []byte }
	inspection  struct {
		keystore.Inspection // without Public
		DER                 []byte
	}
	drillResult struct {
		Attempts []keystore.Attempt
		Failed   []byte // the error beside them, as appendError writes it; nil for none
	}
)

// The methods, by the names that Observe is told. A bool stands where there is nothing to say: gob has no empty value.
var (
	openToken = define(method[openRequest, bool]{name: "open"}, func(ctx context.Context, s *server, r openRequest) (bool, error) {
		return true, s.open(ctx, r)
	})
	finish = define(method[bool, bool]{name: "close"}, func(_ context.Context, s *server, _ bool) (bool, error) {
		return true, s.close()
	})
	bind = define(method[keyRequest, bool]{name: "signer", again: true}, func(ctx context.Context, s *server, r keyRequest) (bool, error) {
		signer, err := s.token.Signer(ctx, r.ID, r.Public, r.Bar)
		if err == nil {
			s.remember(r.Number, signer)
		}
		return true, err
	})
	generate = define(method[generateRequest, []byte]{name: "generate", slow: true}, func(ctx context.Context, s *server, r generateRequest) ([]byte, error) {
		signer, err := s.token.Generate(ctx, r.Spec)
		if err != nil {
			return nil, err
		}
		s.remember(r.Number, signer)
		return x509.MarshalPKIXPublicKey(signer.Public())
	})
	attester = define(method[uint32, foundKey]{name: "attester", again: true}, func(ctx context.Context, s *server, number uint32) (foundKey, error) {
		signer, id, err := s.token.Attester(ctx)
		if err != nil {
			return foundKey{}, err
		}
		s.remember(number, signer)
		der, err := x509.MarshalPKIXPublicKey(signer.Public())
		return foundKey{id, der}, err
	})
	destroy = define(method[[]byte, bool]{name: "destroy"}, func(ctx context.Context, s *server, id []byte) (bool, error) {
		return true, s.token.Destroy(ctx, id)
	})
	sealSecret = define(method[sealRequest, []byte]{name: "seal", again: true}, func(ctx context.Context, s *server, r sealRequest) ([]byte, error) {
		defer clear(r.Secret)
		return s.token.Seal(ctx, r.Secret, r.AAD)
	})
	unsealSecret = define(method[sealRequest, []byte]{name: "unseal", again: true}, func(ctx context.Context, s *server, r sealRequest) ([]byte, error) {
		return s.token.Unseal(ctx, r.Secret, r.AAD)
	})
	check = define(method[bool, int]{name: "check", again: true}, func(ctx context.Context, s *server, _ bool) (int, error) {
		return s.token.Sessions(), s.token.Check(ctx)
	})
	inspect = define(method[[]byte, inspection]{name: "inspect", again: true}, func(ctx context.Context, s *server, id []byte) (i inspection, err error) {
		if i.Inspection, err = s.token.Inspect(ctx, id); err != nil {
			return inspection{}, err
		}
		i.DER, err = x509.MarshalPKIXPublicKey(i.Public)
		i.Public = nil
		return i, err
	})
	drill = define(method[[]byte, drillResult]{name: "drill", slow: true}, func(ctx context.Context, s *server, id []byte) (r drillResult, err error) {
		r.Attempts, err = s.token.Drill(ctx, id)
		if err == nil || len(r.Attempts) == 0 {
			return r, err
		}
		r.Failed = appendError(nil, err)
		return r, nil
	})
)
