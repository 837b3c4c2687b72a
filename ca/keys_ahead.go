package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"signet/fault"
	"signet/policy"
)

// Primes of RSA take a tenth of a second to seconds, and come in bursts of demand. So RSA leaf keys are made ahead while
// there is nothing else to do, and are kept in memory, each sealed by the token: no plaintext lies there for longer than
// the making takes. Nothing of it is ever written, so no key survives the process, and none can be handed out twice.

const (
	// keyUsual is the size of the keys that are always kept: the one that requests get which name none.
	keyUsual = 2048
	// keyMemory is how long keys of another size are kept after one was asked for, and keyFraction is the part of the
	// bound that each of these sizes gets.
	keyMemory   = time.Hour
	keyFraction = 8
	// keyRest is how long the making of keys rests while there are requests.
	keyRest = 50 * time.Millisecond
	// keyRetry is how long it rests after a failure at first, and keyPatience in the end.
	keyRetry    = time.Second
	keyPatience = time.Minute
)

// aheadKey is an RSA key pair that nobody has asked for yet.
type aheadKey struct {
	public crypto.PublicKey
	sealed []byte // PKCS #8 DER, sealed at place
	place  []byte
}

// keysAhead are the keys that were made ahead, by size of the modulus in bits.
type keysAhead struct {
	limit   int               // of keys of the usual size; 0: there are none ever
	counted func(size, n int) // may be nil

	mu    sync.Mutex
	open  bool // while there is somebody to wipe them in the end
	kept  map[int][]aheadKey
	asked map[int]time.Time
	wake  chan struct{}
}

func newKeysAhead(limit int, counted func(size, n int)) *keysAhead {
	return &keysAhead{limit: limit, counted: counted, kept: map[int][]aheadKey{}, asked: map[int]time.Time{}, wake: make(chan struct{}, 1)}
}

// take returns a key that nobody else gets.
func (k *keysAhead) take(size int, now time.Time) (key aheadKey, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked[size] = now
	keys := k.kept[size]
	if ok = len(keys) > 0; ok {
		key = keys[len(keys)-1]
		keys[len(keys)-1] = aheadKey{}
		k.keep(size, keys[:len(keys)-1])
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return key, ok
}

// put adds a key.
func (k *keysAhead) put(size int, key aheadKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.open {
		clear(key.sealed)
		return
	}
	k.keep(size, append(k.kept[size], key))
}

// keep replaces the keys of a size. k is locked.
func (k *keysAhead) keep(size int, keys []aheadKey) {
	k.kept[size] = keys
	if k.counted != nil {
		k.counted(size, len(keys))
	}
}

// next returns the size of which a key is missing, the usual one first, and drops what has not been asked for in a while.
func (k *keysAhead) next(now time.Time) (size int, missing bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.kept[keyUsual]) < k.limit {
		return keyUsual, true
	}
	for other, asked := range k.asked {
		switch {
		case other == keyUsual:
		case now.Sub(asked) > keyMemory:
			delete(k.asked, other)
			k.wipe(other)
		case len(k.kept[other]) < max(1, k.limit/keyFraction):
			return other, true
		}
	}
	return 0, false
}

// wipe drops the keys of a size. k is locked.
func (k *keysAhead) wipe(size int) {
	for _, key := range k.kept[size] {
		clear(key.sealed)
	}
	clear(k.kept[size])
	k.keep(size, nil)
}

// drop wipes all keys.
func (k *keysAhead) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for size := range k.kept {
		k.wipe(size)
	}
}

// setOpen says whether keys are kept from now on. Without keys it begins and ends.
func (k *keysAhead) setOpen(open bool) {
	k.mu.Lock()
	k.open = open
	k.mu.Unlock()
	k.drop()
}

// makeKeysAhead makes keys while there are no requests, on one processor, until ctx ends. Then they are wiped.
func (a *Authority) makeKeysAhead(ctx context.Context) {
	if a.ahead.limit <= 0 {
		return
	}
	a.ahead.setOpen(true)
	defer a.ahead.setOpen(false)
	failure, retry := alarm{task: "keys-ahead"}, keyRetry
	for ctx.Err() == nil {
		size, missing := a.ahead.next(a.cfg.Now())
		if !missing {
			sleep(ctx, a.ahead.wake, keyPatience)
			continue
		}
		made, err := a.makeKeyAhead(ctx, size)
		switch {
		case err == nil && made:
			failure.end()
			retry = keyRetry
		case err == nil:
			sleep(ctx, nil, keyRest)
		case ctx.Err() == nil:
			failure.raise(a, err)
			sleep(ctx, nil, retry)
			retry = min(2*retry, keyPatience)
		}
	}
}

// sleep waits for so long, or until there is something in wake or ctx ends.
func sleep(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

// makeKeyAhead makes one key, unless requests want the processor.
func (a *Authority) makeKeyAhead(ctx context.Context, size int) (made bool, err error) {
	if a.cfg.Quiet != nil && !a.cfg.Quiet() {
		return false, nil
	}
	select {
	case a.keygen <- struct{}{}:
		defer func() { <-a.keygen }()
	default:
		return false, nil
	}
	pair, err := generateLeafKey(policy.KeySpec{Type: policy.RSA, Size: size}, true)
	if err != nil {
		return false, err
	}
	defer clear(pair.private)
	key := aheadKey{public: pair.public, place: []byte("key-ahead/" + rand.Text())}
	if key.sealed, err = a.cfg.Keys.Seal(ctx, pair.private, key.place); err != nil {
		return false, fmt.Errorf("seal key made ahead: %w", err)
	}
	a.ahead.put(size, key)
	return true, nil
}

// keyAhead takes a key that was made ahead. There may be none, or none that the token still opens, as after its
// key-encryption key was replaced: then there is no use in the others either.
func (a *Authority) keyAhead(ctx context.Context, spec policy.KeySpec, keep bool) (key leafKey, ok bool) {
	if a.ahead.limit <= 0 || spec.Type != policy.RSA {
		return leafKey{}, false
	}
	if a.cfg.Hooks.LeafKey != nil {
		defer func() { a.cfg.Hooks.LeafKey(ok) }()
	}
	ahead, ok := a.ahead.take(spec.Size, a.cfg.Now())
	if !ok {
		return leafKey{}, false
	}
	defer clear(ahead.sealed)
	key.public = ahead.public
	if !keep {
		return key, true
	}
	private, err := a.cfg.Keys.Unseal(ctx, ahead.sealed, ahead.place)
	if err != nil {
		var classified *fault.Error
		if away := errors.As(err, &classified) && classified.Code == fault.Unavailable; !away && ctx.Err() == nil {
			a.ahead.drop()
		}
		return leafKey{}, false
	}
	key.private = private
	return key, true
}
