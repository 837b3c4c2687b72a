package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
)

// Attempt is one attack on a private key and how it ended.
type Attempt struct {
	Name    string // "read-CKA_VALUE", "wrap-CKM_AES_KEY_WRAP"; with "-again-" after the attempts to change the canary
	Call    string // the PKCS#11 function
	Target  string // "key", or "canary": a throwaway key of the same template
	Outcome string // "refused", "yielded", "not-applicable" or "inconclusive"
	Result  string // the CKR that the token answered, or words
}

// Drill attacks the private key with this CKA_ID with all that a logged-in user of the token can call, and reports what
// each attack achieved: reading the private components, wrapping under fresh keys with every wrap mechanism that the
// token lists, decrypting, unwrapping and deriving with the key itself; and what would change the key on a canary, a
// token key of the same type and attributes (RSA with 2048 bits), which is destroyed afterwards. What comes out of an
// attack is overwritten at once and never shown. The key signs before, during and after as ever.
//
// An attempt is "refused" when the token answered it and gave nothing; "not-applicable" when it has no such function or
// mechanism, the mechanism is not for such keys, or the key has the attribute already that was to be forced on it;
// "inconclusive" when session or token failed under it again and again, or the answer does not tell. Errors, before
// anything was attempted: those of [Token.Inspect]. An error beside attempts says that the canary could not be
// destroyed; the next drill tries again.
func (t *Token) Drill(ctx context.Context, id []byte) ([]Attempt, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // stops, too, what still runs because a caller had to give up waiting for it
	d, err := t.scout(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("drill key %x: %w", id, err)
	}
	key := newLedger(d.keyAttacks())
	failed := d.round(ctx, key, nil, func(s *session) error {
		p, err := t.anyPair(s, id)
		if err != nil {
			return err
		}
		if !p.public.Equal(d.public) {
			return ErrMismatch
		}
		return d.strike(ctx, s, p.private, key)
	})
	canary := newLedger(d.canaryAttacks())
	if failed == nil {
		failed = d.round(ctx, canary, t.slot.generating, func(s *session) error { return d.onCanary(ctx, s, canary) })
	}
	left := d.bury(ctx)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("drill key %x: %w", id, errors.Join(unanswered(ctx), left))
	}
	if left != nil {
		left = fmt.Errorf("drill key %x: destroy canary: %w", id, left)
	}
	return slices.Concat(key.attempts(failed), canary.attempts(failed)), left
}

// drill is what is known of the key under attack and of its token.
type drill struct {
	token      *Token
	id         []byte
	public     publicKey
	keyType    KeyType
	size       int
	raw        map[uint][]byte // the attributes that the canary must share
	mechanisms map[uint]uint   // CK_MECHANISM_INFO.flags of what the token lists

	mu   sync.Mutex
	left bool // a canary may be in the token
}

// scout reads what decides how the key is attacked.
func (t *Token) scout(ctx context.Context, id []byte) (*drill, error) {
	return call(ctx, t, operation[*drill]{name: "drill", run: func(s *session) (*drill, error) {
		p, err := t.anyPair(s, id)
		if err != nil {
			return nil, err
		}
		d := &drill{token: t, id: id, public: p.public, raw: map[uint][]byte{}, mechanisms: map[uint]uint{}}
		d.keyType, d.size = describe(p.public)
		if err := d.mirror(s, p.private); err != nil {
			return nil, err
		}
		list, err := s.GetMechanismList(t.slot.id)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			info, err := s.GetMechanismInfo(t.slot.id, []*pkcs11.Mechanism{m})
			if err != nil && classOf(err).retried() {
				return nil, err
			}
			d.mechanisms[m.Mechanism] = info.Flags
		}
		return d, nil
	}})
}

// round runs an operation until its ledger is full or no attack was concluded any more: each session that the token
// takes away in the middle costs one attempt.
func (d *drill) round(ctx context.Context, l *ledger, lock chan struct{}, run func(*session) error) error {
	for {
		before := l.concluded()
		_, err := call(ctx, d.token, operation[struct{}]{
			name: "drill", slow: true, probing: true, lock: lock,
			run: func(s *session) (struct{}, error) { return struct{}{}, run(s) },
		})
		if err == nil || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || l.concluded() == before {
			return err
		}
	}
}

// scene is where attacks take place: a session, a key in it, and the keys that were made to attack it with.
type scene struct {
	*session
	object pkcs11.ObjectHandle
	keys   map[*wrappingKey]made
}

// strike makes the attacks of the ledger that are still to be made.
func (d *drill) strike(ctx context.Context, s *session, object pkcs11.ObjectHandle, l *ledger) error {
	x := &scene{s, object, map[*wrappingKey]made{}}
	defer func() {
		for _, m := range x.keys {
			if m.err == nil {
				_ = s.DestroyObject(s.handle, m.object) // or it ends with the session
			}
		}
	}()
	for i := range l.attacks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !l.begin(i) {
			continue
		}
		v, err := l.attacks[i].strike(x)
		l.end(i, v, err)
		if err != nil {
			return err
		}
	}
	return nil
}

// maxTries is how often an attack is made that costs the session.
const maxTries = 3

// ledger holds how the attacks of a round ended. It outlives the operations that fill it, and one that nobody waits for
// any more may still write to it.
type ledger struct {
	attacks []attack

	mu       sync.Mutex
	verdicts []verdict // zero while open
	tries    []int
	last     []error
}

func newLedger(attacks []attack) *ledger {
	n := len(attacks)
	return &ledger{attacks: attacks, verdicts: make([]verdict, n), tries: make([]int, n), last: make([]error, n)}
}

// begin reports whether the attack is to be made now.
func (l *ledger) begin(i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.verdicts[i] != verdict{}:
		return false
	case l.tries[i] == maxTries:
		l.verdicts[i] = verdict{attackInconclusive, ckrName(l.last[i])}
		return false
	}
	l.tries[i]++
	return true
}

func (l *ledger) end(i int, v verdict, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.verdicts[i], l.last[i] = v, err
}

func (l *ledger) concluded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, v := range l.verdicts {
		if v != (verdict{}) {
			n++
		}
	}
	return n
}

// attempts returns all attacks; failed is why some are still open, if they are.
func (l *ledger) attempts(failed error) []Attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Attempt
	for i, a := range l.attacks {
		v := l.verdicts[i]
		if v == (verdict{}) {
			v = verdict{attackInconclusive, "not attempted"}
			if failed != nil {
				v.result += ": " + ckrName(failed)
			}
		}
		all = append(all, Attempt{Name: a.name, Call: a.call, Target: a.target, Outcome: v.outcome, Result: v.result})
	}
	return all
}
