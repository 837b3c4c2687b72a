package identity

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"

	"golang.org/x/crypto/bcrypt"

	"signet/fault"
)

// maxPassword is how many octets bcrypt reads. What it would silently ignore is refused instead.
const maxPassword = 72

// hasher does the bcrypt work. At most GOMAXPROCS hashes run at a time, so that a flood of logins cannot starve
// signing.
type hasher struct {
	cost  int
	slots chan struct{}
	dummy string // a hash that nothing matches, for users that do not exist
}

func newHasher(cost int) *hasher {
	// Version, cost, 22 characters of salt and 31 of hash; base32 is part of bcrypt's alphabet.
	random := rand.Text() + rand.Text() + rand.Text()
	dummy := fmt.Sprintf("$2a$%02d$%s", cost, random[:53])
	return &hasher{cost: cost, slots: make(chan struct{}, runtime.GOMAXPROCS(0)), dummy: dummy}
}

// hash returns the bcrypt hash of a password of at most 72 octets. Unavailable when ctx ends first.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), h.cost)
	if err != nil {
		return "", fault.Wrap(fault.Internal, "The password cannot be hashed", err)
	}
	return string(hash), nil
}

// matches reports whether the password belongs to hash. An empty hash matches nothing and takes as long as any
// other. Unavailable when ctx ends first.
func (h *hasher) matches(ctx context.Context, hash, password string) (bool, error) {
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer h.leave()
	if hash == "" {
		hash = h.dummy
	}
	read := password[:min(len(password), maxPassword)]
	same := bcrypt.CompareHashAndPassword([]byte(hash), []byte(read)) == nil
	return same && len(read) == len(password), nil
}

func (h *hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, "The server is too busy to check passwords", ctx.Err())
	}
}

func (h *hasher) leave() { <-h.slots }
