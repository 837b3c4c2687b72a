package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/bcrypt"

	"signet/fresh"
	"signet/policy"
)

// minSecret is the least length of the HS256 key in octets (RFC 7518, section 3.2: at least the size of the hash).
const minSecret = 32

// Config is what a Service needs.
type Config struct {
	Store                 Store
	Secret                []byte           // HS256 key of access tokens, at least 32 octets
	AccessTTL             time.Duration    // life of an access token, at least one second
	RefreshTTL            time.Duration    // life of a refresh token, at least one second
	AllowOpenRegistration bool             // unauthenticated callers may create users of role user
	BcryptCost            int              // 0 means 12
	SessionAge            time.Duration    // how long ago a session may have been read; 0: each call reads it
	Now                   func() time.Time // nil means time.Now
}

// Tokens is the answer to a login or a refresh.
type Tokens struct{ Access, Refresh string }

// Session is an authenticated access token.
type Session struct {
	User    User
	JTI     string
	Expires time.Time
}

// Registration asks for a new user.
type Registration struct {
	Username, Email, Password string
	Role                      policy.Role // "" means RoleUser
	OrganizationID            *int64
	Capabilities              policy.Capabilities

	// For the very first user only:
	Loopback       bool   // the request came from this machine
	BootstrapToken string // as printed at the first start; "" when none was sent
}

// UserPatch is a partial update. Nil fields stay as they are.
type UserPatch struct {
	Email, Password                                              *string
	Role                                                         *policy.Role
	Active                                                       *bool
	OrganizationID                                               *int64
	CreateCA, CreateCert, RevokeCert, ExportPrivateKey, DeleteCA *bool
}

// Service is identity's use cases. It is safe for concurrent use. Its failures are
// *fault.Error; those of the store pass through as they are.
type Service struct {
	store     Store
	sessions  *fresh.Cache[sessionKey, Session]
	open      bool
	tokens    issuer
	passwords *hasher
	now       func() time.Time
}

// New returns a Service. It fails when the configuration is incomplete or too weak.
func New(cfg Config) (*Service, error) {
	if cfg.BcryptCost == 0 {
		cfg.BcryptCost = 12
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	switch {
	case cfg.Store == nil:
		return nil, errors.New("identity: no store")
	case len(cfg.Secret) < minSecret:
		return nil, fmt.Errorf("identity: the access token secret has %d octets, needs %d", len(cfg.Secret), minSecret)
	case cfg.AccessTTL < time.Second, cfg.RefreshTTL < time.Second:
		return nil, errors.New("identity: tokens must live at least one second")
	case cfg.BcryptCost < bcrypt.MinCost, cfg.BcryptCost > bcrypt.MaxCost:
		return nil, fmt.Errorf("identity: bcrypt cost %d is not between %d and %d", cfg.BcryptCost, bcrypt.MinCost, bcrypt.MaxCost)
	}
	sessions := fresh.New[sessionKey, Session](cfg.SessionAge, maxSessions)
	return &Service{
		store:     forgetful{cfg.Store, sessions},
		sessions:  sessions,
		open:      cfg.AllowOpenRegistration,
		tokens:    issuer{secret: cfg.Secret, access: cfg.AccessTTL, refresh: cfg.RefreshTTL, now: cfg.Now},
		passwords: newHasher(cfg.BcryptCost),
		now:       cfg.Now,
	}, nil
}

// Prune removes what has expired from the session tables.
func (s *Service) Prune(ctx context.Context) error { return s.store.Prune(ctx, s.now()) }
