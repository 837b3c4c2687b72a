package identity

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"signet/fault"
)

func TestPasswordWorkIsBounded(t *testing.T) {
	t.Parallel()
	h := newHasher(bcrypt.MinCost)
	for range cap(h.slots) {
		if err := h.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := h.hash(ctx, "password"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("hash beyond the bound: %v", err)
	}
	if ok, err := h.matches(ctx, "", "password"); ok || !fault.Is(err, fault.Unavailable) {
		t.Errorf("comparison beyond the bound: %t, %v", ok, err)
	}
	h.leave()
	if _, err := h.hash(t.Context(), "password"); err != nil {
		t.Errorf("a free slot is not used: %v", err)
	}
	if ok, err := h.matches(t.Context(), h.dummy, "password"); ok || err != nil {
		t.Errorf("a slot is not given back: %t, %v", ok, err)
	}
}

func TestNothingMatchesAnEmptyOrBrokenHash(t *testing.T) {
	t.Parallel()
	h := newHasher(bcrypt.MinCost)
	for _, hash := range []string{"", "password", "$2a$04$", "$2a$99$"} {
		for _, password := range []string{"", "password", h.dummy} {
			if ok, err := h.matches(t.Context(), hash, password); ok || err != nil {
				t.Errorf("%q matches %q: %t, %v", password, hash, ok, err)
			}
		}
	}
}

func TestTheDummyHashCostsWhatOthersCost(t *testing.T) {
	t.Parallel()
	for _, cost := range []int{bcrypt.MinCost, 5, 12} {
		if got, err := bcrypt.Cost([]byte(newHasher(cost).dummy)); got != cost || err != nil {
			t.Errorf("cost %d: %d, %v", cost, got, err)
		}
	}
	err := bcrypt.CompareHashAndPassword([]byte(newHasher(bcrypt.MinCost).dummy), []byte("password"))
	if !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Errorf("no comparison takes place: %v", err)
	}
}

func TestPasswordsAreHashedWithCost12UnlessSaidOtherwise(t *testing.T) {
	t.Parallel()
	for configured, want := range map[int]int{0: 12, 4: 4, 14: 14} {
		s, err := New(Config{Store: struct{ Store }{}, Secret: make([]byte, 32), AccessTTL: time.Minute, RefreshTTL: time.Hour, BcryptCost: configured})
		if err != nil || s.passwords.cost != want {
			t.Errorf("%d configured: %+v, %v", configured, s, err)
		}
	}
	hash, err := newHasher(5).hash(t.Context(), "password")
	if err != nil {
		t.Fatal(err)
	}
	if cost, err := bcrypt.Cost([]byte(hash)); cost != 5 || err != nil {
		t.Errorf("hashed with cost %d, %v", cost, err)
	}
}
