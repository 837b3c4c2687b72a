package identity_test

import (
	"strings"
	"testing"
	"time"

	"signet/identity"
	"signet/identity/identitytest"
)

func TestNewRefusesAWeakConfiguration(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*identity.Config)
		want   string
	}{
		{"no store", func(c *identity.Config) { c.Store = nil }, "no store"},
		{"no secret", func(c *identity.Config) { c.Secret = nil }, "secret has 0 octets, needs 32"},
		{"a short secret", func(c *identity.Config) { c.Secret = secret[:31] }, "secret has 31 octets, needs 32"},
		{"access tokens that never live", func(c *identity.Config) { c.AccessTTL = 0 }, "at least one second"},
		{"refresh tokens that never live", func(c *identity.Config) { c.RefreshTTL = -time.Hour }, "at least one second"},
		{"a bcrypt cost too low", func(c *identity.Config) { c.BcryptCost = 3 }, "bcrypt cost 3"},
		{"a bcrypt cost too high", func(c *identity.Config) { c.BcryptCost = 32 }, "bcrypt cost 32"},
	}
	for _, tt := range tests {
		cfg := identity.Config{Store: identitytest.New(), Secret: secret, AccessTTL: time.Minute, RefreshTTL: time.Hour, BcryptCost: 4}
		tt.change(&cfg)
		s, err := identity.New(cfg)
		if s != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		} else {
			shown(err.Error())
		}
	}
}

func TestTheClockIsTheMachinesUnlessSaidOtherwise(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *identity.Config) { c.Now = nil })
	w.join("userNone")
	left := time.Until(w.session(w.login("userNone", password).Access).Expires)
	if left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("the session ends in %v", left)
	}
}
